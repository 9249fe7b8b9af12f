/** The best classes of one stream point, averaged over tokens. Pure. */

import { logSumExpOf, topOf } from "../../core/derive";
import type { Data } from "../../core/passes";
import { arrayOf } from "../../core/snapshot";

export interface Entry {
  readonly id: number;
  readonly logit: number;
  /** NaN when the snapshot cannot tell. */
  readonly probability: number;
}

/** Mean over tokens of the lens logits of all classes, as far as known: [C]; null when they are not at hand. */
function meanLogits(
  { snapshot, readings }: Data,
  point: number,
  tokens: readonly number[],
): Float64Array | null {
  const all = readings.all.logits(point);
  if (!all) return null;
  const { C, V } = snapshot;
  const out = new Float64Array(C);
  for (let c = 0; c < C; c++) for (const t of tokens) out[c] += all[c * V + t] / tokens.length;
  return out;
}

/** log-sum-exp over the classes for each token, from all logits or as stored. */
function normalisers({ snapshot, readings }: Data, point: number, tokens: readonly number[]): number[] {
  const { C, V } = snapshot;
  const all = readings.all.logits(point);
  const stored = snapshot.floats(arrayOf(readings.number, "lse"));
  const row = snapshot.rowOf(point);
  return tokens.map((t) =>
    all ? logSumExpOf(all, C, V, t) : ((row < 0 ? undefined : stored?.[row * V + t]) ?? Number.NaN),
  );
}

/** Of `tokens`, those that the lens can read here. */
const readable = ({ readings }: Data, point: number, tokens: readonly number[]) =>
  tokens.filter((t) => readings.defined(point, t));

export function topClasses(data: Data, point: number, given: readonly number[], count: number): Entry[] {
  const tokens = readable(data, point, given);
  if (tokens.length === 0) return [];
  const { snapshot, readings } = data;
  const { V } = snapshot;
  const lse = normalisers(data, point, tokens);
  const all = readings.all.logits(point);
  const mean = meanLogits(data, point, tokens);
  const entry = (id: number, at: (token: number) => number): Entry => {
    let logit = 0;
    let probability = 0;
    tokens.forEach((t, i) => {
      logit += at(t) / tokens.length;
      probability += Math.exp(at(t) - lse[i]) / tokens.length;
    });
    return { id, logit, probability };
  };
  if (all && mean) {
    return topOf(mean, mean.length, 1, 0, count).map(({ id }) => entry(id, (t) => all[id * V + t]));
  }
  // Only the stored best of every token: candidates whose reading is known at each of them.
  const candidates = new Map<number, Entry>();
  for (const t of tokens) {
    for (const { id, logit } of readings.all.top(point, t) ?? []) {
      if (candidates.has(id)) continue;
      const own = readings.logits(id);
      if (!own && tokens.length > 1) continue;
      candidates.set(
        id,
        entry(id, (token) => own?.[point * V + token] ?? logit),
      );
    }
  }
  return [...candidates.values()].sort((a, b) => b.logit - a.logit).slice(0, count);
}

/** Mean rank of a class over the tokens; null when the class is not at hand, NaN when not counted yet. */
export function meanRank(data: Data, id: number, point: number, given: readonly number[]): number | null {
  const ranks = data.readings.ranks(id);
  if (!ranks) return null;
  const tokens = readable(data, point, given);
  return tokens.reduce((sum, t) => sum + ranks[point * data.snapshot.V + t], 0) / tokens.length;
}
