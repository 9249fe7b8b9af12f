/** The picture under the map, decoded once, and the outlines of the objects in it. */

import { type ReadonlySignal, signal } from "@preact/signals-core";
import { kept } from "../../core/collections";
import { watch } from "../../core/frame";
import type { Photo } from "../../core/meta";
import type { Snapshot } from "../../core/snapshot";
import type { Store } from "../../core/store";

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
      const { image } = snapshot.meta;
      const photo = store.state.model_input.value ? undefined : image?.photo;
      const bytes = snapshot.imageBytes(photo ? "photo" : "image");
      if (bytes === shown) return;
      shown = bytes;
      this.#ready.value = null;
      this.#problem.value = "";
      if (!bytes) return;
      const blob = new Blob([bytes.slice()], { type: (photo ?? image)?.mime ?? "image/png" });
      (photo ? createImageBitmap(blob, ...pixelsOf(photo)) : createImageBitmap(blob)).then(
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

/** Left, top, width and height of the part of a photograph that the model saw, in its pixels. */
function pixelsOf({ width, height, crop: [x0, y0, x1, y1] }: Photo): [number, number, number, number] {
  return [x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height].map(Math.round) as [
    number,
    number,
    number,
    number,
  ];
}

/** An empty canvas. */
export function canvasOf(width: number, height: number): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

function greyOf(bitmap: ImageBitmap): HTMLCanvasElement {
  const { width, height } = bitmap;
  const canvas = canvasOf(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) return canvas;
  context.drawImage(bitmap, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const { data } = pixels;
  for (let i = 0; i < data.length; i += 4) {
    // The lightness of sRGB's primaries.
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
    return kept(this.#paths, snapshot, () => {
      const mask = snapshot.mask();
      return mask && edges(mask);
    });
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
