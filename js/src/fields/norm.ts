/** How long the residual stream is at every token, in units of the median of image tokens: tokens that stand out. */

import { number } from "../core/format";
import type { Field, Question } from "./field";
import { peakOf, sequential } from "./scale";

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
  return filled(values, {
    ...sequential(0, Math.max(2, peakOf(values.subarray(prefix, T)))),
    title: "length of each token, in medians",
    format: (v) => number(v),
  });
}
