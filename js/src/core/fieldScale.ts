/** Where the values of a field lie on its colour scale, and where that scale ends. */

import type { Snapshot } from "./snapshot";

export function sequential(low: number, high: number) {
  const span = high - low || 1;
  return { kind: "sequential" as const, low, high, place: (v: number) => (v - low) / span };
}

export function diverging(peak: number) {
  const top = peak || 1;
  return { kind: "diverging" as const, low: -top, high: top, place: (v: number) => (v / top + 1) / 2 };
}

const ranges = new WeakMap<Float32Array, Map<number, [number, number]>>();

/** Smallest and largest image-token value over all points of one stream: one scale for the whole depth. */
export function rangeOver(all: Float32Array, snapshot: Snapshot, parity: 0 | 1): [number, number] {
  let known = ranges.get(all);
  if (!known) {
    known = new Map();
    ranges.set(all, known);
  }
  const cached = known.get(parity);
  if (cached) return cached;
  const { S, V, T, prefix } = snapshot;
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let s = 0; s < S; s++) {
    if (s % 2 !== parity && s !== 0) continue;
    for (let t = prefix; t < T; t++) {
      const v = all[s * V + t];
      if (v < low) low = v;
      if (v > high) high = v;
    }
  }
  const range: [number, number] = low <= high ? [low, high] : [0, 1];
  known.set(parity, range);
  return range;
}

const peaks = new WeakMap<Float32Array, number>();

/** 99.5th percentile of the size of image-token values: a few outliers must not wash out the rest. */
export function robustPeak(all: Float32Array, snapshot: Snapshot): number {
  const known = peaks.get(all);
  if (known !== undefined) return known;
  const { V, T, prefix } = snapshot;
  const sizes: number[] = [];
  for (let base = 0; base < all.length; base += V) {
    for (let t = prefix; t < T; t++) {
      const v = Math.abs(all[base + t]);
      if (!Number.isNaN(v)) sizes.push(v);
    }
  }
  sizes.sort((a, b) => a - b);
  const peak = sizes[Math.floor((sizes.length - 1) * 0.995)] ?? 1;
  peaks.set(all, peak);
  return peak;
}

export function peakOf(values: Iterable<number>): number {
  let peak = 0;
  for (const v of values) if (Math.abs(v) > peak) peak = Math.abs(v);
  return peak;
}

export function outside(values: Float32Array, low: number, high: number): boolean {
  return values.some((v) => v < low || v > high);
}
