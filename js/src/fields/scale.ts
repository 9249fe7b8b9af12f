/** Where the values of a field lie on its colour scale, and where that scale ends. */

import { kept } from "../core/collections";
import type { Snapshot } from "../core/snapshot";

export function sequential(low: number, high: number) {
  const span = high - low || 1;
  return { kind: "sequential" as const, low, high, place: (v: number) => (v - low) / span };
}

export function diverging(peak: number) {
  const top = peak || 1;
  return { kind: "diverging" as const, low: -top, high: top, place: (v: number) => (v / top + 1) / 2 };
}

/** A diverging scale for these values, some of which may be beyond its ends. */
export function around(values: Float32Array, peak: number) {
  return { ...diverging(peak), clipped: peakOf(values) > peak };
}

const ranges = new WeakMap<Float32Array, Map<boolean, [number, number]>>();

/**
 * Smallest and largest image-token value over all points of one stream, of sums or of increments: one scale for the whole
 * depth. The embedding is of both.
 */
export function rangeOver(all: Float32Array, snapshot: Snapshot, sums: boolean): [number, number] {
  const known = kept(ranges, all, () => new Map());
  return kept(known, sums, () => {
    const { points, S, V, T, prefix } = snapshot;
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (let s = 0; s < S; s++) {
      if (points.isSum(s) !== sums && s !== 0) continue;
      for (let t = prefix; t < T; t++) {
        const v = all[s * V + t];
        if (v < low) low = v;
        if (v > high) high = v;
      }
    }
    return low <= high ? [low, high] : [0, 1];
  });
}

const peaks = new WeakMap<Float32Array, number>();

/** 99.5th percentile of the size of image-token values: a few outliers must not wash out the rest. */
export function robustPeak(all: Float32Array, snapshot: Snapshot): number {
  return kept(peaks, all, () => {
    const { V, T, prefix } = snapshot;
    const sizes: number[] = [];
    for (let base = 0; base < all.length; base += V) {
      for (let t = prefix; t < T; t++) {
        const v = Math.abs(all[base + t]);
        if (!Number.isNaN(v)) sizes.push(v);
      }
    }
    sizes.sort((a, b) => a - b);
    return sizes[Math.floor((sizes.length - 1) * 0.995)] ?? 1;
  });
}

export function peakOf(values: Iterable<number>): number {
  let peak = 0;
  for (const v of values) if (Math.abs(v) > peak) peak = Math.abs(v);
  return peak;
}

export function outside(values: Float32Array, low: number, high: number): boolean {
  return values.some((v) => v < low || v > high);
}
