/** Typed access to one picture's snapshot: sizes, names, and the arrays of the classes at hand. */

import { type Container, floats, isRecord, type NdArray, SnapshotError, unpack } from "./codec";
import { checkMeta, type MapInfo, type Meta } from "./meta";

/** What a snapshot holds for one class (views into the arrays that came). */
export interface ClassArrays {
  raw?: Float32Array; // [N, T']
  ranks?: Uint16Array | Uint32Array; // [P, T'], see Snapshot.rowOf
  valueRaw?: Float32Array; // [L, H, T]
  headRaw: { rows: readonly number[]; values: Float32Array }[]; // each [L, H, R]
}

/** Token importance for a class by block and head, [blocks, heads, T']; 1 where the method does not split. */
export interface Shares {
  readonly signed: boolean;
  readonly blocks: number;
  readonly heads: number;
  readonly values: Float32Array;
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
  /** Increments, also slider positions. */ readonly N: number;
  /** Stream points. */ readonly S: number;
  /** Prefix tokens. */ readonly prefix: number;
  readonly rows: number;
  readonly columns: number;
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
  readonly #importance = new Map<string, Shares>();
  #maps: MapInfo[] = [];
  #mapValues: Float32Array[] = [];

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
    this.N = meta.model.layout === "parallel" ? this.L + 1 : 2 * this.L + 1;
    this.S = 2 * this.N - 1;
    this.prefix = meta.tokens.prefix.length;
    [this.rows, this.columns] = meta.tokens.grid;
    this.output = meta.tokens.output;
    this.#arrays = new Map(container.arrays);
    this.sigma = this.#need("sigma", [this.S, this.V]);
    this.offset = this.#need("offset", [this.C]);
    this.outputLogits = this.#need("output_logits", [this.C]);
    const { mode, points, ranks_only } = meta.payload;
    this.#rows = Int32Array.from({ length: this.S }, (_, s) => (points ? points.indexOf(s) : s));
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
    this.#takeImportance(container);
  }

  /** Token importance for a class by a method; undefined when it is not at hand. */
  importance(method: string, id: number): Shares | undefined {
    return this.#importance.get(`${method} ${id}`);
  }

  #takeImportance({ meta, arrays }: Container): void {
    const array = arrays.get("importance");
    if (!array || !isRecord(meta.importance)) return;
    const { method, classes, signed } = meta.importance as Record<string, unknown>;
    const [, blocks, heads, tokens] = array.shape;
    checkShape(array, [(classes as number[]).length, blocks, heads, this.V]);
    const all = floats(array);
    (classes as number[]).forEach((id, k) => {
      const values = slice(all, k, blocks * heads * tokens);
      this.#importance.set(`${method} ${id}`, { signed: signed === true, blocks, heads, values });
    });
  }

  /** Slider positions are increments: 0 the embedding, then attention and MLP of every block. */
  pointOf(position: number, stream: "residual" | "output"): number {
    return position === 0 ? 0 : stream === "residual" ? 2 * position : 2 * position - 1;
  }

  /** Where a stream point stands in `ranks`, `top` and `lse`; -1 where its stream does not travel. */
  rowOf(point: number): number {
    return this.#rows[point];
  }

  /** Whether some streams do not travel, so that curves go from one known point to the next. */
  get sparse(): boolean {
    return this.meta.payload.points !== undefined;
  }

  /** An array [P, T'] over all stream points [S, T']; NaN where a point does not travel. */
  spread(values: ArrayLike<number>): Float32Array {
    const { S, V } = this;
    const out = new Float32Array(S * V).fill(Number.NaN);
    for (let s = 0; s < S; s++) {
      const row = this.rowOf(s);
      for (let t = 0; row >= 0 && t < V; t++) out[s * V + t] = values[row * V + t];
    }
    return out;
  }

  positionOf(block: number, sublayer: "embedding" | "attention" | "mlp"): number {
    if (block <= 0) return 0;
    const b = Math.min(block, this.L);
    if (this.meta.model.layout === "parallel") return b;
    return sublayer === "attention" ? 2 * b - 1 : 2 * b;
  }

  placeOf(position: number): { block: number; sublayer: "embedding" | "attention" | "mlp" } {
    const p = Math.max(0, Math.min(this.N - 1, Math.round(position)));
    if (p === 0) return { block: 0, sublayer: "embedding" };
    if (this.meta.model.layout === "parallel") return { block: p, sublayer: "mlp" };
    return { block: Math.ceil(p / 2), sublayer: p % 2 === 1 ? "attention" : "mlp" };
  }

  /** "embedding", "block 3 attention", "block 3 MLP" (or "block 3" where attention and MLP are parallel). */
  positionName(position: number): string {
    const { block, sublayer } = this.placeOf(position);
    if (sublayer === "embedding") return "embedding";
    if (this.meta.model.layout === "parallel") return `block ${block}`;
    return `block ${block} ${sublayer === "mlp" ? "MLP" : "attention"}`;
  }

  className(id: number): string {
    return this.meta.classes.names[id] ?? `class ${id}`;
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
    const cached = this.#floats.get(name);
    if (cached) return cached;
    const array = this.#arrays.get(name);
    if (!array) return undefined;
    const values = floats(array);
    this.#floats.set(name, values);
    return values;
  }

  get hasTop(): boolean {
    return this.#arrays.has("top");
  }

  /** The stored top classes of a point and token, best first; null when the snapshot holds none. */
  storedTop(point: number, token: number): ClassLogit[] | null {
    const top = this.#arrays.get("top");
    const logits = this.floats("top_logits");
    if (!top || !logits) return null;
    const row = this.rowOf(point);
    if (row < 0) return null;
    const k = top.shape[2];
    const base = (row * this.V + token) * k;
    const out: ClassLogit[] = [];
    for (let i = 0; i < k; i++) out.push({ id: top.data[base + i], logit: logits[base + i] });
    return out;
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

  /** File bytes of the picture that the model saw. */
  imageBytes(): Uint8Array | null {
    const data = this.#arrays.get("image")?.data;
    return data instanceof Uint8Array && data.length > 0 ? data : null;
  }

  get maps(): readonly MapInfo[] {
    return this.#maps;
  }

  /** Values [T'] of an extra map (NaN where it has none), by name. */
  map(name: string): { info: MapInfo; values: Float32Array } | null {
    const i = this.#maps.findIndex((m) => m.name === name);
    return i < 0 ? null : { info: this.#maps[i], values: this.#mapValues[i] };
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
    kept.forEach((id, k) => {
      const entry: ClassArrays = this.#classes.get(id) ?? { headRaw: [] };
      if (raw) entry.raw = slice(raw, k, N * V);
      if (ranks) entry.ranks = ranks.subarray(k * P * V, (k + 1) * P * V) as Uint16Array | Uint32Array;
      if (value) entry.valueRaw = slice(value, k, L * H * T);
      if (head) entry.headRaw.push({ rows, values: slice(head, k, L * H * rows.length) });
      this.#classes.set(id, entry);
    });
    const attention = part(container, "attention", [L, H, rows.length, T]);
    if (attention) this.#attention.push({ rows, data: attention.data as Uint8Array });
    const values = container.arrays.get("maps");
    if (values && maps.length > 0) {
      const all = floats(values);
      const width = values.shape[1];
      maps.forEach((info, m) => {
        const own = new Float32Array(V).fill(Number.NaN);
        own.set(all.subarray(m * width, (m + 1) * width).subarray(0, V));
        const at = this.#maps.findIndex((known) => known.name === info.name);
        const index = at < 0 ? this.#maps.length : at;
        this.#maps[index] = info;
        this.#mapValues[index] = own;
      });
    }
  }

  #expect(name: string, shape: readonly number[]): NdArray {
    const array = this.#arrays.get(name);
    if (!array) throw new SnapshotError(`damaged snapshot: array "${name}" is missing`);
    checkShape(array, shape);
    return array;
  }

  #need(name: string, shape: readonly number[]): Float32Array {
    return floats(this.#expect(name, shape));
  }
}

function part(container: Container, name: string, shape: readonly number[]): NdArray | undefined {
  const array = container.arrays.get(name);
  if (array) checkShape(array, shape);
  return array;
}

function checkShape(array: NdArray, shape: readonly number[]): void {
  if (array.shape.length !== shape.length || array.shape.some((n, i) => n !== shape[i])) {
    throw new SnapshotError(
      `damaged snapshot: array "${array.name}" must have shape [${shape.join(", ")}], got [${array.shape.join(", ")}]`,
    );
  }
}

function slice(values: Float32Array, index: number, size: number): Float32Array {
  return values.subarray(index * size, (index + 1) * size);
}
