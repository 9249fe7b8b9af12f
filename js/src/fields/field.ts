/** A field: one value per token of a reading, its scale, and words about it; and what one is made from. */

import { number } from "../core/format";
import type { Data } from "../core/passes";
import type { Readings } from "../core/readings";
import type { Reading } from "../core/state";
import type { Store } from "../core/store";

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
  /** Why no image token has a value, although others may have one; empty where they have. */
  readonly blank: string;
  readonly state: "ready" | "pending" | "nothing";
  readonly approximate: boolean;
  /** Whether values beyond the scale's ends exist (shown with the end's colour). */
  readonly clipped: boolean;
}

/** What a field is asked of: a pass, the class that is read, and the one that it is compared with. */
export interface Question extends Data {
  readonly store: Store;
  readonly id: number;
  readonly other: number | null;
  /** The class, and the class or the difference of the two, in words. */
  readonly own: string;
  readonly versus: string;
  /** A field without values, and why. */
  readonly empty: (note: string, pending?: boolean) => Field;
  readonly filled: (values: Float32Array, part: Partial<Field>) => Field;
}

/** A reading that the patch map can show. */
export interface FieldKind {
  readonly name: string;
  readonly help: string;
  readonly make: (question: Question) => Field;
  /** What it is read at as the slider moves: a stream point, an increment, or neither. */
  readonly at?: "point" | "increment";
  /** Whether it is of a class: two classes can be compared side by side. */
  readonly ofClass?: boolean;
  /** Whether it is read through the chosen lens. */
  readonly ofLens?: boolean;
  /** Whether it is of an attention head. */
  readonly ofHead?: boolean;
  /** Whether it is of the model's own pass, also beside one with interventions. */
  readonly ofBaseline?: boolean;
  /** Whether a session can offer it; always, unless told otherwise. */
  readonly offered?: (store: Store) => boolean;
  /** Ask the kernel for what is not at hand. */
  readonly fetch?: (store: Store) => void;
}

/** What to ask a kind of field called `name`; `caution` is said of every field that has values. */
export function question(
  store: Store,
  { snapshot, readings }: Data,
  [id, other]: readonly [number, number | null],
  name: string,
  caution: string,
): Question {
  const own = snapshot.shortName(id);
  const empty = (note: string, pending = false): Field => ({
    reading: store.state.reading.value,
    values: new Float32Array(snapshot.V).fill(Number.NaN),
    kind: "sequential",
    low: 0,
    high: 1,
    place: () => 0,
    format: (v) => number(v),
    title: name,
    note,
    blank: "",
    state: pending ? "pending" : "nothing",
    approximate: false,
    clipped: false,
  });
  return {
    store,
    snapshot,
    readings,
    id,
    other,
    own,
    versus: other === null ? own : `${own} − ${snapshot.shortName(other)}`,
    empty,
    filled: (values, part) => ({ ...empty(caution), values, state: "ready", ...part }),
  };
}

/** Why the readings of a class through a lens are not at hand. */
export function notAtHand(store: Store, name: string, readings: Readings, id: number): string {
  if (!readings.reads(id)) return `The ${readings.lens?.label} lens was not fitted for ${name}.`;
  return store.live
    ? `Reading ${name} …`
    : `The readings of ${name} were not saved; a running kernel would fetch them.`;
}
