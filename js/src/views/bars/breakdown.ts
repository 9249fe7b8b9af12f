/** What every increment of the residual stream adds to a class: three readings. Pure. */

import type { Kind as Increment, Points } from "../../core/points";
import type { Contribution } from "../../core/state";

export type Kind = Increment | "bias";

/** The statistics of a pass that the readings need; a Snapshot has them. */
export interface Statistics {
  readonly points: Points;
  readonly V: number;
  readonly sigma: Float32Array; // [S, T']
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
 * Mean over `tokens` of what each increment contributes to the class with folded readings `raw` [N, T'] and
 * offset `c`. All three readings are linear in (raw, c): a difference of classes is a difference of breakdowns.
 *
 * direct: raw(increment) / sigma(x_L)                       sums, with c, to the logit
 * step:   lens(after the increment) - lens(before it)       telescopes from lens(x_0) to the logit
 * paper:  lens(increment), beside lens(input of its block)
 */
export function breakdown(
  { points, V, sigma }: Statistics,
  raw: Float32Array,
  c: number,
  tokens: readonly number[],
  reading: Contribution,
): Breakdown {
  const { N, S } = points;
  const values = new Float64Array(N);
  const inputs = new Float64Array(N);
  let logit = 0;
  for (const t of tokens) {
    const final = sigma[(S - 1) * V + t];
    const lens = new Float64Array(N);
    let sum = 0;
    for (let n = 0; n < N; n++) {
      const own = raw[n * V + t];
      sum += own;
      lens[n] = sum / sigma[points.at(n, "residual") * V + t] + c;
      inputs[n] += lens[points.blockInput(n)] / tokens.length;
      let value = own / final;
      if (reading === "step") value = n === 0 ? lens[0] : lens[n] - lens[n - 1];
      if (reading === "paper") value = n === 0 ? lens[0] : own / sigma[points.at(n, "output") * V + t] + c;
      values[n] += value / tokens.length;
    }
    logit += lens[N - 1] / tokens.length;
  }
  const parts: Part[] = [];
  const sums = { embedding: 0, attention: 0, mlp: 0, block: 0, bias: reading === "direct" ? c : 0 };
  for (let n = 0; n < N; n++) {
    const kind = points.kind(n);
    const reference = reading === "paper" && n > 0 ? inputs[n] : null;
    parts.push({ kind, position: n, block: points.place(n).block, value: values[n], reference });
    sums[kind] += values[n];
  }
  if (reading === "direct") parts.push({ kind: "bias", position: -1, block: -1, value: c, reference: null });
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
  const own = parts.filter((p) => p.kind === kind && p.reference !== null);
  return [own.filter((p) => p.value > (p.reference ?? 0)).length, own.length];
}
