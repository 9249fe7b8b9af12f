/** Mounting a view by name: its frame, its styles, its theme, and words where it cannot be shown. */

import { attach, claim, h, listen } from "./core/dom";
import type { Store } from "./core/store";
import { followTheme } from "./core/theme";
import { VIEWS } from "./views";
import { problem, protect } from "./views/parts";
import { statusLine } from "./views/status";
import { STYLES } from "./views/styles";
import type { Options } from "./views/view";

/** One stylesheet per document or shadow root and version; every rule is scoped to .csw. */
function addStyles(el: HTMLElement): void {
  const root = el.getRootNode();
  const place = root instanceof ShadowRoot ? root : document.head;
  const id = `csw-style-${__VERSION__}`;
  if (place.querySelector(`#${id}`)) return;
  const style = h("style", { id });
  style.textContent = STYLES;
  place.append(style);
}

/** An empty frame in `el`, with styles and theme, that goes away with the signal. */
export function frameIn(el: HTMLElement, abort: AbortSignal): HTMLElement {
  // Without the mark, JupyterLab takes keys for its own: D twice would delete the cell.
  const root = h("div", { class: "csw", "data-lm-suppress-shortcuts": "true" });
  attach(el, root, abort);
  addStyles(root);
  followTheme(root, abort);
  return root;
}

/** Say what is wrong, where the view would be. */
export function showProblem(el: HTMLElement, abort: AbortSignal, title: string, error: unknown): void {
  frameIn(el, abort).append(problem(title, error));
}

/** Key D shows the pass before an intervention, after it, and the change; key L takes the next lens. */
function shortcuts(event: KeyboardEvent, store: Store): void {
  const typing =
    event.target instanceof Element && event.target.matches("input:not([type=range]), textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const key = event.key.toLowerCase();
  if (key === "d" && store.intervened.peek()) store.nextShown();
  else if (key === "l" && store.baseline.peek().snapshot.lenses.length > 0) store.nextLens();
  else return;
  claim(event);
}

export function mountView(
  view: string,
  el: HTMLElement,
  store: Store,
  abort: AbortSignal,
  options: Options = {},
): void {
  const mount = Object.hasOwn(VIEWS, view) ? VIEWS[view] : undefined;
  if (!mount) {
    showProblem(
      el,
      abort,
      "This view is not known",
      `Expected one of ${Object.keys(VIEWS).join(", ")}, got ${view}.`,
    );
    return;
  }
  const frame = frameIn(el, abort);
  listen(frame, abort, { keydown: (event) => shortcuts(event, store) });
  protect(frame, abort, view, (own) => mount(frame, store, own, options));
  if (view !== "Explorer") frame.append(statusLine(store, abort, "error"));
}
