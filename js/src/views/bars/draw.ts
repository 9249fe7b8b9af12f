/** The bars as SVG, and words about them. */

import {
  barPath,
  blockAxis,
  heightOf,
  LEFT,
  label,
  RIGHT,
  slotWidth,
  TOP,
  valueAxis,
} from "../../charts/marks";
import { extentWithZero, linear, ticks } from "../../charts/scale";
import { assign, h, svg } from "../../core/dom";
import { hundredths, number, signed } from "../../core/format";
import { exceeding, type Kind, type Part } from "./breakdown";
import { type Model, valuesOf } from "./model";

/** Pixels: a bar is at most so wide, and leaves some of its slot free. */
const WIDEST = 32;

const NAMES = { embedding: "embedding", attention: "attention", mlp: "MLP", block: "block", bias: "bias" };

function partName(part: Part): string {
  if (part.block < 1) return NAMES[part.kind];
  return part.kind === "block" ? `block ${part.block}` : `block ${part.block} ${NAMES[part.kind]}`;
}

const chip = (kind: Kind) => h("i", { class: `csw-chip csw-is-${kind}` });

/** The words under the chart about one bar. */
export function describe({ shown, terms }: Model, part: Part): (Node | string)[] {
  const at = shown.parts.indexOf(part);
  const out = [chip(part.kind), partName(part), " ", h("b", {}, signed(part.value))];
  if (part.reference !== null) out.push(`, block input ${signed(part.reference)}`);
  if (terms.length > 1) {
    out.push(` (${terms.map(([name, t]) => `${name} ${signed(t.parts[at].value)}`).join(", ")})`);
  }
  return out;
}

/** The legend is the equation: every kind of bar with its sum, and what they add up to. */
export function summary({ shown, mode, total, points }: Model): Node[] {
  const term = (kind: Kind, text: string, words = "") =>
    h("span", {}, chip(kind), `${NAMES[kind]} ${words}`, h("b", {}, text));
  const blocks: Kind[] = points.perBlock === 1 ? ["block"] : ["attention", "mlp"];
  if (mode === "paper") {
    return blocks.map((kind) => {
      const [above, of] = exceeding(shown.parts, kind);
      const words = term(kind, `${above} of ${of}`, "above the block’s input in ");
      words.className = "csw-wide";
      return words;
    });
  }
  const kinds: Kind[] = ["embedding", ...blocks, ...(mode === "direct" ? (["bias"] as const) : [])];
  return [
    ...kinds.map((kind) => term(kind, signed(hundredths(shown[kind === "block" ? "mlp" : kind])))),
    h("span", { class: "csw-total" }, `= ${total} `, h("b", {}, number(hundredths(shown.logit)))),
  ];
}

/** Draw all bars; `others` are more values that the scale has room for. */
export function draw(
  chart: SVGSVGElement,
  model: Model,
  width: number,
  others: readonly number[],
): SVGGElement[] {
  const { points, mode, shown } = model;
  const { height, bottom } = heightOf(width);
  const pitch = slotWidth(width, points.N);
  const [low, high] = extentWithZero([...valuesOf(model), ...others]);
  const y = linear(low, high, bottom - 2, TOP + 2);
  const right = width - RIGHT;
  const bars = shown.parts.map((part, i) => bar(part, i, pitch, height, y));
  const labels = blockAxis(points, pitch, height - 4);
  if (mode === "direct" && pitch > 7) labels.push(label(right - pitch / 2, height - 4, "middle", "b"));
  assign(chart, { viewBox: `0 0 ${width} ${height}`, height });
  chart.replaceChildren(...valueAxis(ticks(low, high, 4), y, right, tickText), ...bars, ...labels);
  return bars;
}

function bar(part: Part, i: number, pitch: number, height: number, y: (v: number) => number): SVGGElement {
  const { kind, position, value, reference } = part;
  const size = Math.min(pitch * (pitch < 6 ? 0.86 : 0.78), WIDEST);
  const free = pitch - size - Math.min(1, pitch * 0.08);
  // The two of a block stand close together, blocks apart.
  const shift = kind === "attention" ? 0.5 : kind === "mlp" ? -0.5 : 0;
  const x = LEFT + (i + 0.5) * pitch - size / 2 + shift * Math.max(free, 0);
  const air = Math.min(3, free / 2);
  const column = { y: TOP, height: height - TOP };
  const input = reference === null ? "" : `, block input ${number(reference)}`;
  const group = svg(
    "g",
    {
      class: `csw-bar csw-is-${kind}`,
      role: position < 0 ? "img" : "button",
      tabindex: -1,
      "aria-label": `${partName(part)}: ${signed(value)}${input}`,
    },
    svg("rect", { class: "csw-slot", x: LEFT + i * pitch, width: pitch, ...column }),
    svg("rect", { class: "csw-band", x: x - air, width: size + 2 * air, rx: air, ...column }),
    svg("path", { d: barPath(x, size, y(0), y(Number.isFinite(value) ? value : 0)) }),
  );
  if (reference !== null) {
    const at = y(reference);
    group.append(svg("line", { class: "csw-reference", x1: x - 1, x2: x + size + 1, y1: at, y2: at }));
  }
  return group;
}

function tickText(value: number): string {
  const text = String(Math.abs(value));
  return value < 0 ? `−${text}` : text;
}
