/** A state that is taken at one token and put at others: the intervention `PatchResidual`, its obstacles and its words. */

import type { Snapshot } from "./snapshot";
import type { Spec } from "./spec";
import type { Store } from "./store";

export interface Carried {
  /** Of the second picture; else of the same one. */
  readonly second: boolean;
  /** The token whose state is taken; null: every token takes the state of its own number. */
  readonly token: number | null;
  /** The blocks after which it is taken, and put; 0 is the embedding. */
  readonly from: number;
  readonly to: number;
}

/** Name of the second picture among the sources of interventions. */
const OTHER = "other";

/** The blocks that are chosen: those of the layer slider unless told otherwise. */
export function blocksOf({ state }: Store): Pick<Carried, "from" | "to"> {
  const own = state.block.value;
  return { from: state.source_block.value ?? own, to: state.target_block.value ?? own };
}

export function carriedSpec({ second, token, from, to }: Carried, tokens: readonly number[]): Spec {
  return {
    type: "PatchResidual",
    target_block: to,
    tokens,
    ...(second ? { source: OTHER } : {}),
    ...(from === to ? {} : { source_block: from }),
    ...(token === null ? {} : { source_token: token }),
  };
}

/** What a step carries, if it is such a one. */
export function carriedOf(spec: Readonly<Record<string, unknown>>): Carried | null {
  const { type, source, target_block, source_block, source_token } = spec;
  if (type !== "PatchResidual" || (source !== undefined && source !== OTHER)) return null;
  const to = Number(target_block);
  const from = typeof source_block === "number" ? source_block : to;
  return {
    second: source === OTHER,
    token: typeof source_token === "number" ? source_token : null,
    from,
    to,
  };
}

/** Why it cannot be done; empty when it can. */
export function carriedObstacle(
  { second, token, from, to }: Carried,
  there: boolean,
  { T }: Snapshot,
): string {
  if (second && !there) return "There is no second picture: choose one first.";
  if (!second && token === null) return "Say which token's state is taken: its number, or drag a patch.";
  if (token !== null && !(Number.isInteger(token) && token >= 0 && token < T))
    return `Tokens are numbered 0 to ${T - 1}.`;
  if (!second && from > to)
    return `Within a picture, the state after block ${from} is not there yet after block ${to}: put it after block ${from} or later, or take it from a second picture.`;
  return "";
}

/** "patch 2, 3 of the second picture → patch 4, 4, after block 5". */
export function carriedWords(
  { second, token, from, to }: Carried,
  tokens: readonly number[],
  own: Snapshot,
): string {
  const taken = `${token === null ? "states" : own.tokenName(token)}${second ? " of the second picture" : ""}`;
  const place = tokens.length === 1 ? own.tokenName(tokens[0]) : `${tokens.length} tokens`;
  const after = (block: number) => (block === 0 ? "at the embedding" : `after block ${block}`);
  return from === to
    ? `${taken} → ${place}, ${after(to)}`
    : `${taken}, ${after(from)} → ${place}, ${after(to)}`;
}
