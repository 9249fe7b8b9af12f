/** What is looked at and not at hand: asked of the kernel once, or counted here while the hand rests. */

import { effect, untracked } from "@preact/signals-core";
import { runIdle } from "./idle";
import type { Readings } from "./readings";
import type { Importance } from "./state";
import type { Data, Store } from "./store";

/** What only the store knows, or may do. */
interface Own {
  /** Whether the last request failed. */
  failed(): boolean;
  /** More is at hand in these readings. */
  grown(readings: Readings): void;
}

export class Wishes {
  readonly #store: Store;
  readonly #own: Own;
  /** What was asked of a pass; another picture's, or another intervention's, is asked anew. */
  readonly #asked = new WeakMap<Readings, Set<number>>();
  readonly #wished = new WeakMap<Readings, Set<string>>();
  #filling: { readonly readings: Readings; readonly point: number; readonly stop: AbortController } | null =
    null;

  constructor(store: Store, own: Own) {
    this.#store = store;
    this.#own = own;
    const stops = [
      effect(() => this.#fetchClasses(store.baseline.value, "classes")),
      effect(() => {
        const intervened = store.state.shown.value !== "baseline" && store.intervened.value;
        if (intervened) this.#fetchClasses(intervened, "intervened classes");
      }),
      effect(() => this.#fillRanks()),
    ];
    store.signal.addEventListener("abort", () => {
      this.#filling?.stop.abort();
      for (const stop of stops) stop();
    });
  }

  /** Attention weights and head readings of these tokens, fetched where they are missing and a kernel is there. */
  attention(tokens: readonly number[]): void {
    this.#fetchAttention(this.#store.baseline.peek(), "attention", tokens);
    const intervened = this.#store.state.shown.peek() !== "baseline" && this.#store.intervened.peek();
    if (intervened) this.#fetchAttention(intervened, "intervened attention", tokens);
  }

  #fetchAttention({ snapshot, readings }: Data, kind: string, tokens: readonly number[]): void {
    const { class_index, compare_index } = this.#store.state;
    const classes = [class_index.peek(), compare_index.peek()].filter((c) => c !== null);
    const heads = !snapshot.meta.model.heads_refused;
    const rows = tokens.filter(
      (t) =>
        !snapshot.removed.includes(t) &&
        (!snapshot.attentionRows.includes(t) || (heads && classes.some((c) => !readings.headDirect(c, t)))),
    );
    if (rows.length === 0 || this.#store.kernel.peek() !== "live") return;
    void this.#store.request(kind, { rows, classes }, [], `reading ${kind}`);
  }

  /** Token importance for the classes that are looked at, where it is missing and a kernel is there. */
  importance(): void {
    const { snapshot, readings } = this.#store.baseline.value;
    const wished = setOf(this.#wished, readings);
    const { importance, class_index, compare_index } = this.#store.state;
    const method = importance.value;
    const classes = [class_index.value, compare_index.value].filter(
      (c): c is number => c !== null && !snapshot.importance(method, c) && !wished.has(`${method} ${c}`),
    );
    if (classes.length === 0 || this.#store.kernel.value !== "live") return;
    untracked(() => {
      // Once for a picture: what the model refuses is refused again.
      for (const c of classes) wished.add(`${method} ${c}`);
      void this.#store
        .request("importance", { method, classes }, [], "looking for the evidence")
        .then((answer) => {
          if (answer || this.#own.failed()) return;
          for (const c of classes) wished.delete(`${method} ${c}`);
        });
    });
  }

  /** Whether importance was asked for and has not come, or did not come. */
  wished(method: Importance, id: number): boolean {
    return setOf(this.#wished, this.#store.baseline.peek().readings).has(`${method} ${id}`);
  }

  /** Ask the kernel for the classes that are looked at and not at hand; the newest wish replaces older ones. */
  #fetchClasses({ readings }: Data, kind: string): void {
    const asked = setOf(this.#asked, readings);
    const wanted = [this.#store.state.class_index.value, this.#store.state.compare_index.value].filter(
      (c): c is number => c !== null && !readings.has(c) && !asked.has(c),
    );
    if (wanted.length === 0 || this.#store.kernel.value !== "live") return;
    untracked(() => {
      for (const c of wanted) asked.add(c);
      const name = readings.snapshot.className(wanted[0]);
      void this.#store.request(kind, { classes: wanted }, [], `reading ${name}`).then(() => {
        for (const c of wanted) asked.delete(c);
      });
    });
  }

  /**
   * In mode "increments" the ranks of a class that came without them are counted here: the point that is looked at
   * first, then the others of its stream, nearest first, in idle slices.
   */
  #fillRanks(): void {
    const { data } = this.#store;
    const { snapshot, readings } = data.value;
    if (this.#filling?.readings !== readings) this.#stopFilling();
    if (snapshot.meta.payload.mode !== "increments") return;
    const { class_index, compare_index } = this.#store.state;
    const open = [class_index.value, compare_index.value].some(
      (c) => c !== null && !snapshot.classArrays(c)?.ranks,
    );
    const point = this.#store.point.value;
    const stream = this.#store.state.stream.value;
    if (!open) return;
    const order = [...Array(snapshot.N).keys()]
      .map((position) => snapshot.pointOf(position, stream))
      .filter((s) => !readings.pointKnown(s))
      .sort((a, b) => Math.abs(a - point) - Math.abs(b - point));
    const next = readings.pointKnown(point) ? order[0] : point;
    if (next === undefined || next === this.#filling?.point) return;
    this.#stopFilling();
    const stop = new AbortController();
    this.#filling = { readings, point: next, stop };
    untracked(() => {
      runIdle(readings.fillPoint(next), stop.signal).then(
        () => {
          if (stop.signal.aborted) return;
          this.#filling = null;
          this.#own.grown(readings);
        },
        (error) => this.#store.fail(error),
      );
    });
  }
  #stopFilling(): void {
    this.#filling?.stop.abort();
    this.#filling = null;
  }
}

function setOf<T>(sets: WeakMap<Readings, Set<T>>, readings: Readings): Set<T> {
  const own = sets.get(readings) ?? new Set();
  sets.set(readings, own);
  return own;
}
