/** What a snapshot says of itself - model, tokens, classes, what travels and how exactly - and whether it is sound. */

import { damaged, isCount, isRecord } from "./codec";
import type { Layout } from "./points";

export interface Photo {
  readonly width: number;
  readonly height: number;
  readonly mime: string;
  /** Left, top, right, bottom of the part that the model saw, as shares; beyond 0..1 its input was padded. */
  readonly crop: readonly [number, number, number, number];
}

export interface Meta {
  readonly kind: "snapshot" | "part";
  readonly model: {
    readonly name: string;
    readonly blocks: number;
    readonly heads: number;
    readonly width: number;
    readonly layout: Layout;
    readonly description?: string;
    /** Why its heads cannot be read one by one, where they cannot. */
    readonly heads_refused?: string;
    /** Why a head's output is not the sum of what it reads from every token, where it is not. */
    readonly sources_refused?: string;
    /** Why it is not defined where a logit stands, where it is not. */
    readonly flow_refused?: string;
  };
  readonly tokens: {
    readonly count: number;
    readonly prefix: readonly string[];
    readonly grid: readonly [number, number];
    readonly pooled: boolean;
    readonly output: number;
    readonly removed?: readonly number[];
  };
  readonly classes: {
    readonly count: number;
    readonly names: readonly string[];
    readonly kept: readonly number[];
    readonly all: boolean;
  };
  readonly image?: {
    readonly width: number;
    readonly height: number;
    readonly mime: string;
    readonly name?: string;
    readonly label?: number | null;
    /** The photograph that the model saw a part of. */
    readonly photo?: Photo;
  };
  readonly objects?: readonly { readonly class: number | null; readonly name: string }[];
  readonly payload: {
    readonly mode: "all" | "classes" | "increments";
    readonly note?: string;
    /** Ranks and top classes alone travel, no readings. */
    readonly ranks_only?: boolean;
    /** Streams whose ranks and top classes travel; absent: all. */
    readonly streams?: readonly string[];
    /** Their stream points, in the order of the arrays. */
    readonly points?: readonly number[];
  };
  readonly exactness?: {
    readonly logits: "exact" | "approximate";
    readonly ranks: "exact" | "approximate";
    readonly note?: string;
  };
  readonly attention?: { readonly rows: readonly number[]; readonly encoding?: string };
  readonly maps?: readonly MapInfo[];
  readonly lenses?: readonly LensInfo[];
  /** What else a live kernel answers. */
  readonly offers?: readonly string[];
  readonly caveats?: readonly string[];
  /** How sure the model is of its answer, in words. */
  readonly answer?: { readonly text: string };
  readonly unreachable?: readonly number[];
  readonly intervention?: {
    readonly label: string;
    readonly code?: string;
    /** The interventions one by one, and what each is called. */
    readonly spec?: readonly Readonly<Record<string, unknown>>[];
    readonly labels?: readonly string[];
  } | null;
  readonly embedding_scale?: number;
}

export interface MapInfo {
  readonly name: string;
  readonly label: string;
  readonly class?: number | null;
  readonly signed: boolean;
  readonly note?: string;
}

/** A fitted lens that travels. */
export interface LensInfo {
  readonly kind: string;
  readonly label: string;
  /** What it answers, in words. */
  readonly question: string;
  readonly pictures: number;
  /** The classes that it reads, where not all. */
  readonly classes: readonly number[] | null;
  /** Standard error of the map of image tokens, as a share of its length, by stream point. */
  readonly error?: readonly (number | null)[];
  /** How far it can be trusted: by measure, for the blocks 0..L. */
  readonly trust?: Readonly<Record<string, readonly (number | null)[]>>;
}

/** The meta data of a snapshot, or an error that says what is wrong with them. */
export function checkMeta(meta: Readonly<Record<string, unknown>>): Meta {
  for (const key of ["model", "tokens", "classes", "payload"] as const) {
    if (!isRecord(meta[key])) throw damaged(`its meta data lack "${key}"`);
  }
  const typed = meta as unknown as Meta;
  const { model, tokens, classes, payload } = typed;
  for (const [name, value] of Object.entries({
    "model.blocks": model.blocks,
    "model.heads": model.heads,
    "model.width": model.width,
    "tokens.count": tokens.count,
    "tokens.output": tokens.output,
    "classes.count": classes.count,
  })) {
    if (!isCount(value)) throw damaged(`meta "${name}" must be a whole number, got ${JSON.stringify(value)}`);
  }
  for (const [name, list] of Object.entries({
    "tokens.prefix": tokens.prefix,
    "tokens.grid": tokens.grid,
    "classes.names": classes.names,
    "classes.kept": classes.kept,
  })) {
    if (!Array.isArray(list)) throw damaged(`meta "${name}" must be a list`);
  }
  if (tokens.prefix.length + tokens.grid[0] * tokens.grid[1] !== tokens.count) {
    throw damaged(
      `${tokens.prefix.length} prefix tokens and a grid of ${tokens.grid.join(" x ")} do not make ${tokens.count} tokens`,
    );
  }
  if (!["all", "classes", "increments"].includes(payload.mode)) {
    throw damaged(
      `payload mode must be "all", "classes" or "increments", got ${JSON.stringify(payload.mode)}`,
    );
  }
  return typed;
}
