/** Typed access to one picture's snapshot: sizes, names, and the arrays of the classes at hand. */

import {
  type Container,
  checkShape,
  damaged,
  floats,
  halvesToFloats,
  isRecord,
  type NdArray,
  slice,
  unpack,
} from "./codec";
import { kept, range } from "./collections";
import { shortName } from "./format";
import { Importance } from "./importance";
import { TokenMaps } from "./maps";
import { checkMeta, type LensInfo, type MapInfo, type Meta } from "./meta";
import { Points } from "./points";

/** What a snapshot holds for one class of a fitted lens, each [S, T']; NaN where it has no map. */
export interface LensArrays {
  readonly logits: Float32Array | undefined;
  readonly ranks: Float32Array | undefined;
}

/** Where the logit of the model's answer stands after every increment; tokens and biases sum to it. */
export interface Flow {
  readonly tokens: Float32Array; // [N, T'], NaN for the pooled token
  readonly biases: Float32Array; // [N]
}

/** What a snapshot holds for one class (views into the arrays that came). */
export interface ClassArrays {
  raw?: Float32Array; // [N, T']
  ranks?: Uint16Array | Uint32Array; // [P, T'], see Snapshot.rowOf
  valueRaw?: Float32Array; // [L, H, T]
  headRaw: { rows: readonly number[]; values: Float32Array }[]; // each [L, H, R]
  lenses: LensArrays[]; // by fitted lens
  flow?: Flow;
}

export interface ClassLogit {
  readonly id: number;
  readonly logit: number;
}

export class Snapshot {
  readonly meta: Meta;
  /** Blocks. */ readonly L: number;
  /** Attention heads. */ readonly H: number;
  /** Width. */ readonly D: number;
  /** Classes. */ readonly C: number;
  /** Tokens of the model. */ readonly T: number;
  /** Tokens of the views: with the pooled token, if there is one, as the last. */ readonly V: number;
  /** Extra values per token, by name. */ readonly maps = new TokenMaps();
  /** Token importance, by method and class. */ readonly importance = new Importance();
  /** What lies at which place of the residual stream. */ readonly points: Points;
  /** Increments, also slider positions. */ readonly N: number;
  /** Stream points. */ readonly S: number;
  /** Prefix tokens. */ readonly prefix: number;
  readonly rows: number;
  readonly columns: number;
  /** Fitted lenses that travel. */ readonly lenses: readonly LensInfo[];
  /** Index of the token that the model's own output is read from. */ readonly output: number;
  readonly sigma: Float32Array; // [S, T']
  readonly offset: Float32Array; // [C]
  readonly outputLogits: Float32Array; // [C]

  /** Row of every stream point in the arrays that hold points, -1 where it does not travel. */
  readonly #rows: Int32Array;
  readonly #arrays: Map<string, NdArray>;
  readonly #classes = new Map<number, ClassArrays>();
  readonly #attention: { rows: readonly number[]; data: Uint8Array }[] = [];
  readonly #floats = new Map<string, Float32Array>();

  static parse(source: ArrayBuffer | ArrayBufferView): Snapshot {
    return new Snapshot(unpack(source));
  }

  constructor(container: Container) {
    const meta = checkMeta(container.meta);
    this.meta = meta;
    this.L = meta.model.blocks;
    this.H = meta.model.heads;
    this.D = meta.model.width;
    this.C = meta.classes.count;
    this.T = meta.tokens.count;
    this.V = this.T + (meta.tokens.pooled ? 1 : 0);
    this.points = new Points(this.L, meta.model.layout);
    this.N = this.points.N;
    this.S = this.points.S;
    this.prefix = meta.tokens.prefix.length;
    [this.rows, this.columns] = meta.tokens.grid;
    this.output = meta.tokens.output;
    this.lenses = meta.lenses ?? [];
    this.#arrays = new Map(container.arrays);
    this.sigma = this.#need("sigma", [this.S, this.V]);
    this.offset = this.#need("offset", [this.C]);
    this.outputLogits = this.#need("output_logits", [this.C]);
    const { mode, points, ranks_only } = meta.payload;
    this.#rows = Int32Array.from(range(this.S, (s) => (points ? points.indexOf(s) : s)));
    if (mode === "increments") {
      this.#expect("embedding", [this.C, this.D]);
      this.#expect("increments", [this.N, this.V, this.D]);
    } else if (ranks_only) {
      this.#expect("ranks", [meta.classes.kept.length, points?.length ?? this.S, this.V]);
    } else if (meta.classes.kept.length > 0) {
      this.#expect("raw", [meta.classes.kept.length, this.N, this.V]);
    }
    this.#take(container, meta.classes.kept, meta.attention?.rows ?? [], meta.maps ?? []);
  }

  /** Add what the answer to a request brought: classes, attention rows, maps. */
  merge(container: Container): void {
    const { classes, attention, maps } = container.meta;
    const kept = isRecord(classes) && Array.isArray(classes.kept) ? (classes.kept as number[]) : [];
    const rows = isRecord(attention) && Array.isArray(attention.rows) ? (attention.rows as number[]) : [];
    this.#take(container, kept, rows, Array.isArray(maps) ? (maps as MapInfo[]) : []);
    this.importance.take(container, this.V);
  }

  /** Where a stream point stands in `ranks`, `top` and `lse`; -1 where its stream does not travel. */
  rowOf(point: number): number {
    return this.#rows[point];
  }

  /** Whether some streams do not travel, so that curves go from one known point to the next. */
  get sparse(): boolean {
    return this.meta.payload.points !== undefined;
  }

  /** The norm's scale of a token at the last stream point. */
  finalSigma(token: number): number {
    return this.sigma[(this.S - 1) * this.V + token];
  }

  /** The vectors of increment n are stored divided by a factor that makes them fit float16. */
  scaleOf(n: number): number {
    return (this.floats("increment_scale")?.[n] ?? 1) * (this.meta.embedding_scale ?? 1);
  }

  /** An array [P, T'] over all stream points [S, T']; NaN where a point does not travel, and for the value `none`. */
  spread(values: ArrayLike<number>, none?: number): Float32Array {
    const { S, V } = this;
    const out = new Float32Array(S * V).fill(Number.NaN);
    for (let s = 0; s < S; s++) {
      const row = this.rowOf(s);
      for (let t = 0; row >= 0 && t < V; t++) {
        const value = values[row * V + t];
        if (value !== none) out[s * V + t] = value;
      }
    }
    return out;
  }

  className(id: number): string {
    return this.meta.classes.names[id] ?? `class ${id}`;
  }

  /** "tench" of "tench, Tinca tinca". */
  shortName(id: number): string {
    return shortName(this.className(id));
  }

  /** "[CLS]", "mean of patches" or "patch 4, 7" (row, column from 1). */
  tokenName(token: number): string {
    if (token < this.prefix) return this.meta.tokens.prefix[token];
    if (token >= this.T) return "mean of patches";
    const i = token - this.prefix;
    return `patch ${Math.floor(i / this.columns) + 1}, ${(i % this.columns) + 1}`;
  }

  /** Tokens that an intervention took out of the sequence: they have no readings. */
  get removed(): readonly number[] {
    return this.meta.tokens.removed ?? [];
  }

  isImageToken(token: number): boolean {
    return token >= this.prefix && token < this.prefix + this.rows * this.columns && token < this.T;
  }

  classArrays(id: number): ClassArrays | undefined {
    return this.#classes.get(id);
  }

  get keptClasses(): number[] {
    return [...this.#classes.keys()];
  }

  array(name: string): NdArray | undefined {
    return this.#arrays.get(name);
  }

  /** A whole array as float32, converted once. */
  floats(name: string): Float32Array | undefined {
    const array = this.#arrays.get(name);
    return array && kept(this.#floats, name, () => floats(array));
  }

  /** The number of the lens with this label; -1 for the logit lens. */
  lensNumber(label: string): number {
    return this.lenses.findIndex((lens) => lens.label === label);
  }

  /** The stored top classes of a point and token through a lens, best first; null when the snapshot holds none. */
  storedTop(point: number, token: number, lens = -1): ClassLogit[] | null {
    const top = this.#arrays.get(arrayOf(lens, "top"));
    const logits = this.floats(arrayOf(lens, "top_logits"));
    if (!top || !logits) return null;
    const row = this.rowOf(point);
    if (row < 0) return null;
    const k = top.shape[2];
    const base = (row * this.V + token) * k;
    return range(k, (i) => ({ id: top.data[base + i], logit: logits[base + i] })).filter(
      ({ id }) => id < this.C,
    );
  }

  /** Classes of the model's own output, most likely first, with probabilities. */
  predicted(count = 5): { id: number; logit: number; probability: number }[] {
    const z = this.outputLogits;
    let max = Number.NEGATIVE_INFINITY;
    for (const v of z) if (v > max) max = v;
    let sum = 0;
    for (const v of z) sum += Math.exp(v - max);
    const order = Array.from(z.keys()).sort((a, b) => z[b] - z[a]);
    return order
      .slice(0, count)
      .map((id) => ({ id, logit: z[id], probability: Math.exp(z[id] - max) / sum }));
  }

  /** Rows (reading tokens) whose attention weights are at hand. */
  get attentionRows(): number[] {
    return this.#attention.flatMap((chunk) => chunk.rows);
  }

  /** Attention weights that `token` gives to all T tokens in one head; block from 1, head from 0. */
  attention(block: number, head: number, token: number): Float32Array | null {
    for (const { rows, data } of this.#attention) {
      const r = rows.indexOf(token);
      if (r < 0) continue;
      const base = (((block - 1) * this.H + head) * rows.length + r) * this.T;
      const out = new Float32Array(this.T);
      for (let s = 0; s < this.T; s++) out[s] = (data[base + s] / 255) ** 2;
      return out;
    }
    return null;
  }

  /** File bytes of the picture that the model saw, or of the photograph that it is a part of. */
  imageBytes(which: "image" | "photo" = "image"): Uint8Array | null {
    const data = this.#arrays.get(which)?.data;
    return data instanceof Uint8Array && data.length > 0 ? data : null;
  }

  /** Object index + 1 per displayed pixel, 0 for background. */
  mask(): { data: Uint8Array; width: number; height: number } | null {
    const array = this.#arrays.get("mask");
    if (!array || !(array.data instanceof Uint8Array)) return null;
    return { data: array.data, height: array.shape[0], width: array.shape[1] };
  }

  #take(
    container: Container,
    kept: readonly number[],
    rows: readonly number[],
    maps: readonly MapInfo[],
  ): void {
    const K = kept.length;
    const { N, V, L, H, T } = this;
    const P = container.meta.kind === "part" ? this.S : (this.meta.payload.points?.length ?? this.S);
    const rawArray = part(container, "raw", [K, N, V]);
    const raw = rawArray && floats(rawArray);
    const ranks = part(container, "ranks", [K, P, V])?.data;
    const valueArray = part(container, "value_raw", [K, L, H, T]);
    const value = valueArray && floats(valueArray);
    part(container, "attention_bias_raw", [K, L]);
    const headArray = part(container, "head_raw", [K, L, H, rows.length]);
    const head = headArray && floats(headArray);
    const flow = this.#takeFlow(container, K);
    const lenses = range(this.lenses.length, (n) => this.#takeLens(container, n, K, P));
    kept.forEach((id, k) => {
      const entry: ClassArrays = this.#classes.get(id) ?? { headRaw: [], lenses: [] };
      if (raw) entry.raw = slice(raw, k, N * V);
      if (ranks) entry.ranks = ranks.subarray(k * P * V, (k + 1) * P * V) as Uint16Array | Uint32Array;
      if (value) entry.valueRaw = slice(value, k, L * H * T);
      if (head) entry.headRaw.push({ rows, values: slice(head, k, L * H * rows.length) });
      if (flow) entry.flow = flow(k);
      lenses.forEach((of, n) => {
        const own = of(k);
        if (own.logits || own.ranks) entry.lenses[n] = own;
      });
      this.#classes.set(id, entry);
    });
    const attention = part(container, "attention", [L, H, rows.length, T]);
    if (attention) this.#attention.push({ rows, data: attention.data as Uint8Array });
    this.maps.take(container.arrays.get("maps"), maps, V);
  }

  /** Where the logits of classes stand, class by class. */
  #takeFlow(container: Container, K: number): ((k: number) => Flow) | undefined {
    const { N, T, V } = this;
    const [tokens, biases] = [part(container, "flow", [K, N, T]), part(container, "flow_bias", [K, N])].map(
      (array) => array && floats(array),
    );
    if (!tokens || !biases) return undefined;
    return (k) => {
      const spread = new Float32Array(N * V).fill(Number.NaN);
      for (let n = 0; n < N; n++) spread.set(slice(tokens, k * N + n, T), n * V);
      return { tokens: spread, biases: slice(biases, k, N) };
    };
  }

  /** What came of a fitted lens, class by class: nothing for a class that it was not read for. */
  #takeLens(container: Container, n: number, K: number, P: number): (k: number) => LensArrays {
    const { V } = this;
    const [logits, ranks] = ["logits", "ranks"].map((name) => part(container, arrayOf(n, name), [K, P, V]));
    const of = (array: NdArray | undefined, k: number) => {
      if (!array) return undefined;
      const own = array.data.subarray(k * P * V, (k + 1) * P * V);
      const none = 256 ** own.BYTES_PER_ELEMENT - 1;
      const all = this.spread(array.dtype === "f2" ? halvesToFloats(own as Uint16Array) : own, none);
      return all.every(Number.isNaN) ? undefined : all;
    };
    return (k) => ({ logits: of(logits, k), ranks: of(ranks, k) });
  }

  #expect(name: string, shape: readonly number[]): NdArray {
    const array = this.#arrays.get(name);
    if (!array) throw damaged(`array "${name}" is missing`);
    checkShape(array, shape);
    return array;
  }

  #need(name: string, shape: readonly number[]): Float32Array {
    return floats(this.#expect(name, shape));
  }
}

/** The name of an array of a fitted lens, or of the logit lens (-1). */
export const arrayOf = (lens: number, name: string): string => (lens < 0 ? name : `lens${lens}_${name}`);

function part(container: Container, name: string, shape: readonly number[]): NdArray | undefined {
  const array = container.arrays.get(name);
  if (array) checkShape(array, shape);
  return array;
}
