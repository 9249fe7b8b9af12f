/** What a session's views share: the values, their names (those of the Python traits), and where they start. */

import type { Signal } from "@preact/signals-core";

export type Sublayer = "embedding" | "attention" | "mlp";
export type Stream = "residual" | "output";
export type Shown = "baseline" | "intervened" | "difference";
export type Contribution = "direct" | "step" | "paper";
export type Importance = "gradient" | "direct" | "chefer" | "rollout" | "attention";
export type ImportanceOf = "all" | "block" | "head";
export const READINGS = [
  "identifiability",
  "rank",
  "logit",
  "probability",
  "step",
  "direct",
  "top1",
  "attention",
  "source",
  "importance",
  "map",
] as const;
export type Reading = (typeof READINGS)[number];

/** The synced state; names are those of the Python traits. */
export interface State {
  class_index: number;
  compare_index: number | null;
  block: number;
  sublayer: Sublayer;
  stream: Stream;
  tokens: readonly number[];
  reading: Reading;
  contribution: Contribution;
  head: readonly number[] | null;
  importance: Importance;
  importance_of: ImportanceOf;
  side_by_side: boolean;
  map_name: string;
  colormap: string;
  opacity: number;
  smooth: boolean;
  outline: boolean;
  shown: Shown;
}

export const DEFAULTS: State = {
  class_index: 0,
  compare_index: null,
  block: 0,
  sublayer: "embedding",
  stream: "residual",
  tokens: [],
  reading: "identifiability",
  contribution: "direct",
  head: null,
  importance: "gradient",
  importance_of: "all",
  side_by_side: false,
  map_name: "",
  colormap: "auto",
  opacity: 0.72,
  smooth: false,
  outline: true,
  shown: "baseline",
};

export const STATE_NAMES = Object.keys(DEFAULTS) as (keyof State)[];

export type Signals = { readonly [K in keyof State]: Signal<State[K]> };
