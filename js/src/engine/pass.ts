/** One forward pass, stored as what the embedding, each attention and each MLP add: the twin of a `Trace`. */

import { add, gelu, layerNorm, linear, matrix, product, scaleColumns, softmax, turned } from "./math";
import type { Model } from "./model";
import { type Ablation, firstChanged, makePlan, type Plan } from "./plan";

export interface Trace {
  /** What is added to the residual stream, in order, each [T, D]; NaN at tokens that were removed. */
  readonly increments: readonly Float32Array[];
  /** By block: attention weights [H, T, T], what goes into the output projection [T, D], and values [T, D]. */
  readonly weights: readonly Float32Array[];
  readonly heads: readonly Float32Array[];
  readonly values: readonly Float32Array[];
  /** Tokens that an intervention took out. */
  readonly removed: readonly number[];
}

/** The embedding [T, D] of pixels [3, height, width]. */
export function embed(model: Model, pixels: Float32Array): Float32Array {
  const { T, D, P } = model;
  const { patch, grid } = model.about;
  const [height, width] = patch;
  const [rows, columns] = grid;
  const size = 3 * height * width;
  const patches = new Float32Array(rows * columns * size);
  const wide = columns * width;
  let at = 0;
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      for (let channel = 0; channel < 3; channel++) {
        for (let y = 0; y < height; y++) {
          const from = (channel * rows * height + r * height + y) * wide + c * width;
          patches.set(pixels.subarray(from, from + width), at);
          at += width;
        }
      }
    }
  }
  const { weight, bias } = model.linear("patches");
  const out = new Float32Array(T * D);
  const prefix = model.find("prefix");
  if (prefix) out.set(prefix);
  out.set(linear(patches, weight, bias, rows * columns), P * D);
  const position = model.find("position");
  // Of some models the position embedding leaves the prefix tokens out.
  if (position) add(out.subarray(T * D - position.length), position);
  return out;
}

/**
 * The pass from an embedding on, with interventions. Blocks in front of the first that is changed are taken from the pass
 * without them, where it is given.
 */
export function run(
  model: Model,
  embedding: Float32Array,
  plan: Plan = makePlan(model, []),
  before: Trace | null = null,
): Trace {
  const { L, T, H } = model;
  const pass = new Pass(model, plan);
  const same = before ? Math.max(0, firstChanged(plan, model) - 1) : 0;
  const start = embedding.slice();
  pass.change(start, 0, (t) => t);
  const increments = [pass.short(start), ...(before?.increments.slice(1, 1 + 2 * same) ?? [])];
  const weights = before?.weights.slice(0, same) ?? [];
  const heads = before?.heads.slice(0, same) ?? [];
  const values = before?.values.slice(0, same) ?? [];
  const x = increments[0].slice();
  pass.remember(0, x);
  for (let block = 1; block <= same; block++) {
    add(x, increments[2 * block - 1]);
    add(x, increments[2 * block]);
    pass.remember(block, x);
  }
  for (let block = same + 1; block <= L; block++) {
    const made = pass.block(x, block);
    pass.remember(block, x);
    increments.push(made.attention, made.mlp);
    weights.push(pass.fullWeights(made.weights, H));
    heads.push(pass.full(made.joined, Number.NaN));
    values.push(pass.full(made.values, 0));
  }
  return {
    increments: increments.map((own) => pass.full(own, Number.NaN)),
    weights,
    heads,
    values,
    removed: Array.from({ length: T }, (_, t) => t).filter((t) => !plan.kept.includes(t)),
  };
}

interface Made {
  readonly attention: Float32Array;
  readonly mlp: Float32Array;
  readonly weights: Float32Array;
  readonly joined: Float32Array;
  readonly values: Float32Array;
}

/** What a pass shares between its blocks: the tokens that are left, and their places in the sequence. */
class Pass {
  readonly #model: Model;
  readonly #plan: Plan;
  /** Tokens that are left. */
  readonly #n: number;
  readonly #whole: boolean;
  /** The residual stream after those blocks that later ones copy a state from. */
  readonly #states = new Map<number, Float32Array>();

  constructor(model: Model, plan: Plan) {
    this.#model = model;
    this.#plan = plan;
    this.#n = plan.kept.length;
    this.#whole = this.#n === model.T;
  }

  /** One block: `x` becomes the residual stream after it. */
  block(x: Float32Array, number: number): Made {
    const { blocks, about } = this.#model;
    const [eps] = about.eps;
    const own = blocks[number - 1];
    const n = this.#n;
    const inner = this.#heads(layerNorm(x, own.norm1.weight, own.norm1.bias, eps), number);
    const attention = linear(inner.joined, own.proj.weight, own.proj.bias, n);
    scaleColumns(attention, own.ls1);
    this.#ablate(attention, this.#plan.sublayers.get(`attention ${number}`));
    add(x, attention);
    const mlp = this.#mlp(x, number);
    const middle = this.#plan.changes.has(number) ? x.slice() : null;
    add(x, mlp);
    if (middle) {
      this.change(x, number, (t) => this.#plan.kept.indexOf(t));
      // The last increment takes the change, so that increments still add up to the stream.
      for (let i = 0; i < mlp.length; i++) mlp[i] = x[i] - middle[i];
    }
    return { attention, mlp, ...inner };
  }

  /** What the MLP of a block adds. */
  #mlp(x: Float32Array, block: number): Float32Array {
    const { blocks, about } = this.#model;
    const { norm2, fc1, fc2, ls2 } = blocks[block - 1];
    const how = this.#plan.sublayers.get(`mlp ${block}`);
    // Half of a pass need not be computed.
    if (how === "zero") return new Float32Array(x.length);
    const normed = layerNorm(x, norm2.weight, norm2.bias, about.eps[0]);
    const hidden = linear(normed, fc1.weight, fc1.bias, this.#n);
    gelu(hidden);
    const mlp = linear(hidden, fc2.weight, fc2.bias, this.#n);
    scaleColumns(mlp, ls2);
    this.#ablate(mlp, how);
    return mlp;
  }

  /** Attention of a block from its normalised input: weights [H, n, n], heads' outputs and values [n, D]. */
  #heads(normed: Float32Array, block: number): Pick<Made, "weights" | "joined" | "values"> {
    const { H, D, blocks } = this.#model;
    const { qkv } = blocks[block - 1];
    const n = this.#n;
    const size = D / H;
    const all = linear(normed, qkv.weight, qkv.bias, n);
    const wide = 3 * D;
    const weights = new Float32Array(H * n * n);
    const joined = new Float32Array(n * D);
    const scale = size ** -0.5;
    for (let h = 0; h < H; h++) {
      const at = h * n * n;
      product(
        matrix(all, wide, h * size),
        matrix(all, wide, D + h * size),
        matrix(weights, n, at),
        n,
        n,
        size,
      );
      for (let i = at; i < at + n * n; i++) weights[i] *= scale;
      this.#cut(weights, at, this.#plan.cuts.get(block)?.before.get(h), Number.NEGATIVE_INFINITY);
      for (let t = 0; t < n; t++) softmax(weights, at + t * n, n);
      this.#cut(weights, at, this.#plan.cuts.get(block)?.after.get(h), 0);
      const value = turned(all, wide, 2 * D + h * size, size, n);
      product(matrix(weights, n, at), matrix(value, n), matrix(joined, D, h * size), n, size, n);
      const how = this.#plan.heads.get(block)?.get(h);
      if (how) replaceColumns(joined, how, D, h * size, size);
    }
    const values = new Float32Array(n * D);
    for (let t = 0; t < n; t++) values.set(all.subarray(t * wide + 2 * D, (t + 1) * wide), t * D);
    return { weights, joined, values };
  }

  /** Keep the residual stream after a block, if it is copied from later. */
  remember(block: number, x: Float32Array): void {
    const changes = [...this.#plan.changes.values()].flat();
    if (changes.some(({ after }) => after === block)) this.#states.set(block, x.slice());
  }

  #cut(weights: Float32Array, at: number, edges: Uint8Array | undefined, value: number): void {
    if (!edges) return;
    const { kept } = this.#plan;
    const { T } = this.#model;
    kept.forEach((t, i) => {
      kept.forEach((s, j) => {
        if (!edges[t * T + s]) weights[at + i * this.#n + j] = value;
      });
    });
  }

  #ablate(added: Float32Array, how: Ablation | undefined): void {
    if (how) replaceColumns(added, how, this.#model.D, 0, this.#model.D);
  }

  /** Change the residual stream after a block; `place` tells where a token is in it. */
  change(x: Float32Array, block: number, place: (token: number) => number): void {
    const { D, P, T } = this.#model;
    for (const { kind, tokens, vector, from, after } of this.#plan.changes.get(block) ?? []) {
      let source = new Float32Array(D);
      if (kind === "add") source = vector as Float32Array<ArrayBuffer>;
      if (kind === "mean") {
        for (let i = P * D; i < T * D; i++) source[i % D] += x[i] / (T - P);
      }
      if (kind === "copy") {
        const at = place(from as number) * D;
        const state = after === block ? x : (this.#states.get(after as number) as Float32Array);
        source = state.slice(at, at + D) as Float32Array<ArrayBuffer>;
      }
      for (const token of tokens) {
        const at = place(token) * D;
        if (at < 0) continue;
        if (kind === "add") for (let d = 0; d < D; d++) x[at + d] += source[d];
        else x.set(source, at);
      }
    }
  }

  /** Rows of the tokens that are left. */
  short(rows: Float32Array): Float32Array {
    if (this.#whole) return rows;
    const { D } = this.#model;
    const out = new Float32Array(this.#n * D);
    this.#plan.kept.forEach((t, i) => {
      out.set(rows.subarray(t * D, (t + 1) * D), i * D);
    });
    return out;
  }

  /** Rows of all tokens, with `missing` at those that were removed. */
  full(rows: Float32Array, missing: number): Float32Array {
    if (this.#whole) return rows;
    const { D, T } = this.#model;
    const out = new Float32Array(T * D).fill(missing);
    this.#plan.kept.forEach((t, i) => {
      out.set(rows.subarray(i * D, (i + 1) * D), t * D);
    });
    return out;
  }

  /** Attention weights [H, n, n] of all tokens, [H, T, T]: 0 to and from those that were removed. */
  fullWeights(weights: Float32Array, H: number): Float32Array {
    if (this.#whole) return weights;
    const { T } = this.#model;
    const n = this.#n;
    const out = new Float32Array(H * T * T);
    const { kept } = this.#plan;
    for (let h = 0; h < H; h++) {
      kept.forEach((t, i) => {
        kept.forEach((s, j) => {
          out[(h * T + t) * T + s] = weights[(h * n + i) * n + j];
        });
      });
    }
    return out;
  }
}

/** Some columns of every row [.., D] become 0, or their mean over the rows. */
function replaceColumns(x: Float32Array, how: Ablation, D: number, from: number, count: number): void {
  const rows = x.length / D;
  for (let d = from; d < from + count; d++) {
    let value = 0;
    if (how === "mean") for (let t = 0; t < rows; t++) value += x[t * D + d] / rows;
    for (let t = 0; t < rows; t++) x[t * D + d] = value;
  }
}
