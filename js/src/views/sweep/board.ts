/** A grid of colours: drawn on a canvas, gone over by pointer and arrow keys, picked from. */

import { signal } from "@preact/signals-core";
import { thin } from "../../charts/scale";
import { css, gradient, table, tableFor } from "../../core/color";
import { assign, claim, h, listen, pointIn, say } from "../../core/dom";
import { onFrame } from "../../core/frame";
import { peakOf } from "../../fields/scale";
import { widthOf } from "../parts";
import { chooses, gridKey, OWN_KEYS } from "../roving";

export interface Grid {
  /** [rows, columns], NaN where there is nothing. */
  readonly values: Float32Array;
  /** Labels, where there is room for them; an empty one is none. */
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly name: (row: number, column: number) => string;
  readonly title: string;
  readonly format: (value: number) => string;
}

/** Pixels: room for the rows' labels, and for the columns'. */
const [LEFT, FOOT] = [26, 16];
/** Pixels: rows are as high as all of them have room for in `TALL`, but not lower than the first, nor higher than the second. */
const [LOWEST, HIGHEST, TALL] = [13, 24, 144];
/** Pixels that a column's label needs; the narrowest cell that has a gap beside it. */
const [WIDE, NARROW] = [17, 5];

/** Draws a grid, lets pointer and arrow keys go over it, and says what was picked. */
export function heatGrid(
  el: HTMLElement,
  abort: AbortSignal,
  grid: () => Grid | null,
  colormap: () => string,
  pick: (row: number, column: number) => void,
): void {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const board = h(
    "div",
    { class: "csw-board", tabindex: 0, role: "application", "aria-roledescription": "grid", ...OWN_KEYS },
    canvas,
  );
  const ramp = h("div", { class: "csw-ramp" });
  const low = h("span");
  const high = h("span");
  const numbers = h(
    "div",
    { class: "csw-map-numbers", "aria-hidden": "true" },
    low,
    h("span", {}, "0"),
    high,
  );
  const words = h("p", { class: "csw-note", "aria-live": "polite" });
  el.append(board, words, ramp, numbers);
  const at = signal<readonly [number, number] | null>(null);
  const width = widthOf(board, abort);
  const cell = ({ rows, columns }: Grid) =>
    [(width.value - LEFT) / columns.length, Math.max(LOWEST, Math.min(HIGHEST, TALL / rows.length))] as const;

  const place = (event: MouseEvent): readonly [number, number] | null => {
    const g = grid();
    if (!g) return null;
    const [wide, high] = cell(g);
    const { x, y } = pointIn(board, event, width.value, high * g.rows.length + FOOT);
    const column = Math.floor((x - LEFT) / wide);
    const row = Math.floor(y / high);
    return row >= 0 && column >= 0 && row < g.rows.length && column < g.columns.length ? [row, column] : null;
  };
  listen(board, abort, {
    pointermove: (event) => {
      at.value = place(event);
    },
    pointerleave: () => {
      at.value = null;
    },
    click: (event) => {
      const target = place(event);
      if (target) pick(...target);
    },
    keydown: (event) => {
      const g = grid();
      if (!g) return;
      const [row, column] = at.peek() ?? [0, 0];
      const { length } = g.columns;
      const next = gridKey(event.key, row * length + column, length, g.rows.length, event.ctrlKey);
      if (next !== null) at.value = [Math.floor(next / length), next % length];
      else if (chooses(event)) pick(row, column);
      else return;
      claim(event);
    },
  });

  onFrame(abort, () => {
    const g = grid();
    for (const node of [board, ramp, numbers, words]) node.hidden = g === null;
    if (!g) return;
    const here = at.value;
    const peak = peakOf(g.values);
    const name = tableFor("diverging", colormap());
    const own = here && g.format(g.values[here[0] * g.columns.length + here[1]]);
    say(words, here ? `${g.name(...here)}: ${own}` : g.title);
    assign(board, { "aria-label": g.title });
    ramp.style.background = gradient(name);
    say(low, g.format(-peak));
    say(high, g.format(peak));
    draw(canvas, g, width.value, cell(g), table(name), peak || 1, here);
  });
}

function draw(
  canvas: HTMLCanvasElement,
  g: Grid,
  width: number,
  [wide, high]: readonly [number, number],
  colors: Uint8ClampedArray,
  peak: number,
  here: readonly [number, number] | null,
): void {
  const ratio = Math.min(2, globalThis.devicePixelRatio || 1);
  const tall = high * g.rows.length;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round((tall + FOOT) * ratio);
  canvas.style.height = `${tall + FOOT}px`;
  const context = canvas.getContext("2d");
  if (!context) return;
  context.scale(ratio, ratio);
  const gap = wide > NARROW ? 1 : 0;
  const box = (row: number, column: number) =>
    [LEFT + column * wide, row * high, wide - gap, high - 1] as const;
  g.values.forEach((v, i) => {
    if (Number.isNaN(v)) return;
    const k = 3 * Math.round(127.5 * (1 + v / peak));
    context.fillStyle = css([colors[k], colors[k + 1], colors[k + 2]]);
    context.fillRect(...box(Math.floor(i / g.columns.length), i % g.columns.length));
  });
  const style = getComputedStyle(canvas);
  context.fillStyle = style.getPropertyValue("--muted");
  context.font = `10.5px ${style.fontFamily}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const [row, text] of g.rows.entries()) context.fillText(text, LEFT - 6, (row + 0.5) * high);
  context.textAlign = "center";
  const labelled = [...g.columns.keys()].filter((column) => g.columns[column]);
  const keep = thin(labelled.length + 1, (width - LEFT) / labelled.length, WIDE);
  labelled.forEach((column, i) => {
    if (keep(i + 1)) context.fillText(g.columns[column], LEFT + (column + 0.5) * wide, tall + FOOT / 2);
  });
  if (here) {
    context.strokeStyle = style.getPropertyValue("--fg");
    context.lineWidth = 2;
    context.strokeRect(...box(...here));
  }
}
