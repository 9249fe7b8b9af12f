/** Stylesheets of scripts, each added where it is needed. */

import { h } from "./dom";

/** The styles of one script, by its name. */
export interface Styles {
  readonly name: string;
  readonly text: string;
}

/** One stylesheet per document or shadow root, script and version; every rule is scoped to .csw. */
export function addStyles(el: HTMLElement, { name, text }: Styles): void {
  const root = el.getRootNode();
  const place = root instanceof ShadowRoot ? root : document.head;
  const id = `csw-${name}-${__VERSION__}`;
  if (place.querySelector(`#${id}`)) return;
  const style = h("style", { id });
  style.textContent = text;
  place.append(style);
}
