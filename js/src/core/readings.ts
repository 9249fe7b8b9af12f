/**
 * The derived readings of one snapshot through one lens, computed when asked for and kept.
 *
 * Through the logit lens everything follows from the increments' raw readings; the readings of a fitted lens travel themselves.
 * Contributions to the final logit, and all of heads, are the logit lens's in any case.
 *
 * NaN stands for "not known (yet)": a rank that has not been counted, a step of the embedding.  `null` stands for a
 * class whose data are not at hand (ask the store to fetch them).
 */

import { AllClasses } from "./allClasses";
import { kept } from "./collections";
import * as derive from "./derive";
import type { LensInfo } from "./meta";
import { arrayOf, type LensArrays, type Snapshot } from "./snapshot";

/** What is derived of a class, by name. */
type ClassMemo = Map<string, Float32Array>;

/** Readings that change when a point of all classes was completed. */
const OF_ALL = ["ranks", "identifiability", "probabilities"];

/** Classes whose readings are kept, the oldest goes first: of ViT-B/16 about 40 kB each and reading. */
const MEMO = 96;

export class Readings {
  readonly all: AllClasses;
  /** Those of the logit lens. */
  readonly base: Readings;
  /** The fitted lens; undefined for the logit lens. */
  readonly lens: LensInfo | undefined;
  readonly #memo = new Map<number, ClassMemo>();
  readonly #through = new Map<number, Readings>();

  /** `number` is that of the lens; -1 is the logit lens. */
  constructor(
    readonly snapshot: Snapshot,
    readonly number = -1,
    base?: Readings,
  ) {
    this.base = base ?? this;
    this.lens = snapshot.lenses[number];
    this.all = new AllClasses(snapshot, number, (id) =>
      this.#makeLogits(id, snapshot.classArrays(id)?.raw ?? null),
    );
  }

  /** Those of another lens, by its number. */
  through(number: number): Readings {
    return number < 0
      ? this.base
      : kept(this.#through, number, () => new Readings(this.snapshot, number, this));
  }

  /** Forget one class: more arrived for it. */
  forget(id: number): void {
    this.#memo.delete(id);
    for (const other of this.#through.values()) other.forget(id);
  }

  /** What came of a class through this fitted lens. */
  #stored(id: number): LensArrays | undefined {
    return this.snapshot.classArrays(id)?.lenses[this.number];
  }

  /** Whether the lens can read this class; it may not be at hand. */
  reads(id: number): boolean {
    return this.lens?.classes?.includes(id) ?? true;
  }

  /** Whether a kernel that is asked for this class has more of it. */
  lacks(id: number): boolean {
    return !this.base.has(id) || (this.reads(id) && !this.has(id));
  }

  /** Whether the lens has a map for a token at a stream point. */
  defined(point: number, token: number): boolean {
    if (!this.lens) return true;
    const { keptClasses, V } = this.snapshot;
    return keptClasses.some((id) => {
      const own = this.#stored(id);
      return !Number.isNaN((own?.logits ?? own?.ranks)?.[point * V + token] ?? Number.NaN);
    });
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
    if (this.lens) return this.reads(id) && this.#stored(id)?.logits !== undefined;
    return snapshot.meta.payload.mode === "increments" || snapshot.classArrays(id)?.raw !== undefined;
  }

  /** Whether this class can be ranked with what is at hand, which is less than to read it. */
  ranked(id: number): boolean {
    if (this.lens) return this.#stored(id)?.ranks !== undefined;
    return this.has(id) || this.snapshot.classArrays(id)?.ranks !== undefined;
  }

  /** Raw readings of the increments, [N, V]. */
  increments(id: number): Float32Array | null {
    if (!this.base.has(id)) return null;
    return this.#keep(id, "increments", () => this.snapshot.classArrays(id)?.raw ?? this.#projectClass(id));
  }

  /** Lens logits, [S, V]. */
  logits(id: number): Float32Array | null {
    if (!this.has(id)) return null;
    return this.#keep(id, "logits", () => this.#makeLogits(id, this.increments(id)) as Float32Array);
  }

  /** The same, from the increments' readings, and not kept. */
  #makeLogits(id: number, increments: Float32Array | null): Float32Array | null {
    if (this.lens) return this.#stored(id)?.logits ?? null;
    const { points, V, sigma, offset } = this.snapshot;
    return increments && derive.logits(derive.streamRaw(increments, points, V), sigma, offset[id]);
  }

  /** Class ranks, [S, V]; NaN where they have not been counted yet, and for tokens that were removed. */
  ranks(id: number): Float32Array | null {
    if (!this.ranked(id)) return null;
    return this.#keep(id, "ranks", () => {
      const { S, V, removed } = this.snapshot;
      const stored = this.snapshot.classArrays(id)?.ranks;
      const own = this.#stored(id)?.ranks ?? (stored && this.snapshot.spread(stored));
      const out = own ?? new Float32Array(S * V).fill(Number.NaN);
      if (!own) for (let s = 0; s < S; s++) this.all.rank(id, s, out.subarray(s * V, (s + 1) * V));
      for (const t of removed) for (let s = 0; s < S; s++) out[s * V + t] = Number.NaN;
      return out;
    });
  }

  /** Whether the ranks of this class are counted from rounded values. */
  ranksApproximate(id: number): boolean {
    const { meta } = this.snapshot;
    return (
      !this.lens &&
      meta.exactness?.ranks === "approximate" &&
      this.snapshot.classArrays(id)?.ranks === undefined
    );
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
        const stored = this.snapshot.floats(arrayOf(this.number, "lse"));
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
