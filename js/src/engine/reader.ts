/** A pass read at every stream point, into the arrays of a snapshot: the twin of `classspace_widgets/capture/reader.py`. */

import type { DType, NdArray, Numbers } from "../core/codec";
import { range } from "../core/collections";
import { logSumExpOf, topOf } from "../core/derive";
import { Points } from "../core/points";
import { add, linear, matrix, moments, product } from "./math";
import type { Model } from "./model";
import type { Trace } from "./pass";

const DTYPES = new Map<unknown, DType>([
  [Uint8Array, "u1"],
  [Uint16Array, "u2"],
  [Uint32Array, "u4"],
  [Float32Array, "f4"],
]);

/** Best classes of every stream point and token, as the views list them. */
const TOP = 5;
/** Numbers of attention weights up to which the rows of every token are sent. */
const ATTENTION_LIMIT = 2_500_000;

export function array(name: string, data: Numbers, ...shape: number[]): NdArray {
  return { name, dtype: DTYPES.get(data.constructor) as DType, shape, data };
}

export class Reader {
  readonly #model: Model;
  readonly #trace: Trace;
  readonly #points: Points;
  /** By increment, [T', D]: with the mean token as the last, if there is one. */
  readonly #vectors: readonly Float32Array[];
  /** Weights of the tokens in the mean, [T]. */
  readonly #pooling: Float32Array | null;
  #scales: Float32Array | null = null;

  constructor(model: Model, trace: Trace) {
    this.#model = model;
    this.#trace = trace;
    this.#points = new Points(model.L);
    this.#pooling = model.pools ? pooling(model, trace) : null;
    this.#vectors = trace.increments.map((own) => this.#withMean(own));
  }

  /** The norm's scale at every stream point, [S, T']. */
  get sigma(): Float32Array {
    this.#scales ??= this.#sigma();
    return this.#scales;
  }

  /** Lengths of the residual stream after every increment, [N, T']. */
  norms(): Float32Array {
    const { V, D } = this.#model;
    const out = new Float32Array(this.#vectors.length * V);
    const sum = new Float32Array(V * D);
    this.#vectors.forEach((vectors, n) => {
      add(sum, vectors);
      for (let t = 0; t < V; t++) {
        let squares = 0;
        for (let d = 0; d < D; d++) squares += sum[t * D + d] ** 2;
        out[n * V + t] = Math.sqrt(squares);
      }
    });
    return out;
  }

  /** Share of each block's attention that every token receives, [L, T']; NaN at the mean token. */
  received(): Float32Array {
    const { L, T, V } = this.#model;
    const out = new Float32Array(L * V).fill(Number.NaN);
    this.#trace.weights.forEach((weights, block) => {
      const own = out.subarray(block * V, block * V + T).fill(0);
      weights.forEach((weight, i) => {
        own[i % T] += weight;
      });
      const total = own.reduce((sum, share) => sum + share);
      own.forEach((share, t) => {
        own[t] = share / total;
      });
    });
    return out;
  }

  /** Class logits of the answer, [C]. */
  output(): Float32Array {
    const { C, D, output, offset, folded, about } = this.#model;
    const answer = new Float32Array(D);
    for (const vectors of this.#vectors) add(answer, vectors.subarray(output * D, (output + 1) * D));
    const scale = about.pooling === "norm_mean" ? 1 : moments(answer, 0, D, about.eps[1])[1];
    const out = new Float32Array(C);
    product(matrix(folded, D), matrix(answer, D), matrix(out, 1), C, 1, D);
    return out.map((raw, c) => raw / scale + offset[c]);
  }

  /** Readings of the increments for some classes, before the norm's scale: [K, N, T']. */
  raw(classes: readonly number[]): Float32Array {
    const { V, D } = this.#model;
    const { N } = this.#points;
    const rows = this.#rowsOf(classes);
    const out = new Float32Array(classes.length * N * V);
    this.#vectors.forEach((vectors, n) => {
      product(matrix(rows, D), matrix(vectors, D), matrix(out, N * V, n * V), classes.length, V, D);
    });
    return out;
  }

  /** Exact ranks of some classes [K, S, T'], and the best classes of every point and token with their log-sum-exp. */
  ranks(classes: readonly number[]): { ranks: Uint16Array; top: NdArray[] } {
    const { V, C } = this.#model;
    const { S } = this.#points;
    const k = Math.min(TOP, C);
    const ranks = new Uint16Array(classes.length * S * V);
    const top = new Uint16Array(S * V * k);
    const best = new Float32Array(S * V * k);
    const sums = new Float32Array(S * V);
    for (const [point, logits] of this.#scan()) {
      for (let t = 0; t < V; t++) {
        const at = point * V + t;
        classes.forEach((c, i) => {
          const own = logits[c * V + t];
          let larger = 0;
          for (let other = t; other < C * V; other += V) if (logits[other] > own) larger++;
          ranks[i * S * V + at] = larger;
        });
        topOf(logits, C, V, t, k).forEach(({ id, logit }, i) => {
          top[at * k + i] = id;
          best[at * k + i] = logit;
        });
        sums[at] = logSumExpOf(logits, C, V, t);
      }
    }
    return {
      ranks,
      top: [array("top", top, S, V, k), array("top_logits", best, S, V, k), array("lse", sums, S, V)],
    };
  }

  /** Attention weights at some rows (by default as many as the size allows), and what heads read there for some classes. */
  attention(
    classes: readonly number[],
    asked?: readonly number[],
  ): { rows: readonly number[]; arrays: NdArray[] } {
    const { L, H, T, V, output } = this.#model;
    const rows = asked ?? (L * H * V * T <= ATTENTION_LIMIT ? range(V, (t) => t) : [output]);
    const R = rows.length;
    const shown = new Uint8Array(L * H * R * T);
    this.#trace.weights.forEach((weights, block) => {
      for (let h = 0; h < H; h++) {
        rows.forEach((t, r) => {
          const row = this.#row(weights, h, t);
          const at = ((block * H + h) * R + r) * T;
          for (let s = 0; s < T; s++) shown[at + s] = Math.round(255 * Math.sqrt(Math.min(1, row[s])));
        });
      }
    });
    const arrays = [array("attention", shown, L, H, R, T)];
    if (classes.length > 0) arrays.push(...this.#heads(classes, rows));
    return { rows, arrays };
  }

  /** What heads' outputs, their values and the projection's bias read: see `Reader._heads`. */
  #heads(classes: readonly number[], rows: readonly number[]): NdArray[] {
    const { L, H, T, D } = this.#model;
    const K = classes.length;
    const R = rows.length;
    const size = D / H;
    const folded = this.#rowsOf(classes);
    const heads = new Float32Array(K * L * H * R);
    const values = new Float32Array(K * L * H * T);
    const biases = new Float32Array(K * L);
    for (let block = 0; block < L; block++) {
      const { weight, bias } = this.#model.outProjection(block);
      // A class read through the projection, [K, D]: `folded @ weight`.
      const across = new Float32Array(D * D);
      for (let i = 0; i < D; i++) for (let j = 0; j < D; j++) across[j * D + i] = weight[i * D + j];
      const read = linear(folded, across, undefined, K);
      const joined = this.#withMean(this.#trace.heads[block]);
      const inputs = new Float32Array(R * D);
      rows.forEach((t, r) => {
        inputs.set(joined.subarray(t * D, (t + 1) * D), r * D);
      });
      for (let h = 0; h < H; h++) {
        const own = matrix(read, D, h * size);
        const at = block * H + h;
        product(own, matrix(inputs, D, h * size), matrix(heads, L * H * R, at * R), K, R, size);
        product(
          own,
          matrix(this.#trace.values[block], D, h * size),
          matrix(values, L * H * T, at * T),
          K,
          T,
          size,
        );
      }
      if (bias) product(matrix(folded, D), matrix(bias, D), matrix(biases, L, block), K, 1, D);
    }
    return [
      array("head_raw", heads, K, L, H, R),
      array("value_raw", values, K, L, H, T),
      array("attention_bias_raw", biases, K, L),
    ];
  }

  /** Attention weights of a token in a head, [T]; of the mean token, their mean. */
  #row(weights: Float32Array, head: number, token: number): Float32Array {
    const { T } = this.#model;
    const at = head * T * T;
    if (token < T) return weights.subarray(at + token * T, at + (token + 1) * T);
    const out = new Float32Array(T);
    const share = this.#pooling as Float32Array;
    const total = share.reduce((a, b) => a + b, 0);
    for (let t = 0; t < T; t++) {
      if (share[t]) for (let s = 0; s < T; s++) out[s] += (share[t] / total) * weights[at + t * T + s];
    }
    return out;
  }

  /** Logits of all classes [C, T'] at every stream point, in order. */
  *#scan(): Generator<readonly [number, Float32Array]> {
    const { V, C, D, offset } = this.#model;
    const sum = new Float32Array(C * V);
    const raw = new Float32Array(C * V);
    const at = (point: number, values: Float32Array): readonly [number, Float32Array] => [
      point,
      values.map((v, i) => v / this.sigma[point * V + (i % V)] + offset[Math.floor(i / V)]),
    ];
    for (const [n, vectors] of this.#vectors.entries()) {
      product(matrix(this.#model.folded, D), matrix(vectors, D), matrix(raw, V), C, V, D);
      add(sum, raw);
      if (n > 0) yield at(2 * n - 1, raw);
      yield at(2 * n, sum);
    }
  }

  #rowsOf(classes: readonly number[]): Float32Array {
    const { D, folded } = this.#model;
    const out = new Float32Array(classes.length * D);
    classes.forEach((c, k) => {
      out.set(folded.subarray(c * D, (c + 1) * D), k * D);
    });
    return out;
  }

  /** Rows [T, D] with the mean that the answer is read from as the last; removed tokens weigh nothing. */
  #withMean(rows: Float32Array): Float32Array {
    const share = this.#pooling;
    if (!share) return rows;
    const { T, D } = this.#model;
    const out = new Float32Array((T + 1) * D);
    out.set(rows);
    for (let t = 0; t < T; t++) {
      if (share[t]) for (let d = 0; d < D; d++) out[T * D + d] += share[t] * rows[t * D + d];
    }
    return out;
  }

  #sigma(): Float32Array {
    const { V, D, about } = this.#model;
    const { S } = this.#points;
    const out = new Float32Array(S * V);
    const sum = new Float32Array(V * D);
    const take = (point: number, vectors: Float32Array) => {
      for (let t = 0; t < V; t++) out[point * V + t] = moments(vectors, t * D, D, about.eps[1])[1];
    };
    this.#vectors.forEach((vectors, n) => {
      add(sum, vectors);
      if (n > 0) take(2 * n - 1, vectors);
      take(2 * n, sum);
    });
    if (about.pooling === "norm_mean") for (let s = 0; s < S; s++) out[s * V + V - 1] = 1;
    return out;
  }
}

/** Weights [T] whose sum over tokens is the vector that the answer is read from: see `Readout.token_weights`. */
function pooling(model: Model, trace: Trace): Float32Array {
  const { T, D, about, firstPooled } = model;
  const stream = new Float32Array(T * D);
  for (const own of trace.increments) add(stream, own);
  const out = new Float32Array(T);
  const taken = range(T, (t) => t).filter((t) => t >= firstPooled && !trace.removed.includes(t));
  for (const t of taken) {
    const scale = about.pooling === "norm_mean" ? moments(stream, t * D, D, about.eps[1])[1] : 1;
    out[t] = 1 / taken.length / scale;
  }
  return out;
}
