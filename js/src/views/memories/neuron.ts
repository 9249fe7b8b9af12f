/** Choosing a neuron by block, sublayer and number. */

import type { Signal } from "@preact/signals-core";
import type { Atlas, Place } from "../../core/atlas";
import { range } from "../../core/collections";
import { h, listen, say } from "../../core/dom";
import { onFrame } from "../../core/frame";
import { select } from "../controls";

/** The row with the neuron's name and the controls that choose another one. */
export function neuronRow(
  atlas: Atlas,
  abort: AbortSignal,
  shown: { readonly value: number },
  chosen: Signal<Place | null>,
): HTMLElement {
  const title = h("h3", { "aria-live": "polite" });
  const block = select(
    "Block",
    range(atlas.blocks, (i) => [i + 1, `block ${i + 1}`]),
  );
  const part = select("Sublayer", [
    [0, "attention"],
    [1, "MLP"],
  ]);
  const value = h("input", {
    class: "csw-select csw-number",
    type: "number",
    min: 0,
    "aria-label": "Neuron",
  });
  const change = () => {
    chosen.value = atlas.placeOf(
      atlas.neuronAt([Number(block.value), Number(part.value), Math.round(value.valueAsNumber) || 0]),
    );
  };
  for (const control of [block, part, value]) listen(control, abort, { change });
  // Letters and arrows are this field's own, never the notebook's.
  listen(value, abort, { keydown: (event) => event.stopPropagation() });
  onFrame(abort, () => {
    const [b, w, v] = atlas.placeOf(shown.value);
    say(title, atlas.neuronName(shown.value));
    block.value = String(b);
    part.value = String(w);
    value.value = String(v);
    value.max = String(atlas.widths[w] - 1);
  });
  return h("div", { class: "csw-bar-row" }, title, block, part, value);
}
