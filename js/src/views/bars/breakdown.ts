/** What every increment of the residual stream adds to a class: three readings. Pure. */

import { range } from "../../core/collections";
import type { Kind as Increment, Points } from "../../core/points";
import type { Contribution } from "../../core/state";

export type Kind = Increment | "bias";

/** Sizes of a pass; a Snapshot has them. */
export interface Sizes {
  readonly points: Points;
  readonly V: number;
}

/** What is known of a class. */
export interface Known {
  /** Contributions of the increments to the final logit [N, T']. */
  readonly direct: Float32Array;
  /** Through the lens [S, T']. */
  readonly logits: Float32Array;
  readonly offset: number;
}

export interface Part {
  readonly kind: Kind;
  /** Slider position, which is also the increment; -1 for the bias. */
  readonly position: number;
  readonly block: number;
  readonly value: number;
  /** What it is held against in the paper's reading: the lens logit of the block's input. */
  readonly reference: number | null;
}

export interface Breakdown {
  readonly parts: readonly Part[];
  readonly embedding: number;
  readonly attention: number;
  readonly mlp: number;
  readonly bias: number;
  /** Lens logit of the last residual: the model's own logit at the output token. */
  readonly logit: number;
}

/**
 * Mean over `tokens` of what each increment contributes to a class. All three readings are linear in what is known of it: a
 * difference of classes is a difference of breakdowns.
 *
 * direct: raw(increment) / sigma(x_L)                       sums, with the offset, to the logit
 * step:   lens(after the increment) - lens(before it)       telescopes from lens(x_0) to the logit
 * paper:  lens(increment), beside lens(input of its block)
 */
export function breakdown(
  { points, V }: Sizes,
  { direct, logits, offset }: Known,
  tokens: readonly number[],
  reading: Contribution,
): Breakdown {
  const { N } = points;
  const mean = (all: Float32Array, row: number) => {
    let sum = 0;
    for (const t of tokens) sum += all[row * V + t] / tokens.length;
    return sum;
  };
  const after = range(N, (n) => mean(logits, points.at(n, "residual")));
  const inputs = range(N, (n) => after[points.blockInput(n)]);
  const values = range(N, (n) => {
    if (reading === "direct") return mean(direct, n);
    if (n === 0) return after[0];
    return reading === "step" ? after[n] - after[n - 1] : mean(logits, points.at(n, "output"));
  });
  const logit = after[N - 1];
  const parts: Part[] = [];
  const sums = { embedding: 0, attention: 0, mlp: 0, block: 0, bias: reading === "direct" ? offset : 0 };
  for (let n = 0; n < N; n++) {
    const kind = points.kind(n);
    const reference = reading === "paper" && n > 0 ? inputs[n] : null;
    parts.push({ kind, position: n, block: points.place(n).block, value: values[n], reference });
    sums[kind] += values[n];
  }
  if (reading === "direct")
    parts.push({ kind: "bias", position: -1, block: -1, value: offset, reference: null });
  const { embedding, attention, mlp, block, bias } = sums;
  return { parts, embedding, attention, mlp: mlp + block, bias, logit };
}

/** `a` minus `b`, part by part. */
export function difference(a: Breakdown, b: Breakdown): Breakdown {
  return {
    parts: a.parts.map((p, i) => ({
      ...p,
      value: p.value - b.parts[i].value,
      reference: p.reference === null ? null : p.reference - (b.parts[i].reference ?? 0),
    })),
    embedding: a.embedding - b.embedding,
    attention: a.attention - b.attention,
    mlp: a.mlp - b.mlp,
    bias: a.bias - b.bias,
    logit: a.logit - b.logit,
  };
}

/** In how many blocks a sublayer's own reading exceeds that of the block's input. */
export function exceeding(parts: readonly Part[], kind: Kind): [number, number] {
  const own = parts.filter((p) => p.kind === kind && p.reference !== null && !Number.isNaN(p.value));
  return [own.filter((p) => p.value > (p.reference ?? 0)).length, own.length];
}
