/** Building elements and listening to them; text is always set as text. */

import { onAbort } from "./frame";

type Props = Readonly<Record<string, string | number | boolean | null | undefined>>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  assign(node, props);
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Node[]
): SVGElementTagNameMap[K] {
  const node = document.createElementNS(SVG, tag);
  assign(node, props);
  node.append(...children);
  return node;
}

export function assign(node: Element, props: Props): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) node.removeAttribute(name);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
}

/** A native button. */
export function button(props: Props, ...children: (Node | string)[]): HTMLButtonElement {
  return h("button", { type: "button", ...props }, ...children);
}

/** Put a node into `el`; taken out again on abort. */
export function attach(el: Element, node: Element, abort: AbortSignal): void {
  el.append(node);
  onAbort(abort, () => node.remove());
}

type Handlers = { readonly [K in keyof HTMLElementEventMap]?: (event: HTMLElementEventMap[K]) => void };

/** Listen to a node until the signal aborts. */
export function listen(node: Element, abort: AbortSignal, handlers: Handlers): void {
  for (const [type, handler] of Object.entries(handlers)) {
    node.addEventListener(type, handler as EventListener, { signal: abort });
  }
}

/** What the part of a view that an event came from carries as `data-name`; undefined where there is none. */
export function dataAt(event: Event, name: string): string | undefined {
  return (event.target as Element).closest<HTMLElement>(`[data-${name}]`)?.dataset[name];
}

/** Show a button as pressed, or not. */
export function setPressed(node: Element, pressed: boolean): void {
  assign(node, { "aria-pressed": String(pressed) });
}

/** An event that was acted on: neither the browser nor what is around the view acts on it too. */
export function claim(event: Event): void {
  event.preventDefault();
  event.stopPropagation();
}

/** A title's words; all of them also as its tooltip, where they may be cut off. */
export function entitle(node: HTMLElement, ...words: (Node | string)[]): void {
  node.replaceChildren(...words);
  node.title = node.textContent ?? "";
}

/** Set text only where it differs: writing it again would make screen readers repeat it. */
export function say(node: Node, text: string): void {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Where a pointer is in an element, in the element's own pixels, of which its content is `width` x `height`.
 *
 * A page may show the element larger or smaller than it is laid out (slides, dashboards, `zoom`): the box on the screen is
 * measured in the pixels of the pointer, everything drawn is not.
 */
export function pointIn(
  el: Element,
  { clientX, clientY }: { readonly clientX: number; readonly clientY: number },
  width: number,
  height: number,
): { readonly x: number; readonly y: number } {
  const box = el.getBoundingClientRect();
  const along = (at: number, shown: number, laid: number) => (shown > 0 ? (at * laid) / shown : at);
  return {
    x: along(clientX - box.left, box.width, width),
    y: along(clientY - box.top, box.height, height),
  };
}

let count = 0;
const own = Math.random().toString(36).slice(2);

/**
 * A name that nothing else in the document has.
 *
 * In a notebook every session runs a module of its own: a count alone would make radio buttons of two sessions one
 * group, of which one button is checked.
 */
export function unique(kind: string): string {
  return `csw-${kind}-${own}-${++count}`;
}

/** A one-path icon in a 14 x 14 box. */
export function icon(path: string): SVGSVGElement {
  return svg("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, svg("path", { d: path }));
}
