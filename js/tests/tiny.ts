/** A hand-sized snapshot: 2 blocks, 2 heads, [CLS] and 2 x 2 patches, 6 classes, everything kept. */

import { type NdArray, pack } from "../src/core/codec";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";

export const NAMES = [
  "tench, Tinca tinca",
  "tabby, tabby cat",
  "tiger cat",
  "<img src=x onerror=alert(1)>",
  "beer glass",
  "cup",
];
export const L = 2;
export const H = 2;
export const T = 5;
export const C = NAMES.length;
export const N = 2 * L + 1;
export const S = 4 * L + 1;

/** Numbers without a pattern that a wrong index could hide behind. */
function noise(count: number, seed: number): Float32Array {
  let state = seed;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) / 8388608 - 1;
  });
}

export function tinySnapshot(heads = true, removed: number[] = []): Snapshot {
  const raw = noise(C * N * T, 7);
  const sigma = noise(S * T, 11).map((v, i) => (removed.includes(i % T) ? Number.NaN : 1.5 + v / 2));
  const offset = noise(C, 13);
  const last = (S - 1) * T;
  const output = offset.map((c, k) => {
    let sum = 0;
    for (let n = 0; n < N; n++) sum += raw[(k * N + n) * T];
    return sum / sigma[last] + c;
  });
  const array = (
    name: string,
    shape: number[],
    data: NdArray["data"],
    dtype: NdArray["dtype"] = "f4",
  ): NdArray => ({
    name,
    dtype,
    shape,
    data,
  });
  const bytes = pack(
    {
      kind: "snapshot",
      model: { name: "tiny", blocks: L, heads: H, width: 4, layout: "sequential" },
      tokens: { count: T, prefix: ["[CLS]"], grid: [2, 2], pooled: false, output: 0, removed },
      classes: { count: C, names: NAMES, kept: NAMES.map((_, i) => i), all: true },
      objects: [{ class: 1, name: "tabby" }],
      payload: { mode: "all" },
      ...(heads ? { attention: { rows: [0] } } : {}),
    },
    [
      array("raw", [C, N, T], raw),
      array("sigma", [S, T], sigma),
      array("offset", [C], offset),
      array("output_logits", [C], output),
      ...(heads ? [array("head_raw", [C, L, H, 1], noise(C * L * H, 17))] : []),
      // The object covers the first patch wholly, half of the second, and a quarter of the third.
      array("mask", [4, 4], Uint8Array.from([1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]), "u1"),
    ],
  );
  return Snapshot.parse(bytes);
}

export function tinyStore(heads = true, removed: number[] = []): Store {
  return new Store(tinySnapshot(heads, removed), null, { class_index: 1 });
}

/** Until the drawing that the last changes asked for is done. */
export function drawn(): Promise<void> {
  return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve())));
}
