/** The memory browser's module: it has no session, its own model holds the atlas and what is looked at. */

import { batch, effect, signal } from "@preact/signals-core";
import { Atlas, type Place } from "./core/atlas";
import { unpack } from "./core/codec";
import { onAbort } from "./core/frame";
import { hear, same, type WidgetModel } from "./core/mirror";
import { frameIn, showProblem } from "./mounting";
import base from "./styles/base.css";
import charts from "./styles/charts.css";
import memories from "./styles/memories.css";
import { mountMemories } from "./views/MemoryBrowser";
import { protect } from "./views/parts";

const STYLES = { name: "memories", text: [base, charts, memories].join("\n") };

interface Render {
  readonly model: WidgetModel;
  readonly el: HTMLElement;
  readonly signal: AbortSignal;
}

function render({ model, el, signal: abort }: Render): void {
  const place = (value: unknown) =>
    Array.isArray(value) && value.length === 3 ? (value as unknown as Place) : null;
  try {
    const atlas = new Atlas(unpack(model.get("_atlas") as ArrayBufferView), abort);
    const class_index = signal(Number(model.get("class_index") ?? 0));
    const neuron = signal(place(model.get("neuron")));
    const frame = frameIn(el, abort, STYLES);
    protect(frame, abort, "MemoryBrowser", (own) =>
      mountMemories(frame, atlas, { class_index, neuron }, own),
    );
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
    showProblem(el, abort, STYLES, "This memory atlas cannot be shown", error);
  }
}

export default { render };
