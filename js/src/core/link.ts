/** Links the states of two stores in the browser: no kernel in between. */

import { effect, type Signal } from "@preact/signals-core";
import { onAbort } from "./frame";
import { DEFAULTS, LINKED, type State } from "./state";
import type { Store } from "./store";

/** Keep `names` equal in both; the second takes the first's values to start with. Values without sense in the other are not sent. */
export function link(
  first: Store,
  second: Store,
  abort: AbortSignal,
  names: readonly (keyof State)[] = LINKED,
): void {
  for (const name of names) {
    tie(first, second, name, abort);
    tie(second, first, name, abort);
  }
}

function tie(from: Store, to: Store, name: keyof State, abort: AbortSignal): void {
  const source = from.state[name] as Signal<unknown>;
  const target = to.state[name] as Signal<unknown>;
  const stop = effect(() => {
    const { value } = source;
    if (fits(to, name, value)) target.value = value;
  });
  onAbort(abort, stop);
}

/** Whether a value makes sense in a store. */
export function fits(to: Store, name: keyof State, value: unknown): boolean {
  const { snapshot } = to.baseline.peek();
  if (name === "class_index" || name === "compare_index") {
    return value === null || (typeof value === "number" && value < snapshot.C);
  }
  if (name === "lens") return value === DEFAULTS.lens || snapshot.lensNumber(String(value)) >= 0;
  if (name.endsWith("block")) return value === null || (typeof value === "number" && value <= snapshot.L);
  if (name === "tokens") return Array.isArray(value) && value.every((t) => Number(t) < snapshot.V);
  if (name === "head")
    return value === null || (Array.isArray(value) && value[0] <= snapshot.L && value[1] < snapshot.H);
  return true;
}
