/** What a session's views share: the values, their names (those of the Python traits), and where they start. */

import type { Signal } from "@preact/signals-core";
import { CHOICES, DEFAULTS, type State } from "../generated/state";

export { ADDRESS, CHOICES, DEFAULTS, LINKED, type State } from "../generated/state";

export type Sublayer = State["sublayer"];
export type Stream = State["stream"];
export type Shown = State["shown"];
export type Contribution = State["contribution"];
export type Importance = State["importance"];
export type ImportanceOf = State["importance_of"];
export type Reading = State["reading"];

export const READINGS = CHOICES.reading;
export const SHOWN = CHOICES.shown;

export const STATE_NAMES = Object.keys(DEFAULTS) as (keyof State)[];

export type Signals = { readonly [K in keyof State]: Signal<State[K]> };
