/**
 * The derived readings of one snapshot, computed when asked for and kept.
 *
 * NaN stands for "not known (yet)": a rank that has not been counted, a step of the embedding.  `null` stands for a
 * class whose data are not at hand (ask the store to fetch them).
 */

import * as derive from "./derive";
import type { ClassLogit, Snapshot } from "./snapshot";

interface ClassMemo {
  increments?: Float32Array;
  raw?: Float32Array;
  logits?: Float32Array;
  ranks?: Float32Array;
  probabilities?: Float32Array;
  identifiability?: Float32Array;
  step?: Float32Array;
  direct?: Float32Array;
}

/** Classes whose readings are kept; the oldest goes first. */
const MEMO = 96;

export class Readings {
  readonly snapshot: Snapshot;
  readonly #memo = new Map<number, ClassMemo>();
  readonly #points: (Float32Array | undefined)[]; // logits of all classes [C, V] by point
  readonly #sorted: (Float32Array | undefined)[]; // the same [V, C], every token's ascending
  readonly #lse: (Float32Array | undefined)[];
  readonly #top1: (Int32Array | undefined)[];

  constructor(snapshot: Snapshot) {
    this.snapshot = snapshot;
    this.#points = new Array(snapshot.S);
    this.#sorted = new Array(snapshot.S);
    this.#lse = new Array(snapshot.S);
    this.#top1 = new Array(snapshot.S);
  }

  /** Forget one class (more arrived for it), or the ranks of all (a point was completed). */
  forget(id?: number): void {
    if (id !== undefined) this.#memo.delete(id);
    else
      for (const memo of this.#memo.values()) {
        delete memo.ranks;
        delete memo.identifiability;
        delete memo.probabilities;
      }
  }

  /** Whether this class can be read with what is at hand. */
  has(id: number): boolean {
    const { snapshot } = this;
    if (!(id >= 0 && id < snapshot.C)) return false;
    return snapshot.meta.payload.mode === "increments" || snapshot.classArrays(id)?.raw !== undefined;
  }

  /** Whether this class can be ranked with what is at hand, which is less than to read it. */
  ranked(id: number): boolean {
    return this.has(id) || this.snapshot.classArrays(id)?.ranks !== undefined;
  }

  /** Raw readings of the increments, [N, V]. */
  increments(id: number): Float32Array | null {
    if (!this.has(id)) return null;
    const memo = this.#of(id);
    memo.increments ??= this.snapshot.classArrays(id)?.raw ?? this.#projectClass(id);
    return memo.increments;
  }

  /** Raw readings of the stream points, [S, V]. */
  raw(id: number): Float32Array | null {
    const increments = this.increments(id);
    if (!increments) return null;
    const memo = this.#of(id);
    memo.raw ??= derive.streamRaw(increments, this.snapshot.N, this.snapshot.V);
    return memo.raw;
  }

  /** Lens logits, [S, V]. */
  logits(id: number): Float32Array | null {
    const raw = this.raw(id);
    if (!raw) return null;
    const memo = this.#of(id);
    memo.logits ??= derive.logits(raw, this.snapshot.sigma, this.snapshot.offset[id]);
    return memo.logits;
  }

  /** Class ranks, [S, V]; NaN where they have not been counted yet. */
  ranks(id: number): Float32Array | null {
    if (!this.ranked(id)) return null;
    const memo = this.#of(id);
    if (memo.ranks) return memo.ranks;
    const { S, V, C } = this.snapshot;
    const stored = this.snapshot.classArrays(id)?.ranks;
    if (stored) {
      memo.ranks = this.#without(this.snapshot.spread(stored));
      return memo.ranks;
    }
    const out = new Float32Array(S * V).fill(Number.NaN);
    for (let s = 0; s < S; s++) {
      const sorted = this.#sorted[s];
      const all = this.allLogits(s);
      const here = out.subarray(s * V, (s + 1) * V);
      if (sorted && all) derive.findRanks(sorted, all.subarray(id * V, (id + 1) * V), C, here);
      else if (all) derive.countRanks(all, id, C, V, here);
    }
    memo.ranks = this.#without(out);
    return out;
  }

  /** Whether the ranks of this class are counted from rounded values. */
  ranksApproximate(id: number): boolean {
    const { meta } = this.snapshot;
    return meta.exactness?.ranks === "approximate" && this.snapshot.classArrays(id)?.ranks === undefined;
  }

  /** 1 - rank / C, [S, V]. */
  identifiability(id: number): Float32Array | null {
    const ranks = this.ranks(id);
    if (!ranks) return null;
    const memo = this.#of(id);
    memo.identifiability ??= derive.identifiability(ranks, this.snapshot.C);
    return memo.identifiability;
  }

  /** Probabilities among all classes, [S, V]; NaN where not known yet; null when the snapshot cannot tell. */
  probabilities(id: number): Float32Array | null {
    const logits = this.logits(id);
    if (!logits) return null;
    const memo = this.#of(id);
    if (memo.probabilities) return memo.probabilities;
    const { S, V } = this.snapshot;
    const stored = this.snapshot.floats("lse");
    let lse = stored && this.snapshot.spread(stored);
    if (!lse) {
      lse = new Float32Array(S * V).fill(Number.NaN);
      for (let s = 0; s < S; s++) {
        const own = this.#lseOf(s);
        if (own) lse.set(own, s * V);
      }
    }
    memo.probabilities = derive.probabilities(logits, lse);
    return memo.probabilities;
  }

  /** Step contributions, [N, V], NaN for the embedding. */
  step(id: number): Float32Array | null {
    const logits = this.logits(id);
    if (!logits) return null;
    const memo = this.#of(id);
    memo.step ??= derive.step(logits, this.snapshot.N, this.snapshot.V);
    return memo.step;
  }

  /** Direct contributions to the token's final logit, [N, V]. */
  direct(id: number): Float32Array | null {
    const increments = this.increments(id);
    if (!increments) return null;
    const memo = this.#of(id);
    memo.direct ??= derive.direct(increments, this.snapshot.sigma, this.snapshot.N, this.snapshot.V);
    return memo.direct;
  }

  /** Top classes of a point and token, best first; null when not known (yet). */
  top(point: number, token: number, k = 5): ClassLogit[] | null {
    if (this.snapshot.removed.includes(token)) return null;
    const all = this.allLogits(point);
    if (all) return derive.topOf(all, this.snapshot.C, this.snapshot.V, token, k);
    return this.snapshot.storedTop(point, token)?.slice(0, k) ?? null;
  }

  /** Top class of every token, [V]; -1 for tokens that were removed. */
  top1(point: number): Int32Array | null {
    const known = this.#top1[point];
    if (known) return known;
    const { V, C } = this.snapshot;
    const out = new Int32Array(V);
    const stored = this.snapshot.array("top");
    if (stored) {
      const k = stored.shape[2];
      const row = this.snapshot.rowOf(point);
      if (row < 0) return null;
      for (let t = 0; t < V; t++) out[t] = stored.data[(row * V + t) * k];
    } else {
      const all = this.allLogits(point);
      if (!all) return null;
      const best = new Float32Array(V).fill(Number.NEGATIVE_INFINITY);
      for (let c = 0; c < C; c++) {
        for (let t = 0; t < V; t++) {
          if (all[c * V + t] > best[t]) {
            best[t] = all[c * V + t];
            out[t] = c;
          }
        }
      }
    }
    for (const t of this.snapshot.removed) out[t] = -1;
    this.#top1[point] = out;
    return out;
  }

  /** Direct contribution of every attention head [L, H] to the final logit of `token`; null when not at hand. */
  headDirect(id: number, token: number): Float32Array | null {
    const { L, H, V, S, sigma } = this.snapshot;
    for (const { rows, values } of this.snapshot.classArrays(id)?.headRaw ?? []) {
      const r = rows.indexOf(token);
      if (r < 0) continue;
      const scale = sigma[(S - 1) * V + token];
      const out = new Float32Array(L * H);
      for (let i = 0; i < L * H; i++) out[i] = values[i * rows.length + r] / scale;
      return out;
    }
    return null;
  }

  /** Part of one head's direct contribution to `token` that comes from each source token, [T]; block from 1. */
  source(id: number, block: number, head: number, token: number): Float32Array | null {
    const { H, T, V, S, sigma } = this.snapshot;
    const weights = this.snapshot.attention(block, head, token);
    const values = this.snapshot.classArrays(id)?.valueRaw;
    if (!weights || !values) return null;
    const scale = sigma[(S - 1) * V + token];
    const base = ((block - 1) * H + head) * T;
    return weights.map((a, s) => (a * values[base + s]) / scale);
  }

  /** Whether the logits of all classes at this point are at hand, or at hand in a moment. */
  pointKnown(point: number): boolean {
    return this.snapshot.meta.payload.mode === "all" || this.#points[point] !== undefined;
  }

  /** Logits of all classes at a point, [C, V]: counted at once in mode "all", after `fillPoint` in "increments". */
  allLogits(point: number): Float32Array | null {
    const known = this.#points[point];
    if (known) return known;
    if (this.snapshot.meta.payload.mode !== "all") return null;
    const { C, V, S, N, sigma, offset } = this.snapshot;
    // All points in one sweep over the classes: a rank over depth needs them all.
    for (let s = 0; s < S; s++) this.#points[s] = new Float32Array(C * V);
    for (let c = 0; c < C; c++) {
      const raw = this.snapshot.classArrays(c)?.raw;
      if (!raw) continue;
      const stream = derive.streamRaw(raw, N, V);
      for (let s = 0; s < S; s++) {
        const out = this.#points[s] as Float32Array;
        for (let t = 0; t < V; t++) out[c * V + t] = stream[s * V + t] / sigma[s * V + t] + offset[c];
      }
    }
    return this.#points[point] ?? null;
  }

  /**
   * Work of a point in mode "increments", cut into slices: every `next()` does about `rows` classes.
   * When it has ended, ranks and top classes of every class at this point are known.
   */
  *fillPoint(point: number, rows = 24): Generator<void, void, void> {
    if (this.#points[point] || this.snapshot.meta.payload.mode !== "increments") return;
    const { C, V, D, sigma, offset } = this.snapshot;
    const embedding = this.#embedding();
    yield;
    const vectors = yield* this.#vectors(point);
    const out = new Float32Array(C * V);
    for (let c = 0; c < C; c += rows) {
      const to = Math.min(C, c + rows);
      derive.project(embedding, vectors, out, D, V, c, to);
      for (let i = c; i < to; i++) {
        for (let t = 0; t < V; t++) out[i * V + t] = out[i * V + t] / sigma[point * V + t] + offset[i];
      }
      yield;
    }
    this.#sorted[point] = yield* derive.sortByToken(out, C, V, 8);
    this.#points[point] = out;
    this.forget();
  }

  /** Tokens that were removed have no rank. */
  #without(ranks: Float32Array): Float32Array {
    const { S, V, removed } = this.snapshot;
    for (const t of removed) for (let s = 0; s < S; s++) ranks[s * V + t] = Number.NaN;
    return ranks;
  }

  #lseOf(point: number): Float32Array | null {
    const known = this.#lse[point];
    if (known) return known;
    const all = this.allLogits(point);
    if (!all) return null;
    const out = derive.logSumExp(all, this.snapshot.C, this.snapshot.V);
    this.#lse[point] = out;
    return out;
  }

  #of(id: number): ClassMemo {
    let memo = this.#memo.get(id);
    if (memo) return memo;
    memo = {};
    this.#memo.set(id, memo);
    if (this.#memo.size > MEMO) {
      const oldest = this.#memo.keys().next().value;
      if (oldest !== undefined) this.#memo.delete(oldest);
    }
    return memo;
  }

  #embedding(): Float32Array {
    return this.snapshot.floats("embedding") as Float32Array;
  }

  /** Increment n's vectors are stored divided by a factor that makes them fit float16. */
  #scale(n: number): number {
    return (this.snapshot.floats("increment_scale")?.[n] ?? 1) * (this.snapshot.meta.embedding_scale ?? 1);
  }

  #projectClass(id: number): Float32Array {
    const { N, V, D } = this.snapshot;
    const embedding = this.#embedding().subarray(id * D, (id + 1) * D);
    const vectors = this.snapshot.floats("increments") as Float32Array;
    const out = new Float32Array(N * V);
    derive.project(embedding, vectors, out, D, N * V, 0, 1);
    for (let n = 0; n < N; n++) {
      const scale = this.#scale(n);
      if (scale !== 1) for (let t = 0; t < V; t++) out[n * V + t] *= scale;
    }
    return out;
  }

  /** The stream's own vectors at a point, [V, D], times the embedding's scale; a slice per increment. */
  *#vectors(point: number): Generator<void, Float32Array> {
    const { V, D } = this.snapshot;
    const all = this.snapshot.floats("increments") as Float32Array;
    yield;
    const n = Math.ceil(point / 2);
    const out = new Float32Array(V * D);
    for (let i = point % 2 === 0 ? 0 : n; i <= n; i++) {
      const scale = this.#scale(i);
      const own = all.subarray(i * V * D, (i + 1) * V * D);
      for (let j = 0; j < own.length; j++) out[j] += own[j] * scale;
      yield;
    }
    return out;
  }
}
