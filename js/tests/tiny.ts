/** A hand-sized snapshot: 2 blocks, 2 heads, [CLS] and 2 x 2 patches, 6 classes, everything kept. */

import { type NdArray, pack } from "../src/core/codec";
import * as derive from "../src/core/derive";
import type { Points } from "../src/core/points";
import { Snapshot } from "../src/core/snapshot";
import type { Contribution } from "../src/core/state";
import { Store } from "../src/core/store";
import { type Breakdown, breakdown } from "../src/views/bars/breakdown";

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

/** A Jacobian lens of all classes, which has no map for image tokens in the last block; and a probe of classes 1 and 2. */
function tinyLenses(
  array: (name: string, shape: number[], data: NdArray["data"], dtype?: NdArray["dtype"]) => NdArray,
) {
  const hidden = (i: number) => i % T > 0 && Math.floor(i / T) % S >= S - 4;
  const logits = noise(C * S * T, 23).map((v, i) => (hidden(i) ? Number.NaN : v));
  const ranks = Uint8Array.from(logits, (v, i) => {
    const own = i % (S * T);
    if (hidden(i)) return 255;
    return Array.from({ length: C }, (_, c) => logits[c * S * T + own]).filter((other) => other > v).length;
  });
  const some = noise(C * S * T, 29).map((v, i) =>
    [1, 2].includes(Math.floor(i / (S * T))) ? v : Number.NaN,
  );
  return {
    arrays: [
      array("lens0_logits", [C, S, T], logits),
      array("lens0_ranks", [C, S, T], ranks, "u1"),
      array("lens1_logits", [C, S, T], some),
    ],
    lenses: [
      {
        kind: "jacobian",
        label: "jacobian",
        question: "what of this token the answer goes on to use",
        pictures: 9,
        classes: null,
        error: Array.from({ length: S }, (_, s) => (s < S - 4 ? 0.04 : null)),
        trust: {
          agreement: [0.1, 0.2, 1],
          "average precision": [0.5, 0.67, null],
          "logit: average precision": [0.3, 0.35, 0.31],
        },
      },
      { kind: "probe", label: "probe", question: "what can be decoded here", pictures: 9, classes: [1, 2] },
    ],
  };
}

export function tinySnapshot(heads = true, removed: number[] = [], fitted = false): Snapshot {
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
  const { arrays, lenses } = tinyLenses(array);
  const bytes = pack(
    {
      ...(fitted ? { lenses } : {}),
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
      ...(fitted ? arrays : []),
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

/** With fitted lenses. */
export function lensStore(): Store {
  return new Store(tinySnapshot(true, [], true), null, { class_index: 1 });
}

/** Until the drawing that the last changes asked for is done. */
export function drawn(): Promise<void> {
  return new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(() => resolve())));
}

/** The breakdown of a class through the logit lens, from the increments' raw readings and the offset. */
export function breakdownOf(
  { points, V, sigma }: { readonly points: Points; readonly V: number; readonly sigma: Float32Array },
  raw: Float32Array,
  offset: number,
  tokens: readonly number[],
  reading: Contribution,
): Breakdown {
  const direct = derive.direct(raw, sigma, points, V);
  const logits = derive.logits(derive.streamRaw(raw, points, V), sigma, offset);
  return breakdown({ points, V }, { direct, logits, offset }, tokens, reading);
}
