/** Words that several views use. */

import type { Data } from "../core/passes";
import type { Snapshot } from "../core/snapshot";
import type { Store } from "../core/store";
import { notAtHand } from "../fields/field";

/** "tabby" or "tabby − tiger cat". */
export function subject(store: Store, snapshot: Snapshot): string {
  const { class_index, compare_index } = store.state;
  const name = snapshot.shortName(class_index.value);
  const other = compare_index.value;
  return other === null ? name : `${name} − ${snapshot.shortName(other)}`;
}

/** " · jacobian"; nothing for the logit lens. */
export function lensName(store: Store): string {
  const { lens } = store.data.value.readings;
  return lens ? ` · ${lens.label}` : "";
}

/** "[CLS]", "patch 3, 4" or "mean of 5 tokens". */
export function tokensName(snapshot: Snapshot, tokens: readonly number[]): string {
  return tokens.length === 1 ? snapshot.tokenName(tokens[0]) : `mean of ${tokens.length} tokens`;
}

/** The same at more length: "patch row 3, column 4". */
export function placeName(snapshot: Snapshot, tokens: readonly number[]): string {
  return tokensName(snapshot, tokens).replace(/^patch (\d+), /, "patch row $1, column ");
}

/** Why there is nothing to see for a class yet, or at all. */
export function absence(store: Store, { snapshot, readings }: Data, id: number): string {
  const name = snapshot.shortName(id);
  const { payload } = snapshot.meta;
  if (!store.live && payload.ranks_only)
    return "Only ranks and top classes are in this page, no logits or contributions.";
  return notAtHand(store, name, readings, id);
}
