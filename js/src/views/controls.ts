/** Controls that several views have. */

import { type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { assign, button, dataAt, h, listen, setPressed, unique } from "../core/dom";
import { watch } from "../core/frame";
import type { Store } from "../core/store";
import { keepPlace } from "./parts";
import { OWN_KEYS } from "./roving";

/** Native radio buttons that look like one segmented control. */
export function segmented<T extends string>(
  abort: AbortSignal,
  label: string,
  choices: readonly (readonly [T, string])[],
  value: Signal<T>,
  pick = (chosen: T) => {
    value.value = chosen;
  },
): HTMLElement {
  const name = unique("choice");
  const inputs = choices.map(([choice]) => h("input", { type: "radio", name, value: choice }));
  const node = h(
    "div",
    { class: "csw-segments", role: "radiogroup", "aria-label": label, ...OWN_KEYS },
    ...choices.map(([, text], i) => h("label", {}, inputs[i], h("span", { class: "csw-segment" }, text))),
  );
  listen(node, abort, { change: (event) => pick((event.target as HTMLInputElement).value as T) });
  watch(abort, () => {
    for (const input of inputs) input.checked = input.value === value.value;
  });
  return node;
}

/** Choices of a native select: values and texts. */
export function options(list: Iterable<readonly [value: string | number, text: string]>): HTMLElement[] {
  return [...list].map(([value, text]) => h("option", { value }, text));
}

/** A native select. */
export function select(
  label: string,
  list: Iterable<readonly [value: string | number, text: string]> = [],
): HTMLSelectElement {
  return h("select", { class: "csw-select", "aria-label": label }, ...options(list));
}

/** A checkbox with its words. */
export function checkbox(
  abort: AbortSignal,
  text: string,
  value: Signal<boolean>,
  title: string | null = null,
): HTMLElement {
  const input = h("input", { type: "checkbox" });
  listen(input, abort, {
    change: () => {
      value.value = input.checked;
    },
  });
  watch(abort, () => {
    input.checked = value.value;
  });
  return h("label", { class: "csw-check", title }, input, text);
}

/** A button that is on or off. */
export function toggle(
  abort: AbortSignal,
  text: string,
  title: string,
  value: Signal<boolean>,
): HTMLButtonElement {
  const node = button({ class: "csw-toggle", title }, text);
  listen(node, abort, {
    click: () => {
      value.value = !value.peek();
    },
  });
  watch(abort, () => setPressed(node, value.value));
  return node;
}

/** Whether a pass with an intervention is there, or may come: what is of it has its place kept. */
export const whatIfPossible = (store: Store): boolean =>
  store.kernel.value !== "none" || store.pinned.value.length > 0;

/** Shown while there is a pass with an intervention. */
function whileIntervened<Node extends HTMLElement>(node: Node, store: Store, abort: AbortSignal): Node {
  watch(abort, () => keepPlace(node, store.intervened.value !== null, whatIfPossible(store)));
  return node;
}

/** A switch between one scale for the passes before and after and their change, and a scale of each its own. */
export function scaleSwitch(
  store: Store,
  abort: AbortSignal,
): readonly [HTMLElement, ReadonlySignal<boolean>] {
  const own = signal(false);
  const node = toggle(abort, "own scale", "Before, After and Change each on its own scale", own);
  return [whileIntervened(node, store, abort), own];
}

/** Which pass is shown: of all views of a session, so it stands once in what is composed of several. */
export function passChoice(store: Store, abort: AbortSignal): HTMLElement {
  const choice = segmented(
    abort,
    "Pass",
    [
      ["baseline", "Before"],
      ["intervened", "After"],
      ["difference", "Change"],
    ],
    store.state.shown,
  );
  assign(choice, { title: "The model's own pass, the pass with the intervention, or the change (key D)" });
  return whileIntervened(choice, store, abort);
}

/** A click on what carries a class (`data-class`) chooses it. */
export function choosesClass(node: HTMLElement, store: Store, abort: AbortSignal): void {
  listen(node, abort, {
    click: (event) => {
      const id = dataAt(event, "class");
      if (id !== undefined) store.set({ class_index: Number(id) });
    },
  });
}
