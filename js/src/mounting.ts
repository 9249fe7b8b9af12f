/** The frame that every view stands in: its styles, its theme, and words where it cannot be shown. */

import { attach, h } from "./core/dom";
import { followTheme } from "./core/theme";
import { problem } from "./views/parts";

/** The styles of one bundle, by its name. */
export interface Styles {
  readonly name: string;
  readonly text: string;
}

/** One stylesheet per document or shadow root, bundle and version; every rule is scoped to .csw. */
function addStyles(el: HTMLElement, { name, text }: Styles): void {
  const root = el.getRootNode();
  const place = root instanceof ShadowRoot ? root : document.head;
  const id = `csw-${name}-${__VERSION__}`;
  if (place.querySelector(`#${id}`)) return;
  const style = h("style", { id });
  style.textContent = text;
  place.append(style);
}

/** An empty frame in `el`, with styles and theme, that goes away with the signal. */
export function frameIn(el: HTMLElement, abort: AbortSignal, styles: Styles): HTMLElement {
  // Without the mark, JupyterLab takes keys for its own: D twice would delete the cell.
  const root = h("div", { class: "csw", "data-lm-suppress-shortcuts": "true" });
  attach(el, root, abort);
  addStyles(root, styles);
  followTheme(root, abort);
  return root;
}

/** Say what is wrong, where the view would be. */
export function showProblem(
  el: HTMLElement,
  abort: AbortSignal,
  styles: Styles,
  title: string,
  error: unknown,
): void {
  frameIn(el, abort, styles).append(problem(title, error));
}
