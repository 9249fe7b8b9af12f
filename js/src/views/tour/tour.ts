/** A guided tour as it comes from Python, where it was checked (`classspace_widgets/tours`). */

import type { State } from "../../core/state";

/** How a piece of text looks, and the text. */
export type Run = readonly [style: "" | "em" | "strong" | "code", text: string];

export type Operator = "=" | "!=" | "<" | ">" | "<=" | ">=";

export type Condition = readonly [fact: string, operator: Operator, value: unknown];

export interface Step {
  readonly title: string;
  readonly text: readonly Run[];
  readonly target: string;
  /** All of these must have come about; none: the reader goes on when ready. */
  readonly until: readonly Condition[];
  /** Values to begin with; tokens may be "object". */
  readonly begin: Readonly<Partial<Record<keyof State, unknown>>>;
  /** Whether it begins without an intervention. */
  readonly undo: boolean;
  readonly done: readonly Run[];
}

export interface Tour {
  readonly name: string;
  readonly title: string;
  readonly intro: readonly Run[];
  readonly steps: readonly Step[];
}
