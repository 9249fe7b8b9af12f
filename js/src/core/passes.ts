/** The passes of a session: the model's own, the one with interventions beside it, and those that a page carries. */

import { batch, type Signal, signal } from "@preact/signals-core";
import { SnapshotError, unpack } from "./codec";
import { Readings } from "./readings";
import { Snapshot } from "./snapshot";

/** What is at hand of a pass; a new object whenever more arrives, so that reading it once subscribes to all of it. */
export interface Data {
  readonly snapshot: Snapshot;
  readonly readings: Readings;
}

/** Sizes in which two passes must agree to stand beside each other. */
const SIZES = ["C", "V", "N", "L", "H", "prefix", "columns"] as const;

const dataOf = (snapshot: Snapshot): Data => ({ snapshot, readings: new Readings(snapshot) });

export class Passes {
  readonly baseline: Signal<Data>;
  readonly intervened: Signal<Data | null> = signal(null);
  /** Intervened passes that a static page carries; null is one that is damaged. */
  readonly pinned: Signal<readonly (Data | null)[]> = signal([]);

  constructor(snapshot: Snapshot) {
    this.baseline = signal(dataOf(snapshot));
  }

  /** Another picture. */
  replace(bytes: ArrayBufferView): void {
    const next = dataOf(Snapshot.parse(bytes));
    batch(() => {
      this.intervened.value = null;
      this.baseline.value = next;
    });
  }

  /** Another pass with interventions; none where there are no bytes, or damaged ones. */
  intervene(bytes: unknown): void {
    let next: Data | null = null;
    try {
      if (ArrayBuffer.isView(bytes) && bytes.byteLength > 0) next = this.#parse(bytes);
    } finally {
      this.intervened.value = next;
    }
  }

  /** One more pinned pass, null for a damaged one; the first is shown beside the baseline. */
  pin(bytes: ArrayBufferView | null): void {
    const data = bytes && this.#parse(bytes);
    this.pinned.value = [...this.pinned.peek(), data];
    this.intervened.value ??= data;
  }

  /** What the answer to a request brought. */
  merge(buffer: ArrayBuffer | ArrayBufferView): void {
    const part = unpack(buffer);
    if (part.meta.kind !== "part") return;
    const target = part.meta.intervened === true ? this.intervened : this.baseline;
    const data = target.peek();
    // An intervention was undone before its answer came.
    if (!data) return;
    data.snapshot.merge(part);
    const { classes } = part.meta as { classes?: { kept?: number[] } };
    for (const id of classes?.kept ?? []) data.readings.forget(id);
    target.value = { ...data };
  }

  /** More is at hand in these readings. */
  grown(readings: Readings): void {
    for (const target of [this.intervened, this.baseline]) {
      const now = target.peek();
      if (now?.readings === readings) target.value = { ...now };
    }
  }

  #parse(bytes: ArrayBufferView): Data {
    const own = this.baseline.peek().snapshot;
    const pass = Snapshot.parse(bytes);
    if (SIZES.some((name) => pass[name] !== own[name]))
      throw new SnapshotError("the intervened pass is of another model");
    return dataOf(pass);
  }
}
