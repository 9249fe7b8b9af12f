/**
 * The one state that all views of a session share, as signals.
 *
 * Whoever reads a signal's `value` while drawing is drawn again when it changes; `peek()` reads it without that. Live, every
 * signal of the state mirrors a trait of the session's widget model (`mirror.ts`), and what is not at hand is asked of the
 * kernel (`requests.ts`, `transport.ts`); on a static page the signals are all there is. Views read signals and call the few
 * methods here; they never see the model.
 */

import { batch, computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { message } from "./codec";
import { hear, mirror, same, type WidgetModel } from "./mirror";
import { type Data, Passes } from "./passes";
import { isPin, type Pin, type PinnedStep } from "./pins";
import { Requests } from "./requests";
import type { Snapshot } from "./snapshot";
import { DEFAULTS, SHOWN, type Shown, type Signals, STATE_NAMES, type State } from "./state";
import { failure, IDLE, type Status } from "./status";
import { type Answer, NoKernel, type Params, type Send, Superseded, Transport } from "./transport";

/** Opens the model that runs in this page where the kernel is gone; null where it does not know the picture. */
export type Reserve = (snapshot: Snapshot) => WidgetModel | null;

type Takes = Readonly<
  Record<"_snapshot" | "_answers" | "_pins" | "_intervened" | "status", (value: unknown) => void>
>;

const sendTo =
  (model: WidgetModel): Send =>
  (content, buffers) =>
    model.send(content, undefined, [...buffers]);

export class Store {
  readonly state: Signals;
  /** What the views show: the baseline, or the intervened pass when `shown` says so. */
  readonly data: ReadonlySignal<Data>;
  readonly baseline: ReadonlySignal<Data>;
  readonly intervened: ReadonlySignal<Data | null>;
  /** Intervened passes that a static page carries; null is one that is damaged. */
  readonly pinned: ReadonlySignal<readonly (Data | null)[]>;
  /** Interventions that were kept by name; the kernel knows them too. */
  readonly pins: ReadonlySignal<readonly Pin[]>;
  /** The pass with interventions, while it or the change is shown. */
  readonly changed: ReadonlySignal<Data | null>;
  /** The class that is read, and the one that it is compared with. */
  readonly classes: ReadonlySignal<readonly number[]>;
  /** Slider position 0..N-1 and the stream point that is read there. */
  readonly position: ReadonlySignal<number>;
  readonly point: ReadonlySignal<number>;
  /** Selected tokens that the pass shown still has; the output token when none is. */
  readonly activeTokens: ReadonlySignal<readonly number[]>;
  /** Token under the pointer or the keyboard's focus, in any view. */
  readonly hovered: Signal<number | null> = signal(null);
  /** The second picture, whose states can be put into this one's pass. */
  readonly other: Signal<Store | null> = signal(null);
  /** Who answers: a kernel; the model in this page, in its own right or instead of a kernel that is gone; or nobody. */
  readonly kernel: Signal<"live" | "page" | "instead" | "gone" | "none">;
  /** What is going on, in words: of the kernel, or of a request made here. */
  readonly notice: ReadonlySignal<Status>;
  readonly transport: Transport;
  readonly requests: Requests;

  readonly #passes: Passes;
  readonly #pins: Signal<readonly Pin[]> = signal([]);
  readonly #model: WidgetModel | null;
  #reserve: Reserve | null = null;
  /** The model in this page that answers instead of a kernel, and what ends that. */
  #instead: { readonly line: WidgetModel; readonly end: AbortController } | null = null;
  readonly #remote: Signal<Status> = signal(IDLE);
  readonly #local: Signal<Status> = signal(IDLE);
  readonly #abort = new AbortController();

  /** `model` is null on a static page. */
  constructor(snapshot: Snapshot, model: WidgetModel | null, initial: Partial<State> = {}) {
    const passes = new Passes(snapshot);
    this.#passes = passes;
    this.pinned = passes.pinned;
    this.pins = this.#pins;
    this.#model = model;
    const start: State = {
      ...DEFAULTS,
      class_index: snapshot.predicted(1)[0]?.id ?? 0,
      ...snapshot.points.place(snapshot.N - 1),
      ...initial,
    };
    const state = Object.fromEntries(
      STATE_NAMES.map((name) => [name, signal(model ? (model.get(name) ?? start[name]) : start[name])]),
    ) as unknown as Signals;
    this.state = state;
    /** A pass through the lens that is chosen. */
    const seen = (data: Data): Data => {
      const { snapshot } = data;
      const readings = data.readings.through(snapshot.lensNumber(state.lens.value));
      return readings === data.readings ? data : { snapshot, readings };
    };
    const baseline = computed(() => seen(passes.baseline.value));
    const intervened = computed(() => passes.intervened.value && seen(passes.intervened.value));
    this.baseline = baseline;
    this.intervened = intervened;
    const points = () => baseline.value.snapshot.points;
    this.changed = computed(() => (state.shown.value === "baseline" ? null : intervened.value));
    this.data = computed(() => this.changed.value ?? baseline.value);
    this.classes = computed(() =>
      [state.class_index.value, state.compare_index.value].filter((id) => id !== null),
    );
    this.position = computed(() => points().position(state.block.value, state.sublayer.value));
    this.point = computed(() => points().at(this.position.value, state.stream.value));
    this.activeTokens = computed(() => {
      const { V, output, removed } = this.data.value.snapshot;
      const tokens = state.tokens.value.filter((t) => t >= 0 && t < V && !removed.includes(t));
      return tokens.length > 0 ? tokens : [output];
    });
    this.notice = computed(() =>
      this.#local.value.kind === "idle" ? this.#remote.value : this.#local.value,
    );
    this.kernel = signal(model ? (model.here ? "page" : "live") : "none");
    this.transport = new Transport(model && sendTo(model));
    if (model) this.#connect(model);
    this.requests = new Requests(this, {
      failed: () => this.#local.peek().kind === "error",
      grown: (readings) => passes.grown(readings),
    });
  }

  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Whether a model answers, of a kernel or in this page. */
  get live(): boolean {
    return this.kernel.value === "live" || this.runsHere;
  }

  /** Whether it is the model in this page that answers. */
  get runsHere(): boolean {
    return this.kernel.value === "page" || this.kernel.value === "instead";
  }

  /** The pass that a choice of the pass shows, and for the change the one that is taken from it. */
  passes(shown: Shown): readonly [Data, Data | null] {
    const before = this.baseline.value;
    const after = shown === "baseline" ? null : this.intervened.value;
    return [after ?? before, after && shown === "difference" ? before : null];
  }

  /** Whether the kernel answers this kind of request, which not every one does. */
  offers(kind: string): boolean {
    return this.kernel.value === "live" && (this.baseline.value.snapshot.meta.offers ?? []).includes(kind);
  }

  setPosition(position: number): void {
    const { block, sublayer } = this.baseline.peek().snapshot.points.place(position);
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
    const busy = (words: string, progress: number | null) => {
      this.#local.value = { kind: "busy", text: words, progress };
    };
    busy(text, null);
    try {
      const ask = () =>
        this.transport.request(kind, params, buffers, ({ fraction, text: step }) =>
          busy(step || text, fraction),
        );
      const answer = await ask().catch((error) => {
        if (error instanceof NoKernel && this.#turnToReserve()) return ask();
        throw error;
      });
      for (const buffer of answer.buffers) this.#passes.merge(buffer);
      this.#local.value = IDLE;
      return answer;
    } catch (error) {
      if (error instanceof Superseded) this.#local.value = IDLE;
      else if (error instanceof NoKernel)
        this.#local.value = failure(`No kernel: ${text} is not possible here.`);
      else this.fail(error);
      return null;
    }
  }

  /** Show an error in words. */
  fail(error: unknown): void {
    this.#local.value = failure(message(error));
  }

  dismiss(): void {
    batch(() => {
      this.#local.value = IDLE;
      this.#remote.value = IDLE;
    });
  }

  /** The kernel went away (or came back): what is here keeps working. */
  setKernel(live: boolean): void {
    const now = this.kernel.peek();
    if (!this.#model || now === "none" || now === "page" || (now === "live") === live) return;
    if (live) this.#backTo(this.#model);
    else if (!this.#turnToReserve()) {
      this.kernel.value = "gone";
      this.transport.connect(null);
    }
  }

  /** A model that can run in this page once the kernel is gone. */
  keepReserve(reserve: Reserve): void {
    this.#reserve = reserve;
    if (this.kernel.peek() === "gone") this.#turnToReserve();
  }

  /** Let the model in reserve answer instead of the kernel, if there is one; whether it does. */
  #turnToReserve(): boolean {
    if (this.#instead) return true;
    if (this.kernel.peek() === "none") return false;
    const line = this.#reserve?.(this.#passes.baseline.peek().snapshot);
    if (!line) return false;
    const end = new AbortController();
    this.#instead = { line, end };
    this.kernel.value = "instead";
    this.transport.connect(sendTo(line));
    const takes = this.#listen(line, end.signal);
    for (const trait of ["_answers", "status"] as const) takes[trait](line.get(trait));
    return this.#instead !== null;
  }

  /** The kernel answers again, of the picture and the intervention that it knows. */
  #backTo(model: WidgetModel): void {
    const line = this.#instead?.line;
    this.#instead?.end.abort();
    this.#instead = null;
    this.kernel.value = "live";
    this.transport.connect(sendTo(model));
    for (const [trait, take] of Object.entries(this.#takes(model))) {
      if (line?.get(trait) !== undefined) take(model.get(trait));
    }
  }

  /** An intervened pass that came with a static page, null for a damaged one; the first is shown beside the baseline. */
  addPinnedPass(bytes: ArrayBufferView | null): void {
    this.#passes.pin(bytes);
  }

  /** Number of the pinned pass that stands beside the baseline; -1 where none does. */
  get pinnedShown(): number {
    const shown = this.intervened.value?.snapshot;
    return this.pinned.value.findIndex((pass) => pass && pass.snapshot === shown);
  }

  /** Show one of the pinned passes beside the baseline. */
  showPinned(index: number): void {
    const data = this.pinned.peek()[index];
    if (!data) return;
    batch(() => {
      this.#passes.intervened.value = data;
      if (this.state.shown.peek() === "baseline") this.set({ shown: "intervened" });
    });
  }

  /** Keep interventions by name. */
  pin(label: string, steps: readonly PinnedStep[]): void {
    this.#setPins([...this.#pins.peek().filter((p) => p.label !== label), { label, steps }]);
  }

  unpin(label: string): void {
    this.#setPins(this.#pins.peek().filter((p) => p.label !== label));
  }

  #setPins(pins: readonly Pin[]): void {
    this.#pins.value = pins;
    this.#save("_pins", pins);
  }

  /** Forget the intervened pass. */
  removeInterventions(): void {
    batch(() => {
      this.#passes.intervened.value = null;
      this.set({ shown: "baseline" });
    });
    // Else the kernel and other views would keep it, and applying it again would be no change to them.
    this.#save("_intervened", new DataView(new ArrayBuffer(0)));
  }

  #save(trait: string, value: unknown): void {
    this.#model?.set(trait, value);
    this.#model?.save_changes();
  }

  /** Baseline, intervened, difference, and round again. */
  nextShown(): void {
    if (!this.intervened.peek()) return;
    const at = SHOWN.indexOf(this.state.shown.peek());
    this.set({ shown: SHOWN[(at + 1) % SHOWN.length] });
  }

  /** The logit lens, the fitted lenses that travel, and round again. */
  nextLens(): void {
    const { snapshot } = this.baseline.peek();
    const { lens } = this.state;
    lens.value = snapshot.lenses[snapshot.lensNumber(lens.peek()) + 1]?.label ?? DEFAULTS.lens;
  }

  dispose(): void {
    this.#abort.abort();
    this.#instead?.end.abort();
    this.transport.connect(null);
  }

  #connect(model: WidgetModel): void {
    mirror(model, this.state, this.signal, () => this.setKernel(false));
    const { _snapshot, ...takes } = this.#listen(model, this.signal);
    for (const [trait, take] of Object.entries(takes)) take(model.get(trait));
  }

  /** Hear what a model says until the end. */
  #listen(model: WidgetModel, end: AbortSignal): Takes {
    const takes = this.#takes(model);
    for (const [trait, take] of Object.entries(takes)) {
      hear(model, `change:${trait}`, () => take(model.get(trait)), end);
    }
    hear(
      model,
      "msg:custom",
      (content: unknown, buffers: readonly ArrayBufferView[]) =>
        this.transport.receive(content, buffers ?? []),
      end,
    );
    return takes;
  }

  /** What is done with the values of a model. */
  #takes(model: WidgetModel): Takes {
    return {
      _snapshot: (bytes) =>
        this.#attempt(() =>
          // The state stays where it still makes sense.
          batch(() => {
            this.#passes.replace(bytes as ArrayBufferView);
            this.hovered.value = null;
            // A kernel says so itself: another picture is read for what the model takes it for.
            if (model.here) {
              const [best] = this.#passes.baseline.peek().snapshot.predicted(1);
              this.set({ class_index: best.id, shown: "baseline" });
            }
          }),
        ),
      _answers: (answers) => this.#takeAnswers(answers !== false, model),
      _pins: (listed) => this.#takePins(listed),
      _intervened: (bytes) => this.#attempt(() => this.#passes.intervene(bytes)),
      status: (status) => this.#takeStatus((status ?? {}) as Partial<Status>),
    };
  }

  /** Behind a snapshot from a file stands no model: what needs one is not offered, as on a static page. */
  #takeAnswers(answers: boolean, model: WidgetModel): void {
    if (model !== this.#model) {
      if (answers) return;
      // The model in reserve cannot run here.
      this.#instead?.end.abort();
      this.#instead = this.#reserve = null;
      this.kernel.value = "gone";
      this.transport.connect(null);
    } else if (!answers) this.kernel.value = "none";
    else if (this.kernel.peek() === "none") this.kernel.value = model.here ? "page" : "live";
  }

  #takePins(listed: unknown): void {
    const all: readonly unknown[] = Array.isArray(listed) ? listed : [];
    const pins = all.filter(isPin);
    if (!same(this.#pins.peek(), pins)) this.#pins.value = pins;
    const lost = all.length - pins.length;
    if (lost > 0) this.fail(new Error(`${lost} of ${all.length} pinned states are damaged`));
  }

  #takeStatus({ kind = "idle", text = "", progress }: Partial<Status>): void {
    this.#remote.value = { kind, text, progress: typeof progress === "number" ? progress : null };
  }

  #attempt(take: () => void): void {
    try {
      take();
    } catch (error) {
      this.fail(error);
    }
  }
}
