/**
 * Interventions, checked against the model and sorted by where they act: the twin of `classspace_widgets/interventions`,
 * which says what each of them means. They come as the plain dicts that both sides share.
 */

import { isRecord } from "../core/codec";
import { kept, range } from "../core/collections";
import type { Spec } from "../core/spec";
import type { Model } from "./model";

/** An intervention that this model, or this page, cannot do; the message says why. */
export class Refused extends Error {}

/** What is overwritten, or added, at some tokens after a block (0: the embedding). */
export interface Change {
  readonly kind: "mean" | "zero" | "add" | "copy";
  readonly tokens: readonly number[];
  readonly vector?: Float32Array;
  /** The token that is copied, and after which block; by default the one that is changed. */
  readonly from?: number;
  readonly after?: number;
}

export type Ablation = "zero" | "mean";

/** Edges of a block's attention that are cut, by head: `[reader * T + source]` is 1 where an edge stays. */
export interface Cuts {
  readonly before: ReadonlyMap<number, Uint8Array>;
  readonly after: ReadonlyMap<number, Uint8Array>;
}

export interface Plan {
  /** Tokens that stay in the sequence. */
  readonly kept: readonly number[];
  /** What is changed in the residual stream, by block. */
  readonly changes: ReadonlyMap<number, readonly Change[]>;
  readonly cuts: ReadonlyMap<number, Cuts>;
  /** How what a sublayer adds is replaced, by `sublayer block`. */
  readonly sublayers: ReadonlyMap<string, Ablation>;
  /** How heads are replaced, by block and head. */
  readonly heads: ReadonlyMap<number, ReadonlyMap<number, Ablation>>;
}

type Writable = {
  changes: Map<number, Change[]>;
  cuts: Map<number, { before: Map<number, Uint8Array>; after: Map<number, Uint8Array> }>;
  sublayers: Map<string, Ablation>;
  heads: Map<number, Map<number, Ablation>>;
};

const KINDS = ["no_cls", "no_others", "self_only", "self_unscaled", "edges"];

export function makePlan(model: Model, specs: readonly Spec[]): Plan {
  const plan: Writable = { changes: new Map(), cuts: new Map(), sublayers: new Map(), heads: new Map() };
  const removed = new Set<number>();
  for (const spec of specs) {
    const check = new Checked(model, spec);
    switch (spec.type) {
      case "RemoveTokens":
        for (const t of check.removed()) removed.add(t);
        break;
      case "MaskTokens":
        change(plan, 0, { kind: check.oneOf("mode", ["zero", "mean"]), tokens: check.chosen() });
        break;
      case "KnockOutAttention":
        knockOut(plan, model, check);
        break;
      case "Ablate":
        ablate(plan, check);
        break;
      case "PatchResidual":
        change(plan, check.depth("target_block"), check.copy());
        break;
      case "AddVector":
        change(plan, check.depth("block"), {
          kind: "add",
          tokens: check.tokens("tokens"),
          vector: check.vector(),
        });
        break;
      default:
        throw new Refused(`The model in this page does not know the intervention ${spec.type}.`);
    }
  }
  const stay = range(model.T, (t) => t).filter((t) => !removed.has(t));
  if (stay.length === model.P) throw new Refused("Every patch would be removed: at least one must stay.");
  checkRenormalised(plan, stay, model.T);
  for (const [block, changes] of plan.changes) {
    for (const { tokens, from = stay[0] } of changes) {
      // The embedding is changed before tokens are removed; and all tokens are those that are left.
      const asked = tokens.length < model.T ? [...tokens, from] : [from];
      const gone = asked.find((t) => block > 0 && removed.has(t));
      if (gone !== undefined) throw new Refused(`Token ${gone} is removed by another intervention.`);
    }
  }
  return { ...plan, kept: stay };
}

/** The first block at which a plan changes anything: L + 1 where it changes nothing. */
export function firstChanged(plan: Plan, { L, T }: Model): number {
  if (plan.kept.length < T) return 0;
  const sublayers = [...plan.sublayers.keys()].map((key) => Number(key.split(" ")[1]));
  return Math.min(L + 1, ...plan.changes.keys(), ...plan.cuts.keys(), ...plan.heads.keys(), ...sublayers);
}

function change(plan: Writable, block: number, one: Change): void {
  kept(plan.changes, block, () => []).push(one);
}

function ablate(plan: Writable, check: Checked): void {
  const sublayer = check.oneOf("sublayer", ["attention", "mlp", "head"]);
  const mode = check.oneOf("mode", ["zero", "mean"]) as Ablation;
  if (check.has("source"))
    throw check.refused("a source is another picture's pass, which this page does not have");
  for (const block of check.blocks()) {
    if (sublayer !== "head") both(plan.sublayers, `${sublayer} ${block}`, mode);
    else
      for (const h of check.heads())
        both(
          kept(plan.heads, block, () => new Map()),
          h,
          mode,
        );
  }
}

/** One ablation after another: the mean of zeros is 0. */
function both<K>(map: Map<K, Ablation>, key: K, mode: Ablation): void {
  map.set(key, map.get(key) === "zero" ? "zero" : mode);
}

function knockOut(plan: Writable, model: Model, check: Checked): void {
  const kind = check.oneOf("kind", KINDS);
  const edges = edgesOf(kind, model, check);
  const early = check.flag("renormalise") || kind === "self_only";
  for (const block of check.blocks()) {
    const cuts = kept(plan.cuts, block, () => ({ before: new Map(), after: new Map() }));
    for (const h of check.heads()) {
      const own: Map<number, Uint8Array> = early ? cuts.before : cuts.after;
      const known = own.get(h);
      own.set(h, known ? known.map((stays, i) => stays & edges[i]) : edges);
    }
  }
}

/** The edges that a kind of knock-out keeps, [T readers, T sources]. */
function edgesOf(kind: string, { T, P, about }: Model, check: Checked): Uint8Array {
  if (kind === "no_cls" && about.prefix[0] !== "[CLS]") throw check.refused("this model has no [CLS] token");
  const out = new Uint8Array(T * T).fill(1);
  if (kind === "edges") {
    if (!check.has("readers") && !check.has("sources")) throw check.refused("it needs readers or sources");
    const sources = check.tokens("sources");
    for (const t of check.tokens("readers")) for (const s of sources) out[t * T + s] = 0;
    return out;
  }
  for (let t = P; t < T; t++) {
    if (kind === "no_cls") out[t * T] = 0;
    else out.fill(0, t * T + (kind === "no_others" ? P : 0), (t + 1) * T);
    if (kind !== "no_cls") out[t * T + t] = 1;
  }
  return out;
}

/** What is renormalised needs something to read. */
function checkRenormalised(plan: Writable, stay: readonly number[], T: number): void {
  for (const [block, { before }] of plan.cuts) {
    for (const edges of before.values()) {
      if (stay.some((t) => stay.every((s) => !edges[t * T + s]))) {
        throw new Refused(
          `At block ${block} a token would have nothing left to read, which cannot be renormalised: keep one source, or do not renormalise.`,
        );
      }
    }
  }
}

/** The fields of one intervention, read with words for what is wrong. */
class Checked {
  readonly #model: Model;
  readonly #spec: Spec;

  constructor(model: Model, spec: Spec) {
    if (!isRecord(spec)) throw new Refused("An intervention must be an object with a type.");
    this.#model = model;
    this.#spec = spec;
  }

  refused(why: string): Refused {
    return new Refused(`${this.#spec.type}: ${why}.`);
  }

  has(name: string): boolean {
    return this.#spec[name] !== undefined && this.#spec[name] !== null;
  }

  flag(name: string): boolean {
    return this.#spec[name] === true;
  }

  /** A text among some; by default the first. */
  oneOf<T extends string>(name: string, choices: readonly T[]): T {
    const value = (this.#spec[name] ?? choices[0]) as T;
    if (!choices.includes(value)) throw this.refused(`${name} must be one of ${choices.join(", ")}`);
    return value;
  }

  blocks(): readonly number[] {
    return this.#numbers("blocks", 1, this.#model.L);
  }

  heads(): readonly number[] {
    return this.#numbers("heads", 0, this.#model.H - 1);
  }

  tokens(name: string): readonly number[] {
    return this.#numbers(name, 0, this.#model.T - 1);
  }

  depth(name: string): number {
    return this.#number(this.#spec[name], name, 0, this.#model.L);
  }

  vector(): Float32Array {
    const vector = Float32Array.from((this.#spec.vector as number[]) ?? []);
    if (vector.length !== this.#model.D) throw this.refused(`vector must have ${this.#model.D} numbers`);
    return vector;
  }

  /** A state is copied from a token of this picture, at the same block or an earlier one. */
  copy(): Change {
    const { source, source_token } = this.#spec;
    if (source === "other")
      throw this.refused("the second picture is not in this page; take this step back, or use a notebook");
    if (this.has("source") && !(Array.isArray(source) && source[0] === 0))
      throw this.refused("the source must be [0, token], a token of this picture");
    const token = Array.isArray(source) ? source[1] : source_token;
    const target = this.depth("target_block");
    const after = this.has("source_block") ? this.depth("source_block") : target;
    if (after > target) throw this.refused("the state of a later block is not there yet");
    const from = this.#number(token, "source_token", 0, this.#model.T - 1);
    return { kind: "copy", tokens: this.tokens("tokens"), from, after };
  }

  /** Tokens that are chosen by number, by a box of the patch grid or by a mask; or the other image tokens. */
  chosen(): readonly number[] {
    const { P, T } = this.#model;
    const given = ["tokens", "box", "mask"].filter((name) => this.has(name));
    if (given.length !== 1) throw this.refused("it takes one of tokens, box and mask");
    const listed = this.has("tokens") ? this.tokens("tokens") : this.#inGrid();
    const tokens = this.flag("outside")
      ? range(T - P, (i) => P + i).filter((t) => !listed.includes(t))
      : listed;
    if (tokens.length === 0) throw this.refused("no token is chosen");
    return tokens;
  }

  removed(): readonly number[] {
    const tokens = this.chosen();
    if (tokens.some((t) => t < this.#model.P)) throw this.refused("prefix tokens cannot be removed");
    return tokens;
  }

  #inGrid(): number[] {
    const [rows, columns] = this.#model.about.grid;
    const { mask } = this.#spec as { mask?: readonly (readonly unknown[])[] };
    if (mask && (mask.length !== rows || mask.some((row) => row.length !== columns)))
      throw this.refused(`the mask must have the grid's ${rows} x ${columns} patches`);
    const [top, left, bottom, right] = (this.#spec.box ?? []) as number[];
    const inside = (row: number, column: number) =>
      mask ? mask[row][column] : row >= top && row < bottom && column >= left && column < right;
    return range(rows * columns, (i) => i)
      .filter((i) => inside(Math.floor(i / columns), i % columns))
      .map((i) => this.#model.P + i);
  }

  /** Whole numbers in a range, each once; all of the range where none are given. */
  #numbers(name: string, low: number, high: number): readonly number[] {
    if (!this.has(name)) return range(high - low + 1, (i) => low + i);
    const given = this.#spec[name];
    const list = Array.isArray(given) ? given : [given];
    if (list.length === 0) throw this.refused(`${name} is empty`);
    return [...new Set(list.map((value) => this.#number(value, name, low, high)))];
  }

  #number(value: unknown, name: string, low: number, high: number): number {
    const whole = Number.isInteger(value) && (value as number) >= low && (value as number) <= high;
    if (!whole) throw this.refused(`${name} must be in ${low}..${high}, got ${JSON.stringify(value)}`);
    return value as number;
  }
}
