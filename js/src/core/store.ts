/**
 * The one state that all views of a session share, as signals.
 *
 * Live, every signal mirrors a trait of the session's widget model; on a static page the signals are all there is.
 * Views read signals and call the few methods here; they never see the model.
 */

import { batch, computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { isRecord, message, SnapshotError, unpack } from "./codec";
import { hear, mirror, same, type WidgetModel } from "./mirror";
import { Readings } from "./readings";
import { Snapshot } from "./snapshot";
import { DEFAULTS, SHOWN, type Signals, STATE_NAMES, type State } from "./state";
import { type Answer, NoKernel, type Params, Superseded, Transport } from "./transport";
import { Wishes } from "./wishes";

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

/** One intervention of a what-if state, and what it is called. */
export interface PinnedStep {
  readonly spec: Readonly<Record<string, unknown>>;
  readonly label: string;
}

/** A what-if state that was kept: its name, and the interventions that make it. */
export interface Pin {
  readonly label: string;
  readonly steps: readonly PinnedStep[];
}

export const IDLE: Status = { kind: "idle", text: "", progress: null };

export class Store {
  readonly state: Signals;
  /** What the views show: the baseline, or the intervened pass when `shown` says so. */
  readonly data: ReadonlySignal<Data>;
  readonly baseline: ReadonlySignal<Data>;
  readonly intervened: ReadonlySignal<Data | null>;
  /** Intervened passes that a static page carries; null is one that is damaged. */
  readonly pinned: ReadonlySignal<readonly (Data | null)[]>;
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
  readonly wishes: Wishes;

  readonly #base: Signal<Data>;
  readonly #intervened: Signal<Data | null> = signal(null);
  readonly #pinned: Signal<readonly (Data | null)[]> = signal([]);
  readonly #pins: Signal<readonly Pin[]> = signal([]);
  readonly #model: WidgetModel | null;
  readonly #remote: Signal<Status> = signal(IDLE);
  readonly #local: Signal<Status> = signal(IDLE);
  readonly #abort = new AbortController();

  /** `model` is null on a static page. */
  constructor(snapshot: Snapshot, model: WidgetModel | null, initial: Partial<State> = {}) {
    const base = signal<Data>(dataOf(snapshot));
    this.#base = base;
    this.baseline = base;
    this.intervened = this.#intervened;
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
    this.data = computed(() => (state.shown.value !== "baseline" && this.#intervened.value) || base.value);
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
    this.wishes = new Wishes(this, {
      failed: () => this.#local.peek().kind === "error",
      grown: (readings) => {
        const target = this.#intervened.peek()?.readings === readings ? this.#intervened : this.#base;
        const now = target.peek();
        if (now?.readings === readings) target.value = { ...now };
      },
    });
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

  /** An intervened pass that came with a static page, null for a damaged one; the first is shown beside the baseline. */
  addPinnedPass(bytes: ArrayBufferView | null): void {
    const data = bytes && this.#passOf(bytes);
    this.#pinned.value = [...this.#pinned.peek(), data];
    this.#intervened.value ??= data;
  }

  /** Another pass of the same picture: what stands beside the baseline must be of its sizes. */
  #passOf(bytes: ArrayBufferView): Data {
    const own = this.#base.peek().snapshot;
    const pass = Snapshot.parse(bytes);
    for (const name of ["C", "V", "N", "L", "H", "prefix", "columns"] as const) {
      if (pass[name] !== own[name]) throw new SnapshotError("the intervened pass is of another model");
    }
    return dataOf(pass);
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
      this.#intervened.value = data;
      if (this.state.shown.peek() === "baseline") this.set({ shown: "intervened" });
    });
  }

  /** Forget the intervened pass. */
  removeInterventions(): void {
    batch(() => {
      this.#intervened.value = null;
      this.set({ shown: "baseline" });
    });
    // Else the kernel and other views would keep it, and applying it again would be no change to them.
    this.#model?.set("_intervened", new DataView(new ArrayBuffer(0)));
    this.#model?.save_changes();
  }

  /** Baseline, intervened, difference, and round again. */
  nextShown(): void {
    if (!this.#intervened.peek()) return;
    const at = SHOWN.indexOf(this.state.shown.peek());
    this.set({ shown: SHOWN[(at + 1) % SHOWN.length] });
  }

  dispose(): void {
    this.#abort.abort();
    this.transport.disconnect();
  }

  #connect(model: WidgetModel): void {
    const listen = (event: string, callback: (...args: never[]) => void) =>
      hear(model, event, callback, this.signal);
    mirror(model, this.state, this.signal, () => this.setKernel(false));
    listen("change:_snapshot", () => this.#replace(model.get("_snapshot")));
    const takePins = () => {
      const listed = model.get("_pins");
      const pins = Array.isArray(listed) ? listed.filter(isPin) : [];
      if (!same(this.#pins.peek(), pins)) this.#pins.value = pins;
      if (Array.isArray(listed) && pins.length < listed.length)
        this.fail(new Error(`${listed.length - pins.length} of ${listed.length} pinned states are damaged`));
    };
    listen("change:_pins", takePins);
    takePins();
    listen("change:_intervened", () => this.#setIntervened(model.get("_intervened")));
    listen("change:status", () => this.#setStatus(model.get("status")));
    listen("msg:custom", ((content: unknown, buffers: readonly ArrayBufferView[]) =>
      this.transport.receive(content, buffers ?? [])) as (...args: never[]) => void);
    this.#setIntervened(model.get("_intervened"));
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
        this.hovered.value = null;
        this.#intervened.value = null;
        this.#base.value = next;
      });
    } catch (error) {
      this.fail(error);
    }
  }

  #setIntervened(bytes: unknown): void {
    if (!ArrayBuffer.isView(bytes) || bytes.byteLength === 0) {
      this.#intervened.value = null;
      return;
    }
    try {
      this.#intervened.value = this.#passOf(bytes);
    } catch (error) {
      this.#intervened.value = null;
      this.fail(error);
    }
  }

  #merge(buffer: ArrayBuffer | ArrayBufferView): void {
    const container = unpack(buffer);
    if (container.meta.kind !== "part") return;
    const target = container.meta.intervened === true ? this.#intervened : this.#base;
    const data = target.peek();
    // An intervention was undone before its answer came.
    if (!data) return;
    data.snapshot.merge(container);
    const { classes } = container.meta as { classes?: { kept?: number[] } };
    for (const id of classes?.kept ?? []) data.readings.forget(id);
    target.value = { ...data };
  }
}

function isPin(value: unknown): value is Pin {
  if (!isRecord(value) || typeof value.label !== "string" || !Array.isArray(value.steps)) return false;
  return value.steps.every((step) => isRecord(step) && isRecord(step.spec) && typeof step.label === "string");
}

function dataOf(snapshot: Snapshot): Data {
  return { snapshot, readings: new Readings(snapshot) };
}

function sender(model: WidgetModel) {
  return (content: object, buffers: readonly ArrayBuffer[]) => model.send(content, undefined, [...buffers]);
}
