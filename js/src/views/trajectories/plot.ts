/** Drawing the trajectories: axes, lines, and the cursor that follows slider and pointer. */

import {
  blockAxis,
  chanceLine,
  heightOf,
  LEFT,
  linePath,
  RIGHT,
  slotWidth,
  TOP,
  valueAxis,
} from "../../charts/marks";
import { linear, log1, rankTicks, type Scale, ticks } from "../../charts/scale";
import { assign, svg } from "../../core/dom";
import { number, shortCount } from "../../core/format";
import type { Snapshot } from "../../core/snapshot";
import { chanceOf, type Line, type Lines } from "./lines";

/** Ranks up to this one always have room. */
const WORST = 4;

/** The value axis: its scale, its marks, and the highest value that has room where chance may be above it. */
function axisOf({ measure, extent }: Lines, classes: number, logarithmic: boolean, bottom: number) {
  if (measure === "rank") {
    const worst = Math.max(Math.min(WORST, classes - 1), extent[1]);
    return {
      scale: (logarithmic ? log1 : linear)(0, worst, TOP + 4, bottom),
      marks: logarithmic ? rankTicks(worst) : ticks(0, worst, 4).filter(Number.isInteger),
      highest: worst,
    };
  }
  const [low, high] = measure === "identifiability" ? [0, 1] : extent;
  return {
    scale: linear(low, high, bottom, TOP + 2),
    marks: ticks(low, high, 4),
    highest: Number.POSITIVE_INFINITY,
  };
}

export class Plot {
  readonly node: SVGSVGElement;
  /** In pixels, as it was drawn. */
  width = 1;
  readonly #lines = svg("g");
  readonly #cursor = svg("g", { class: "csw-cursor" });
  #scale: Scale = () => 0;
  #pitch = 1;
  #bottom = 0;
  #sparse = false;

  constructor(props: Readonly<Record<string, string | number>>) {
    this.node = svg("svg", props, this.#lines, this.#cursor);
  }

  /** The slot that a place `x` pixels from the left is in. */
  slotAt(x: number): number {
    return Math.floor((x - LEFT) / this.#pitch);
  }

  /** Draw everything but the cursor; `hidden` are keys of lines that are left out. */
  draw(
    model: Lines,
    snapshot: Snapshot,
    width: number,
    logarithmic: boolean,
    hidden: ReadonlySet<string>,
  ): void {
    const { points, sparse, C } = snapshot;
    const { measure, lines } = model;
    const { height, bottom } = heightOf(width);
    const { scale, marks, highest } = axisOf(model, C, logarithmic, bottom - 2);
    const right = width - RIGHT;
    this.width = width;
    this.#scale = scale;
    this.#pitch = slotWidth(width, points.N);
    this.#bottom = bottom;
    this.#sparse = sparse;
    const chance = chanceOf(measure, C);
    const text = (v: number) => (measure === "rank" ? shortCount(v) : number(v, v % 1 === 0 ? 0 : 1));
    this.#lines.replaceChildren(
      ...valueAxis(marks, scale, right, text),
      // Drawn last to first: the output token lies on top.
      ...lines
        .filter(({ key }) => !hidden.has(key))
        .reverse()
        .map((line) => this.#path(line)),
      ...(chance !== null && chance <= highest ? chanceLine(scale(chance), right) : []),
      ...blockAxis(points, this.#pitch, height - 4),
    );
    assign(this.node, { viewBox: `0 0 ${width} ${height}`, height });
  }

  /** The cursor at the slider's position, at the one that is pointed at, and dots where lines cross the latter. */
  mark(position: number, pointed: number, lines: readonly Line[], hovered: Line | null): void {
    const x = (p: number) => (LEFT + (p + 0.5) * this.#pitch).toFixed(1);
    const line = (p: number, kind: string) =>
      svg("line", { class: kind, x1: x(p), x2: x(p), y1: TOP, y2: this.#bottom });
    const dots = lines.filter(({ values }) => Number.isFinite(values[pointed])).reverse();
    this.#cursor.replaceChildren(
      line(position, "csw-cursor-now"),
      ...(pointed === position ? [] : [line(pointed, "csw-pointed")]),
      ...(hovered ? [this.#path(hovered)] : []),
      ...dots.map(({ look, values }) => {
        const cy = this.#scale(values[pointed]).toFixed(1);
        return svg("circle", { class: `csw-look-${look}`, cx: x(pointed), cy, r: 3.2 });
      }),
    );
  }

  #path({ look, values }: Line): SVGPathElement {
    const points = values.map((v, p) => [LEFT + (p + 0.5) * this.#pitch, this.#scale(v)] as const);
    return svg("path", { class: `csw-line csw-look-${look}`, d: linePath(points, this.#sparse) });
  }
}
