/** The curves of the slider: rank or logit of the class over all positions. */

import { computed, type ReadonlySignal, type Signal } from "@preact/signals-core";
import type { Data } from "../../core/passes";
import type { Store } from "../../core/store";
import { along } from "../trajectories/lines";

export type Measure = "rank" | "logit";
type Curve = Float32Array | null;

export interface Curves {
  readonly measure: ReadonlySignal<Measure>;
  /** Of the pass that is shown. */
  readonly shown: ReadonlySignal<Curve>;
  /** Of the pass before, while another one is shown. */
  readonly before: ReadonlySignal<Curve>;
  /** Of the pass that is not shown: the scale has room for both. */
  readonly unshown: ReadonlySignal<Curve>;
  /** Where the rank is best for the first time; null as long as some are not known. */
  readonly best: ReadonlySignal<{ readonly rank: number; readonly position: number } | null>;
}

export function curvesOf(store: Store, measure: Signal<Measure>): Curves {
  const { state, data, baseline, intervened } = store;
  /** Values at every position: mean over the active tokens. */
  const curve = ({ snapshot, readings }: Data, kind = measure.value): Curve => {
    const id = state.class_index.value;
    const all = kind === "rank" ? readings.ranks(id) : readings.logits(id);
    const points = snapshot.points.along(state.stream.value);
    return all && Float32Array.from(along(all, snapshot.V, points, store.activeTokens.value));
  };
  return {
    measure,
    shown: computed(() => curve(data.value)),
    before: computed(() => store.changed.value && curve(baseline.value)),
    unshown: computed(
      () => intervened.value && curve(data.value === baseline.value ? intervened.value : baseline.value),
    ),
    best: computed(() => {
      const ranks = curve(data.value, "rank");
      const known = ranks?.filter((v) => !Number.isNaN(v)) ?? [];
      const open =
        ranks && known.length < ranks.length && !data.value.snapshot.sparse && !data.value.readings.lens;
      if (!ranks || known.length === 0 || open) return null;
      const rank = Math.min(...known);
      return { rank, position: ranks.indexOf(rank) };
    }),
  };
}
