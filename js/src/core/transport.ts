/**
 * Requests to the kernel and their answers.
 *
 * Of every kind of request one is in flight at most. A second one waits for it, and a third one takes the second one's place,
 * which ends as superseded: however fast a hand moves, the kernel works on one state and then on the latest. Messages carry
 * the page's own name (`client`), since a kernel answers all pages of a session.
 */

import { message } from "./codec";

export type Params = Readonly<Record<string, unknown>>;

export interface Answer {
  readonly result: Readonly<Record<string, unknown>>;
  readonly buffers: readonly (ArrayBuffer | ArrayBufferView)[];
}

export interface Progress {
  readonly fraction: number;
  readonly text: string;
}

/** Sends one message; what comes back is given to `receive`. */
export type Send = (content: object, buffers: readonly ArrayBuffer[]) => void;

/** The kernel answered with an error; `title` names it, the message is for the user. */
export class KernelError extends Error {
  constructor(
    readonly title: string,
    text: string,
  ) {
    super(text);
  }
}

/** A newer request of the same kind took this one's place, or it was cancelled: nothing to show. */
export class Superseded extends Error {}

/** Nobody is there to answer. */
export class NoKernel extends Error {}

interface Job {
  readonly id: number;
  readonly kind: string;
  readonly params: Params;
  readonly buffers: readonly ArrayBuffer[];
  readonly onProgress: ((progress: Progress) => void) | undefined;
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: Error) => void;
}

let lastId = 0;

/** Tells the requests of this page from those of others on the same session, which count from 1 as well. */
function newClient(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(2)), (n) => n.toString(36)).join("-");
}

export class Transport {
  readonly client = newClient();
  #send: Send | null;
  readonly #flying = new Map<string, Job>();
  readonly #waiting = new Map<string, Job>();

  constructor(send: Send | null) {
    this.#send = send;
  }

  request(
    kind: string,
    params: Params,
    buffers: readonly ArrayBuffer[] = [],
    onProgress?: (progress: Progress) => void,
  ): Promise<Answer> {
    if (!this.#send) {
      return Promise.reject(new NoKernel("no kernel is connected, so nothing new can be computed"));
    }
    return new Promise((resolve, reject) => {
      const job: Job = { id: ++lastId, kind, params, buffers, onProgress, resolve, reject };
      if (this.#flying.has(kind)) {
        this.#waiting.get(kind)?.reject(new Superseded(kind));
        this.#waiting.set(kind, job);
      } else {
        this.#start(job);
      }
    });
  }

  /** Ask the kernel to stop what it does for a kind; its request ends as superseded. */
  cancel(kind: string): void {
    this.#waiting.get(kind)?.reject(new Superseded(kind));
    this.#waiting.delete(kind);
    const job = this.#flying.get(kind);
    if (job) this.#send?.({ type: "cancel", client: this.client, id: job.id }, []);
  }

  /** A message from the kernel; answers to other pages, and other traffic, are ignored. */
  receive(content: unknown, buffers: readonly (ArrayBuffer | ArrayBufferView)[]): void {
    if (typeof content !== "object" || content === null) return;
    const { type, client, id, ok, result, error, fraction, text: step } = content as Record<string, unknown>;
    if (client !== undefined && client !== this.client) return;
    const job = [...this.#flying.values()].find((flying) => flying.id === id);
    if (!job) return;
    if (type === "progress") {
      job.onProgress?.({ fraction: Number(fraction) || 0, text: String(step ?? "") });
    } else if (type === "response") {
      this.#flying.delete(job.kind);
      if (ok === true) {
        job.resolve({ result: (result ?? {}) as Record<string, unknown>, buffers });
      } else {
        const { title, message: text } = (error ?? {}) as Record<string, unknown>;
        const kind = String(title ?? "Error");
        job.reject(
          kind === "Cancelled" ? new Superseded(job.kind) : new KernelError(kind, String(text ?? kind)),
        );
      }
      this.#next(job.kind);
    }
  }

  /** Another one answers from now on, or nobody: end everything that waits. */
  connect(send: Send | null): void {
    this.#send = send;
    const jobs = [...this.#flying.values(), ...this.#waiting.values()];
    this.#flying.clear();
    this.#waiting.clear();
    for (const job of jobs) job.reject(new NoKernel("the kernel is gone"));
  }

  #start(job: Job): void {
    this.#flying.set(job.kind, job);
    try {
      const { client } = this;
      this.#send?.({ type: "request", client, id: job.id, kind: job.kind, params: job.params }, job.buffers);
    } catch (error) {
      this.#flying.delete(job.kind);
      job.reject(new NoKernel(message(error)));
      this.#next(job.kind);
    }
  }

  #next(kind: string): void {
    const job = this.#waiting.get(kind);
    this.#waiting.delete(kind);
    if (job) this.#start(job);
  }
}
