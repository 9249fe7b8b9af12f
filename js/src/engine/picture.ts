/**
 * From a picture to the model's input, as timm does it with Pillow: resized with antialiasing, cropped, normalised.
 *
 * Pillow resizes 8-bit pictures in whole numbers, first across, then down, and rounds after each: weights are multiplied by
 * 2^22. The same is done here, so that the pixels are the same to the last bit - but for pictures that are more than twice as
 * tall as wide, which newer versions of Pillow resize down first.
 */

import type { Preprocessing } from "./model";

/** 8-bit pixels, [height, width, 4] like `ImageData`; the fourth channel is not looked at. */
export interface Pixels {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** Bits of the weights behind the point. */
const BITS = 22;
/** How far a filter reaches, in pixels of the smaller picture; and its weights. */
const FILTERS: Readonly<Record<string, readonly [number, (x: number) => number]>> = {
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, bicubic],
};

function bicubic(x: number): number {
  const a = -0.5;
  const z = Math.abs(x);
  if (z < 1) return ((a + 2) * z - (a + 3)) * z * z + 1;
  return z < 2 ? (((z - 5) * z + 8) * z - 4) * a : 0;
}

/** For every pixel of a side of `to` pixels: where in the side of `from` pixels it reads, and with which weights. */
function taps(from: number, to: number, filter: string): { start: number; weights: Int32Array }[] {
  const [reach, weigh] = FILTERS[filter];
  const scale = from / to;
  const wide = Math.max(1, scale);
  const support = reach * wide;
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = Array.from({ length: end - start }, (_, k) =>
      weigh((start + k - centre + 0.5) * (1 / wide)),
    );
    const sum = weights.reduce((a, b) => a + b, 0);
    const whole = (w: number) => Math.trunc((w / sum) * 2 ** BITS + (w < 0 ? -0.5 : 0.5));
    return { start, weights: Int32Array.from(weights, whole) };
  });
}

/** Resize one side: lines of `from` pixels, `step` numbers apart, become lines of `to` pixels. */
function resizeSide(
  data: Pixels["data"],
  out: Uint8ClampedArray,
  sides: readonly [number, number],
  filter: string,
  lines: number,
  [pixel, line]: readonly [number, number],
  [outPixel, outLine]: readonly [number, number],
): void {
  taps(...sides, filter).forEach(({ start, weights }, i) => {
    for (let l = 0; l < lines; l++) {
      for (let channel = 0; channel < 3; channel++) {
        let at = l * line + start * pixel + channel;
        let sum = 1 << (BITS - 1);
        for (let k = 0; k < weights.length; k++, at += pixel) sum += data[at] * weights[k];
        // The array itself cuts what is below 0 or above 255.
        out[l * outLine + i * outPixel + channel] = sum >> BITS;
      }
    }
  });
}

export function resize({ data, width, height }: Pixels, w: number, h: number, filter: string): Pixels {
  let rows = data;
  if (w !== width) {
    const out = new Uint8ClampedArray(4 * w * height);
    resizeSide(data, out, [width, w], filter, height, [4, 4 * width], [4, 4 * w]);
    rows = out;
  }
  if (h === height) return { data: rows, width: w, height };
  const out = new Uint8ClampedArray(4 * w * h);
  resizeSide(rows, out, [height, h], filter, w, [4 * w, 4], [4 * w, 4]);
  return { data: out, width: w, height: h };
}

/** The part of a picture that the model sees, in its size: what `timm.data.create_transform` makes of it. */
export function cropped(picture: Pixels, how: Preprocessing): Pixels {
  const [height, width] = how.size;
  const [tall, wide] = [Math.floor(height / how.crop), Math.floor(width / how.crop)];
  let size: readonly [number, number] = [wide, tall];
  if (how.crop_mode === "center") {
    // The shorter side becomes the model's.
    const [w, h] = [picture.width, picture.height];
    size = w <= h ? [wide, Math.trunc((wide * h) / w)] : [Math.trunc((wide * w) / h), wide];
  }
  return cut(resize(picture, size[0], size[1], how.interpolation), width, height);
}

/** The middle of a picture. */
function cut({ data, width, height }: Pixels, w: number, h: number): Pixels {
  if (w === width && h === height) return { data, width, height };
  const [left, top] = [half(width - w), half(height - h)];
  const out = new Uint8ClampedArray(4 * w * h);
  for (let y = 0; y < h; y++) {
    const from = 4 * ((top + y) * width + left);
    out.set(data.subarray(from, from + 4 * w), 4 * w * y);
  }
  return { data: out, width: w, height: h };
}

/** Half of a whole number, rounded to the even neighbour, as Python does it. */
function half(n: number): number {
  const down = Math.floor(n / 2);
  return n % 2 === 0 || down % 2 === 0 ? down : down + 1;
}

/** The model's input, [3, height, width]. */
export function normalise({ data, width, height }: Pixels, { mean, std }: Preprocessing): Float32Array {
  const count = width * height;
  const out = new Float32Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) out[c * count + i] = (data[4 * i + c] / 255 - mean[c]) / std[c];
  }
  return out;
}
