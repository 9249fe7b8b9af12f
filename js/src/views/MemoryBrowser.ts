/** The memories of a model: the neurons of a class, the classes of a neuron, and the patches that activate it. */

import { batch, computed, type Signal, signal } from "@preact/signals-core";
import type { Atlas, Hit, Place } from "../core/atlas";
import { attach, h, say } from "../core/dom";
import { count, number, shortName } from "../core/format";
import { onFrame } from "../core/frame";
import { indexClasses, searchClasses } from "./classSearch";
import { combobox } from "./combobox";
import { OWN_KEYS, segmented, walk } from "./parts";

/** What is looked at; `neuron` is null while it is the first of the class. */
export interface Looking {
  readonly class_index: Signal<number>;
  readonly neuron: Signal<Place | null>;
}

const CAP = 60;

export function mountMemories(el: HTMLElement, atlas: Atlas, looking: Looking, abort: AbortSignal): void {
  const on = { signal: abort };
  const index = indexClasses(atlas.names);
  const which = signal<"both" | "attention" | "mlp">("both");
  const className = (id: number) => atlas.names[id] ?? `class ${id}`;
  const listed = computed(() => {
    const kind = which.value === "both" ? null : which.value === "attention" ? 0 : 1;
    return atlas.neuronsOf(looking.class_index.value, kind);
  });
  const shown = computed(() => {
    const own = looking.neuron.value;
    return own ? atlas.neuronAt(own) : (listed.value[0]?.id ?? 0);
  });

  const picker = combobox(
    abort,
    "Class",
    "Class name or id",
    (query) => {
      const { ids, total } = searchClasses(index, query, CAP);
      const options = ids.map((id) => ({ id, text: className(id), hint: String(id) }));
      const more = total - ids.length;
      const note = more > 0 ? `${count(more)} more: type to narrow down` : "No class has such a name or id.";
      return { groups: [{ label: "Classes", options }], note: more > 0 || ids.length === 0 ? note : "" };
    },
    (id) => look(id, null),
  );
  const look = (id: number, neuron: Place | null) =>
    batch(() => {
      looking.class_index.value = id;
      looking.neuron.value = neuron;
    });
  const kinds = segmented(
    abort,
    "Which neurons",
    [
      ["both", "All"],
      ["attention", "Attention"],
      ["mlp", "MLP"],
    ],
    which,
    (value) => {
      which.value = value;
      looking.neuron.value = null;
    },
  );
  const about = h("p", { class: "csw-note" });
  const neurons = h("ol", { class: "csw-list", "aria-label": "Neurons of the class", ...OWN_KEYS });
  const side = h(
    "div",
    { class: "csw-memory-side" },
    h("div", { class: "csw-picker" }, picker.field),
    kinds,
    about,
    columns("neuron", "cosine", "reads as"),
    neurons,
  );

  const title = h("h3", { "aria-live": "polite" });
  const block = h("select", { class: "csw-select", "aria-label": "Block" });
  block.append(
    ...Array.from({ length: atlas.blocks }, (_, i) => h("option", { value: i + 1 }, `block ${i + 1}`)),
  );
  const part = h("select", { class: "csw-select", "aria-label": "Sublayer" });
  part.append(h("option", { value: 0 }, "attention"), h("option", { value: 1 }, "MLP"));
  const value = h("input", {
    class: "csw-select csw-number",
    type: "number",
    min: 0,
    "aria-label": "Neuron",
  });
  const tools = h("div", { class: "csw-bar-row" }, title, block, part, value);
  const classes = h("ol", { class: "csw-list", "aria-label": "Classes of the neuron", ...OWN_KEYS });
  const heading = h("p", { class: "csw-label" });
  const patches = h("div", { class: "csw-patches" });
  const main = h(
    "div",
    { class: "csw-memory-main" },
    tools,
    columns("class", "cosine", ""),
    classes,
    heading,
    patches,
  );
  const root = h(
    "section",
    { class: "csw-view csw-chart csw-memories", "aria-label": "Memory browser" },
    h("div", { class: "csw-memory-layout" }, side, main),
  );
  attach(el, root, abort);

  const choose = () => {
    looking.neuron.value = atlas.placeOf(
      atlas.neuronAt([Number(block.value), Number(part.value), Math.round(value.valueAsNumber) || 0]),
    );
  };
  for (const control of [block, part, value]) control.addEventListener("change", choose, on);
  // Letters and arrows are this field's own, never the notebook's.
  value.addEventListener("keydown", (event) => event.stopPropagation(), on);

  onFrame(abort, () => {
    const id = looking.class_index.value;
    const hits = listed.value;
    const own = shown.value;
    picker.show(className(id), `${className(id)} (class ${id})`);
    const first = hits.filter((hit) => atlas.classesOf(hit.id)[0]?.id === id).length;
    say(
      about,
      `Value vectors that point most towards ${shortName(className(id))}; for ${first} of these ${hits.length} it is the first class.`,
    );
    rows(neurons, hits, (hit) => {
      const best = atlas.classesOf(hit.id)[0]?.id ?? -1;
      return [atlas.neuronName(hit.id), best === id ? "✓" : shortName(className(best)), hit.id === own];
    });
  });
  onFrame(abort, () => {
    const neuron = shown.value;
    const id = looking.class_index.value;
    const [b, w, v] = atlas.placeOf(neuron);
    say(title, atlas.neuronName(neuron));
    block.value = String(b);
    part.value = String(w);
    value.value = String(v);
    value.max = String(atlas.widths[w] - 1);
    rows(classes, atlas.classesOf(neuron), (hit) => [className(hit.id), "", hit.id === id]);
    const found = atlas.patchesOf(neuron);
    say(
      heading,
      found.length > 0
        ? `Patches that activate it most, one of a picture, among ${count(atlas.pictures)} pictures`
        : "No pictures were given: give a data set to see which patches activate it.",
    );
    patches.replaceChildren(
      ...found.map(({ picture, row, column, coefficient }, i) => {
        const label = atlas.labels[picture];
        const name = label === undefined ? `picture ${picture}` : shortName(className(label));
        const words = `${name}, patch ${row + 1}, ${column + 1}, coefficient ${number(coefficient)}`;
        const image = h("img", { src: atlas.url(picture), alt: words, draggable: "false" });
        const ring = h("i", {});
        Object.assign(ring.style, {
          left: `${(100 * column) / atlas.columns}%`,
          top: `${(100 * row) / atlas.rows}%`,
          width: `${100 / atlas.columns}%`,
          height: `${100 / atlas.rows}%`,
        });
        const caption = h("figcaption", {}, h("span", {}, name), h("output", {}, number(coefficient)));
        return h(
          "figure",
          { title: `${i + 1}. ${words} (picture ${picture})` },
          h("div", {}, image, ring),
          caption,
        );
      }),
    );
  });

  neurons.addEventListener(
    "click",
    (event) => {
      const id = idOf(event);
      if (id !== null) looking.neuron.value = atlas.placeOf(id);
    },
    on,
  );
  classes.addEventListener(
    "click",
    (event) => {
      const id = idOf(event);
      // The neuron stays: one sees where it stands among those of the class.
      if (id !== null) look(id, atlas.placeOf(shown.peek()));
    },
    on,
  );
  for (const list of [neurons, classes]) list.addEventListener("keydown", walk, on);
}

function columns(...names: string[]): HTMLElement {
  return h(
    "div",
    { class: "csw-columns", "aria-hidden": "true" },
    ...names.map((name) => h("span", {}, name)),
  );
}

/** One button a hit, kept in place so that the keyboard's focus stays. */
function rows(list: HTMLElement, hits: readonly Hit[], words: (hit: Hit) => [string, string, boolean]): void {
  while (list.childElementCount > hits.length) list.lastElementChild?.remove();
  while (list.childElementCount < hits.length) {
    const parts = [h("span", { class: "csw-name" }), h("span", {}), h("span", { class: "csw-name" })];
    list.append(h("li", {}, h("button", { type: "button" }, ...parts)));
  }
  hits.forEach((hit, i) => {
    const button = list.children[i].firstElementChild as HTMLButtonElement;
    const [name, more, own] = words(hit);
    button.dataset.id = String(hit.id);
    button.classList.toggle("csw-main", own);
    button.setAttribute("aria-pressed", String(own));
    button.style.setProperty("--p", `${(100 * Math.max(0, hit.cosine)).toFixed(1)}%`);
    button.title = name;
    const cells = button.children;
    say(cells[0], name);
    say(cells[1], number(hit.cosine));
    say(cells[2], more);
  });
}

function idOf(event: Event): number | null {
  const id = (event.target as Element).closest<HTMLElement>("[data-id]")?.dataset.id;
  return id === undefined ? null : Number(id);
}
