/** Where the logit of the model's answer stands: what each token brings to it from here on, all else being held. */

import { number, signed } from "../core/format";
import type { Flow, Snapshot } from "../core/snapshot";
import type { Store } from "../core/store";
import { minus, valuesAt } from "./classes";
import type { Field, Question } from "./field";
import { around, robustPeak } from "./scale";

/** Whether the flow of some class is at hand or can be asked for, or there is a reason to tell why not. */
export function knowsFlow(store: Store): boolean {
  const { snapshot } = store.baseline.value;
  return (
    store.state.reading.value === "flow" ||
    store.offers("flow") ||
    snapshot.meta.model.flow_refused !== undefined ||
    snapshot.keptClasses.some((id) => snapshot.classArrays(id)?.flow)
  );
}

/** Why the flow of a class is not at hand, and whether it is on its way. */
export function whyNoFlow(store: Store, snapshot: Snapshot, id: number): readonly [string, boolean] {
  const name = snapshot.shortName(id);
  const { flow_refused } = snapshot.meta.model;
  if (flow_refused) return [flow_refused, false];
  if (store.offers("flow")) {
    return store.notice.value.kind === "error" && store.requests.asked("flow", {}, id)
      ? [`Where the logit of ${name} stands could not be computed.`, false]
      : [`Finding where the logit of ${name} stands …`, true];
  }
  const remedy = store.live
    ? "the model in this page does not compute it"
    : "a running kernel would compute it";
  return [`Where the logit of ${name} stands was not saved; ${remedy}.`, false];
}

/** The sum over tokens at a position, and the share of the biases. */
export function sums(
  { tokens, biases }: Flow,
  position: number,
  { V, T }: Snapshot,
): readonly [number, number] {
  let sum = 0;
  for (let t = 0; t < T; t++) sum += tokens[position * V + t];
  return [sum, biases[position]];
}

export function flowField({ store, snapshot, id, other, versus, empty, filled }: Question): Field {
  const [own, against] = [id, other].map((c) => (c === null ? null : snapshot.classArrays(c)?.flow));
  if (!own || against === undefined) {
    return empty(...whyNoFlow(store, snapshot, own ? (other as number) : id));
  }
  const all = against ? minus(own.tokens, against.tokens) : own.tokens;
  const position = store.position.value;
  const values = valuesAt(all, snapshot, position);
  let [tokens, bias] = sums(own, position, snapshot);
  if (against) {
    const [theirs, others] = sums(against, position, snapshot);
    tokens -= theirs;
    bias -= others;
  }
  return filled(values, {
    ...around(values, robustPeak(all, snapshot)),
    title: `where the logit of ${versus} stands after ${snapshot.points.name(position)}`,
    note: `Tokens ${signed(tokens)} and biases ${signed(bias)} sum to the logit, ${number(tokens + bias)}.`,
    format: (v) => signed(v, 3),
  });
}
