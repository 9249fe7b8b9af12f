/** The class that is read, and one to compare it with: searched by name or id, the predicted ones first. */

import { computed } from "@preact/signals-core";
import { h } from "../core/dom";
import { count, percent } from "../core/format";
import { onFrame } from "../core/frame";
import type { Store } from "../core/store";
import { indexClasses, searchClasses } from "./classSearch";
import { type Combobox, combobox, type Group, type Option } from "./combobox";
import { root } from "./parts";

/** Options shown at once; 21,843 nodes would take longer to make than to search. */
const CAP = 60;
const PREDICTED = 5;

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "picker", "Class");
  const { state } = store;
  const names = computed(() => store.data.value.snapshot.meta.classes.names);
  const index = computed(() => indexClasses(names.value));
  const predicted = computed(() => store.data.value.snapshot.predicted(PREDICTED));

  const search = (query: string): { groups: Group[]; note: string } => {
    const { snapshot, readings } = store.data.peek();
    const live = store.kernel.peek() === "live";
    const likely = new Map(predicted.peek().map(({ id, probability }) => [id, probability]));
    const option = (id: number): Option => {
      const p = likely.get(id);
      const known = live || readings.ranked(id);
      return {
        id,
        text: snapshot.className(id),
        hint: !known ? "not saved" : p === undefined ? String(id) : percent(p),
      };
    };
    const found = searchClasses(index.peek(), query, CAP);
    const rest = found.ids.filter((id) => !likely.has(id));
    const first = query.trim() === "" ? [...likely.keys()] : found.ids.filter((id) => likely.has(id));
    const groups = [
      { label: "Predicted", options: first.map(option) },
      { label: query.trim() === "" ? "All classes" : "Matches", options: rest.map(option) },
    ].filter(({ options }) => options.length > 0);
    const more = found.total - found.ids.length;
    let note = "";
    if (groups.length === 0) note = "No class has such a name or id.";
    else if (more > 0) note = `${count(more)} more: type to narrow down`;
    return { groups, note };
  };

  const main = combobox(abort, "Class", "Class name or id", search, (id) => {
    // Picking the other one's class swaps them: a class is never compared with itself.
    store.set(id === state.compare_index.peek() ? swapped() : { class_index: id });
  });
  const other = combobox(abort, "Compare with", "Compare with …", search, (id) => {
    store.set(id === state.class_index.peek() ? swapped() : { compare_index: id });
  });
  const swapped = () => {
    const now = state.compare_index.peek();
    return now === null ? {} : { class_index: now, compare_index: state.class_index.peek() };
  };
  const swap = h(
    "button",
    { type: "button", class: "csw-swap", "aria-label": "Swap the two classes", title: "Swap" },
    "⇄",
  );
  const clear = h(
    "button",
    { type: "button", class: "csw-clear", "aria-label": "Do not compare", title: "Do not compare" },
    "×",
  );
  main.field.classList.add("csw-main");
  other.field.classList.add("csw-other");
  other.field.append(swap, clear);
  section.append(main.field, other.field);

  const options = { signal: abort };
  swap.addEventListener("click", () => store.set(swapped()), options);
  clear.addEventListener(
    "click",
    () => {
      store.set({ compare_index: null });
      other.input.focus();
    },
    options,
  );

  const tell = (box: Combobox, id: number | null) => {
    const full = id === null ? "" : store.data.value.snapshot.className(id);
    box.show(full, id === null ? "" : `${full} (class ${id})`);
  };
  onFrame(abort, () => {
    tell(main, state.class_index.value);
    tell(other, state.compare_index.value);
    const alone = state.compare_index.value === null;
    swap.hidden = clear.hidden = alone;
  });
}
