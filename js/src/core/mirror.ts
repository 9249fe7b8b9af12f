/**
 * Signals that mirror the traits of a widget model, both ways; the hand never waits for the kernel.
 *
 * A signal that changed is dirty until its value has been sent. Sending waits for the end of what runs now, and then for a
 * pause, so that a drag sends its latest values only; meanwhile what the kernel says of a dirty trait is older than the hand,
 * and is not taken. A change that came from the kernel is equal to the trait already, and is not sent back.
 */

import { effect, type Signal } from "@preact/signals-core";
import { onAbort } from "./frame";
import { type Signals, STATE_NAMES, type State } from "./state";

/** The part of anywidget's model that is used. */
export interface WidgetModel {
  get(name: string): unknown;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, callback: (...args: never[]) => void): void;
  off(event: string, callback: (...args: never[]) => void): void;
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
  /** Whether it is no kernel that answers, but a model that runs in this page. */
  readonly here?: boolean;
}

/** Pause between two states sent to the kernel while the hand moves: about 16 a second; the last one always arrives. */
const SYNC_MS = 60;

/** Hear an event of the model until the end. */
export function hear(
  model: WidgetModel,
  event: string,
  callback: (...args: never[]) => void,
  abort: AbortSignal,
): void {
  model.on(event, callback);
  onAbort(abort, () => model.off(event, callback));
}

/** Keep state and traits the same until the end; `lost` is told when the model can no longer be saved. */
export function mirror(model: WidgetModel, state: Signals, abort: AbortSignal, lost: () => void): void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const dirty = new Set<keyof State>();
  const flush = () => {
    timer = undefined;
    if (dirty.size === 0) return;
    for (const name of dirty) model.set(name, state[name].peek());
    dirty.clear();
    try {
      model.save_changes();
    } catch {
      lost();
    }
    timer = setTimeout(flush, SYNC_MS);
  };
  for (const name of STATE_NAMES) {
    let first = true;
    onAbort(
      abort,
      effect(() => {
        const { value } = state[name];
        if (first || same(value, model.get(name))) {
          first = false;
          dirty.delete(name);
          return;
        }
        dirty.add(name);
        timer ??= setTimeout(flush, 0);
      }),
    );
    hear(
      model,
      `change:${name}`,
      () => {
        if (dirty.has(name)) return;
        const value = model.get(name);
        const own = state[name] as Signal<unknown>;
        if (!same(own.peek(), value)) own.value = value;
      },
      abort,
    );
  }
  onAbort(abort, () => clearTimeout(timer));
}

export function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}
