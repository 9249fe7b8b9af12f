/**
 * What is known of ALL classes at a stream point: their logits, and what follows from those - ranks, top classes, the sum
 * that probabilities are shares of.
 *
 * Where the readings of all classes travel (mode "all"), everything is at hand. Where the increments travel (mode
 * "increments"), a point is projected on all classes here, by `fill`, in slices that leave the page responsive.
 */

import { kept } from "./collections";
import * as derive from "./derive";
import { arrayOf, type ClassLogit, type Snapshot } from "./snapshot";

export class AllClasses {
  readonly #snapshot: Snapshot;
  readonly #lens: number;
  readonly #read: (id: number) => Float32Array | null;
  readonly #logits = new Map<number, Float32Array>(); // [C, V] by point
  readonly #sorted = new Map<number, Float32Array>(); // the same [V, C], every token's ascending
  readonly #logSums = new Map<number, Float32Array>(); // [V] by point
  readonly #best = new Map<number, Int32Array>(); // [V] by point

  /** Through the lens with this number (-1: the logit lens), by which `read` reads a class [S, V]. */
  constructor(snapshot: Snapshot, lens: number, read: (id: number) => Float32Array | null) {
    this.#snapshot = snapshot;
    this.#lens = lens;
    this.#read = read;
  }

  /** Whether the logits of all classes at this point are at hand, or at hand in a moment. */
  known(point: number): boolean {
    return this.#snapshot.meta.payload.mode === "all" || this.#logits.has(point);
  }

  /** Logits of all classes at a point, [C, V]: added up at once in mode "all", after `fill` in mode "increments". */
  logits(point: number): Float32Array | null {
    const known = this.#logits.get(point);
    if (known) return known;
    const { meta, lenses, C, V, S } = this.#snapshot;
    if (meta.payload.mode !== "all" || lenses[this.#lens]?.classes) return null;
    // All points in one sweep over the classes: a rank over depth needs them all.
    const all = Array.from({ length: S }, () => new Float32Array(C * V));
    for (let c = 0; c < C; c++) {
      const own = this.#read(c);
      if (own) for (let s = 0; s < S; s++) all[s].set(own.subarray(s * V, (s + 1) * V), c * V);
    }
    all.forEach((out, s) => {
      this.#logits.set(s, out);
    });
    return all[point] ?? null;
  }

  /** Ranks of a class at a point into `out` [V], which is left alone where they cannot be counted yet. */
  rank(id: number, point: number, out: Float32Array): void {
    const { C, V } = this.#snapshot;
    const sorted = this.#sorted.get(point);
    const all = this.logits(point);
    if (sorted && all) derive.findRanks(sorted, all.subarray(id * V, (id + 1) * V), C, out);
    else if (all) derive.countRanks(all, id, C, V, out);
  }

  /** log-sum-exp over all classes at a point, [V]. */
  logSum(point: number): Float32Array | null {
    const { C, V } = this.#snapshot;
    const all = this.logits(point);
    return all && kept(this.#logSums, point, () => derive.logSumExp(all, C, V));
  }

  /** Top classes of a point and token, best first; null when not known (yet). */
  top(point: number, token: number, k = 5): ClassLogit[] | null {
    const { C, V, removed } = this.#snapshot;
    if (removed.includes(token)) return null;
    const all = this.logits(point);
    if (all) return derive.topOf(all, C, V, token, k);
    return this.#snapshot.storedTop(point, token, this.#lens)?.slice(0, k) ?? null;
  }

  /** Top class of every token, [V]; -1 for tokens that were removed. */
  top1(point: number): Int32Array | null {
    const known = this.#best.get(point);
    if (known) return known;
    const { V, C, removed } = this.#snapshot;
    // Where a lens has no map, no class is the top one.
    const out = new Int32Array(V).fill(-1);
    const stored = this.#snapshot.array(arrayOf(this.#lens, "top"));
    if (stored) {
      const k = stored.shape[2];
      const row = this.#snapshot.rowOf(point);
      if (row < 0) return null;
      for (let t = 0; t < V; t++) {
        const best = stored.data[(row * V + t) * k];
        if (best < C) out[t] = best;
      }
    } else {
      const all = this.logits(point);
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
    for (const t of removed) out[t] = -1;
    this.#best.set(point, out);
    return out;
  }

  /**
   * Work of a point in mode "increments", cut into slices: every `next()` does about `rows` classes, a few milliseconds.
   * When it has ended, ranks and top classes of every class at this point are known.
   */
  *fill(point: number, rows = 24): Generator<void, void, void> {
    if (this.#logits.has(point) || this.#snapshot.meta.payload.mode !== "increments") return;
    const { C, V, D, sigma, offset } = this.#snapshot;
    const embedding = this.#snapshot.floats("embedding") as Float32Array;
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
    this.#sorted.set(point, yield* derive.sortByToken(out, C, V, 8));
    this.#logits.set(point, out);
  }

  /** The stream's own vectors at a point, [V, D], times the embedding's scale; a slice for every increment. */
  *#vectors(point: number): Generator<void, Float32Array> {
    const { points, V, D } = this.#snapshot;
    const all = this.#snapshot.floats("increments") as Float32Array;
    yield;
    const n = points.increment(point);
    const out = new Float32Array(V * D);
    for (let i = points.isSum(point) ? 0 : n; i <= n; i++) {
      const scale = this.#snapshot.scaleOf(i);
      const own = all.subarray(i * V * D, (i + 1) * V * D);
      for (let j = 0; j < own.length; j++) out[j] += own[j] * scale;
      yield;
    }
    return out;
  }
}
