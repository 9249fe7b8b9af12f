/** Marks of the charts as SVG. */

import { range } from "../core/collections";
import { svg } from "../core/dom";
import type { Points } from "../core/points";
import { type Scale, thin } from "./scale";

/** The frame that all charts over the depth share, so that their blocks stand below each other. */
export const LEFT = 40;
export const RIGHT = 4;
export const TOP = 6;

/** How high a chart of some width is, and where its plot ends: block numbers stand below. */
export function heightOf(width: number): { readonly height: number; readonly bottom: number } {
  const height = Math.round(Math.max(156, Math.min(240, 0.4 * width)));
  return { height, bottom: height - 18 };
}

/** Width of a slot: one for every position and one for the bias, in the charts that do not show it as well. */
export function slotWidth(width: number, positions: number): number {
  return (width - RIGHT - LEFT) / (positions + 1);
}

/** A small label of an axis. */
export function label(x: number, y: number, anchor: "middle" | "end", text: string): SVGTextElement {
  const node = svg("text", { class: "csw-tick", x, y, "text-anchor": anchor });
  node.textContent = text;
  return node;
}

/** Lines across at the values of `marks`, each with its number. */
export function valueAxis(
  marks: readonly number[],
  y: Scale,
  right: number,
  text: (v: number) => string,
): Node[] {
  return marks.flatMap((v) => [
    svg("line", { class: v === 0 ? "csw-zero" : "csw-rule", x1: LEFT, x2: right, y1: y(v), y2: y(v) }),
    label(LEFT - 5, y(v) + 3.5, "end", text(v)),
  ]);
}

/** A line across at the height of chance, with its name at the end. */
export function chanceLine(y: number, right: number): Node[] {
  return [
    svg("line", { class: "csw-chance", x1: LEFT, x2: right, y1: y, y2: y }),
    label(right, y - 3, "end", "chance"),
  ];
}

/** Block numbers at `y`, below slots of `pitch` pixels, one for every increment. */
export function blockAxis(points: Points, pitch: number, y: number): Node[] {
  const { L, perBlock } = points;
  const keep = thin(L + 1, pitch * perBlock, 17);
  return range(L + 1, (block) => {
    const middle = points.middle(block) + 0.5;
    return keep(block) ? [label(LEFT + middle * pitch, y, "middle", String(block))] : [];
  }).flat();
}

/** Path data through points; a point with a value that is not finite breaks the line, or is left out of it. */
export function linePath(points: readonly (readonly [number, number])[], bridge = false): string {
  let out = "";
  let pen = "M";
  for (const [x, y] of points) {
    if (Number.isFinite(x) && Number.isFinite(y)) {
      out += `${pen}${x.toFixed(1)},${y.toFixed(1)}`;
      pen = "L";
    } else if (!bridge) pen = "M";
  }
  return out;
}

/** Path data of a bar from `base` to `tip` whose outer corners are rounded. */
export function barPath(x: number, width: number, base: number, tip: number): string {
  const height = Math.abs(tip - base);
  const r = Math.min(2, width / 2, height);
  const s = tip < base ? -1 : 1;
  const f = (n: number) => n.toFixed(2);
  return (
    `M${f(x)},${f(base)}V${f(tip - s * r)}Q${f(x)},${f(tip)} ${f(x + r)},${f(tip)}` +
    `H${f(x + width - r)}Q${f(x + width)},${f(tip)} ${f(x + width)},${f(tip - s * r)}V${f(base)}Z`
  );
}
