/** Pointing at patches and selecting them, by pointer (click, shift-click, drag a box) and by keyboard. */

import { type Signal, signal } from "@preact/signals-core";
import { claim, listen, pointIn } from "../../core/dom";
import type { Snapshot } from "../../core/snapshot";
import type { Store } from "../../core/store";
import { chooses, gridKey } from "../roving";

/** Pixels of the screen that the pointer must move before a click becomes a box. */
export const SLACK = 6;

interface Point {
  readonly x: number;
  readonly y: number;
}

/** The patch at a place of a picture, in its own pixels; the nearest one for a place beside it. */
export function patchAt(picture: HTMLElement, { rows, columns, prefix }: Snapshot, { x, y }: Point): number {
  const place = (at: number, size: number, n: number) =>
    Math.max(0, Math.min(n - 1, Math.floor((at / size) * n)));
  return prefix + place(y, picture.clientHeight, rows) * columns + place(x, picture.clientWidth, columns);
}

export type Box = readonly [number, number, number, number];

export interface Pointing {
  /** The box that is being dragged, in the picture's own pixels. */
  readonly box: Signal<Box | null>;
  /** The patch that the arrow keys stand on. */
  readonly focused: Signal<number | null>;
  /** Whether what is hovered is pointed at here, and not in another view. */
  readonly here: Signal<boolean>;
}

export function pointing(picture: HTMLElement, store: Store, abort: AbortSignal): Pointing {
  const { state } = store;
  const box = signal<Box | null>(null);
  const focused = signal<number | null>(null);
  const here = signal(false);
  /** Where the focus was last: it comes back there. */
  let last = -1;
  let start: { at: Point; clientX: number; clientY: number; extend: boolean } | null = null;
  const grid = () => store.data.peek().snapshot;

  const at = (point: Point): number => patchAt(picture, grid(), point);
  const inside = (event: PointerEvent): Point =>
    pointIn(picture, event, picture.clientWidth, picture.clientHeight);
  const point = (token: number | null) => {
    here.value = token !== null;
    store.hovered.value = token;
  };

  /** All patches of the box between two corners. */
  const within = (a: number, b: number): number[] => {
    const { prefix, columns } = grid();
    const row = (t: number) => Math.floor((t - prefix) / columns);
    const column = (t: number) => (t - prefix) % columns;
    const out: number[] = [];
    for (let r = Math.min(row(a), row(b)); r <= Math.max(row(a), row(b)); r++) {
      for (let c = Math.min(column(a), column(b)); c <= Math.max(column(a), column(b)); c++) {
        out.push(prefix + r * columns + c);
      }
    }
    return out;
  };
  const end = () => {
    start = null;
    box.value = null;
  };

  listen(picture, abort, {
    pointermove: (event) => {
      const now = inside(event);
      if (start && Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > SLACK)
        box.value = [start.at.x, start.at.y, now.x, now.y];
      point(at(now));
    },
    pointerleave: () => point(focused.peek()),
    pointerdown: (event) => {
      if (event.button !== 0) return;
      const { clientX, clientY } = event;
      const extend = event.shiftKey || event.ctrlKey || event.metaKey;
      start = { at: inside(event), clientX, clientY, extend };
      if (event.pointerType === "mouse") picture.setPointerCapture(event.pointerId);
    },
    pointerup: () => {
      if (!start) return;
      const { at: began, extend } = start;
      const span = box.peek();
      end();
      if (!span) {
        focused.value = picture.matches(":focus-visible") ? at(began) : null;
        store.selectToken(at(began), extend);
      } else {
        const tokens = within(at({ x: span[0], y: span[1] }), at({ x: span[2], y: span[3] }));
        store.set({ tokens: extend ? [...new Set([...state.tokens.peek(), ...tokens])] : tokens });
      }
    },
    pointercancel: end,
    keydown: (event) => {
      const { rows, columns, prefix } = grid();
      const own = (focused.peek() ?? prefix) - prefix;
      const next = gridKey(event.key, own, columns, rows, event.ctrlKey);
      if (next !== null) {
        focused.value = prefix + next;
        point(focused.value);
      } else if (chooses(event)) store.selectToken(prefix + own, event.shiftKey);
      else if (event.key === "Escape") store.set({ tokens: [] });
      else return;
      // The notebook would move to another cell, or leave the output.
      claim(event);
    },
    focus: () => {
      if (!picture.matches(":focus-visible")) return;
      const { rows, columns, prefix } = grid();
      const first = [...state.tokens.peek(), last].find((t) => grid().isImageToken(t));
      focused.value = focused.peek() ?? first ?? prefix + (rows >> 1) * columns + (columns >> 1);
      point(focused.value);
    },
    blur: () => {
      last = focused.peek() ?? last;
      focused.value = null;
      point(null);
    },
  });
  return { box, focused, here };
}
