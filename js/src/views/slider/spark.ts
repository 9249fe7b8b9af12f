/** The sparkline over the slider: how the class does over the depth; a place is gone to by pointing at it. */

import type { ReadonlySignal } from "@preact/signals-core";
import { linePath } from "../../charts/marks";
import { linear, log1 } from "../../charts/scale";
import { assign, listen, pointIn, svg } from "../../core/dom";
import { number, shortCount } from "../../core/format";
import { onFrame } from "../../core/frame";
import type { Store } from "../../core/store";
import type { Curves } from "./curves";

/** Pixels; the height is also that of `.csw-spark`. */
const HEIGHT = 48;
const PAD = 6;
/** The thumb's width: the first and the last position are half of it inside. */
const THUMB = 16;

/** Where a position of the slider stands, of `count`, in `width` pixels. */
export const placeOf = (position: number, count: number, width: number): number =>
  THUMB / 2 + (position / Math.max(1, count - 1)) * (width - THUMB);
/** The position that stands nearest to a place. */
export function positionAt(store: Store, x: number, width: number): number {
  const last = store.baseline.peek().snapshot.N - 1;
  const share = (x - THUMB / 2) / Math.max(1, width - THUMB);
  return Math.round(Math.max(0, Math.min(1, share)) * last);
}

/** Ranks up to this one always have room. */
const ROOM = 9;

export function spark(
  store: Store,
  abort: AbortSignal,
  width: ReadonlySignal<number>,
  curves: Curves,
  go: (position: number) => void,
): SVGSVGElement {
  const path = (name: string) => svg("path", { class: `csw-spark-${name}` });
  const [area, line, before] = [path("area"), path("line"), path("before")];
  const stem = svg("line", { class: "csw-spark-stem" });
  const dot = svg("circle", { class: "csw-spark-now", r: 4.5 });
  const high = svg("text", { x: -8, y: PAD + 3.5 });
  const low = svg("text", { x: -8, y: HEIGHT - PAD + 3.5 });
  const parts = [area, stem, before, line, dot, high, low];
  const node = svg("svg", { class: "csw-spark", "aria-hidden": "true" }, ...parts);

  const scrub = (event: PointerEvent) => {
    go(positionAt(store, pointIn(node, event, width.peek(), HEIGHT).x, width.peek()));
  };
  listen(node, abort, {
    pointerdown: (event) => {
      node.setPointerCapture(event.pointerId);
      scrub(event);
    },
    pointermove: (event) => {
      if (event.buttons & 1) scrub(event);
    },
  });

  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const position = store.position.value;
    const rank = curves.measure.value === "rank";
    const now = curves.shown.value;
    const base = curves.before.value;
    // On paper the page is narrower than what was drawn.
    assign(node, { viewBox: `0 0 ${width.value} ${HEIGHT}` });
    const { N } = snapshot;
    const x = (p: number) => placeOf(p, N, width.value);
    const known = [now, base, curves.unshown.value].flatMap((curve) =>
      [...(curve ?? [])].filter((v) => !Number.isNaN(v)),
    );
    const [min, max] = known.length > 0 ? [Math.min(...known), Math.max(...known)] : [0, 1];
    const worst = Math.max(max, Math.min(ROOM, snapshot.C - 1), 1);
    // Ranks on a logarithmic scale with the best, 0, on top: the last steps to the top are what matters.
    const y = rank
      ? log1(0, worst, PAD, HEIGHT - PAD)
      : linear(min, max > min ? max : min + 1, HEIGHT - PAD, PAD);
    const draw = (curve: Float32Array | null) =>
      linePath(
        [...(curve ?? [])].map((v, p) => [x(p), y(v)] as const),
        snapshot.sparse,
      );
    const d = draw(now);
    const whole = now !== null && !now.some(Number.isNaN);
    assign(line, { d });
    assign(before, { d: draw(base) });
    assign(area, { d: whole ? `${d}L${x(N - 1)} ${HEIGHT}L${x(0)} ${HEIGHT}Z` : "" });
    const at = x(position);
    const level = now && !Number.isNaN(now[position]) ? y(now[position]) : HEIGHT / 2;
    assign(dot, { cx: at, cy: level, visibility: known.length > 0 ? "visible" : "hidden" });
    assign(stem, { x1: at, x2: at, y1: level, y2: HEIGHT });
    const ends = rank ? ["0", shortCount(worst)] : [number(max, 1), number(min, 1)];
    [high, low].forEach((text, i) => {
      text.textContent = known.length > 0 ? ends[i] : "";
    });
  });
  return node;
}
