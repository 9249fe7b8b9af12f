/** What the head grid shows: contributions of heads at tokens, and why there are none. */

import type { Data } from "../../core/passes";
import type { Shown } from "../../core/state";
import type { Store } from "../../core/store";
import { tokensName } from "../words";

/** Values [L, H] of heads for a class at the mean of some tokens; null where nothing is at hand. */
export interface Heads {
  readonly tokens: readonly number[];
  readonly values: Float32Array | null;
}

/** The tokens that are known, and their mean values, of a pass or of the change. */
export function headsOf(store: Store, shown: Shown): Heads {
  const classes = store.classes.value;
  const [data, before] = store.passes(shown);
  let tokens: readonly number[] = knownTokens(data, classes, store.activeTokens.value);
  if (before) tokens = knownTokens(before, classes, tokens);
  if (tokens.length === 0) return { tokens, values: null };
  const values = headValues(data, classes, tokens);
  const base = before && headValues(before, classes, tokens);
  return { tokens, values: base ? values.map((v, i) => v - base[i]) : values };
}

/** Of `tokens`, those whose head readings are at hand for all `classes`. */
function knownTokens({ readings }: Data, classes: readonly number[], tokens: readonly number[]): number[] {
  return tokens.filter((t) => classes.every((id) => readings.headDirect(id, t) !== null));
}

/** Mean over `tokens` of the heads' direct contributions [L, H], first class minus the second. */
function headValues({ snapshot, readings }: Data, classes: readonly number[], tokens: readonly number[]) {
  const out = new Float32Array(snapshot.L * snapshot.H);
  for (const [k, id] of classes.entries()) {
    for (const t of tokens) {
      const own = readings.headDirect(id, t);
      const weight = (k === 0 ? 1 : -1) / tokens.length;
      if (own) for (let i = 0; i < out.length; i++) out[i] += weight * own[i];
    }
  }
  return out;
}

/** Whether heads can be read at all: the model's are defined, and the trace was taken with its attention. */
export function recorded(store: Store): boolean {
  const { attention, model } = store.baseline.value.snapshot.meta;
  return attention !== undefined && !model.heads_refused;
}

/** Why there are no heads to be seen. */
export function whyNone(store: Store, tokens: readonly number[]): string {
  const refused = store.baseline.value.snapshot.meta.model.heads_refused;
  if (refused) return `The heads of this model cannot be read one by one: ${refused}.`;
  if (!recorded(store)) {
    return "This trace was taken without its attention heads: take it with attention=True, heads=True to see them here.";
  }
  const { snapshot } = store.data.value;
  const name = snapshot.shortName(store.state.class_index.value);
  const what = `heads for ${name} at ${tokensName(snapshot, tokens)}`;
  if (!store.live) {
    return `The ${what} were not saved; a running kernel would fetch them.`;
  }
  return store.notice.value.kind === "error" ? `The ${what} could not be read.` : `Reading ${what} …`;
}
