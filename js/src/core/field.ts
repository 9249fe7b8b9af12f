/** What the patch map shows: one value per token of the chosen reading, its scale, and words about it. */

import { diverging, outside, peakOf, rangeOver, robustPeak, sequential } from "./fieldScale";
import { headField, importanceField } from "./fieldThrough";
import { count, number, percent, shortName, signed } from "./format";
import type { Readings } from "./readings";
import type { Snapshot } from "./snapshot";
import type { Reading } from "./state";
import type { Data, Store } from "./store";

export interface Field {
  readonly reading: Reading;
  /** [V]; NaN where there is nothing to show. Classes for kind "categorical". */
  readonly values: Float32Array;
  readonly kind: "sequential" | "diverging" | "categorical";
  readonly low: number;
  readonly high: number;
  /** Place of a value on the colour scale, 0..1. */
  readonly place: (value: number) => number;
  readonly format: (value: number) => string;
  readonly title: string;
  /** Why there is nothing to see, or what to mind; empty when all is plain. */
  readonly note: string;
  readonly state: "ready" | "pending" | "nothing";
  readonly approximate: boolean;
  /** Whether values beyond the scale's ends exist (shown with the end's colour). */
  readonly clipped: boolean;
}

export const READING_NAMES: Readonly<Record<Reading, string>> = {
  identifiability: "identifiability",
  rank: "rank",
  logit: "logit",
  probability: "probability",
  step: "step contribution",
  direct: "direct contribution",
  top1: "top class",
  attention: "attention",
  source: "source of a head",
  importance: "token importance",
  map: "token map",
};

export const READING_HELP: Readonly<Record<Reading, string>> = {
  identifiability: "1 − rank / classes: how near the class is to the top, read at each token",
  rank: "how many classes have a larger logit; 0 is best",
  logit: "class logit of each token through the final norm and the classifier",
  probability: "softmax of the logits over all classes",
  step: "change of the class logit across this sublayer",
  direct: "what this sublayer adds to each token's final logit; sums exactly",
  top1: "the class with the largest logit at each token",
  attention: "where the chosen attention head looks from the selected token",
  source: "what each token sends through the chosen head to the selected token's class logit",
  importance: "how much each token matters for the class in the model's own pass",
  map: "an extra value per token",
};

/** Which class a field is of, and which one it is compared with. */
type Classes = readonly [id: number, other: number | null];

/** The field of the current state; tracked, so that a view may just call it when it draws. */
export function fieldOf(store: Store): Field {
  return field(store, [store.state.class_index.value, store.state.compare_index.value]);
}

/** Two classes in two maps of one scale; null where they are shown as one map. */
export function pairOf(store: Store): readonly [Field, Field] | null {
  const { class_index, compare_index, side_by_side } = store.state;
  const other = compare_index.value;
  if (!side_by_side.value || other === null || !BY_CLASS.includes(store.state.reading.value)) return null;
  const pair = [field(store, [class_index.value, null]), field(store, [other, null])] as const;
  const [a, b] = pair;
  return [onScaleOf(a, b), onScaleOf(b, a)];
}

/** A field on the wider of the scales of two. */
function onScaleOf(field: Field, other: Field): Field {
  const [a, b] = [field, other];
  if (a.state !== "ready" || b.state !== "ready" || a.reading === "rank" || a.kind === "categorical")
    return a;
  const ends = [Math.min(a.low, b.low), Math.max(a.high, b.high)] as const;
  const scale = a.kind === "diverging" ? diverging(ends[1]) : sequential(...ends);
  return { ...a, ...scale, clipped: outside(a.values, ...ends) };
}

/** Readings that are of a class. */
export const BY_CLASS: readonly Reading[] = [
  "identifiability",
  "rank",
  "logit",
  "probability",
  "step",
  "direct",
  "source",
  "importance",
];

function field(store: Store, classes: Classes): Field {
  const { state } = store;
  if (state.reading.value === "importance") return single(store, store.baseline.value, classes);
  const other = store.intervened.value;
  const base = single(store, store.baseline.value, classes);
  if (!other) return base;
  const after = single(store, other, classes);
  // Before and after are compared by eye: they have one scale.
  if (state.shown.value === "baseline") return onScaleOf(base, after);
  if (state.shown.value === "intervened") return onScaleOf(after, base);
  const values = new Float32Array(base.values.length);
  const categorical = base.kind === "categorical";
  for (let i = 0; i < values.length; i++) {
    if (categorical) values[i] = after.values[i] === base.values[i] ? Number.NaN : after.values[i];
    else values[i] = after.values[i] - base.values[i];
  }
  if (categorical) {
    const note = "Where the top class changed: the class after the intervention.";
    return { ...after, values, note };
  }
  const peak = robustPeak(values, store.baseline.value.snapshot);
  const format = base.reading === "rank" ? (v: number) => signed(v, 0) : (v: number) => signed(v, 3);
  return {
    ...base,
    values,
    ...diverging(peak),
    format,
    title: `${base.title}, change`,
    clipped: peakOf(values) > peak,
  };
}

function single(store: Store, data: Data, [id, other]: Classes): Field {
  const { snapshot, readings } = data;
  const { state } = store;
  const reading = state.reading.value;
  const point = store.point.value;
  const position = store.position.value;
  const { V } = snapshot;
  const own = shortName(snapshot.className(id));
  const versus = other === null ? own : `${own} − ${shortName(snapshot.className(other))}`;
  const empty = (note: string, pending = false): Field => ({
    reading,
    values: new Float32Array(V).fill(Number.NaN),
    kind: "sequential",
    low: 0,
    high: 1,
    place: () => 0,
    format: (v) => number(v),
    title: READING_NAMES[reading],
    note,
    state: pending ? "pending" : "nothing",
    approximate: false,
    clipped: false,
  });
  const make = (values: Float32Array, part: Partial<Field>): Field => ({
    ...empty(""),
    values,
    state: "ready",
    note: caution(snapshot, reading, point),
    ...part,
  });

  if (reading === "top1") {
    const top = readings.top1(point);
    if (snapshot.rowOf(point) < 0) return empty(notCarried(snapshot));
    if (!top) return empty("Top classes at this point are being counted …", true);
    return make(
      Float32Array.from(top, (id) => (id < 0 ? Number.NaN : id)),
      {
        kind: "categorical",
        title: "top class of each token",
        format: (v) => shortName(snapshot.className(v)),
        approximate: snapshot.meta.payload.mode === "increments" && !snapshot.hasTop,
      },
    );
  }
  if (reading === "map") {
    const found =
      snapshot.map(state.map_name.value) ?? (snapshot.maps[0] && snapshot.map(snapshot.maps[0].name));
    if (!found) return empty("This snapshot holds no token map.");
    const scale = found.info.signed
      ? diverging(robustPeak(found.values, snapshot))
      : sequential(0, peakOf(found.values));
    return make(found.values, {
      ...scale,
      title: found.info.label,
      format: (v) => number(v, 3),
      note: found.info.note ?? "",
    });
  }
  if (reading === "attention" || reading === "source" || reading === "importance") {
    const asked = { store, snapshot, readings, id, other, versus, empty, make };
    return reading === "importance" ? importanceField(asked) : headField(asked);
  }

  const ranking = reading === "rank" || reading === "identifiability";
  if (ranking && readings.ranked(id) && snapshot.rowOf(point) < 0) return empty(notCarried(snapshot));
  if (snapshot.meta.payload.ranks_only && !ranking && readings.ranked(id)) {
    return empty("Only ranks and top classes are in this page: choose identifiability, rank or top class.");
  }
  const known = (c: number) => (ranking ? readings.ranked(c) : readings.has(c));
  if (!known(id) || (other !== null && !known(other))) {
    const missing = shortName(snapshot.className(known(id) && other !== null ? other : id));
    return store.kernel.value === "live"
      ? empty(`Reading ${missing} …`, true)
      : empty(`The readings of ${missing} are not in what was saved; with a kernel they would be fetched.`);
  }
  const approximate = snapshot.meta.exactness?.logits === "approximate" && !snapshot.classArrays(id)?.raw;
  switch (reading) {
    case "identifiability":
    case "rank": {
      const all = reading === "rank" ? readings.ranks(id) : readings.identifiability(id);
      const values = (all as Float32Array).subarray(point * V, (point + 1) * V);
      if (values.every(Number.isNaN)) return empty(`Counting the ranks of ${own} here …`, true);
      const shared = {
        title: `${READING_NAMES[reading]} of ${own}`,
        approximate: readings.ranksApproximate(id),
      };
      if (reading === "identifiability") {
        return make(values, { ...sequential(0, 1), ...shared, format: (v) => number(v, 3) });
      }
      // Rank 0 gets the bright end, and the first ten ranks half of the scale of a thousand.
      const last = snapshot.C - 1;
      const place = (v: number) => 1 - Math.log1p(Math.max(0, v)) / Math.log1p(Math.max(1, last));
      return make(values, { kind: "sequential", low: last, high: 0, place, ...shared, format: count });
    }
    case "logit": {
      const all = minus(readings, (r, c) => r.logits(c), id, other);
      const values = all.subarray(point * V, (point + 1) * V);
      const title = `logit of ${versus}`;
      const [low, high] = rangeOver(all, snapshot, point % 2 === 0 ? 0 : 1);
      if (other !== null) {
        const peak = Math.max(Math.abs(low), Math.abs(high));
        return make(values, {
          ...diverging(peak),
          title,
          approximate,
          format: (v) => signed(v),
          clipped: peakOf(values) > peak,
        });
      }
      return make(values, {
        ...sequential(low, high),
        title,
        approximate,
        format: (v) => number(v),
        clipped: outside(values, low, high),
      });
    }
    case "probability": {
      const all = minus(readings, (r, c) => r.probabilities(c), id, other);
      const values = all.subarray(point * V, (point + 1) * V);
      if (snapshot.rowOf(point) < 0) return empty(notCarried(snapshot));
      if (values.every(Number.isNaN)) return empty("Adding up the probabilities of all classes here …", true);
      const title = `probability of ${versus}`;
      return other === null
        ? make(values, { ...sequential(0, 1), title, approximate, format: percent })
        : make(values, {
            ...diverging(1),
            title,
            approximate,
            format: (v) => (v > 0 ? `+${percent(v)}` : percent(v)),
          });
    }
    case "step":
    case "direct": {
      const all = minus(readings, (r, c) => (reading === "step" ? r.step(c) : r.direct(c)), id, other);
      if (reading === "step" && position === 0) {
        return empty("The embedding is where the steps start: there is nothing before it to compare with.");
      }
      const values = all.subarray(position * V, (position + 1) * V);
      const peak = robustPeak(all, snapshot);
      const what = snapshot.positionName(position);
      const title =
        reading === "step"
          ? `step of ${versus} across ${what}`
          : `direct contribution of ${what} to ${versus}`;
      return make(values, {
        ...diverging(peak),
        title,
        approximate,
        format: (v) => signed(v, 3),
        clipped: peakOf(values) > peak,
      });
    }
  }
}

/** Image tokens that can no longer reach the output are still readable, but that must be said. */
function caution(snapshot: Snapshot, reading: Reading, point: number): string {
  if (["attention", "source", "importance", "map"].includes(reading)) return "";
  if (!snapshot.meta.unreachable?.includes(point)) return "";
  return "Nothing reads image tokens from here on: they cannot change the output.";
}

/** Why a point that does not travel shows nothing. */
function notCarried(snapshot: Snapshot): string {
  const names = snapshot.meta.payload.streams?.join(", ");
  return `This page carries ranks and top classes of these streams alone: ${names}.`;
}

/** Differences of two classes, kept as long as the readings that they come from. */
const differences = new WeakMap<Float32Array, WeakMap<Float32Array, Float32Array>>();

function minus(
  readings: Readings,
  read: (readings: Readings, id: number) => Float32Array | null,
  id: number,
  other: number | null,
): Float32Array {
  const own = read(readings, id) ?? new Float32Array();
  const against = other === null ? null : read(readings, other);
  if (!against) return own;
  const known = differences.get(own) ?? new WeakMap<Float32Array, Float32Array>();
  differences.set(own, known);
  const cached = known.get(against) ?? own.map((v, i) => v - against[i]);
  known.set(against, cached);
  return cached;
}
