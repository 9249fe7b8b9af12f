/** A stand-in for anywidget's model, and the fixtures that Python wrote. */

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { WidgetModel } from "../src/core/mirror";
import { STATE_NAMES } from "../src/core/state";

export function fixture(name: string): Uint8Array {
  return new Uint8Array(readFileSync(resolve("../tests/fixtures", `${name}.bin`)));
}

interface Sent {
  readonly type: string;
  readonly id: number;
  readonly kind: string;
  readonly params: Record<string, unknown>;
}

export class FakeModel implements WidgetModel {
  readonly values: Record<string, unknown>;
  readonly saved: Record<string, unknown>[] = [];
  readonly sent: Sent[] = [];
  readonly #listeners = new Map<string, Set<(...args: never[]) => void>>();
  #dirty: Record<string, unknown> = {};

  constructor(values: Record<string, unknown>) {
    this.values = { ...Object.fromEntries(STATE_NAMES.map((n) => [n, undefined])), ...values };
  }

  get listening(): number {
    return [...this.#listeners.values()].reduce((sum, set) => sum + set.size, 0);
  }

  get(name: string): unknown {
    return this.values[name];
  }

  set(name: string, value: unknown): void {
    this.values[name] = value;
    this.#dirty[name] = value;
    this.#emit(`change:${name}`);
  }

  save_changes(): void {
    this.saved.push(this.#dirty);
    this.#dirty = {};
  }

  on(event: string, callback: (...args: never[]) => void): void {
    const set = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, set.add(callback));
  }

  off(event: string, callback: (...args: never[]) => void): void {
    this.#listeners.get(event)?.delete(callback);
  }

  send(content: unknown): void {
    this.sent.push(content as Sent);
  }

  /** What the kernel says. */
  fromKernel(name: string, value: unknown): void {
    this.values[name] = value;
    this.#emit(`change:${name}`);
  }

  message(content: unknown, buffers: readonly ArrayBufferView[] = []): void {
    this.#emit("msg:custom", content, buffers);
  }

  #emit(event: string, ...args: unknown[]): void {
    for (const callback of this.#listeners.get(event) ?? []) callback(...(args as never[]));
  }
}
