/** Fields of a class along the depth: at a stream point, or of what an increment does. */

import { kept } from "../core/collections";
import { count, number, percent, signed } from "../core/format";
import type { Readings } from "../core/readings";
import type { Snapshot } from "../core/snapshot";
import { type Field, notAtHand, type Question } from "./field";
import { ofSomeClasses } from "./lens";
import { around, diverging, outside, rangeOver, robustPeak, sequential } from "./scale";

/** Why a point that does not travel shows nothing. */
function notCarried({ meta }: Snapshot): string {
  return `This page carries ranks and top classes of these streams alone: ${meta.payload.streams?.join(", ")}.`;
}

/** Differences of two classes, kept as long as the readings that they come from. */
const differences = new WeakMap<Float32Array, WeakMap<Float32Array, Float32Array>>();

/** The first values minus the second; the same object for the same two. */
export function minus(own: Float32Array, against: Float32Array): Float32Array {
  const known = kept(differences, own, () => new WeakMap());
  return kept(known, against, () => own.map((v, i) => v - against[i]));
}

/** A reading of the class, or of the class minus the other one. */
function compared(
  { readings, id, other }: Question,
  read: (readings: Readings, id: number) => Float32Array | null,
): Float32Array {
  const own = read(readings, id) ?? new Float32Array();
  const against = other === null ? null : read(readings, other);
  return against ? minus(own, against) : own;
}

/** The values of all tokens at a point or a position. */
export function valuesAt(all: Float32Array, { V }: Snapshot, n: number): Float32Array {
  return all.subarray(n * V, (n + 1) * V);
}

/** A field without values where the ranks, or the readings, of a class are not at hand. */
function missing({ store, snapshot, readings, id, other, empty }: Question, ranking: boolean): Field | null {
  const { ranks_only } = snapshot.meta.payload;
  if (ranking && readings.lens?.classes) return empty(ofSomeClasses(readings));
  if (ranking && readings.ranked(id) && snapshot.rowOf(store.point.value) < 0)
    return empty(notCarried(snapshot));
  if (ranks_only && !ranking && readings.ranked(id)) {
    return empty("Only ranks and top classes are in this page: choose identifiability, rank or top class.");
  }
  const known = (c: number) => (ranking ? readings.ranked(c) : readings.has(c));
  const lost = [id, other].find((c) => c !== null && !known(c)) ?? null;
  if (lost === null) return null;
  return empty(
    notAtHand(store, snapshot.shortName(lost), readings, lost),
    store.live && readings.reads(lost),
  );
}

/** Whether logits are rounded. */
function approximate({ snapshot, id }: Question): boolean {
  return snapshot.meta.exactness?.logits === "approximate" && !snapshot.classArrays(id)?.raw;
}

export function rankField(asked: Question, identifiability: boolean): Field {
  const { store, snapshot, readings, id, own, empty, filled } = asked;
  const lost = missing(asked, true);
  if (lost) return lost;
  const all = (identifiability ? readings.identifiability(id) : readings.ranks(id)) as Float32Array;
  const values = valuesAt(all, snapshot, store.point.value);
  if (values.every(Number.isNaN)) return empty(`Counting the ranks of ${own} here …`, true);
  // Rank 0 gets the bright end, and the first ten ranks half of the scale of a thousand.
  const last = snapshot.C - 1;
  const place = (v: number) => 1 - Math.log1p(Math.max(0, v)) / Math.log1p(Math.max(1, last));
  return filled(values, {
    title: `${identifiability ? "identifiability" : "rank"} of ${own}`,
    approximate: readings.ranksApproximate(id),
    ...(identifiability
      ? { ...sequential(0, 1), format: (v) => number(v, 3) }
      : { kind: "sequential", low: last, high: 0, place, format: count }),
  });
}

export function logitField(asked: Question): Field {
  const { store, snapshot, other, versus, filled } = asked;
  const lost = missing(asked, false);
  if (lost) return lost;
  const point = store.point.value;
  const all = compared(asked, (r, c) => r.logits(c));
  const values = valuesAt(all, snapshot, point);
  const [low, high] = rangeOver(all, snapshot, snapshot.points.isSum(point));
  return filled(values, {
    title: `logit of ${versus}`,
    approximate: approximate(asked),
    ...(other === null
      ? { ...sequential(low, high), clipped: outside(values, low, high), format: (v) => number(v) }
      : { ...around(values, Math.max(Math.abs(low), Math.abs(high))), format: (v) => signed(v) }),
  });
}

export function probabilityField(asked: Question): Field {
  const { store, snapshot, other, versus, empty, filled } = asked;
  const lost = missing(asked, false);
  if (lost) return lost;
  const point = store.point.value;
  const values = valuesAt(
    compared(asked, (r, c) => r.probabilities(c)),
    snapshot,
    point,
  );
  if (asked.readings.lens?.classes) return empty(ofSomeClasses(asked.readings));
  if (snapshot.rowOf(point) < 0) return empty(notCarried(snapshot));
  if (values.every(Number.isNaN)) return empty("Adding up the probabilities of all classes here …", true);
  return filled(values, {
    title: `probability of ${versus}`,
    approximate: approximate(asked),
    ...(other === null
      ? { ...sequential(0, 1), format: percent }
      : { ...diverging(1), format: (v) => (v > 0 ? `+${percent(v)}` : percent(v)) }),
  });
}

export function contributionField(asked: Question, step: boolean): Field {
  const { store, snapshot, versus, empty, filled } = asked;
  const lost = missing(asked, false);
  if (lost) return lost;
  const position = store.position.value;
  if (step && position === 0) {
    return empty("The embedding is where the steps start: there is nothing before it to compare with.");
  }
  const all = compared(asked, (r, c) => (step ? r.step(c) : r.direct(c)));
  const values = valuesAt(all, snapshot, position);
  const what = snapshot.points.name(position);
  return filled(values, {
    ...around(values, robustPeak(all, snapshot)),
    title: step ? `step of ${versus} across ${what}` : `direct contribution of ${what} to ${versus}`,
    approximate: approximate(asked),
    format: (v) => signed(v, 3),
  });
}

export function topField({ store, snapshot, readings, empty, filled }: Question): Field {
  const point = store.point.value;
  const top = readings.all.top1(point);
  if (readings.lens?.classes) return empty(ofSomeClasses(readings));
  if (snapshot.rowOf(point) < 0) return empty(notCarried(snapshot));
  if (!top) return empty("Top classes at this point are being counted …", true);
  return filled(
    Float32Array.from(top, (id) => (id < 0 ? Number.NaN : id)),
    {
      kind: "categorical",
      title: "top class of each token",
      format: (v) => snapshot.shortName(v),
      approximate: snapshot.meta.payload.mode === "increments" && !snapshot.array("top"),
    },
  );
}
