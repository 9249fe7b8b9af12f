/**
 * What a notebook keeps of a view for readers without a kernel (`export/saved.py` in Python).
 *
 * It bears the session's reference, and is hidden while a view of that session lives. A host may show both: those that convert
 * a notebook to a page do where the live view finds its script on the network.
 */

import { attach, h } from "./dom";

export function hideSaved(session: string, abort: AbortSignal): void {
  const saved = `[data-csw-saved=${JSON.stringify(session)}]`;
  const style = h("style");
  const output = ":is(.jp-OutputArea-child,.output_area)";
  // Where a host asks before it runs a script, the saved form's has not said yet what it is.
  const asked = `${output}:has(.csw-view) + ${output}:has(.jp-RenderedJavaScript button)`;
  style.textContent = `:is(${saved},${output}:has(${saved}),${asked},${asked} + ${output}:has(img)){display:none!important}`;
  attach(document.head, style, abort);
}

/** In a frame, tell the page around how high this one is. */
export function tellHeight(): void {
  const root = document.documentElement;
  if (parent === window) return;
  new ResizeObserver(() => parent.postMessage({ cswHeight: root.offsetHeight }, "*")).observe(root);
}
