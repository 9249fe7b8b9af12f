/**
 * Arrow keys and focus of grids and lists.
 *
 * Many parts make one tab stop ("roving tabindex"): the part that had the focus last has tabindex 0, all others -1, and keys
 * move the focus among them.
 */

import { signal } from "@preact/signals-core";
import { assign, claim, listen } from "../core/dom";

/** JupyterLab in command mode would take the arrow keys for moving between cells. */
export const OWN_KEYS = { "data-lm-suppress-shortcuts": "true" };

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

/** Whether a key chooses what has the focus. */
export const chooses = ({ key }: KeyboardEvent): boolean => key === "Enter" || key === " ";

interface Behaviour {
  /** Where a key leads from a part; null when it is not a key of these parts. */
  readonly next: (key: string, index: number, control: boolean) => number | null;
  /** A part was clicked, or chosen by key; -1 for a click beside all parts. */
  readonly pick: (index: number) => void;
  /** Whether keys with Ctrl are of these parts, too. */
  readonly control?: boolean;
}

/** The parts of `box`, one tab stop, and which of them is pointed at by pointer or focus. */
export class Roving<Part extends HTMLElement | SVGElement> {
  parts: readonly Part[] = [];
  readonly pointed = signal<number | null>(null);
  readonly #box: Element;
  #focused = 0;

  /** `section` is around `box`: Chromium makes an SVG with focus listeners a tab stop. */
  constructor(section: Element, box: Element, abort: AbortSignal, { next, pick, control }: Behaviour) {
    this.#box = box;
    const indexOf = ({ target }: Event) => this.parts.findIndex((part) => part.contains(target as Node));
    const point = (index: number) => {
      this.pointed.value = index < 0 ? null : index;
    };
    const away = () => point(-1);
    listen(box, abort, {
      click: (event) => {
        const index = indexOf(event);
        if (index >= 0) this.#stopAt(index);
        pick(index);
      },
      // Not when a pointer is entered: parts that are drawn anew under a resting pointer change nothing.
      pointermove: (event) => point(indexOf(event)),
      pointerleave: away,
      keydown: (event) => {
        const index = indexOf(event);
        if (index < 0 || event.altKey || event.metaKey || (event.ctrlKey && !control)) return;
        const to = next(event.key, index, event.ctrlKey);
        if (to !== null) {
          this.#stopAt(to);
          this.parts[to].focus();
        } else if (chooses(event)) pick(index);
        else return;
        claim(event);
      },
    });
    listen(section, abort, {
      focusin: (event) => {
        const index = indexOf(event);
        if (index < 0) return;
        this.#stopAt(index);
        point(index);
      },
      focusout: away,
    });
  }

  /** Draw the parts anew; the focus stays at its place among them. */
  renew(draw: () => readonly Part[]): void {
    // In a shadow root only that root knows what has the focus.
    const { activeElement } = this.#box.getRootNode() as Document | ShadowRoot;
    const held = this.parts.some((part) => part === activeElement);
    this.parts = draw();
    if (this.parts.length === 0) return;
    this.#stopAt(Math.min(this.#focused, this.parts.length - 1));
    if (held) this.parts[this.#focused].focus({ preventScroll: true });
  }

  #stopAt(index: number): void {
    for (const at of [this.#focused, index]) {
      const part = this.parts[at];
      if (part) assign(part, { tabindex: at === index ? 0 : -1 });
    }
    this.#focused = index;
  }
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
