/** What a step of a tour waits for: values of the shared state, and what follows from them and from the passes. */

import type { Snapshot } from "../../core/snapshot";
import { ADDRESS, type State } from "../../core/state";
import type { Store } from "../../core/store";
import type { Derived } from "../../generated/tour";
import { headsOf } from "../heads/values";
import { objectTokens } from "../trajectories/lines";
import type { Condition, Operator, Step } from "./tour";

const NAMES: Readonly<Record<string, keyof State>> = ADDRESS;

/** Tokens of the object. */
const object = (store: Store): readonly number[] => objectTokens(store)?.inside ?? [];

/** How many of the object's tokens are among `tokens`, in percent. */
function covered(store: Store, tokens: readonly number[]): number {
  const all = object(store);
  return all.length > 0 ? (100 * all.filter((t) => tokens.includes(t)).length) / all.length : 0;
}

const removed = (store: Store): readonly number[] => store.intervened.value?.snapshot.removed ?? [];

/** What the last intervention does, in the words of a tour. */
function whatIf(store: Store): string {
  const done = store.intervened.value?.snapshot.meta.intervention;
  if (!done) return "none";
  const { type, outside, sublayer } = done.spec?.at(-1) ?? {};
  if (type === "RemoveTokens") return outside ? "keep" : "remove";
  if (type === "MaskTokens") return "blank";
  if (type === "KnockOutAttention") return "cut";
  return type === "Ablate" ? String(sublayer) : "other";
}

/** Mean rank of the class at the slider and the selected tokens. */
function rank(store: Store): number {
  const { snapshot, readings } = store.data.value;
  const ranks = readings.ranks(store.state.class_index.value);
  const tokens = store.activeTokens.value;
  const at = store.point.value * snapshot.V;
  return ranks ? tokens.reduce((sum, t) => sum + ranks[at + t], 0) / tokens.length : Number.NaN;
}

/** Place of the chosen head by its direct contribution, from 1. */
function headPlace(store: Store): number {
  const head = store.state.head.value;
  const { values } = headsOf(store, "baseline");
  if (!head || !values) return Number.NaN;
  const own = values[(head[0] - 1) * store.data.value.snapshot.H + head[1]];
  return 1 + values.filter((v) => v > own).length;
}

const DERIVED: Readonly<Record<Derived, (store: Store, before: Snapshot) => unknown>> = {
  rank,
  answer: (store) => store.data.value.snapshot.predicted(1)[0]?.id,
  "selected object": (store) => covered(store, store.state.tokens.value),
  "removed object": (store) => covered(store, removed(store)),
  removed,
  "head place": headPlace,
  "what-if": whatIf,
  "new picture": (store, before) => (store.baseline.value.snapshot === before ? "no" : "yes"),
};

const sorted = (value: unknown) =>
  JSON.stringify(Array.isArray(value) ? [...value].sort((a, b) => a - b) : value);

const COMPARE: Readonly<Record<Operator, (own: unknown, value: unknown) => boolean>> = {
  "=": (own, value) => sorted(own) === sorted(value),
  "!=": (own, value) => sorted(own) !== sorted(value),
  "<": (own, value) => Number(own) < Number(value),
  ">": (own, value) => Number(own) > Number(value),
  "<=": (own, value) => Number(own) <= Number(value),
  ">=": (own, value) => Number(own) >= Number(value),
};

/** Whether a condition holds; `before` is the picture with which its step began. Whoever asks is told of changes. */
export function holds(store: Store, [fact, operator, value]: Condition, before: Snapshot): boolean {
  const name = NAMES[fact];
  const own = name
    ? store.state[name].value
    : (DERIVED as Record<string, (typeof DERIVED)[Derived] | undefined>)[fact]?.(store, before);
  const ordered = fact === "head" ? JSON.stringify(own) === JSON.stringify(value) : null;
  if (ordered !== null) return ordered === (operator === "=");
  return COMPARE[operator](own, value === "object" ? object(store) : value);
}

/** Set what a step begins with. */
export function begin(store: Store, { begin: state, undo }: Step): void {
  if (undo && store.intervened.peek() && store.live) store.removeInterventions();
  const tokens = state.tokens === "object" ? { tokens: object(store) } : {};
  store.set({ ...state, ...tokens } as Partial<State>);
}
