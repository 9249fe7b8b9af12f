/** A part of a photograph: moved and zoomed, always of one shape and inside the photograph. */

import type { Photo } from "./meta";

/** Left, top, right, bottom as shares of the photograph's width and height. */
export type Crop = Photo["crop"];

/** The longer side of the smallest part, as a share of the photograph's: below it one sees pixels. */
const SMALLEST = 0.1;

/** A part of `shape` (width / height, in pixels) around a centre; `zoom` 0 shows as much as there is, 1 the least. */
export function cropAt(photo: Photo, shape: number, zoom: number, [x, y]: readonly [number, number]): Crop {
  const full = Math.min(photo.width, photo.height * shape);
  const width = (full * SMALLEST ** zoom) / photo.width;
  const height = (width * photo.width) / shape / photo.height;
  const left = Math.max(0, Math.min(1 - width, x - width / 2));
  const top = Math.max(0, Math.min(1 - height, y - height / 2));
  return [left, top, left + width, top + height];
}

/** The zoom of a part, 0 to 1, and its centre. */
export function placeOf(photo: Photo, shape: number): { zoom: number; centre: readonly [number, number] } {
  const [x0, y0, x1, y1] = photo.crop;
  const full = Math.min(photo.width, photo.height * shape);
  const share = ((x1 - x0) * photo.width) / full;
  const zoom = Math.max(0, Math.min(1, Math.log(share) / Math.log(SMALLEST)));
  return { zoom, centre: [(x0 + x1) / 2, (y0 + y1) / 2] };
}
