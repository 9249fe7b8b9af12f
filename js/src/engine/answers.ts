/**
 * What the model answers to the views of one session: the twin of `classspace_widgets/capture/live.py`.
 *
 * Requests are those that a kernel gets, so views cannot tell which of the two is there.
 */

import { type NdArray, pack } from "../core/codec";
import type { Meta } from "../core/meta";
import type { Spec } from "../core/spec";
import type { Params, Progress } from "../core/transport";
import { toCode } from "./code";
import type { Model } from "./model";
import { embed, run, type Trace } from "./pass";
import { cropped, normalise, type Pixels } from "./picture";
import { makePlan, Refused } from "./plan";
import { array } from "./reader";
import { capture, type Picture, part } from "./snapshot";
import { type Kind, sweep } from "./sweep";

/** What goes back to the page, and what its session shows from now on. */
export interface Answer {
  readonly result: object;
  readonly part?: Uint8Array<ArrayBuffer>;
  readonly snapshot?: Uint8Array<ArrayBuffer>;
  readonly intervened?: Uint8Array<ArrayBuffer>;
}

/** An answer in steps: between them, other messages are heard. */
export type Steps = AsyncGenerator<Progress, Answer>;

/** Reading and writing picture files, which a browser does. */
export interface Files {
  read(file: ArrayBuffer): Promise<Pixels>;
  write(pixels: Pixels): Promise<Uint8Array<ArrayBuffer>>;
}

export class Session {
  readonly #model: Model;
  readonly #base: Meta;
  readonly #files: Files;
  #embedding: Float32Array;
  #picture: Picture;
  #trace: Trace | null = null;
  #intervened: Trace | null = null;

  /** `base` is what the page's own snapshot says; `embedding` [T, D] is that of its picture. */
  constructor(model: Model, base: Meta, embedding: Float32Array, files: Files) {
    if (embedding.length !== model.T * model.D) throw new Refused("The picture is of another model.");
    this.#model = model;
    this.#base = base;
    this.#embedding = embedding;
    this.#files = files;
    const { name = "", width = 0, height = 0, mime = "" } = base.image ?? {};
    this.#picture = { name, width, height, mime };
  }

  answer(kind: string, params: Params, buffers: readonly ArrayBuffer[]): Steps {
    switch (kind) {
      case "classes":
      case "attention":
      case "intervened classes":
      case "intervened attention":
        return this.#part(kind, params);
      case "image":
        return this.#show(params, buffers);
      case "whatif":
        return this.#whatIf(params);
      case "sweep":
        return this.#sweep(params);
      default:
        throw new Refused(`The model in this page does not compute ${kind}; a notebook's kernel does.`);
    }
  }

  /** Run the picture before anything is asked of it: later blocks of its interventions go on from there. */
  prepare(): void {
    void this.#baseline;
  }

  /** The pass without interventions. */
  get #baseline(): Trace {
    this.#trace ??= run(this.#model, this.#embedding);
    return this.#trace;
  }

  async *#part(kind: string, params: Params): Steps {
    yield { fraction: 0, text: `reading ${kind}` };
    const { output, C, V } = this.#model;
    const intervened = kind.startsWith("intervened");
    const trace = intervened ? this.#intervened : this.#baseline;
    if (!trace) throw new Refused("There is no pass with interventions; apply the intervention again.");
    const classes = numbers(params.classes, C);
    const rows = numbers(params.rows, V);
    const ranked = kind.endsWith("classes");
    const asked = rows.length > 0 ? rows : [output];
    return { result: { classes, rows }, part: part(this.#model, trace, classes, asked, ranked, intervened) };
  }

  async *#show(params: Params, buffers: readonly ArrayBuffer[]): Steps {
    yield { fraction: 0.1, text: "reading the picture" };
    if (params.crop) throw new Refused("The model in this page takes pictures whole, as a new picture.");
    if (!buffers[0]?.byteLength) throw new Refused("No picture came with the request.");
    const { preprocessing } = this.#model.about;
    const seen = cropped(await this.#files.read(buffers[0]), preprocessing);
    yield { fraction: 0.4, text: "running the model" };
    const embedding = embed(this.#model, normalise(seen, preprocessing));
    const trace = run(this.#model, embedding);
    const name = typeof params.name === "string" ? params.name : "";
    const { width, height } = seen;
    const picture = { name, width, height, mime: "image/png" };
    const bytes = await this.#files.write(seen);
    const snapshot = capture(this.#model, trace, this.#base, { ...picture, bytes });
    this.#embedding = embedding;
    this.#picture = picture;
    this.#trace = trace;
    this.#intervened = null;
    return { result: { name }, snapshot };
  }

  async *#whatIf(params: Params): Steps {
    const spec = Array.isArray(params.spec) ? (params.spec as Spec[]) : [];
    const plan = makePlan(this.#model, spec);
    yield { fraction: 0.2, text: "running the model" };
    const trace = run(this.#model, this.#embedding, plan, this.#trace);
    yield { fraction: 0.7, text: "reading classes" };
    const labels = Array.isArray(params.labels) ? (params.labels as string[]) : spec.map(({ type }) => type);
    const label = String(params.label ?? labels.join("; "));
    const done = { label, labels, spec, code: toCode(spec) };
    const intervened = capture(this.#model, trace, this.#base, this.#picture, done);
    this.#intervened = trace;
    return { result: { label }, intervened };
  }

  async *#sweep(params: Params): Steps {
    const kind = (params.kind ?? "heads") as Kind;
    const [id] = numbers([params.class], this.#model.C);
    const mode = String(params.mode ?? (kind === "heads" ? "zero" : "knock out"));
    const steps = sweep(this.#model, this.#baseline, kind, mode, id);
    for (;;) {
      const step = steps.next();
      if (step.done) {
        const { rows, columns, baseline, effect } = step.value;
        const grid = { kind, mode, class: id, rows, columns };
        const arrays: NdArray[] = [array("grid", effect, rows.length, columns.length)];
        const meta = { kind: "part", classes: { kept: [] }, grid };
        return { result: { ...grid, baseline }, part: pack(meta, arrays) };
      }
      yield { fraction: step.value, text: `sweeping ${kind}` };
    }
  }
}

/** Numbers in 0..count-1, each once; none where none are given. */
function numbers(given: unknown, count: number): number[] {
  const list = Array.isArray(given) ? (given as number[]) : [];
  const wrong = list.find((value) => !(Number.isInteger(value) && value >= 0 && value < count));
  if (wrong !== undefined) throw new Refused(`Expected whole numbers in 0..${count - 1}, got ${wrong}.`);
  return [...new Set(list)];
}
