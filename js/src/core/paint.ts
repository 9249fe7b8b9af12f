/** Painting the patch map: the picture, the readings over it, outlines of objects and of what is selected. */

import { type ReadonlySignal, signal } from "@preact/signals-core";
import { classColor, type Rgb, table, tableFor } from "./color";
import type { Field } from "./field";
import { watch } from "./frame";
import type { Snapshot } from "./snapshot";
import type { Store } from "./store";

/** The decoded picture, and the same without colour: a coloured map is legible only over greys. */
export interface Base {
  readonly color: CanvasImageSource;
  readonly grey: CanvasImageSource;
}

/** Decodes the picture of the store's snapshot, and decodes again when another one comes. */
export class Picture {
  readonly #ready = signal<Base | null>(null);
  readonly #problem = signal("");

  constructor(store: Store, abort: AbortSignal) {
    let shown: Uint8Array | null = null;
    watch(abort, () => {
      const { snapshot } = store.baseline.value;
      const bytes = snapshot.imageBytes();
      if (bytes === shown) return;
      shown = bytes;
      this.#ready.value = null;
      this.#problem.value = "";
      if (!bytes) return;
      const blob = new Blob([bytes.slice()], { type: snapshot.meta.image?.mime ?? "image/png" });
      createImageBitmap(blob).then(
        (bitmap) => {
          if (abort.aborted || shown !== bytes) return bitmap.close();
          this.#ready.value = { color: bitmap, grey: greyOf(bitmap) };
        },
        () => {
          if (shown === bytes)
            this.#problem.value = "The picture cannot be decoded: maps are shown without it.";
        },
      );
    });
  }

  get ready(): ReadonlySignal<Base | null> {
    return this.#ready;
  }

  /** Why there is no picture, where there should be one. */
  get problem(): ReadonlySignal<string> {
    return this.#problem;
  }
}

function greyOf(bitmap: ImageBitmap): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return canvas;
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  const { data } = pixels;
  for (let i = 0; i < data.length; i += 4) {
    const y = 0.2126 * data[i] + 0.7152 * data[i + 1] + 0.0722 * data[i + 2];
    data[i] = data[i + 1] = data[i + 2] = y;
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** Outlines of the objects in the unit square; built once per snapshot. */
export class MaskOutline {
  readonly #paths = new WeakMap<Snapshot, Path2D | null>();

  of(snapshot: Snapshot): Path2D | null {
    const known = this.#paths.get(snapshot);
    if (known !== undefined) return known;
    const mask = snapshot.mask();
    const path = mask ? edges(mask) : null;
    this.#paths.set(snapshot, path);
    return path;
  }
}

/** Marching squares over the pixels' centres: corners are cut, so that the outline is no staircase. */
function edges({ data, width, height }: { data: Uint8Array; width: number; height: number }): Path2D {
  const path = new Path2D();
  const labels = new Set(data);
  labels.delete(0);
  for (const label of labels) {
    const at = (x: number, y: number) =>
      x >= 0 && y >= 0 && x < width && y < height && data[y * width + x] === label ? 1 : 0;
    for (let y = -1; y < height; y++) {
      for (let x = -1; x < width; x++) {
        const [a, b, c, d] = [at(x, y), at(x + 1, y), at(x + 1, y + 1), at(x, y + 1)];
        const sum = a + b + c + d;
        if (sum === 0 || sum === 4) continue;
        // Middles of the four sides of this cell, whose corners are pixel centres.
        const top = [x + 1, y + 0.5];
        const right = [x + 1.5, y + 1];
        const bottom = [x + 1, y + 1.5];
        const left = [x + 0.5, y + 1];
        const crossed = [a !== b && top, b !== c && right, c !== d && bottom, d !== a && left];
        const ends = crossed.filter((side): side is number[] => side !== false);
        for (let i = 0; i + 1 < ends.length; i += 2) {
          path.moveTo(ends[i][0] / width, ends[i][1] / height);
          path.lineTo(ends[i + 1][0] / width, ends[i + 1][1] / height);
        }
      }
    }
  }
  return path;
}

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
    const out = document.createElement("canvas");
    out.width = canvas.width;
    out.height = canvas.height;
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
  const { width, height } = canvas;
  const { snapshot, base, opacity, ratio } = scene;
  context.globalAlpha = 1;
  const layers = base ? layersOf(canvas, base) : null;
  if (layers) {
    context.drawImage(layers.color, 0, 0);
    context.globalAlpha = Math.min(1, opacity * 1.6);
    if (opacity > 0) context.drawImage(layers.grey, 0, 0);
  } else {
    context.fillStyle = "rgb(128 128 128 / 20%)";
    context.clearRect(0, 0, width, height);
    context.fillRect(0, 0, width, height);
  }
  if (opacity > 0) {
    const overlay = overlayOf(canvas, scene);
    context.globalAlpha = opacity;
    context.imageSmoothingEnabled = scene.smooth;
    context.drawImage(overlay, 0, 0, width, height);
    if (layers) {
      // Light and dark of the picture come through the colours, which keep their hue.
      context.globalCompositeOperation = "soft-light";
      context.globalAlpha = 0.4 * opacity;
      context.drawImage(layers.grey, 0, 0);
      context.globalCompositeOperation = "source-over";
    }
  }
  context.globalAlpha = 1;
  if (scene.outline) {
    context.save();
    context.scale(width, height);
    for (const [color, size] of [
      ["rgb(0 0 0 / 55%)", 3],
      ["#fff", 1.25],
    ] as const) {
      context.strokeStyle = color;
      context.lineWidth = (size * ratio) / width;
      context.lineCap = "round";
      context.stroke(scene.outline);
    }
    context.restore();
  }
  const { rows, columns, prefix } = snapshot;
  const cell = (token: number): [number, number, number, number] => {
    const x = (token - prefix) % columns;
    const y = Math.floor((token - prefix) / columns);
    return [(x * width) / columns, (y * height) / rows, width / columns, height / rows];
  };
  const ring = (tokens: readonly number[], color: string, size: number, dash: number[] = []) => {
    const path = borders(
      tokens.filter((t) => snapshot.isImageToken(t)),
      prefix,
      columns,
      cell,
    );
    context.setLineDash([]);
    context.lineCap = "square";
    context.strokeStyle = "rgb(0 0 0 / 70%)";
    context.lineWidth = (size + 2) * ratio;
    context.stroke(path);
    context.setLineDash(dash.map((d) => d * ratio));
    context.strokeStyle = color;
    context.lineWidth = size * ratio;
    context.stroke(path);
    context.setLineDash([]);
  };
  if (scene.selected.length > 0) ring(scene.selected, "#fff", 2);
  if (scene.hovered !== null) ring([scene.hovered], "#fff", 1);
  if (scene.focused !== null) ring([scene.focused], "#fff", 2, [3, 3]);
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
  let canvas = small.get(owner);
  if (!canvas) {
    canvas = document.createElement("canvas");
    small.set(owner, canvas);
  }
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
