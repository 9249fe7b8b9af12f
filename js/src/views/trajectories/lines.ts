/** Lines over the depth: single tokens, and means of the tokens inside and outside of an object. */

import { extentWithZero } from "../../charts/scale";
import { range } from "../../core/collections";
import { shortName } from "../../core/format";
import type { Data } from "../../core/passes";
import type { Snapshot } from "../../core/snapshot";
import type { Store } from "../../core/store";
import { whatIfPossible } from "../controls";
import { absence } from "../words";

export type Measure = "rank" | "identifiability" | "logit";

export interface Line {
  readonly key: string;
  readonly name: string;
  /** Class that sets colour and dash in the stylesheet. */
  readonly look: string;
  readonly values: readonly number[];
}

export interface Lines {
  readonly lines: readonly Line[];
  readonly measure: Measure;
  /** Lowest and highest value of these lines and of every token, and zero: whatever the pointer is on has room. */
  readonly extent: readonly [number, number];
}

interface ObjectTokens {
  readonly inside: readonly number[];
  readonly outside: readonly number[];
  readonly name: string;
}

/** Selected tokens with a line of their own, for each of which the stylesheet has a colour; more are shown as their mean. */
const SINGLE = 5;

/** For each image token, in which share of its patch the mask says `value`: [rows * columns]. */
export function coverage(
  mask: { readonly data: Uint8Array; readonly width: number; readonly height: number },
  rows: number,
  columns: number,
  value: number,
): Float32Array {
  const inside = new Float32Array(rows * columns);
  const all = new Float32Array(rows * columns);
  for (let y = 0; y < mask.height; y++) {
    const row = Math.floor((y * rows) / mask.height);
    for (let x = 0; x < mask.width; x++) {
      const patch = row * columns + Math.floor((x * columns) / mask.width);
      all[patch]++;
      if (mask.data[y * mask.width + x] === value) inside[patch]++;
    }
  }
  return inside.map((n, i) => (all[i] > 0 ? n / all[i] : 0));
}

/** Tokens whose patch the object covers by half or more, and the other image tokens. */
export function splitTokens(shares: Float32Array, prefix: number): { inside: number[]; outside: number[] } {
  const inside: number[] = [];
  const outside: number[] = [];
  shares.forEach((share, i) => {
    (share >= 0.5 ? inside : outside).push(i + prefix);
  });
  return { inside, outside };
}

/** Of `tokens`, those that an intervention has not removed: readings of removed ones are NaN. */
function present(snapshot: Snapshot, tokens: readonly number[]): readonly number[] {
  return tokens.filter((t) => !Number.isNaN(snapshot.finalSigma(t)));
}

/** Mean over `tokens` of a reading [S, V] at the points given; tokens that are not known (removed ones) do not count. */
export function along(
  values: Float32Array,
  V: number,
  points: readonly number[],
  tokens: readonly number[],
): number[] {
  return points.map((s) => {
    let sum = 0;
    let known = 0;
    for (const t of tokens) {
      const value = values[s * V + t];
      if (Number.isNaN(value)) continue;
      sum += value;
      known++;
    }
    return known > 0 ? sum / known : Number.NaN;
  });
}

/** Tokens on the object of the class that is read, or else on the main object; null when no mask is known. */
export function objectTokens(store: Store): ObjectTokens | null {
  const { snapshot } = store.baseline.value;
  const mask = snapshot.mask();
  if (!mask) return null;
  const objects = snapshot.meta.objects ?? [];
  const own = objects.findIndex((o) => o.class === store.state.class_index.value);
  const object = Math.max(own, 0);
  const parts = splitTokens(coverage(mask, snapshot.rows, snapshot.columns, object + 1), snapshot.prefix);
  const name = shortName(objects[object]?.name ?? "object");
  return { ...parts, name: own >= 0 ? "class tokens" : `tokens on ${name}` };
}

/** The mean where ranks say nothing: each of 0..C-1 is as likely. A logit has none. */
export function chanceOf(measure: Measure, classes: number): number | null {
  if (measure === "logit") return null;
  return measure === "rank" ? (classes - 1) / 2 : (classes + 1) / (2 * classes);
}

/** A reading of one class, [S, T']; null when the class is not at hand. */
function valuesOf({ readings }: Data, measure: Measure, id: number): Float32Array | null {
  if (measure === "rank") return readings.ranks(id);
  return measure === "logit" ? readings.logits(id) : readings.identifiability(id);
}

/** Values over the slider's positions; a logit is that of the class minus that of the class to compare with. */
function reader(store: Store, data: Data, measure: Measure) {
  const { snapshot } = data;
  const { class_index, compare_index, stream } = store.state;
  const points = snapshot.points.along(stream.value);
  const of = (id: number, tokens: readonly number[]) => {
    const values = valuesOf(data, measure, id);
    return values
      ? along(values, snapshot.V, points, present(snapshot, tokens))
      : points.map(() => Number.NaN);
  };
  return (tokens: readonly number[], id = class_index.value): number[] => {
    const first = of(id, tokens);
    const other = compare_index.value;
    if (measure !== "logit" || other === null) return first;
    const second = of(other, tokens);
    return first.map((v, i) => v - second[i]);
  };
}

/** All lines of the current state, or why there are none. */
export function linesOf(store: Store, measure: Measure, object: ObjectTokens | null): Lines | string {
  const data = store.data.value;
  const { snapshot, readings } = data;
  const { output } = snapshot;
  const { class_index, compare_index } = store.state;
  const other = compare_index.value;
  for (const c of [class_index.value, measure === "logit" ? other : null]) {
    if (c !== null && !(measure === "logit" ? readings.has(c) : readings.ranked(c)))
      return absence(store, data, c);
  }
  const read = reader(store, data, measure);
  const name = snapshot.tokenName(output);
  const lines: Line[] = [{ key: "output", name, look: "output", values: read([output]) }];
  if (other !== null && measure !== "logit" && readings.ranked(other)) {
    const own = `${snapshot.shortName(other)} at ${name}`;
    lines.push({ key: "other", name: own, look: "other", values: read([output], other) });
  }
  // Selected tokens that this pass has no longer keep the place of their line.
  const active = store.activeTokens.value;
  const chosen = store.state.tokens.value.filter((t) => t !== output && t < snapshot.V);
  if (chosen.length > SINGLE) {
    const known = chosen.filter((t) => active.includes(t));
    const mean = `mean of ${known.length || chosen.length} selected`;
    const values = known.length > 0 ? read(known) : [];
    lines.push({ key: "selected", name: mean, look: "token0", values });
  } else {
    chosen.forEach((t, i) => {
      const values = active.includes(t) ? read([t]) : [];
      lines.push({ key: `token${i}`, name: snapshot.tokenName(t), look: `token${i}`, values });
    });
  }
  // Last, and with its place kept, so that the others stay where they are.
  const before = () => {
    const values = store.changed.value ? reader(store, store.baseline.value, measure)([output]) : [];
    if (whatIfPossible(store)) lines.push({ key: "before", name: `${name} before`, look: "before", values });
  };
  const add = (key: string, own: string, tokens: readonly number[]) => {
    if (tokens.length > 0) lines.push({ key, name: own, look: key, values: read(tokens) });
  };
  if (object) {
    add("inside", object.name, object.inside);
    add("outside", "context tokens", object.outside);
  }
  before();
  // One scale for the passes before and after.
  const every = [store.baseline.value, store.intervened.value].flatMap((pass) => {
    const of = pass && reader(store, pass, measure);
    return of ? range(snapshot.T, (t) => of([t])) : [];
  });
  const extent = extentWithZero([...lines.map(({ values }) => values), ...every].flat());
  return { lines, measure, extent };
}

/** The token under the pointer in any view, unless it has a line already. */
export function hoveredLine(store: Store, measure: Measure): Line | null {
  const token = store.hovered.value;
  const data = store.data.value;
  const { output } = data.snapshot;
  if (token === null || token === output || store.activeTokens.value.includes(token)) return null;
  const values = reader(store, data, measure)([token]);
  return { key: "hovered", name: data.snapshot.tokenName(token), look: "hovered", values };
}
