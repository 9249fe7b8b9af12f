/** What all views have: a root in the element around, a width that is followed, and words where they cannot be shown. */

import { type ReadonlySignal, signal } from "@preact/signals-core";
import { message } from "../core/codec";
import { attach, h } from "../core/dom";
import { guard, onAbort } from "../core/frame";

/** The view's root inside `el`; taken out again on abort. */
export function root(el: HTMLElement, abort: AbortSignal, kind: string, label: string): HTMLElement {
  const node = h("section", { class: `csw-view csw-${kind}`, "aria-label": label });
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
    attach(el, problem(`${name} cannot be shown`, error), abort);
  };
  onAbort(abort, () => own.abort());
  guard(own.signal, fail);
  try {
    mount(own.signal);
  } catch (error) {
    fail(error);
  }
}

/** Content width in whole pixels, followed; 320 until it is known. */
export function widthOf(el: HTMLElement, abort: AbortSignal): ReadonlySignal<number> {
  const width = signal(Math.floor(el.clientWidth) || 320);
  const observer = new ResizeObserver(() => {
    const now = Math.floor(el.clientWidth);
    if (now > 0) width.value = now;
  });
  observer.observe(el);
  onAbort(abort, () => observer.disconnect());
  return width;
}

/** Hidden, with its place kept wherever it may be shown later. */
export function keepPlace(node: HTMLElement, shown: boolean, possible: boolean): void {
  node.hidden = !possible && !shown;
  node.style.visibility = shown ? "" : "hidden";
}
