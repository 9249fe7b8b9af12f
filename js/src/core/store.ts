/**
 * The one state that all views of a session share, as signals.
 *
 * Live, every signal mirrors a trait of the session's widget model; on a static page the signals are all there is.
 * Views read signals and call the few methods here; they never see the model.
 */

import {
  batch,
  computed,
  effect,
  type ReadonlySignal,
  type Signal,
  signal,
  untracked,
} from "@preact/signals-core";
import { message, unpack } from "./codec";
import { runIdle } from "./idle";
import { Readings } from "./readings";
import { Snapshot } from "./snapshot";
import { type Answer, NoKernel, type Params, Superseded, Transport } from "./transport";

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

export interface Status {
  readonly kind: "idle" | "busy" | "error";
  readonly text: string;
  readonly progress: number | null;
}

/** What is at hand now; a new object whenever more arrives, so that reading it once subscribes to all of it. */
export interface Data {
  readonly snapshot: Snapshot;
  readonly readings: Readings;
}

/** The part of anywidget's model that is used. */
export interface PinnedStep {
  readonly spec: Readonly<Record<string, unknown>>;
  readonly label: string;
}

/** A what-if state that was kept: its name, and the interventions that make it. */
export interface Pin {
  readonly label: string;
  readonly steps: readonly PinnedStep[];
}

export interface WidgetModel {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event: string, callback: (...args: never[]) => void): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
}

export const IDLE: Status = { kind: "idle", text: "", progress: null };

const DEFAULTS: State = {
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

/** Pause between two states sent to the kernel while the hand moves; the last one always arrives. */
const SYNC_MS = 60;

type Signals = { readonly [K in keyof State]: Signal<State[K]> };

export class Store {
  readonly state: Signals;
  /** What the views show: the baseline, or the intervened pass when `shown` says so. */
  readonly data: ReadonlySignal<Data>;
  readonly baseline: ReadonlySignal<Data>;
  readonly variant: ReadonlySignal<Data | null>;
  /** Intervened passes that a static page carries. */
  readonly pinned: ReadonlySignal<readonly Data[]>;
  readonly pins: ReadonlySignal<readonly Pin[]>;
  /** Slider position 0..N-1 and the stream point that is read there. */
  readonly position: ReadonlySignal<number>;
  readonly point: ReadonlySignal<number>;
  /** Selected tokens that the pass shown still has; the output token when none is. */
  readonly activeTokens: ReadonlySignal<readonly number[]>;
  /** Token under the pointer or the keyboard's focus, in any view. */
  readonly hovered: Signal<number | null> = signal(null);
  readonly kernel: Signal<"live" | "gone" | "none">;
  /** What is going on, in words: of the kernel, or of a request made here. */
  readonly notice: ReadonlySignal<Status>;
  readonly transport: Transport;

  readonly #base: Signal<Data>;
  readonly #variant: Signal<Data | null> = signal(null);
  readonly #pinned: Signal<readonly Data[]> = signal([]);
  readonly #pins: Signal<readonly Pin[]> = signal([]);
  readonly #model: WidgetModel | null;
  readonly #remote: Signal<Status> = signal(IDLE);
  readonly #local: Signal<Status> = signal(IDLE);
  readonly #abort = new AbortController();
  readonly #asked = new Set<number>();
  readonly #askedIntervened = new Set<number>();
  readonly #wished = new Set<string>();
  #fill = new AbortController();
  #filling = -1;

  /** `model` is null on a static page. */
  constructor(snapshot: Snapshot, model: WidgetModel | null, initial: Partial<State> = {}) {
    const base = signal<Data>(dataOf(snapshot));
    this.#base = base;
    this.baseline = base;
    this.variant = this.#variant;
    this.pinned = this.#pinned;
    this.pins = this.#pins;
    this.#model = model;
    const last = snapshot.placeOf(snapshot.N - 1);
    const start: State = {
      ...DEFAULTS,
      class_index: snapshot.predicted(1)[0]?.id ?? 0,
      block: last.block,
      sublayer: last.sublayer,
      ...initial,
    };
    this.state = Object.fromEntries(
      STATE_NAMES.map((name) => [name, signal(model ? (model.get(name) ?? start[name]) : start[name])]),
    ) as unknown as Signals;
    const { state } = this;
    this.data = computed(() => (state.shown.value !== "baseline" && this.#variant.value) || base.value);
    this.position = computed(() => base.value.snapshot.positionOf(state.block.value, state.sublayer.value));
    this.point = computed(() => base.value.snapshot.pointOf(this.position.value, state.stream.value));
    this.activeTokens = computed(() => {
      const { V, output, removed } = this.data.value.snapshot;
      const tokens = state.tokens.value.filter((t) => t >= 0 && t < V && !removed.includes(t));
      return tokens.length > 0 ? tokens : [output];
    });
    this.notice = computed(() =>
      this.#local.value.kind === "idle" ? this.#remote.value : this.#local.value,
    );
    this.kernel = signal(model ? "live" : "none");
    this.transport = new Transport(model ? sender(model) : null);
    if (model) this.#connect(model);
    this.#stopping(effect(() => this.#fetchClasses(this.#base.value, "classes", this.#asked)));
    this.#stopping(
      effect(() => {
        const intervened = this.state.shown.value !== "baseline" && this.#variant.value;
        if (intervened) this.#fetchClasses(intervened, "intervened classes", this.#askedIntervened);
      }),
    );
    this.#stopping(effect(() => this.#fillRanks()));
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  setPosition(position: number): void {
    const { block, sublayer } = this.#base.peek().snapshot.placeOf(position);
    this.set({ block, sublayer });
  }

  /** Several values at once: the views draw once. */
  set(values: Partial<State>): void {
    batch(() => {
      for (const name of Object.keys(values) as (keyof State)[]) {
        (this.state[name] as Signal<unknown>).value = values[name];
      }
    });
  }

  /** Select a token alone, or add it to (take it out of) the selection. */
  selectToken(token: number, extend = false): void {
    const now = this.state.tokens.peek();
    if (!extend) this.set({ tokens: now.length === 1 && now[0] === token ? [] : [token] });
    else this.set({ tokens: now.includes(token) ? now.filter((t) => t !== token) : [...now, token] });
  }

  /** Send a request; progress and errors appear in `notice`. Resolves to null when it came to nothing. */
  async request(
    kind: string,
    params: Params,
    buffers: readonly ArrayBuffer[] = [],
    text: string = kind,
  ): Promise<Answer | null> {
    this.#local.value = { kind: "busy", text, progress: null };
    try {
      const answer = await this.transport.request(kind, params, buffers, ({ fraction, text: step }) => {
        this.#local.value = { kind: "busy", text: step || text, progress: fraction };
      });
      for (const buffer of answer.buffers) this.#merge(buffer);
      this.#local.value = IDLE;
      return answer;
    } catch (error) {
      if (error instanceof Superseded) {
        this.#local.value = IDLE;
      } else if (error instanceof NoKernel) {
        this.#local.value = {
          kind: "error",
          text: `No kernel: ${text} is not possible here.`,
          progress: null,
        };
      } else {
        this.#local.value = { kind: "error", text: message(error), progress: null };
      }
      return null;
    }
  }

  /** Show an error in words. */
  fail(error: unknown): void {
    this.#local.value = { kind: "error", text: message(error), progress: null };
  }

  dismiss(): void {
    batch(() => {
      this.#local.value = IDLE;
      this.#remote.value = IDLE;
    });
  }

  /** The kernel went away (or came back): what is here keeps working. */
  setKernel(live: boolean): void {
    if (this.kernel.peek() === "none" || (this.kernel.peek() === "live") === live) return;
    this.kernel.value = live ? "live" : "gone";
    if (!live) this.transport.disconnect();
  }

  /** Attention weights and head readings of these tokens, fetched where they are missing and a kernel is there. */
  fetchAttention(tokens: readonly number[]): void {
    this.#fetchAttention(this.#base.peek(), "attention", tokens);
    const intervened = this.state.shown.peek() !== "baseline" && this.#variant.peek();
    if (intervened) this.#fetchAttention(intervened, "intervened attention", tokens);
  }

  #fetchAttention({ snapshot, readings }: Data, kind: string, tokens: readonly number[]): void {
    const { class_index, compare_index } = this.state;
    const classes = [class_index.peek(), compare_index.peek()].filter((c) => c !== null);
    const rows = tokens.filter(
      (t) =>
        !snapshot.removed.includes(t) &&
        (!snapshot.attentionRows.includes(t) || classes.some((c) => !readings.headDirect(c, t))),
    );
    if (rows.length === 0 || this.kernel.peek() !== "live") return;
    void this.request(kind, { rows, classes }, [], `reading ${kind}`);
  }

  /** Token importance for the classes that are looked at, where it is missing and a kernel is there. */
  fetchImportance(): void {
    const { snapshot } = this.#base.value;
    const { importance, class_index, compare_index } = this.state;
    const method = importance.value;
    const classes = [class_index.value, compare_index.value].filter(
      (c): c is number =>
        c !== null && !snapshot.importance(method, c) && !this.#wished.has(`${method} ${c}`),
    );
    if (classes.length === 0 || this.kernel.value !== "live") return;
    untracked(() => {
      // Once for a picture: what the model refuses is refused again.
      for (const c of classes) this.#wished.add(`${method} ${c}`);
      void this.request("importance", { method, classes }, [], "looking for the evidence").then((answer) => {
        if (answer || this.#local.peek().kind === "error") return;
        for (const c of classes) this.#wished.delete(`${method} ${c}`);
      });
    });
  }

  /** Whether importance was asked for and has not come, or did not come. */
  wished(method: Importance, id: number): boolean {
    return this.#wished.has(`${method} ${id}`);
  }

  /** An intervened pass that came with a static page; the first one is shown beside the baseline. */
  addVariant(bytes: ArrayBufferView): void {
    const data = dataOf(Snapshot.parse(bytes));
    this.#pinned.value = [...this.#pinned.peek(), data];
    this.#variant.value ??= data;
  }

  /** What-if states that were kept by name; the kernel knows them too. */
  pin(label: string, steps: readonly PinnedStep[]): void {
    this.#setPins([...this.#pins.peek().filter((p) => p.label !== label), { label, steps }]);
  }

  unpin(label: string): void {
    this.#setPins(this.#pins.peek().filter((p) => p.label !== label));
  }

  #setPins(pins: readonly Pin[]): void {
    this.#pins.value = pins;
    this.#model?.set("_pins", pins);
    this.#model?.save_changes();
  }

  /** Show one of the pinned passes beside the baseline. */
  showPinned(index: number): void {
    const data = this.#pinned.peek()[index];
    if (!data) return;
    batch(() => {
      this.#variant.value = data;
      if (this.state.shown.peek() === "baseline") this.set({ shown: "intervened" });
    });
  }

  /** Forget the intervened pass. */
  clearVariant(): void {
    batch(() => {
      this.#variant.value = null;
      this.set({ shown: "baseline" });
    });
    // Else the kernel and other views would keep it, and applying it again would be no change to them.
    this.#model?.set("_variant", new DataView(new ArrayBuffer(0)));
    this.#model?.save_changes();
  }

  /** Baseline, intervened, difference, and round again. */
  nextShown(): void {
    if (!this.#variant.peek()) return;
    const order: readonly Shown[] = ["baseline", "intervened", "difference"];
    const at = order.indexOf(this.state.shown.peek());
    this.set({ shown: order[(at + 1) % order.length] });
  }

  dispose(): void {
    this.#fill.abort();
    this.#abort.abort();
    this.transport.disconnect();
  }

  #connect(model: WidgetModel): void {
    const listen = (event: string, callback: (...args: never[]) => void) => {
      model.on(event, callback);
      this.#stopping(() => model.off(event, callback));
    };
    let timer: ReturnType<typeof setTimeout> | null = null;
    const dirty = new Set<keyof State>();
    const flush = () => {
      timer = null;
      if (dirty.size === 0) return;
      for (const name of dirty) model.set(name, this.state[name].peek());
      dirty.clear();
      try {
        model.save_changes();
      } catch {
        this.setKernel(false);
      }
      timer = setTimeout(flush, SYNC_MS);
    };
    for (const name of STATE_NAMES) {
      let first = true;
      this.#stopping(
        effect(() => {
          const { value } = this.state[name];
          if (first || same(value, model.get(name))) {
            first = false;
            dirty.delete(name);
            return;
          }
          dirty.add(name);
          timer ??= setTimeout(flush, 0);
        }),
      );
      listen(`change:${name}`, () => {
        if (dirty.has(name)) return;
        const value = model.get(name);
        const own = this.state[name] as Signal<unknown>;
        if (!same(own.peek(), value)) own.value = value;
      });
    }
    this.#stopping(() => timer !== null && clearTimeout(timer));
    listen("change:_snapshot", () => this.#replace(model.get("_snapshot")));
    const takePins = () => {
      const pins = model.get("_pins");
      if (Array.isArray(pins) && !same(this.#pins.peek(), pins)) this.#pins.value = pins as Pin[];
    };
    listen("change:_pins", takePins);
    takePins();
    listen("change:_variant", () => this.#setVariant(model.get("_variant")));
    listen("change:status", () => this.#setStatus(model.get("status")));
    listen("msg:custom", ((content: unknown, buffers: readonly ArrayBufferView[]) =>
      this.transport.receive(content, buffers ?? [])) as (...args: never[]) => void);
    this.#setVariant(model.get("_variant"));
    this.#setStatus(model.get("status"));
  }

  #setStatus(value: unknown): void {
    const { kind, text, progress } = (value ?? {}) as Partial<Status>;
    this.#remote.value = {
      kind: kind ?? "idle",
      text: text ?? "",
      progress: typeof progress === "number" ? progress : null,
    };
  }

  /** Another picture: the state stays where it still makes sense. */
  #replace(bytes: unknown): void {
    try {
      const next = dataOf(Snapshot.parse(bytes as ArrayBufferView));
      batch(() => {
        this.#asked.clear();
        this.#askedIntervened.clear();
        this.#wished.clear();
        this.#fill.abort();
        this.#filling = -1;
        this.hovered.value = null;
        this.#variant.value = null;
        this.#base.value = next;
      });
    } catch (error) {
      this.fail(error);
    }
  }

  #setVariant(bytes: unknown): void {
    this.#askedIntervened.clear();
    if (!ArrayBuffer.isView(bytes) || bytes.byteLength === 0) {
      this.#variant.value = null;
      return;
    }
    try {
      this.#variant.value = dataOf(Snapshot.parse(bytes));
    } catch (error) {
      this.fail(error);
    }
  }

  #merge(buffer: ArrayBuffer | ArrayBufferView): void {
    const container = unpack(buffer);
    if (container.meta.kind !== "part") return;
    const target = container.meta.variant === true ? this.#variant : this.#base;
    const data = target.peek();
    // An intervention was undone before its answer came.
    if (!data) return;
    data.snapshot.merge(container);
    const { classes } = container.meta as { classes?: { kept?: number[] } };
    for (const id of classes?.kept ?? []) data.readings.forget(id);
    target.value = { ...data };
  }

  /** Ask the kernel for the classes that are looked at and not at hand; the newest wish replaces older ones. */
  #fetchClasses({ readings }: Data, kind: string, asked: Set<number>): void {
    const wanted = [this.state.class_index.value, this.state.compare_index.value].filter(
      (c): c is number => c !== null && !readings.has(c) && !asked.has(c),
    );
    if (wanted.length === 0 || this.kernel.value !== "live") return;
    untracked(() => {
      for (const c of wanted) asked.add(c);
      const name = readings.snapshot.className(wanted[0]);
      void this.request(kind, { classes: wanted }, [], `reading ${name}`).then(() => {
        for (const c of wanted) asked.delete(c);
      });
    });
  }

  /**
   * In mode "increments" the ranks of a class that came without them are counted here: the point that is looked at
   * first, then the others of its stream, nearest first, in idle slices.
   */
  #fillRanks(): void {
    const { data } = this;
    const { snapshot, readings } = data.value;
    if (snapshot.meta.payload.mode !== "increments") return;
    const { class_index, compare_index } = this.state;
    const open = [class_index.value, compare_index.value].some(
      (c) => c !== null && !snapshot.classArrays(c)?.ranks,
    );
    const point = this.point.value;
    const stream = this.state.stream.value;
    if (!open) return;
    const order = [...Array(snapshot.N).keys()]
      .map((position) => snapshot.pointOf(position, stream))
      .filter((s) => !readings.pointKnown(s))
      .sort((a, b) => Math.abs(a - point) - Math.abs(b - point));
    const next = readings.pointKnown(point) ? order[0] : point;
    if (next === undefined || next === this.#filling) return;
    this.#fill.abort();
    const own = new AbortController();
    this.#fill = own;
    this.#filling = next;
    untracked(() => {
      runIdle(readings.fillPoint(next), own.signal).then(
        () => {
          if (own.signal.aborted) return;
          this.#filling = -1;
          const target = this.#variant.peek()?.readings === readings ? this.#variant : this.#base;
          const now = target.peek();
          if (now?.readings === readings) target.value = { ...now };
        },
        (error) => this.fail(error),
      );
    });
  }

  #stopping(stop: () => void): void {
    this.#abort.signal.addEventListener("abort", stop);
  }
}

function dataOf(snapshot: Snapshot): Data {
  return { snapshot, readings: new Readings(snapshot) };
}

function sender(model: WidgetModel) {
  return (content: object, buffers: readonly ArrayBuffer[]) => model.send(content, undefined, [...buffers]);
}

function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
