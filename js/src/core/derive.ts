/**
 * Pure functions from the folded readings of the increments to everything a view shows.
 *
 * raw(v) = E_hat v is linear, so the raw reading of a stream is the sum of the raw readings of its increments;
 * logit(v) = raw(v) / sigma(v) + offset.  Shapes: N increments, S stream points, V tokens, C classes.
 */

import type { Points } from "./points";

/** Raw readings of increments [N, V] -> of stream points [S, V]; sums are kept in double precision. */
export function streamRaw(increments: Float32Array, points: Points, V: number): Float32Array {
  const out = new Float32Array(points.S * V);
  const sum = new Float64Array(V);
  for (let n = 0; n < points.N; n++) {
    const added = points.at(n, "output") * V;
    const after = points.at(n, "residual") * V;
    for (let t = 0; t < V; t++) {
      const value = increments[n * V + t];
      sum[t] += value;
      out[added + t] = value;
      out[after + t] = sum[t];
    }
  }
  return out;
}

/** raw / sigma + offset, [S, V]. */
export function logits(raw: Float32Array, sigma: Float32Array, offset: number): Float32Array {
  const out = new Float32Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw[i] / sigma[i] + offset;
  return out;
}

/** `lens(mid_l) - lens(x_{l-1})`, `lens(x_l) - lens(mid_l)`: [N, V], NaN for the embedding, which is where steps start. */
export function step(logit: Float32Array, points: Points, V: number): Float32Array {
  const out = new Float32Array(points.N * V).fill(Number.NaN);
  for (let n = 1; n < points.N; n++) {
    const after = points.at(n, "residual") * V;
    const before = points.at(n - 1, "residual") * V;
    for (let t = 0; t < V; t++) out[n * V + t] = logit[after + t] - logit[before + t];
  }
  return out;
}

/** What each increment adds to the token's FINAL logit, exactly additive: [N, V]; their sum + offset = the final logit. */
export function direct(
  increments: Float32Array,
  sigma: Float32Array,
  points: Points,
  V: number,
): Float32Array {
  const { N, S } = points;
  const out = new Float32Array(N * V);
  const last = (S - 1) * V;
  for (let n = 0; n < N; n++) {
    for (let t = 0; t < V; t++) out[n * V + t] = increments[n * V + t] / sigma[last + t];
  }
  return out;
}

/** exp(logit - lse), [S, V]. */
export function probabilities(logit: Float32Array, lse: Float32Array): Float32Array {
  const out = new Float32Array(logit.length);
  for (let i = 0; i < logit.length; i++) out[i] = Math.exp(logit[i] - lse[i]);
  return out;
}

/** 1 - rank / C. */
export function identifiability(ranks: Float32Array, C: number): Float32Array {
  const out = new Float32Array(ranks.length);
  for (let i = 0; i < ranks.length; i++) out[i] = 1 - ranks[i] / C;
  return out;
}

/** Number of classes with a strictly larger logit, for one class and all tokens; `all` is [C, V]. */
export function countRanks(all: Float32Array, c: number, C: number, V: number, out: Float32Array): void {
  const own = all.slice(c * V, (c + 1) * V);
  const larger = new Int32Array(V);
  for (let i = 0, at = 0; i < C; i++) {
    // Adding the comparison itself is four times as fast as branching on it.
    for (let t = 0; t < V; t++, at++) larger[t] += +(all[at] > own[t]);
  }
  out.set(larger);
}

/** Logits [C, V] -> [V, C], every token's in ascending order, in slices of about `tokens`. */
export function* sortByToken(
  all: Float32Array,
  C: number,
  V: number,
  tokens: number,
): Generator<void, Float32Array> {
  const out = new Float32Array(C * V);
  for (let t = 0; t < V; t++) {
    const own = out.subarray(t * C, (t + 1) * C);
    for (let c = 0; c < C; c++) own[c] = all[c * V + t];
    own.sort();
    if (t % tokens === 0) yield;
  }
  return out;
}

/** Ranks of logits [V] among sorted ones [V, C], by bisection. */
export function findRanks(sorted: Float32Array, own: Float32Array, C: number, out: Float32Array): void {
  for (let t = 0; t < own.length; t++) {
    let low = t * C;
    let high = low + C;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] > own[t]) high = middle;
      else low = middle + 1;
    }
    out[t] = (t + 1) * C - low;
  }
}

/** log-sum-exp over the classes of [C, V], for one token. */
export function logSumExpOf(all: ArrayLike<number>, C: number, V: number, token: number): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let at = token; at < C * V; at += V) if (all[at] > max) max = all[at];
  let sum = 0;
  for (let at = token; at < C * V; at += V) sum += Math.exp(all[at] - max);
  return max + Math.log(sum);
}

/** The same for all tokens, [V]. */
export function logSumExp(all: Float32Array, C: number, V: number): Float32Array {
  return Float32Array.from({ length: V }, (_, t) => logSumExpOf(all, C, V, t));
}

/** The k best classes of one token out of [C, V], best first. */
export function topOf(
  all: ArrayLike<number>,
  C: number,
  V: number,
  token: number,
  k: number,
): { id: number; logit: number }[] {
  const best: { id: number; logit: number }[] = [];
  for (let c = 0; c < C; c++) {
    const logit = all[c * V + token];
    if (best.length === k ? logit <= best[k - 1].logit : Number.isNaN(logit)) continue;
    let i = best.length < k ? best.length : k - 1;
    while (i > 0 && best[i - 1].logit < logit) {
      best[i] = best[i - 1];
      i--;
    }
    best[i] = { id: c, logit };
  }
  return best;
}

/** Rows `from`..`to` of E v for all tokens: embedding [C, D], vectors [V, D], out [C, V] (before sigma and offset). */
export function project(
  embedding: Float32Array,
  vectors: Float32Array,
  out: Float32Array,
  D: number,
  V: number,
  from: number,
  to: number,
): void {
  for (let c = from; c < to; c++) {
    const e = c * D;
    let t = 0;
    // Four tokens at a time read each embedding value once.
    for (; t + 3 < V; t += 4) {
      const v0 = t * D;
      const v1 = v0 + D;
      const v2 = v1 + D;
      const v3 = v2 + D;
      let s0 = 0;
      let s1 = 0;
      let s2 = 0;
      let s3 = 0;
      for (let d = 0; d < D; d++) {
        const w = embedding[e + d];
        s0 += w * vectors[v0 + d];
        s1 += w * vectors[v1 + d];
        s2 += w * vectors[v2 + d];
        s3 += w * vectors[v3 + d];
      }
      out[c * V + t] = s0;
      out[c * V + t + 1] = s1;
      out[c * V + t + 2] = s2;
      out[c * V + t + 3] = s3;
    }
    for (; t < V; t++) {
      let s = 0;
      for (let d = 0; d < D; d++) s += embedding[e + d] * vectors[t * D + d];
      out[c * V + t] = s;
    }
  }
}
