/** A made-up snapshot of any size: class evidence that grows over depth on a blob of patches, and noise. */

import { type DType, type NdArray, type Numbers, pack } from "../src/core/codec";
import { Readings } from "../src/core/readings";
import { Snapshot } from "../src/core/snapshot";

export interface Size {
  readonly blocks: number;
  readonly heads: number;
  readonly width: number;
  readonly classes: number;
  readonly grid: number;
  readonly prefix: readonly string[];
  readonly mode: "all" | "classes" | "increments";
  readonly pooled?: boolean;
  readonly layout?: "sequential" | "parallel";
  readonly seed?: number;
  readonly name?: string;
}

export const SMALL: Size = {
  blocks: 6,
  heads: 4,
  width: 64,
  classes: 24,
  grid: 14,
  prefix: ["[CLS]"],
  mode: "all",
};
export const VIT_B16: Size = {
  blocks: 12,
  heads: 12,
  width: 768,
  classes: 1000,
  grid: 14,
  prefix: ["[CLS]"],
  mode: "increments",
};

const NAMES = [
  "tabby, tabby cat",
  "tiger cat",
  "Egyptian cat",
  "lynx, catamount",
  "red fox, Vulpes vulpes",
  "Siamese cat",
  "window screen",
  "quilt, comforter",
  "remote control, remote",
  "paper towel",
  "tench, Tinca tinca",
  "goldfish, Carassius auratus",
  "great white shark",
  "hammerhead",
  "electric ray",
  "<img src=x onerror=alert(1)>",
  "hen",
  "ostrich",
  "brambling",
  "goldfinch",
  "house finch",
  "junco, snowbird",
  "indigo bunting",
  "robin, American robin",
];

function random(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

export function array(name: string, dtype: DType, shape: readonly number[], data: Numbers): NdArray {
  return { name, dtype, shape, data };
}

const buffer = new ArrayBuffer(4);
const asFloat = new Float32Array(buffer);
const asBits = new Uint32Array(buffer);

/** Bits of the nearest float16 (normal range; small values go to 0). */
export function half(value: number): number {
  asFloat[0] = value;
  const bits = asBits[0];
  const sign = (bits >>> 16) & 0x8000;
  const exponent = ((bits >>> 23) & 255) - 112;
  if (exponent <= 0) return sign;
  if (exponent >= 31) return sign | 0x7bff;
  const rounded = (exponent << 10) + ((bits & 0x7fffff) >>> 13) + ((bits >>> 12) & 1);
  return sign | Math.min(rounded, 0x7bff);
}

export async function synthetic(
  size: Size,
  image?: { bytes: Uint8Array; width: number; height: number },
): Promise<Uint8Array<ArrayBuffer>> {
  const { blocks: L, heads: H, width: D, classes: C, grid: G, prefix, mode } = size;
  const next = random(size.seed ?? 7);
  const normal = () => (next() + next() + next() + next() - 2) * 1.7;
  const parallel = size.layout === "parallel";
  const T = prefix.length + G * G;
  const V = T + (size.pooled ? 1 : 0);
  const N = parallel ? L + 1 : 2 * L + 1;
  const S = 2 * N - 1;
  const P = prefix.length;
  const inBlob = (t: number): number => {
    if (t < P || t >= T) return 0.9;
    const r = Math.floor((t - P) / G) / (G - 1) - 0.55;
    const c = ((t - P) % G) / (G - 1) - 0.45;
    return Math.exp(-(r * r * 9 + c * c * 7));
  };

  const embedding = new Float32Array(C * D);
  for (let i = 0; i < embedding.length; i++) embedding[i] = normal() / Math.sqrt(D);
  const vectors = new Float32Array(N * V * D);
  const target = embedding.subarray(0, D);
  const rival = embedding.subarray(D, 2 * D);
  const ground = embedding.subarray(6 * D, 7 * D);
  for (let n = 0; n < N; n++) {
    const late = (n / (N - 1)) ** 2.2;
    for (let t = 0; t < V; t++) {
      const blob = inBlob(t);
      const kind = n % 2 === 1 ? 1.3 : 0.9;
      for (let d = 0; d < D; d++) {
        vectors[(n * V + t) * D + d] =
          normal() * 0.7 +
          late *
            kind *
            5 *
            (blob * target[d] * (0.8 + 0.4 * next()) +
              (1 - late) * blob * rival[d] +
              (1 - blob) * 0.6 * ground[d]);
      }
    }
  }
  if (size.pooled) {
    for (let n = 0; n < N; n++) {
      for (let d = 0; d < D; d++) {
        let sum = 0;
        for (let t = P; t < T; t++) sum += vectors[(n * V + t) * D + d];
        vectors[(n * V + T) * D + d] = sum / (G * G);
      }
    }
  }
  const sigma = new Float32Array(S * V);
  for (let t = 0; t < V; t++) {
    const sum = new Float64Array(D);
    for (let n = 0; n < N; n++) {
      let own = 0;
      let all = 0;
      for (let d = 0; d < D; d++) {
        const v = vectors[(n * V + t) * D + d];
        sum[d] += v;
        own += v * v;
        all += sum[d] * sum[d];
      }
      if (n > 0) sigma[(2 * n - 1) * V + t] = Math.sqrt(own / D + 1e-6);
      sigma[2 * n * V + t] = Math.sqrt(all / D + 1e-6);
    }
  }
  const offset = Float32Array.from({ length: C }, () => normal() * 0.1);
  const rawOf = (c: number) => {
    const out = new Float32Array(N * V);
    for (let i = 0; i < N * V; i++) {
      let s = 0;
      for (let d = 0; d < D; d++) s += vectors[i * D + d] * embedding[c * D + d];
      out[i] = s * 6;
    }
    return out;
  };
  const output = size.pooled ? T : 0;
  const outputLogits = new Float32Array(C);
  const kept = mode === "all" ? [...Array(C).keys()] : mode === "classes" ? [0, 1, 2, 3, 4, 5, 6] : [];
  const raw = new Float32Array(kept.length * N * V);
  for (const [k, c] of kept.entries()) raw.set(rawOf(c), k * N * V);
  for (let c = 0; c < C; c++) {
    let s = 0;
    for (let d = 0; d < D; d++) {
      let x = 0;
      for (let n = 0; n < N; n++) x += vectors[(n * V + output) * D + d];
      s += x * embedding[c * D + d];
    }
    outputLogits[c] = (s * 6) / sigma[(S - 1) * V + output] + offset[c];
  }
  const attention = new Uint8Array(L * H * T * T);
  for (let l = 0; l < L; l++) {
    for (let head = 0; head < H; head++) {
      const sharp = 1 + (head % 3) * 2 + l * 0.3;
      for (let r = 0; r < T; r++) {
        const row = new Float32Array(T);
        let sum = 0;
        for (let s = 0; s < T; s++) {
          row[s] = Math.exp(sharp * inBlob(s) * (0.5 + next()) + (s < P ? 1 : 0));
          sum += row[s];
        }
        for (let s = 0; s < T; s++)
          attention[((l * H + head) * T + r) * T + s] = Math.round(255 * Math.sqrt(row[s] / sum));
      }
    }
  }
  const rows = [...Array(T).keys()];
  const keepRows = T * T * L * H > 3_000_000 ? [0] : rows;
  const small = new Uint8Array(L * H * keepRows.length * T);
  keepRows.forEach((t, r) => {
    for (let i = 0; i < L * H; i++)
      small.set(attention.subarray((i * T + t) * T, (i * T + t + 1) * T), (i * keepRows.length + r) * T);
  });
  const heads = mode === "increments" ? [0, 1, 2] : kept;
  const headRaw = Float32Array.from({ length: heads.length * L * H * keepRows.length }, () => normal() * 0.8);
  const valueRaw = Float32Array.from(
    { length: heads.length * L * H * T },
    (_, i) => normal() * 0.5 + inBlob(i % T),
  );

  const arrays: NdArray[] = [
    array("output_logits", "f4", [C], outputLogits),
    array("offset", "f4", [C], offset),
    array("sigma", "f4", [S, V], sigma),
    array("attention", "u1", [L, H, keepRows.length, T], small),
  ];
  const mask = new Uint8Array(224 * 224);
  for (let y = 0; y < 224; y++) {
    for (let x = 0; x < 224; x++) {
      const r = y / 223 - 0.55;
      const c = x / 223 - 0.45;
      mask[y * 224 + x] = r * r * 9 + c * c * 7 < 0.75 ? 1 : 0;
    }
  }
  arrays.push(array("mask", "u1", [224, 224], mask));
  const importance = Float32Array.from({ length: T }, (_, t) => inBlob(t) * next());
  arrays.push(array("maps", "f4", [1, T], importance));
  if (image) arrays.push(array("image", "u1", [image.bytes.length], image.bytes));
  let list = kept;
  if (mode === "increments") {
    const scale = 1 / 512;
    arrays.push(
      array(
        "embedding",
        "f2",
        [C, D],
        Uint16Array.from(embedding, (v) => half((v * 6) / scale)),
      ),
    );
    arrays.push(array("increments", "f2", [N, V, D], Uint16Array.from(vectors, half)));
    list = heads;
    const own = new Float32Array(heads.length * N * V);
    for (const [k, c] of heads.entries()) own.set(rawOf(c), k * N * V);
    arrays.push(array("raw", "f4", [heads.length, N, V], own));
  } else {
    arrays.push(array("raw", "f4", [kept.length, N, V], raw));
  }
  const [flow, biases] = [new Float32Array(list.length * N * T), new Float32Array(list.length * N)];
  for (let i = 0; i < flow.length; i++) {
    const depth = (Math.floor(i / T) % N) / (N - 1);
    flow[i] = i % T < P ? 8 * depth ** 3 : (8 * inBlob(i % T) * (1 - depth ** 3)) / (T - P) + normal() / T;
  }
  arrays.push(array("flow", "f4", [list.length, N, T], flow));
  arrays.push(array("flow_bias", "f4", [list.length, N], biases.fill(0.3)));
  arrays.push(array("head_raw", "f4", [list.length, L, H, keepRows.length], headRaw));
  arrays.push(array("value_raw", "f4", [list.length, L, H, T], valueRaw));
  arrays.push(array("attention_bias_raw", "f4", [list.length, L], new Float32Array(list.length * L)));
  const names = Array.from({ length: C }, (_, c) => NAMES[c] ?? `class number ${c}, synonym ${c}`);
  const meta = {
    kind: "snapshot",
    model: {
      name: size.name ?? (D === 768 ? "vit_base_patch16_224" : "scenes_vit_tiny"),
      blocks: L,
      heads: H,
      width: D,
      layout: size.layout ?? "sequential",
      description: "",
    },
    tokens: { count: T, prefix, grid: [G, G], pooled: size.pooled ?? false, output },
    classes: { count: C, names, kept: list, all: mode === "all" },
    image: {
      width: image?.width ?? 224,
      height: image?.height ?? 224,
      mime: "image/png",
      name: "cat on a quilt.png",
      label: 0,
    },
    objects: [{ class: 0, name: "tabby" }],
    payload: {
      mode,
      note:
        mode === "all"
          ? "Every class, layer and token is in here."
          : mode === "classes"
            ? "Holds 7 of 1000 classes; others are fetched from the kernel."
            : "Holds the increments and the class embedding in half precision: every class can be read.",
    },
    exactness:
      mode === "increments"
        ? {
            logits: "approximate",
            ranks: "approximate",
            note: "Ranks come from float16 values: within ±1 for 99 % of tokens",
          }
        : { logits: "exact", ranks: "exact", note: "" },
    attention: { rows: keepRows, encoding: "sqrt-u8" },
    maps: [{ name: "importance", label: "token importance", class: 0, signed: false, note: "" }],
    caveats: [],
    unreachable: size.pooled ? [] : [S - 1, S - 2, S - 3, S - 4],
    intervention: null,
    embedding_scale: mode === "increments" ? 1 / 512 : undefined,
  };
  const container = { meta, arrays: new Map(arrays.map((a) => [a.name, a])) };
  if (mode === "all") return pack(meta, arrays);
  // Top classes, log-sum-exp and exact ranks of the kept classes, as the kernel sends them: read at every point.
  if (mode === "classes") {
    const everything = new Float32Array(C * N * V);
    for (let c = 0; c < C; c++) everything.set(rawOf(c), c * N * V);
    const whole = new Snapshot({
      meta: { ...meta, payload: { mode: "all" }, classes: { ...meta.classes, kept: [...Array(C).keys()] } },
      arrays: new Map(
        [
          ...arrays.filter((a) => ["output_logits", "offset", "sigma"].includes(a.name)),
          array("raw", "f4", [C, N, V], everything),
        ].map((a) => [a.name, a]),
      ),
    });
    const readings = new Readings(whole);
    const top = new Uint16Array(S * V * 5);
    const topLogits = new Float32Array(S * V * 5);
    const lse = new Float32Array(S * V);
    for (let s = 0; s < S; s++) {
      for (let t = 0; t < V; t++) {
        (readings.all.top(s, t) ?? []).forEach(({ id, logit }, i) => {
          top[(s * V + t) * 5 + i] = id;
          topLogits[(s * V + t) * 5 + i] = logit;
        });
        const p = readings.probabilities(0)?.[s * V + t] ?? 1;
        lse[s * V + t] = (readings.logits(0)?.[s * V + t] ?? 0) - Math.log(p);
      }
    }
    const ranks = new Uint16Array(kept.length * S * V);
    for (const [k, c] of kept.entries()) ranks.set(readings.ranks(c) ?? [], k * S * V);
    arrays.push(array("top", "u2", [S, V, 5], top), array("top_logits", "f4", [S, V, 5], topLogits));
    arrays.push(array("lse", "f4", [S, V], lse), array("ranks", "u2", [kept.length, S, V], ranks));
  }
  void container;
  return pack(meta, arrays);
}

/** A picture to look at: a soft cat-like shape on a chequered quilt, as PNG bytes. */
export async function drawPicture(side = 448): Promise<{ bytes: Uint8Array; width: number; height: number }> {
  const canvas = document.createElement("canvas");
  canvas.width = side;
  canvas.height = side;
  const c = canvas.getContext("2d") as CanvasRenderingContext2D;
  const sky = c.createLinearGradient(0, 0, 0, side);
  sky.addColorStop(0, "#7fa6c4");
  sky.addColorStop(0.5, "#cfc3ad");
  sky.addColorStop(1, "#7f6a55");
  c.fillStyle = sky;
  c.fillRect(0, 0, side, side);
  for (let i = 0; i < 9; i++) {
    for (let j = 0; j < 4; j++) {
      c.fillStyle = (i + j) % 2 ? "rgb(150 60 50 / 50%)" : "rgb(230 220 200 / 50%)";
      c.fillRect((i * side) / 9, side * 0.6 + (j * side) / 9, side / 9, side / 9);
    }
  }
  const blob = (x: number, y: number, rx: number, ry: number, color: string) => {
    c.fillStyle = color;
    c.beginPath();
    c.ellipse(x * side, y * side, rx * side, ry * side, 0, 0, 7);
    c.fill();
  };
  blob(0.45, 0.62, 0.24, 0.26, "#a9713c");
  blob(0.45, 0.38, 0.16, 0.14, "#b98247");
  for (const s of [-1, 1]) {
    c.fillStyle = "#a9713c";
    c.beginPath();
    c.moveTo((0.45 + s * 0.06) * side, 0.28 * side);
    c.lineTo((0.45 + s * 0.16) * side, 0.18 * side);
    c.lineTo((0.45 + s * 0.15) * side, 0.34 * side);
    c.fill();
    blob(0.45 + s * 0.06, 0.37, 0.022, 0.026, "#dfe88a");
    blob(0.45 + s * 0.06, 0.37, 0.008, 0.022, "#222");
  }
  for (let i = 0; i < 6; i++) blob(0.3 + i * 0.06, 0.55 + (i % 2) * 0.06, 0.012, 0.09, "rgb(80 50 25 / 55%)");
  blob(0.45, 0.43, 0.018, 0.012, "#d98d86");
  const file = await new Promise<Blob | null>((done) => canvas.toBlob(done, "image/png"));
  return { bytes: new Uint8Array(await (file as Blob).arrayBuffer()), width: side, height: side };
}
