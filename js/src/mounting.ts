/** The frame that every view stands in: its styles, its theme, and words where it cannot be shown. */

import { attach, h } from "./core/dom";
import { addStyles, type Styles } from "./core/styles";
import { followTheme } from "./core/theme";
import { problem } from "./views/parts";

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
