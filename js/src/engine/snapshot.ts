/** A pass as a snapshot that the views read: the twin of `classspace_widgets/capture/payload.py`. */

import { type NdArray, pack } from "../core/codec";
import { range } from "../core/collections";
import type { Meta } from "../core/meta";
import type { Spec } from "../core/spec";
import type { Model } from "./model";
import type { Trace } from "./pass";
import { array, Reader } from "./reader";

/** Bytes of readings up to which a snapshot carries every class. */
const ALL_LIMIT = 6_000_000;
/** Classes that are carried where not all are. */
const KEPT = 5;

/** The picture that a session shows. */
export interface Picture {
  readonly name: string;
  readonly width: number;
  readonly height: number;
  readonly mime: string;
  /** The file's bytes; of an intervened pass none are needed. */
  readonly bytes?: Uint8Array;
}

export interface Done {
  readonly label: string;
  readonly code: string;
  readonly spec: readonly Spec[];
  readonly labels: readonly string[];
}

/** The pass of a picture, with what was done to it; `base` says what stays the same from one picture to the next. */
export function capture(
  model: Model,
  trace: Trace,
  base: Meta,
  picture: Picture,
  intervention: Done | null = null,
): Uint8Array<ArrayBuffer> {
  const { L, C, V } = model;
  const reader = new Reader(model, trace);
  const [N, S] = [2 * L + 1, 4 * L + 1];
  const all = 4 * C * N * V <= ALL_LIMIT;
  const logits = reader.output();
  const best = range(C, (c) => c).sort((a, b) => logits[b] - logits[a]);
  const kept = all ? range(C, (c) => c) : best.slice(0, KEPT);
  const arrays: NdArray[] = [
    array("output_logits", logits, C),
    array("offset", model.offset, C),
    array("sigma", reader.sigma, S, V),
    array("norms", reader.norms(), N, V),
    array("received", reader.received(), L, V),
    array("raw", reader.raw(kept), kept.length, N, V),
  ];
  if (picture.bytes) {
    const start = trace.increments[0];
    arrays.push(array("image", picture.bytes, picture.bytes.length), array("start", start, start.length));
  }
  if (!all) {
    const { ranks, top } = reader.ranks(kept);
    arrays.push(array("ranks", ranks, kept.length, S, V), ...top);
  }
  // Other rows weigh most of all, and are asked for where they are looked at.
  const { rows, arrays: heads } = reader.attention(kept, [model.output]);
  const note = all
    ? `All ${C} classes are at hand: the model runs in this page.`
    : `${kept.length} of ${C} classes are at hand; the model in this page reads the others when they are chosen.`;
  const { model: sizes, classes, tokens, caveats, unreachable } = base;
  const meta = {
    kind: "snapshot",
    model: sizes,
    tokens: { ...tokens, removed: trace.removed },
    classes: { ...classes, kept, all },
    objects: [],
    caveats,
    unreachable,
    intervention,
    payload: { mode: all ? "all" : "classes", note },
    exactness: { logits: "exact", ranks: "exact", note: "float32 readings, from weights in float16" },
    attention: { rows, encoding: "sqrt-u8" },
    image: { ...picture, bytes: undefined, label: null },
  };
  return pack(meta, [...arrays, ...heads]);
}

/** More of a pass that is shown: some classes with their ranks, or attention rows. */
export function part(
  model: Model,
  trace: Trace,
  classes: readonly number[],
  asked: readonly number[],
  ranked: boolean,
  intervened: boolean,
): Uint8Array<ArrayBuffer> {
  const reader = new Reader(model, trace);
  const { L, V } = model;
  const { rows, arrays } = reader.attention(classes, asked);
  if (ranked) {
    arrays.push(
      array("raw", reader.raw(classes), classes.length, 2 * L + 1, V),
      array("ranks", reader.ranks(classes).ranks, classes.length, 4 * L + 1, V),
    );
  }
  const meta = {
    kind: "part",
    classes: { kept: classes },
    intervened,
    attention: { rows, encoding: "sqrt-u8" },
  };
  return pack(meta, ranked ? arrays.filter(({ name }) => name !== "attention") : arrays);
}
