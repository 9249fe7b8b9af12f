/** What a view is: a function that puts itself into an element, and lives as long as a signal. */

import type { Store } from "../core/store";

export type Options = Readonly<Record<string, unknown>>;
export type Mount = (el: HTMLElement, store: Store, abort: AbortSignal, options?: Options) => void;

/** Options of a view that may be part of another one. */
export interface PartOptions {
  /** The view around offers the choice of the pass. */
  readonly composed?: boolean;
}
