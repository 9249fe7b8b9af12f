/**
 * The page's side: a worker that runs the model, and for every session what looks like a widget's model with a kernel behind it.
 *
 * So the store of a session follows and asks it as it would a kernel's, and the views need no second mechanism.
 */

import type { Block } from "../core/block";
import type { Meta } from "../core/meta";
import type { WidgetModel } from "../core/mirror";
import type { FromWorker, ToWorker } from "./worker";

type Callback = (...args: never[]) => void;

/** A session's line to the model in the worker. */
export class PageModel implements WidgetModel {
  readonly here = true;
  readonly #values = new Map<string, unknown>();
  readonly #callbacks = new Map<string, Set<Callback>>();
  readonly #post: (content: unknown, buffers: readonly ArrayBuffer[]) => void;

  constructor(post: (content: unknown, buffers: readonly ArrayBuffer[]) => void) {
    this.#post = post;
  }

  get(name: string): unknown {
    return this.#values.get(name);
  }

  set(name: string, value: unknown): void {
    this.#values.set(name, value);
  }

  save_changes(): void {}

  on(event: string, callback: Callback): void {
    const known = this.#callbacks.get(event) ?? new Set();
    this.#callbacks.set(event, known.add(callback));
  }

  off(event: string, callback: Callback): void {
    this.#callbacks.get(event)?.delete(callback);
  }

  send(content: unknown, _callbacks?: unknown, buffers: readonly ArrayBuffer[] = []): void {
    this.#post(content, buffers);
  }

  /** A new value from the worker. */
  take(name: string, value: unknown): void {
    this.set(name, value);
    this.emit(`change:${name}`);
  }

  /** Nothing is answered any more; what is shown stays. */
  lose(why: string): void {
    this.take("_answers", false);
    this.take("status", { kind: "error", text: why });
  }

  /** Something has come from the worker. */
  emit(event: string, ...values: unknown[]): void {
    for (const callback of this.#callbacks.get(event) ?? [])
      (callback as (...args: unknown[]) => void)(...values);
  }
}

/** A model that runs in this page. */
export class Engine {
  readonly #sessions: PageModel[] = [];
  readonly #worker: Worker | null;
  #problem = "";

  /** `worker` runs the engine's script, null where it could not be started; `block` holds the weights. */
  constructor(worker: Worker | null, block: Block | Uint8Array<ArrayBuffer>) {
    this.#worker = worker;
    if (!worker) {
      this.#fail("This browser does not run it (it has no workers).");
      return;
    }
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#take(data);
    worker.onerror = () => this.#fail("Its worker has stopped.");
    this.#send({ type: "model", block }, "text" in block ? [] : [block.buffer]);
  }

  /** The line of a session that shows a picture, by what its snapshot says and its embedding [T, D]. */
  session(base: Meta, embedding: Float32Array): PageModel {
    const session = this.#sessions.length;
    const model = new PageModel((content, buffers) =>
      this.#send({ type: "message", session, content, buffers }, buffers),
    );
    this.#sessions.push(model);
    this.#send({ type: "session", session, base, embedding });
    if (this.#problem) model.lose(this.#problem);
    return model;
  }

  #send(message: ToWorker, transfer: readonly ArrayBuffer[] = []): void {
    this.#worker?.postMessage(message, [...transfer]);
  }

  #take(data: FromWorker): void {
    if (data.type === "failed") {
      this.#fail(data.text);
    } else if (data.type === "message") {
      this.#sessions[data.session].emit("msg:custom", data.content, data.buffers);
    } else {
      this.#sessions[data.session].take(data.name, data.value);
    }
  }

  #fail(why: string): void {
    this.#problem = `The model cannot run in this page, which shows what was computed before. ${why}`;
    for (const model of this.#sessions) model.lose(this.#problem);
  }
}
