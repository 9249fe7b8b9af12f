/** Tokens that stand out: how long the residual stream is at each of them, and how much attention each receives. */

import { number, percent } from "../core/format";
import type { Field, Question } from "./field";
import { peakOf, sequential } from "./scale";

/** As many medians as `metrics.token_norms` takes for an outlier. */
export const OUTLIER = 3;

/** Lengths in units of the median of image tokens. */
export function normField({ store, snapshot, empty, filled }: Question): Field {
  const all = snapshot.floats("norms");
  if (!all) return empty("The lengths of tokens were not saved.");
  const { V, T, prefix } = snapshot;
  const at = store.position.value * V;
  const own = all.subarray(at, at + V);
  const sorted = own
    .slice(prefix, T)
    .filter((v) => !Number.isNaN(v))
    .sort();
  const median = sorted[(sorted.length - 1) >> 1] || 1;
  const values = own.map((v) => v / median);
  const patches = values.subarray(prefix, T);
  const long = patches.filter((v) => v > OUTLIER).length;
  const many = long === 1 ? "1 patch is" : `${long || "No"} patch${long ? "es are" : " is"}`;
  return filled(values, {
    ...sequential(0, Math.max(2, peakOf(patches))),
    title: "length of each token, in medians",
    format: (v) => number(v),
    note: `${many} longer than ${OUTLIER} medians here; the longest has ${number(peakOf(patches))}.`,
  });
}

export function receivedField({ store, snapshot, empty, filled }: Question): Field {
  const all = snapshot.floats("received");
  if (!all) return empty("How much attention tokens receive was not saved.");
  const block = store.state.block.value;
  if (block === 0) return empty("The embedding reads no tokens: move to a block.");
  const { V, T, prefix } = snapshot;
  const values = all.subarray((block - 1) * V, block * V);
  return filled(values, {
    ...sequential(0, peakOf(values.subarray(prefix, T))),
    title: `share of block ${block}'s attention received`,
    format: percent,
  });
}
