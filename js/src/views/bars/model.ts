/** What the bars show: contributions of a pass or of the change, to a class or a difference of two. */

import type { Data } from "../../core/passes";
import type { Points } from "../../core/points";
import type { Contribution, Shown } from "../../core/state";
import type { Store } from "../../core/store";
import { absence } from "../words";
import { type Breakdown, breakdown, difference } from "./breakdown";

export interface Model {
  readonly points: Points;
  readonly mode: Contribution;
  /** What the parts add up to. */
  readonly total: "logit" | "difference" | "change";
  readonly shown: Breakdown;
  /** The two terms of a difference, each with its name. */
  readonly terms: readonly (readonly [string, Breakdown])[];
}

/** Direct contributions are to the final logit, and so the logit lens's. */
const through = ({ readings }: Data, mode: Contribution) => (mode === "direct" ? readings.base : readings);

/** The bars of the passes before and after an intervention, or of the change; or why there is nothing. */
export function modelOf(store: Store, shown: Shown): Model | string {
  const mode = store.state.contribution.value;
  const [data, before] = store.passes(shown);
  const of = (pass: Data, id: number): Breakdown | null => {
    const readings = through(pass, mode);
    const [direct, logits] = [readings.direct(id), readings.logits(id)];
    return (
      direct &&
      logits &&
      breakdown(
        pass.snapshot,
        { direct, logits, offset: pass.snapshot.offset[id] },
        store.activeTokens.value,
        mode,
      )
    );
  };
  const terms: [string, Breakdown][] = [];
  for (const id of store.classes.value) {
    const name = data.snapshot.shortName(id);
    const own = of(data, id);
    if (!own) return absence(store, { ...data, readings: through(data, mode) }, id);
    const base = before && of(before, id);
    terms.push([name, base ? difference(own, base) : own]);
  }
  const two = terms.length > 1;
  return {
    points: data.snapshot.points,
    mode,
    total: before ? "change" : two ? "difference" : "logit",
    shown: two ? difference(terms[0][1], terms[1][1]) : terms[0][1],
    terms: two ? terms : [],
  };
}

/** All values that the bars need room for. */
export const valuesOf = ({ shown }: Model): number[] =>
  shown.parts.flatMap((p) => [p.value, p.reference ?? 0]);
