/** Mounting the memory browser, live (its model holds the atlas and what is looked at) or in a page. */

import { batch, effect, signal } from "@preact/signals-core";
import { Atlas, type Place } from "./core/atlas";
import { unpack } from "./core/codec";
import { onAbort } from "./core/frame";
import { hear, same, type WidgetModel } from "./core/mirror";
import { frameIn, showProblem } from "./runtime";
import { mountMemories } from "./views/MemoryBrowser";
import { protect } from "./views/parts";

export function showMemories(
  el: HTMLElement,
  bytes: ArrayBufferView,
  model: WidgetModel | null,
  abort: AbortSignal,
  start: Readonly<Record<string, unknown>> = {},
): void {
  const get = (name: string) => (model ? model.get(name) : start[name]);
  const place = (value: unknown) =>
    Array.isArray(value) && value.length === 3 ? (value as unknown as Place) : null;
  try {
    const atlas = new Atlas(unpack(bytes), abort);
    const class_index = signal(Number(get("class_index") ?? 0));
    const neuron = signal(place(get("neuron")));
    const frame = frameIn(el, abort);
    protect(frame, abort, "MemoryBrowser", (own) =>
      mountMemories(frame, atlas, { class_index, neuron }, own),
    );
    if (!model) return;
    const follow = () =>
      batch(() => {
        class_index.value = Number(model.get("class_index"));
        neuron.value = place(model.get("neuron"));
      });
    const stop = effect(() => {
      const now = { class_index: class_index.value, neuron: neuron.value ?? [] };
      const changed = Object.entries(now).filter(([name, v]) => !same(model.get(name), v));
      for (const [name, v] of changed) model.set(name, v);
      if (changed.length > 0) model.save_changes();
    });
    for (const name of ["class_index", "neuron"]) hear(model, `change:${name}`, follow, abort);
    onAbort(abort, stop);
  } catch (error) {
    showProblem(el, abort, "This memory atlas cannot be shown", error);
  }
}
