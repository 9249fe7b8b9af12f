/** The memories of a model: the neurons of a class, the classes of a neuron, and the patches that activate it. */

import { batch, computed, type Signal, signal } from "@preact/signals-core";
import type { Atlas, Place } from "../core/atlas";
import { h, say } from "../core/dom";
import { count, shortName } from "../core/format";
import { onFrame } from "../core/frame";
import { combobox } from "./classes/combobox";
import { indexClasses, searchClasses, searchNote } from "./classes/search";
import { segmented } from "./controls";
import { neuronRow } from "./memories/neuron";
import { patchFigures } from "./memories/patches";
import { columns, hitList, showHits } from "./memories/rows";
import { root } from "./parts";

/** What is looked at; `neuron` is null while it is the first of the class. */
export interface Looking {
  readonly class_index: Signal<number>;
  readonly neuron: Signal<Place | null>;
}

/** Options of the class search that are shown at once. */
const CAP = 60;

type Which = "both" | "attention" | "mlp";
const WHICH: readonly (readonly [Which, string])[] = [
  ["both", "All"],
  ["attention", "Attention"],
  ["mlp", "MLP"],
];
/** As the atlas numbers them; null is both. */
const SUBLAYER: Readonly<Record<Which, number | null>> = { both: null, attention: 0, mlp: 1 };

export function mountMemories(el: HTMLElement, atlas: Atlas, looking: Looking, abort: AbortSignal): void {
  const section = root(el, abort, "chart csw-memories", "Memory browser");
  const { class_index, neuron } = looking;
  const which = signal<Which>("both");
  const className = (id: number) => atlas.names[id] ?? `class ${id}`;
  const listed = computed(() => atlas.neuronsOf(class_index.value, SUBLAYER[which.value]));
  const shown = computed(() => (neuron.value ? atlas.neuronAt(neuron.value) : (listed.value[0]?.id ?? 0)));
  const look = (id: number, place: Place | null) =>
    batch(() => {
      class_index.value = id;
      neuron.value = place;
    });

  const index = indexClasses(atlas.names);
  const search = (query: string) => {
    const found = searchClasses(index, query, CAP);
    const options = found.ids.map((id) => ({ id, text: className(id), hint: String(id) }));
    return { groups: [{ label: "Classes", options }], note: searchNote(found, options.length) };
  };
  const picker = combobox(abort, "Class", "Class name or id", search, (id) => look(id, null));
  const kinds = segmented(abort, "Which neurons", WHICH, which, (value) => {
    which.value = value;
    neuron.value = null;
  });
  const about = h("p", { class: "csw-note" });
  const neurons = hitList(abort, "Neurons of the class", (id) => {
    neuron.value = atlas.placeOf(id);
  });
  // The neuron stays: one sees where it stands among those of the class.
  const classes = hitList(abort, "Classes of the neuron", (id) => look(id, atlas.placeOf(shown.peek())));
  const heading = h("p", { class: "csw-label" });
  const patches = h("div", { class: "csw-patches" });
  const side = h(
    "div",
    { class: "csw-memory-side" },
    h("div", { class: "csw-picker" }, picker.field),
    kinds,
    about,
    columns("neuron", "cosine", "reads as"),
    neurons,
  );
  const main = h(
    "div",
    { class: "csw-memory-main" },
    neuronRow(atlas, abort, shown, neuron),
    columns("class", "cosine", ""),
    classes,
    heading,
    patches,
  );
  section.append(h("div", { class: "csw-memory-layout" }, side, main));

  onFrame(abort, () => {
    const id = class_index.value;
    const hits = listed.value;
    const own = shown.value;
    const name = className(id);
    const bestOf = (hit: number) => atlas.classesOf(hit)[0]?.id ?? -1;
    const first = hits.filter((hit) => bestOf(hit.id) === id).length;
    picker.show(name, `${name} (class ${id})`);
    say(
      about,
      `Value vectors that point most towards ${shortName(name)}; for ${first} of these ${hits.length} it is the first class.`,
    );
    showHits(neurons, hits, (hit) => {
      const best = bestOf(hit.id);
      return [atlas.neuronName(hit.id), best === id ? "✓" : shortName(className(best)), hit.id === own];
    });
  });
  onFrame(abort, () => {
    const id = class_index.value;
    showHits(classes, atlas.classesOf(shown.value), (hit) => [className(hit.id), "", hit.id === id]);
    const figures = patchFigures(atlas, shown.value, className);
    const known = `Patches that activate it most, one of a picture, among ${count(atlas.pictures)} pictures`;
    const none = "No pictures were given: give a data set to see which patches activate it.";
    say(heading, figures.length > 0 ? known : none);
    patches.replaceChildren(...figures);
  });
}
