/** What the chart views share: their frame, their words, and a segmented choice. */

import { type ReadonlySignal, signal } from "@preact/signals-core";
import { message } from "../core/codec";
import { attach, claim, h, say, unique } from "../core/dom";
import { shortName } from "../core/format";
import { guard, watch } from "../core/frame";
import type { Snapshot } from "../core/snapshot";
import type { Store } from "../core/store";

/** The view's root inside `el`; taken out again on abort. */
export function root(el: HTMLElement, abort: AbortSignal, kind: string, label: string): HTMLElement {
  const node = h("section", { class: `csw-view csw-chart csw-${kind}`, "aria-label": label });
  attach(el, node, abort);
  return node;
}

/** Words where a view would be. */
export function problem(title: string, error: unknown): HTMLElement {
  return h("div", { class: "csw-problem", role: "alert" }, h("strong", {}, title), message(error));
}

/** Mount a view; where it cannot be shown, or no longer, words stand in its place and the views beside it go on. */
export function protect(
  el: HTMLElement,
  abort: AbortSignal,
  name: string,
  mount: (own: AbortSignal) => void,
): void {
  const own = new AbortController();
  const fail = (error: unknown) => {
    if (own.signal.aborted) return;
    own.abort();
    console.error(error);
    const words = problem(`${name} cannot be shown`, error);
    attach(el, words, abort);
  };
  abort.addEventListener("abort", () => own.abort());
  guard(own.signal, fail);
  try {
    mount(own.signal);
  } catch (error) {
    fail(error);
  }
}

/** Content width in whole pixels, followed. */
export function widthOf(el: HTMLElement, abort: AbortSignal): ReadonlySignal<number> {
  const width = signal(Math.floor(el.clientWidth) || 320);
  const observer = new ResizeObserver(() => {
    const now = Math.floor(el.clientWidth);
    if (now > 0) width.value = now;
  });
  observer.observe(el);
  abort.addEventListener("abort", () => observer.disconnect());
  return width;
}

/** "tabby" or "tabby − tiger cat". */
export function subject(store: Store, snapshot: Snapshot): string {
  const { class_index, compare_index } = store.state;
  const name = shortName(snapshot.className(class_index.value));
  const other = compare_index.value;
  return other === null ? name : `${name} − ${shortName(snapshot.className(other))}`;
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
export function absence(store: Store, name: string): string {
  if (store.kernel.value === "live") return `Reading ${name} …`;
  const { payload } = store.data.value.snapshot.meta;
  if (payload.ranks_only) return "Only ranks and top classes are in this page, no logits or contributions.";
  return `The readings of ${name} are not in what was saved; with a kernel they would be fetched.`;
}

/** Milliseconds: what is done sooner shows no progress, which would only flicker. */
const QUICK = 150;

/** What the kernel does and why it failed, in words; beside a single view `only` what failed. */
export function statusLine(store: Store, abort: AbortSignal, only?: "error"): HTMLElement {
  const text = h("span", {});
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const dismiss = h("button", { class: "csw-link", type: "button" }, "dismiss");
  const status = h("div", { class: "csw-status", role: "status" }, bar, text, dismiss);
  let later: ReturnType<typeof setTimeout> | undefined;
  const show = (shown: boolean) => {
    clearTimeout(later);
    later = undefined;
    status.hidden = !shown;
  };
  abort.addEventListener("abort", () => clearTimeout(later));
  watch(abort, () => {
    const { kind, text: words, progress } = store.notice.value;
    const gone = store.kernel.value === "gone";
    const idle = gone ? "The kernel is gone. What is here keeps working; run the cell again for more." : "";
    say(text, kind === "idle" ? idle : words + (kind === "busy" ? " …" : ""));
    status.dataset.kind = kind;
    if (text.textContent === "" || (only ?? kind) !== kind) show(false);
    else if (kind !== "busy") show(true);
    else if (status.hidden) later ??= setTimeout(show, QUICK, true);
    bar.hidden = kind !== "busy";
    if (progress === null) bar.removeAttribute("value");
    else bar.value = progress;
    dismiss.hidden = kind !== "error";
  });
  dismiss.addEventListener("click", () => store.dismiss(), { signal: abort });
  return status;
}

/** JupyterLab in command mode would take the arrow keys for moving between cells. */
export const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

/** Native radio buttons that look like one segmented control. */
export function segmented<T extends string>(
  abort: AbortSignal,
  label: string,
  choices: readonly (readonly [T, string])[],
  value: ReadonlySignal<T>,
  pick: (value: T) => void,
): HTMLElement {
  const name = unique("choice");
  const inputs = choices.map(([choice]) => h("input", { type: "radio", name, value: choice }));
  const node = h(
    "div",
    { class: "csw-segments", role: "radiogroup", "aria-label": label, ...OWN_KEYS },
    ...choices.map(([, text], i) => h("label", {}, inputs[i], h("span", { class: "csw-segment" }, text))),
  );
  node.addEventListener("change", (event) => pick((event.target as HTMLInputElement).value as T), {
    signal: abort,
  });
  watch(abort, () => {
    for (const input of inputs) input.checked = input.value === value.value;
  });
  return node;
}

/** Whether a pass with an intervention is there, or may come: what is of it has its place kept. */
export const whatIfPossible = (store: Store): boolean =>
  store.kernel.value !== "none" || store.pinned.value.length > 0;

/** Hidden, with its place kept wherever it may be shown later. */
export function keepPlace(node: HTMLElement, shown: boolean, possible: boolean): void {
  node.hidden = !possible && !shown;
  node.style.visibility = shown ? "" : "hidden";
}

/** Shown while there is a pass with an intervention. */
function whileIntervened(node: HTMLElement, store: Store, abort: AbortSignal): HTMLElement {
  watch(abort, () => keepPlace(node, store.intervened.value !== null, whatIfPossible(store)));
  return node;
}

/** A switch between one scale for the passes before and after and their change, and a scale of each its own. */
export function fitButton(store: Store, abort: AbortSignal): readonly [HTMLElement, ReadonlySignal<boolean>] {
  const own = signal(false);
  const node = h("button", { type: "button", class: "csw-toggle" }, "own scale");
  node.title = "Before, After and Change each on its own scale";
  const turn = () => {
    own.value = !own.peek();
  };
  node.addEventListener("click", turn, { signal: abort });
  watch(abort, () => node.setAttribute("aria-pressed", String(own.value)));
  return [whileIntervened(node, store, abort), own];
}

/** Which pass is shown: of all views of a session, so it stands once in what is composed of several. */
export function passes(store: Store, abort: AbortSignal): HTMLElement {
  const choice = segmented(
    abort,
    "Pass",
    [
      ["baseline", "Before"],
      ["intervened", "After"],
      ["difference", "Change"],
    ],
    store.state.shown,
    (value) => store.set({ shown: value }),
  );
  choice.title = "The model's own pass, the pass with the intervention, or the change (key D)";
  return whileIntervened(choice, store, abort);
}

/** A click on what carries a class (`data-class`) chooses it. */
export function choosesClass(node: HTMLElement, store: Store, abort: AbortSignal): void {
  node.addEventListener(
    "click",
    (event) => {
      const id = (event.target as Element).closest<HTMLElement>("[data-class]")?.dataset.class;
      if (id !== undefined) store.set({ class_index: Number(id) });
    },
    { signal: abort },
  );
}

/** Arrow keys, Home and End over `count` places in a row; null when the key is not one of them. */
export function stepKey(key: string, index: number, count: number): number | null {
  if (key === "ArrowRight" || key === "ArrowDown") return Math.min(index + 1, count - 1);
  if (key === "ArrowLeft" || key === "ArrowUp") return Math.max(index - 1, 0);
  if (key === "Home") return 0;
  if (key === "End") return count - 1;
  return null;
}

/** Where a key leads in a grid whose cells are numbered row by row; null when it is not a grid key. */
export function gridKey(
  key: string,
  index: number,
  columns: number,
  rows: number,
  control = false,
): number | null {
  const last = columns * rows - 1;
  const column = index % columns;
  const start = index - column;
  const end = start + columns - 1;
  const keys: Readonly<Record<string, number>> = {
    ArrowRight: Math.min(index + 1, end),
    ArrowLeft: Math.max(index - 1, start),
    ArrowDown: index + columns > last ? index : index + columns,
    ArrowUp: index < columns ? index : index - columns,
    Home: control ? 0 : start,
    End: control ? last : end,
    PageUp: column,
    PageDown: last - columns + 1 + column,
  };
  return keys[key] ?? null;
}

/** Arrow keys, Home and End go through the buttons of a list. */
export function walk(event: KeyboardEvent): void {
  const list = event.currentTarget as HTMLElement;
  const buttons = [...list.querySelectorAll<HTMLButtonElement>("li:not([hidden]) button")];
  const index = buttons.indexOf(event.target as HTMLButtonElement);
  const next = index < 0 ? null : stepKey(event.key, index, buttons.length);
  if (next === null) return;
  buttons[next].focus();
  claim(event);
}
