/**
 * The derived readings of one snapshot, computed when asked for and kept.
 *
 * NaN stands for "not known (yet)": a rank that has not been counted, a step of the embedding.  `null` stands for a
 * class whose data are not at hand (ask the store to fetch them).
 */

import { AllClasses } from "./allClasses";
import { kept } from "./collections";
import * as derive from "./derive";
import type { Snapshot } from "./snapshot";

/** What is derived of a class, by name. */
type ClassMemo = Map<string, Float32Array>;

/** Readings that change when a point of all classes was completed. */
const OF_ALL = ["ranks", "identifiability", "probabilities"];

/** Classes whose readings are kept, the oldest goes first: of ViT-B/16 about 40 kB each and reading. */
const MEMO = 96;

export class Readings {
  readonly snapshot: Snapshot;
  readonly all: AllClasses;
  readonly #memo = new Map<number, ClassMemo>();

  constructor(snapshot: Snapshot) {
    this.snapshot = snapshot;
    this.all = new AllClasses(snapshot);
  }

  /** Forget one class: more arrived for it. */
  forget(id: number): void {
    this.#memo.delete(id);
  }

  /** Complete a stream point of all classes, in slices: see `AllClasses.fill`. */
  *fillPoint(point: number, rows?: number): Generator<void, void, void> {
    yield* this.all.fill(point, rows);
    for (const memo of this.#memo.values()) for (const name of OF_ALL) memo.delete(name);
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
    return this.#keep(id, "increments", () => this.snapshot.classArrays(id)?.raw ?? this.#projectClass(id));
  }

  /** Raw readings of the stream points, [S, V]. */
  raw(id: number): Float32Array | null {
    const { points, V } = this.snapshot;
    const increments = this.increments(id);
    return increments && this.#keep(id, "raw", () => derive.streamRaw(increments, points, V));
  }

  /** Lens logits, [S, V]. */
  logits(id: number): Float32Array | null {
    const { sigma, offset } = this.snapshot;
    const raw = this.raw(id);
    return raw && this.#keep(id, "logits", () => derive.logits(raw, sigma, offset[id]));
  }

  /** Class ranks, [S, V]; NaN where they have not been counted yet, and for tokens that were removed. */
  ranks(id: number): Float32Array | null {
    if (!this.ranked(id)) return null;
    return this.#keep(id, "ranks", () => {
      const { S, V, removed } = this.snapshot;
      const stored = this.snapshot.classArrays(id)?.ranks;
      const out = stored ? this.snapshot.spread(stored) : new Float32Array(S * V).fill(Number.NaN);
      if (!stored) for (let s = 0; s < S; s++) this.all.rank(id, s, out.subarray(s * V, (s + 1) * V));
      for (const t of removed) for (let s = 0; s < S; s++) out[s * V + t] = Number.NaN;
      return out;
    });
  }

  /** Whether the ranks of this class are counted from rounded values. */
  ranksApproximate(id: number): boolean {
    const { meta } = this.snapshot;
    return meta.exactness?.ranks === "approximate" && this.snapshot.classArrays(id)?.ranks === undefined;
  }

  /** 1 - rank / C, [S, V]. */
  identifiability(id: number): Float32Array | null {
    const ranks = this.ranks(id);
    return ranks && this.#keep(id, "identifiability", () => derive.identifiability(ranks, this.snapshot.C));
  }

  /** Probabilities among all classes, [S, V]; NaN where not known yet; null when the snapshot cannot tell. */
  probabilities(id: number): Float32Array | null {
    const logits = this.logits(id);
    return (
      logits &&
      this.#keep(id, "probabilities", () => {
        const { S, V } = this.snapshot;
        const stored = this.snapshot.floats("lse");
        const sums = stored ? this.snapshot.spread(stored) : new Float32Array(S * V).fill(Number.NaN);
        if (!stored) for (let s = 0; s < S; s++) sums.set(this.all.logSum(s) ?? [], s * V);
        return derive.probabilities(logits, sums);
      })
    );
  }

  /** Step contributions, [N, V], NaN for the embedding. */
  step(id: number): Float32Array | null {
    const { points, V } = this.snapshot;
    const logits = this.logits(id);
    return logits && this.#keep(id, "step", () => derive.step(logits, points, V));
  }

  /** Direct contributions to the token's final logit, [N, V]. */
  direct(id: number): Float32Array | null {
    const { points, sigma, V } = this.snapshot;
    const increments = this.increments(id);
    return increments && this.#keep(id, "direct", () => derive.direct(increments, sigma, points, V));
  }

  /** Direct contribution of every attention head [L, H] to the final logit of `token`; null when not at hand. */
  headDirect(id: number, token: number): Float32Array | null {
    const { L, H } = this.snapshot;
    for (const { rows, values } of this.snapshot.classArrays(id)?.headRaw ?? []) {
      const r = rows.indexOf(token);
      if (r < 0) continue;
      const scale = this.snapshot.finalSigma(token);
      const out = new Float32Array(L * H);
      for (let i = 0; i < L * H; i++) out[i] = values[i * rows.length + r] / scale;
      return out;
    }
    return null;
  }

  /** Part of one head's direct contribution to `token` that comes from each source token, [T]; block from 1. */
  source(id: number, block: number, head: number, token: number): Float32Array | null {
    const { H, T } = this.snapshot;
    const weights = this.snapshot.attention(block, head, token);
    const values = this.snapshot.classArrays(id)?.valueRaw;
    if (!weights || !values) return null;
    const scale = this.snapshot.finalSigma(token);
    const base = ((block - 1) * H + head) * T;
    return weights.map((a, s) => (a * values[base + s]) / scale);
  }

  #keep(id: number, name: string, make: () => Float32Array): Float32Array {
    const memo = kept(this.#memo, id, () => new Map());
    if (this.#memo.size > MEMO) this.forget(this.#memo.keys().next().value as number);
    return kept(memo, name, make);
  }

  #projectClass(id: number): Float32Array {
    const { N, V, D } = this.snapshot;
    const all = this.snapshot.floats("embedding") as Float32Array;
    const vectors = this.snapshot.floats("increments") as Float32Array;
    const out = new Float32Array(N * V);
    derive.project(all.subarray(id * D, (id + 1) * D), vectors, out, D, N * V, 0, 1);
    for (let n = 0; n < N; n++) {
      const scale = this.snapshot.scaleOf(n);
      if (scale !== 1) for (let t = 0; t < V; t++) out[n * V + t] *= scale;
    }
    return out;
  }
}
