/**
 * What is looked at and not at hand: asked of the kernel once, or counted here while the hand rests.
 *
 * Classes and ranks follow the state by themselves. Attention, importance and flow are asked for by the views that show them. What
 * was asked for is remembered with the readings of the pass: another picture's, or another intervention's, is asked anew.
 */

import { effect, type ReadonlySignal, untracked } from "@preact/signals-core";
import { kept } from "./collections";
import { onAbort } from "./frame";
import { runIdle } from "./idle";
import type { Data } from "./passes";
import type { Readings } from "./readings";
import type { Snapshot } from "./snapshot";
import type { Signals } from "./state";
import type { Params } from "./transport";

/** What is asked of the store. */
interface Asker {
  readonly state: Signals;
  readonly data: ReadonlySignal<Data>;
  readonly baseline: ReadonlySignal<Data>;
  readonly changed: ReadonlySignal<Data | null>;
  readonly classes: ReadonlySignal<readonly number[]>;
  readonly point: ReadonlySignal<number>;
  readonly live: boolean;
  readonly signal: AbortSignal;
  request(kind: string, params: Params, buffers: readonly ArrayBuffer[], text: string): Promise<unknown>;
  fail(error: unknown): void;
  offers(kind: string): boolean;
}

/** What only the store knows, or may do. */
interface Hooks {
  /** Whether the last request failed. */
  failed(): boolean;
  /** More is at hand in these readings. */
  grown(readings: Readings): void;
}

/** Of a stream point that is being counted here. */
interface Filling {
  readonly readings: Readings;
  readonly point: number;
  readonly stop: AbortController;
}

export class Requests {
  readonly #store: Asker;
  readonly #hooks: Hooks;
  readonly #askedClasses = new WeakMap<Readings, Set<number>>();
  readonly #askedOnce = new WeakMap<Readings, Set<string>>();
  #filling: Filling | null = null;

  constructor(store: Asker, hooks: Hooks) {
    this.#store = store;
    this.#hooks = hooks;
    const stops = [
      effect(() => this.#fetchClasses(store.baseline.value, "classes")),
      effect(() => {
        if (store.changed.value) this.#fetchClasses(store.changed.value, "intervened classes");
      }),
      effect(() => this.#fillRanks()),
    ];
    onAbort(store.signal, () => {
      this.#stopFilling();
      for (const stop of stops) stop();
    });
  }

  /** Attention weights and head readings of these tokens, fetched where they are missing and a kernel is there. */
  attention(tokens: readonly number[]): void {
    const { baseline, changed } = this.#store;
    this.#fetchAttention(baseline.peek(), "attention", tokens);
    const other = changed.peek();
    if (other) this.#fetchAttention(other, "intervened attention", tokens);
  }

  /** Token importance for the classes that are looked at, where it is missing and a kernel is there. */
  importance(): void {
    const method = this.#store.state.importance.value;
    this.#once("importance", { method }, "computing token importance", (snapshot, id) =>
      snapshot.importance.get(method, id),
    );
  }

  /** Where the logits of the classes that are looked at stand, where it is missing and a kernel can tell. */
  flow(): void {
    if (!this.#store.offers("flow")) return;
    this.#once(
      "flow",
      {},
      "finding where the logit stands",
      (snapshot, id) => snapshot.classArrays(id)?.flow,
    );
  }

  /** Whether this was asked for of a class of the model's own pass, and has not come, or did not come. */
  asked(kind: string, params: Params, id: number): boolean {
    return this.#askedOf(this.#store.baseline.peek().readings).has(JSON.stringify([kind, params, id]));
  }

  /** Ask for what is missing of the classes that are looked at, once for a picture: what is refused is refused again. */
  #once(
    kind: string,
    params: Params,
    words: string,
    known: (snapshot: Snapshot, id: number) => unknown,
  ): void {
    const { snapshot, readings } = this.#store.baseline.value;
    const asked = this.#askedOf(readings);
    const key = (id: number) => JSON.stringify([kind, params, id]);
    const classes = this.#store.classes.value.filter((c) => !known(snapshot, c) && !asked.has(key(c)));
    if (!this.#mayAsk(classes)) return;
    untracked(() => {
      for (const c of classes) asked.add(key(c));
      void this.#store.request(kind, { ...params, classes }, [], words).then((answer) => {
        if (answer || this.#hooks.failed()) return;
        for (const c of classes) asked.delete(key(c));
      });
    });
  }

  #askedOf(readings: Readings): Set<string> {
    return kept(this.#askedOnce, readings, () => new Set());
  }

  #mayAsk(wanted: readonly number[]): boolean {
    return wanted.length > 0 && this.#store.live;
  }

  #fetchAttention({ snapshot, readings }: Data, kind: string, tokens: readonly number[]): void {
    untracked(() => {
      const classes = this.#store.classes.value;
      const { heads_refused, sources_refused } = snapshot.meta.model;
      const lacks = (c: number, t: number) =>
        !readings.headDirect(c, t) || !(sources_refused || snapshot.classArrays(c)?.valueRaw);
      const rows = tokens.filter(
        (t) =>
          !snapshot.removed.includes(t) &&
          (!snapshot.attentionRows.includes(t) || (!heads_refused && classes.some((c) => lacks(c, t)))),
      );
      if (this.#mayAsk(rows)) void this.#store.request(kind, { rows, classes }, [], `reading ${kind}`);
    });
  }

  /** Ask the kernel for the classes that are looked at and not at hand; the newest request replaces older ones. */
  #fetchClasses({ readings }: Data, kind: string): void {
    const asked = kept(this.#askedClasses, readings, () => new Set());
    const wanted = this.#store.classes.value.filter((c) => readings.lacks(c) && !asked.has(c));
    if (!this.#mayAsk(wanted)) return;
    untracked(() => {
      for (const c of wanted) asked.add(c);
      const name = readings.snapshot.className(wanted[0]);
      void this.#store.request(kind, { classes: wanted }, [], `reading ${name}`).then((answer) => {
        // A kernel that has no more of a class would be asked for ever.
        if (!answer) for (const c of wanted) asked.delete(c);
      });
    });
  }

  /**
   * In mode "increments" the ranks of a class that came without them are counted here: the point that is looked at
   * first, then the others of its stream, nearest first, in idle slices.
   */
  #fillRanks(): void {
    const { data, point: at, state } = this.#store;
    const { snapshot, readings } = data.value;
    if (this.#filling?.readings !== readings) this.#stopFilling();
    if (snapshot.meta.payload.mode !== "increments" || readings.lens) return;
    const open = this.#store.classes.value.some((c) => !snapshot.classArrays(c)?.ranks);
    const point = at.value;
    const stream = state.stream.value;
    if (!open) return;
    const order = snapshot.points
      .along(stream)
      .filter((s) => !readings.all.known(s))
      .sort((a, b) => Math.abs(a - point) - Math.abs(b - point));
    const next = readings.all.known(point) ? order[0] : point;
    if (next === undefined || next === this.#filling?.point) return;
    this.#stopFilling();
    const stop = new AbortController();
    this.#filling = { readings, point: next, stop };
    untracked(() => {
      runIdle(readings.fillPoint(next), stop.signal).then(
        () => {
          if (stop.signal.aborted) return;
          this.#filling = null;
          this.#hooks.grown(readings);
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
