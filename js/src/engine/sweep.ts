/** The effect of an intervention at every head, or token, of every block on a class logit: see `classspace_widgets/causal`. */

import { range } from "../core/collections";
import type { Spec } from "../core/spec";
import type { Model } from "./model";
import { run, type Trace } from "./pass";
import { makePlan, Refused } from "./plan";
import { Reader } from "./reader";

export interface Sweep {
  readonly mode: string;
  readonly rows: readonly number[];
  readonly columns: readonly number[];
  readonly baseline: number;
  readonly effect: Float32Array;
}

export type Kind = "heads" | "tokens";

const MODES: Readonly<Record<Kind, readonly string[]>> = { heads: ["zero", "mean"], tokens: ["knock out"] };

function specOf(kind: Kind, mode: string, block: number, place: number, T: number): Spec {
  if (kind === "heads") return { type: "Ablate", sublayer: "head", blocks: [block], heads: [place], mode };
  const readers = range(T, (t) => t).filter((t) => t !== place);
  return { type: "KnockOutAttention", kind: "edges", blocks: [block], readers, sources: [place] };
}

/** A sweep in steps, each of them a pass from its block on; yields the share that is done. */
export function* sweep(
  model: Model,
  trace: Trace,
  kind: Kind,
  mode: string,
  id: number,
): Generator<number, Sweep> {
  if (!MODES[kind]?.includes(mode)) throw new Refused(`This page cannot sweep over ${kind} by "${mode}".`);
  const { L, H, T } = model;
  const baseline = new Reader(model, trace).output()[id];
  const rows = range(L, (l) => l + 1);
  const columns = range(kind === "heads" ? H : T, (i) => i);
  const effect = new Float32Array(L * columns.length);
  let done = 0;
  for (const block of rows) {
    for (const place of columns) {
      const plan = makePlan(model, [specOf(kind, mode, block, place, T)]);
      const after = run(model, trace.increments[0], plan, trace);
      effect[(block - 1) * columns.length + place] = new Reader(model, after).output()[id] - baseline;
      done += L + 1 - block;
      yield (2 * done) / (L * (L + 1) * columns.length);
    }
  }
  return { mode, rows, columns, baseline, effect };
}
