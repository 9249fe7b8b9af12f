/** The picture under a map of any reading, patch by patch; patches are selected by pointer or keyboard. */

import { computed } from "@preact/signals-core";
import { attach, h, say, unique } from "../core/dom";
import { approximateNote } from "../core/format";
import { onFrame, watch } from "../core/frame";
import type { Store } from "../core/store";
import { FIELDS, fieldOf, pairOf } from "../fields";
import { lensCaption } from "../fields/lens";
import { passChoice } from "./controls";
import { chips } from "./heatmap/chips";
import { optionsRow, readingRow } from "./heatmap/controls";
import { legend } from "./heatmap/legend";
import { nearest } from "./heatmap/nearest";
import { pane } from "./heatmap/pane";
import { MaskOutline, Picture } from "./heatmap/picture";
import type { PartOptions } from "./view";

export interface HeatmapOptions extends PartOptions {
  /** Leave out the controls around the picture. */
  readonly bare?: boolean;
}

/** Classes of the model's own output that get the first, best separated colours. */
const LEADING = 6;

export function mount(el: HTMLElement, store: Store, abort: AbortSignal, options: HeatmapOptions = {}): void {
  const { state } = store;
  const pair = computed(() => pairOf(store));
  const field = computed(() => pair.value?.[0] ?? fieldOf(store));
  const second = computed(() => pair.value?.[1] ?? null);
  // The first colours go to what matters most in this picture.
  const leading = computed(() => {
    const { snapshot } = store.baseline.value;
    return [...new Set([state.class_index.value, ...snapshot.predicted(LEADING).map((p) => p.id)])];
  });

  const help = unique("map");
  const live = h("p", { class: "csw-sr", "aria-live": "polite" });
  const shared = {
    leading,
    pixels: new Picture(store, abort),
    outline: new MaskOutline(),
    help,
    live,
  };
  const other = computed(() => state.compare_index.value ?? state.class_index.value);
  const names = [h("figcaption", {}), h("figcaption", {})];
  const figures = [
    h("figure", {}, pane(store, abort, field, state.class_index, shared), names[0]),
    h("figure", {}, pane(store, abort, second, other, shared), names[1]),
  ];
  const pictures = h("div", { class: "csw-panes" }, ...figures);
  const keys = h(
    "p",
    { class: "csw-sr", id: help },
    "Arrow keys move over the patches, Enter selects one, Shift and Enter adds one, Escape clears the selection, S says where the map is highest.",
  );
  const note = h("p", { class: "csw-note" });
  const root = h("section", { class: "csw-view csw-heatmap", "aria-label": "Patch map" });
  if (!options.bare) {
    const controls = readingRow(store, abort);
    if (!options.composed) controls.append(passChoice(store, abort));
    root.append(controls);
  }
  root.append(pictures, chips(store, abort, field, leading), legend(store, abort, field, leading));
  if (!options.bare) root.append(optionsRow(store, abort, field));
  root.append(nearest(store, abort));
  // Last, and in the explorer with room of its own: what it says may come and go, and moves nothing.
  note.classList.toggle("csw-kept", options.composed === true);
  root.append(note, keys, live);
  attach(el, root, abort);

  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const f = field.value;
    const split = second.value !== null;
    pictures.classList.toggle("csw-pair", split);
    figures[1].hidden = !split;
    [state.class_index.value, other.value].forEach((id, i) => {
      names[i].hidden = !split;
      say(names[i], snapshot.shortName(id));
    });
    const ready = f.state === "ready";
    const through = FIELDS[f.reading].ofLens && snapshot.lenses.length > 0;
    const notes = [
      through ? lensCaption(store) : "",
      shared.pixels.problem.value,
      ready ? f.note : "",
      f.approximate ? approximateNote(snapshot.meta) : "",
    ];
    const ranks = f.reading === "rank" || f.reading === "identifiability";
    if (ranks && state.compare_index.value !== null && !split)
      notes.push("Ranks are of one class: they are not compared.");
    note.classList.toggle("csw-long", snapshot.lenses.length > 0);
    say(note, notes.filter(Boolean).join(" "));
    note.hidden = !options.composed && note.textContent === "";
  });
  watch(abort, () => FIELDS[state.reading.value].fetch?.(store));
}
