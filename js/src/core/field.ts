/** What the patch map shows: one value per token of the chosen reading, its scale, and words about it. */

import { count, number, percent, shortName, signed } from "./format";
import type { Readings } from "./readings";
import type { Shares, Snapshot } from "./snapshot";
import type { Data, Importance, Reading, Store } from "./store";

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
  if (a.state !== "ready" || b.state !== "ready" || a.reading === "rank") return pair;
  const ends = [Math.min(a.low, b.low), Math.max(a.high, b.high)] as const;
  const scale = a.kind === "diverging" ? diverging(ends[1]) : sequential(...ends);
  const shared = (f: Field) => ({ ...f, ...scale, clipped: outside(f.values, ...ends) });
  return [shared(a), shared(b)];
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
  if (state.shown.value !== "difference") return single(store, store.data.value, classes);
  const other = store.variant.value;
  const base = single(store, store.baseline.value, classes);
  if (!other) return base;
  const after = single(store, other, classes);
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
  if (reading === "attention" || reading === "source") return headField();
  if (reading === "importance") return importanceField();

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

  function importanceField(): Field {
    const method = state.importance.value;
    const parts = [id, other].filter((c): c is number => c !== null);
    const shares = parts.map((c) => snapshot.importance(method, c));
    const lost = parts.find((_, i) => !shares[i]);
    if (lost !== undefined) {
      const name = shortName(snapshot.className(lost));
      if (store.kernel.value !== "live") {
        return empty(
          `The token importance for ${name} is not in what was saved; with a kernel it would be computed.`,
        );
      }
      return store.notice.value.kind === "error" && store.wished(method, lost)
        ? empty(`The token importance for ${name} could not be computed.`)
        : empty(`Looking for what matters for ${name} …`, true);
    }
    const [own, against] = shares as Shares[];
    const [through, words] = scope(own);
    if (!through) return empty(words);
    const values = portion(own, through).map((v, i) => v - (against ? portion(against, through)[i] : 0));
    const peak = robustPeak(values, snapshot);
    return make(values, {
      ...(own.signed || against ? diverging(peak) : sequential(0, peak)),
      title: `importance for ${versus}${words}`,
      format: (v) => (own.signed || against ? signed(v, 3) : number(v, 3)),
      note: METHODS[method],
      clipped: peakOf(values) > peak,
    });
  }

  /** The blocks and heads that importance is summed over, and words for them. */
  function scope({ blocks, heads }: Shares): [Through | null, string] {
    const of = state.importance_of.value;
    if (of === "all") return [[0, blocks, 0, heads], ""];
    const method = METHOD_NAMES[state.importance.value];
    if (of === "block") {
      const block = state.block.value;
      if (blocks === 1 && snapshot.L > 1) return [null, `${method} does not tell blocks apart.`];
      if (block === 0) return [null, "Tokens matter through blocks: move the slider to one."];
      return [[block - 1, block, 0, heads], ` through block ${block}`];
    }
    const head = state.head.value;
    if (!head)
      return [null, "Choose an attention head in the head grid: importance through it is shown here."];
    if (heads === 1 && snapshot.H > 1) return [null, `${method} does not tell heads apart.`];
    return [[head[0] - 1, head[0], head[1], head[1] + 1], ` through head ${head[1]} of block ${head[0]}`];
  }

  /** Importance of every token, summed over some blocks and heads. */
  function portion({ heads, values }: Shares, [b0, b1, h0, h1]: Through): Float32Array {
    const out = new Float32Array(V);
    for (let b = b0; b < b1; b++) {
      for (let k = h0; k < h1; k++) {
        const base = (b * heads + k) * V;
        for (let t = 0; t < V; t++) out[t] += values[base + t];
      }
    }
    return out;
  }

  /** What a head sends for the class, or for the class minus the other one. */
  function sent(block: number, head: number, token: number): Float32Array | null {
    const mine = readings.source(id, block, head, token);
    if (other === null) return mine;
    const theirs = readings.source(other, block, head, token);
    return mine && theirs ? mine.map((v, i) => v - theirs[i]) : null;
  }

  function headField(): Field {
    const head = state.head.value;
    if (!head) return empty("Choose an attention head in the head grid: its weights are shown here.");
    const [block, h] = head;
    const tokens = store.activeTokens.value;
    const from = tokens.length === 1 ? snapshot.tokenName(tokens[0]) : `${tokens.length} tokens`;
    const known = tokens.filter((t) => snapshot.attentionRows.includes(t));
    if (known.length === 0) {
      const live = store.kernel.value === "live";
      return empty(
        live
          ? `Reading the attention weights of ${from} …`
          : `The attention weights of ${from} are not in what was saved; known: ${nameRows(snapshot)}.`,
        live,
      );
    }
    const name = `head ${h} of block ${block}`;
    const values = new Float32Array(V).fill(Number.NaN);
    values.fill(0, 0, snapshot.T);
    for (const t of known) {
      const part = reading === "attention" ? snapshot.attention(block, h, t) : sent(block, h, t);
      if (!part)
        return empty(
          `What each token sends through ${name} is not at hand for ${versus}.`,
          store.kernel.value === "live",
        );
      for (let s = 0; s < snapshot.T; s++) values[s] += part[s] / known.length;
    }
    if (reading === "attention") {
      let peak = 0;
      for (let s = snapshot.prefix; s < snapshot.T; s++) peak = Math.max(peak, values[s]);
      const top = peak || 1;
      return make(values, {
        ...sequential(0, top),
        title: `attention of ${name} from ${from}`,
        format: (v) => percent(v),
        clipped: peakOf(values) > top,
      });
    }
    const peak = robustPeak(values, snapshot);
    return make(values, {
      ...diverging(peak),
      title: `sent through ${name} to ${versus} at ${from}`,
      format: (v) => signed(v, 3),
      clipped: peakOf(values) > peak,
    });
  }
}

function nameRows(snapshot: Snapshot): string {
  const names = snapshot.attentionRows.slice(0, 4).map((t) => snapshot.tokenName(t));
  return names.length > 0 ? names.join(", ") : "none";
}

/** First and last block, first and last head; the last ones excluded. */
type Through = readonly [number, number, number, number];

export const METHOD_NAMES: Readonly<Record<Importance, string>> = {
  gradient: "gradient",
  direct: "direct contribution",
  chefer: "Chefer et al.",
  rollout: "rollout",
  attention: "attention",
};

const METHODS: Readonly<Record<Importance, string>> = {
  gradient: "Gradient of the class logit of what attention adds, with respect to attention weights.",
  direct: "What moves straight from each token through attention to the final class logit.",
  chefer: "Chefer et al. 2021: attention weighted by its gradient, carried through the blocks.",
  rollout: "Attention carried through the blocks; the same for every class.",
  attention: "Attention of the last block, mean over heads; the same for every class.",
};

/** Image tokens that can no longer reach the output are still readable, but that must be said. */
function caution(snapshot: Snapshot, reading: Reading, point: number): string {
  if (["attention", "source", "importance", "map"].includes(reading)) return "";
  if (!snapshot.meta.unreachable?.includes(point)) return "";
  return "Image tokens can no longer influence the model's output here: nothing reads them any more.";
}

/** Differences of two classes, kept as long as the readings that they come from. */
const differences = new WeakMap<Float32Array, WeakMap<Float32Array, Float32Array>>();

/** Why a point that does not travel shows nothing. */
function notCarried(snapshot: Snapshot): string {
  const names = snapshot.meta.payload.streams?.join(", ");
  return `This page carries ranks and top classes of these streams alone: ${names}.`;
}

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

function sequential(low: number, high: number) {
  const span = high - low || 1;
  return { kind: "sequential" as const, low, high, place: (v: number) => (v - low) / span };
}

function diverging(peak: number) {
  const top = peak || 1;
  return { kind: "diverging" as const, low: -top, high: top, place: (v: number) => (v / top + 1) / 2 };
}

const ranges = new WeakMap<Float32Array, Map<number, [number, number]>>();

/** Smallest and largest image-token value over all points of one stream: one scale for the whole depth. */
function rangeOver(all: Float32Array, snapshot: Snapshot, parity: 0 | 1): [number, number] {
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
function robustPeak(all: Float32Array, snapshot: Snapshot): number {
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

function peakOf(values: Float32Array): number {
  let peak = 0;
  for (const v of values) if (Math.abs(v) > peak) peak = Math.abs(v);
  return peak;
}

function outside(values: Float32Array, low: number, high: number): boolean {
  return values.some((v) => v < low || v > high);
}
