/** What is said of the lens: what it answers, where it has no map, and how far it can be trusted. */

import { number } from "../core/format";
import type { LensInfo } from "../core/meta";
import type { Readings } from "../core/readings";
import type { Store } from "../core/store";

/** Before the measures of the logit lens, among those of a fitted one. */
const OF_LOGIT = "logit: ";
/** Measures of trust that are shown, the most telling first, and what they are called. */
const MEASURES = {
  "average precision": "average precision",
  agreement: "agreement with the answer",
  "promise slope": "promises kept",
};

/** What a lens answers. */
export const questionOf = (lens: LensInfo | undefined): string =>
  lens?.question ?? "what the classifier would read here";

/** Why a lens shows nothing at image tokens. */
export function undefinedHere({ kind, label }: LensInfo): string {
  const why = kind === "jacobian" ? "nothing in the model reads them from here on" : "none was fitted";
  return `The ${label} lens has no map for image tokens here: ${why}.`;
}

/** Why a lens of some classes has no ranks, probabilities and top classes. */
export function ofSomeClasses({ lens, snapshot }: Readings): string {
  return `Only a lens of all ${snapshot.C} classes can tell: the ${lens?.label} lens was fitted for ${lens?.classes?.length}.`;
}

/** A measure of how far a lens can be trusted: values on held-out pictures for the blocks 0..L, NaN where not known. */
export interface Trust {
  readonly name: string;
  readonly own: readonly number[];
  /** The same of the logit lens. */
  readonly logit: readonly number[];
}

/** What is known of the trust in the chosen lens. */
export function trustOf(store: Store): readonly Trust[] {
  const { snapshot, readings } = store.baseline.value;
  // What is known of the logit lens stands with a fitted one.
  const all = (readings.lens ?? snapshot.lenses.find(({ trust }) => trust))?.trust ?? {};
  return Object.entries(MEASURES).flatMap(([measure, name]) => {
    const [fitted, logit] = [all[measure], all[OF_LOGIT + measure]].map((values) =>
      (values ?? []).map((v) => v ?? Number.NaN),
    );
    const own = readings.lens ? fitted : logit;
    return own.some((v) => !Number.isNaN(v)) ? [{ name, own, logit: readings.lens ? logit : [] }] : [];
  });
}

/** "0.67 (logit 0.35)": a measure at a block. */
export function trustAt({ own, logit }: Trust, block: number): string {
  const beside = Number.isNaN(logit[block] ?? Number.NaN) ? "" : ` (logit ${number(logit[block])})`;
  return `${number(own[block])}${beside}`;
}

/** In one sentence what the lens is, and how far it can be trusted at the slider's block. */
export function lensCaption(store: Store): string {
  const { lens } = store.baseline.value.readings;
  const block = store.state.block.value;
  const known = trustOf(store).find(({ own }) => !Number.isNaN(own[block]));
  const error = lens?.error?.[store.point.value];
  const trust = known
    ? `at block ${block}, ${known.name} ${trustAt(known, block)} on held-out pictures`
    : "how far it can be trusted here was not measured";
  const spread = typeof error === "number" ? `, standard error of its map ${number(100 * error, 0)} %` : "";
  return `${lens?.label ?? "logit"} lens: ${questionOf(lens)}; ${trust}${spread}.`;
}
