/** Painting the patch map: the picture, the readings over it, outlines of objects and of what is selected. */

import { kept } from "../../core/collections";
import { classColor, type Rgb, table, tableFor } from "../../core/color";
import type { Snapshot } from "../../core/snapshot";
import type { Field } from "../../fields/field";
import { type Base, canvasOf } from "./picture";

/** What shows through: all of the grey picture from an opacity of 1 / 1.6 on, and its light and dark by 0.4 of the map's. */
const [GREY, LIGHT] = [1.6, 0.4];
/** Pixels between the lines where there is no value. */
const HATCH = 9;

export interface Scene {
  readonly snapshot: Snapshot;
  readonly field: Field;
  readonly base: Base | null;
  readonly colormap: string;
  readonly leading: readonly number[];
  readonly opacity: number;
  readonly smooth: boolean;
  readonly outline: Path2D | null;
  readonly selected: readonly number[];
  readonly hovered: number | null;
  readonly focused: number | null;
  readonly ratio: number;
}

/** Colour of one value of a field. */
export function placeColor(field: Field, value: number, colormap: string, leading: readonly number[]): Rgb {
  if (field.kind === "categorical") return classColor(value, leading);
  const entries = table(tableFor(field.kind, colormap));
  const i = 3 * Math.max(0, Math.min(255, Math.round(255 * field.place(value))));
  return [entries[i], entries[i + 1], entries[i + 2]];
}

interface Layers {
  readonly base: Base;
  readonly color: HTMLCanvasElement;
  readonly grey: HTMLCanvasElement;
}

const scaled = new WeakMap<HTMLCanvasElement, Layers>();

/** The picture at the canvas's size: scaling it well in every frame would cost more than all the rest. */
function layersOf(canvas: HTMLCanvasElement, base: Base): Layers {
  const known = scaled.get(canvas);
  if (known?.base === base && known.color.width === canvas.width && known.color.height === canvas.height) {
    return known;
  }
  const scale = (source: CanvasImageSource) => {
    const out = canvasOf(canvas.width, canvas.height);
    const context = out.getContext("2d");
    if (context) {
      context.imageSmoothingQuality = "high";
      context.drawImage(source, 0, 0, out.width, out.height);
    }
    return out;
  };
  const layers = { base, color: scale(base.color), grey: scale(base.grey) };
  scaled.set(canvas, layers);
  return layers;
}

const small = new WeakMap<HTMLCanvasElement, HTMLCanvasElement>();

export function paint(canvas: HTMLCanvasElement, scene: Scene): void {
  const context = canvas.getContext("2d");
  if (!context) return;
  paintMap(context, canvas, scene);
  if (scene.outline) paintOutline(context, canvas, scene.outline, scene.ratio);
  const { selected, hovered, focused } = scene;
  const ring = (tokens: readonly number[], size: number, dash: readonly number[] = []) =>
    paintRing(context, canvas, scene, tokens, size, dash);
  if (selected.length > 0) ring(selected, 2);
  if (hovered !== null) ring([hovered], 1);
  if (focused !== null) ring([focused], 2, [3, 3]);
}

/** The picture, and the readings over it. */
function paintMap(context: CanvasRenderingContext2D, canvas: HTMLCanvasElement, scene: Scene): void {
  const { width, height } = canvas;
  const { base, opacity } = scene;
  context.globalAlpha = 1;
  const layers = base ? layersOf(canvas, base) : null;
  if (layers) {
    context.drawImage(layers.color, 0, 0);
    context.globalAlpha = Math.min(1, opacity * GREY);
    if (opacity > 0) context.drawImage(layers.grey, 0, 0);
  } else {
    context.fillStyle = "rgb(128 128 128 / 20%)";
    context.clearRect(0, 0, width, height);
    context.fillRect(0, 0, width, height);
  }
  if (scene.field.blank) hatch(context, canvas, scene.ratio);
  else if (opacity > 0) {
    const overlay = overlayOf(canvas, scene);
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = scene.smooth;
    context.drawImage(overlay, 0, 0, width, height);
    if (layers) {
      // Light and dark of the picture come through the colours, which keep their hue.
      context.globalCompositeOperation = "soft-light";
      context.globalAlpha = LIGHT * opacity;
      context.drawImage(layers.grey, 0, 0);
      context.globalCompositeOperation = "source-over";
    }
  }
  context.globalAlpha = 1;
}

/** Slanted lines over the whole picture: there is no value. */
function hatch(context: CanvasRenderingContext2D, { width, height }: HTMLCanvasElement, ratio: number): void {
  const lines = new Path2D();
  for (let x = -height; x < width; x += HATCH * ratio) {
    lines.moveTo(x, height);
    lines.lineTo(x + height, 0);
  }
  context.globalAlpha = 1;
  context.strokeStyle = "rgb(255 255 255 / 60%)";
  context.lineWidth = ratio;
  context.stroke(lines);
}

/** Objects, in white on black: to be seen on any picture. */
function paintOutline(
  context: CanvasRenderingContext2D,
  { width, height }: HTMLCanvasElement,
  outline: Path2D,
  ratio: number,
): void {
  context.save();
  context.scale(width, height);
  context.lineCap = "round";
  for (const [color, size] of [
    ["rgb(0 0 0 / 55%)", 3],
    ["#fff", 1.25],
  ] as const) {
    context.strokeStyle = color;
    context.lineWidth = (size * ratio) / width;
    context.stroke(outline);
  }
  context.restore();
}

/** A ring around patches, in white on black. */
function paintRing(
  context: CanvasRenderingContext2D,
  { width, height }: HTMLCanvasElement,
  { snapshot, ratio }: Scene,
  tokens: readonly number[],
  size: number,
  dash: readonly number[],
): void {
  const { rows, columns, prefix } = snapshot;
  const path = borders(
    tokens.filter((t) => snapshot.isImageToken(t)),
    prefix,
    columns,
    (token) => {
      const x = (token - prefix) % columns;
      const y = Math.floor((token - prefix) / columns);
      return [(x * width) / columns, (y * height) / rows, width / columns, height / rows];
    },
  );
  context.lineCap = "square";
  for (const [color, wide, dashes] of [
    ["rgb(0 0 0 / 70%)", size + 2, []],
    ["#fff", size, dash],
  ] as const) {
    context.setLineDash(dashes.map((d) => d * ratio));
    context.strokeStyle = color;
    context.lineWidth = wide * ratio;
    context.stroke(path);
  }
  context.setLineDash([]);
}

/** The outer border of a set of patches. */
function borders(
  tokens: readonly number[],
  prefix: number,
  columns: number,
  cell: (token: number) => [number, number, number, number],
): Path2D {
  const set = new Set(tokens);
  const path = new Path2D();
  for (const token of tokens) {
    const [x, y, w, h] = cell(token);
    const column = (token - prefix) % columns;
    const edge = (open: boolean, x0: number, y0: number, x1: number, y1: number) => {
      if (!open) return;
      path.moveTo(x0, y0);
      path.lineTo(x1, y1);
    };
    edge(!set.has(token - columns), x, y, x + w, y);
    edge(!set.has(token + columns), x, y + h, x + w, y + h);
    edge(column === 0 || !set.has(token - 1), x, y, x, y + h);
    edge(column === columns - 1 || !set.has(token + 1), x + w, y, x + w, y + h);
  }
  return path;
}

/** One pixel per patch, scaled up by the canvas. */
function overlayOf(owner: HTMLCanvasElement, scene: Scene): HTMLCanvasElement {
  const { snapshot, field, colormap, leading } = scene;
  const { rows, columns, prefix } = snapshot;
  const canvas = kept(small, owner, () => canvasOf(columns, rows));
  if (canvas.width !== columns || canvas.height !== rows) {
    canvas.width = columns;
    canvas.height = rows;
  }
  const context = canvas.getContext("2d");
  if (!context) return canvas;
  const pixels = context.createImageData(columns, rows);
  for (let i = 0; i < rows * columns; i++) {
    const value = field.values[prefix + i];
    if (Number.isNaN(value)) continue;
    const [r, g, b] = placeColor(field, value, colormap, leading);
    pixels.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}
