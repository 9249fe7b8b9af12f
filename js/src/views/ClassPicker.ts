/** The class that is read, and one to compare it with: searched by name or id, the predicted ones first. */

import { computed } from "@preact/signals-core";
import { button, listen } from "../core/dom";
import { percent } from "../core/format";
import { onFrame } from "../core/frame";
import type { Store } from "../core/store";
import { type Combobox, combobox, type Group, type Option } from "./classes/combobox";
import { indexClasses, searchClasses, searchNote } from "./classes/search";
import { root } from "./parts";

/** Options shown at once; 21,843 nodes would take longer to make than to search. */
const CAP = 60;
/** Stands for a class that is not there yet. */
const NEW = -1;
/** Predicted classes that stand before all others. */
const PREDICTED = 5;

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "chart csw-picker", "Class");
  const { state } = store;
  const names = computed(() => store.data.value.snapshot.meta.classes.names);
  const index = computed(() => indexClasses(names.value));
  const predicted = computed(() => store.data.value.snapshot.predicted(PREDICTED));

  const search = (query: string): { groups: Group[]; note: string } => {
    const { snapshot, readings } = store.data.peek();
    const live = store.live;
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
    const words = query.trim();
    if (store.offers("word") && words && !names.peek().includes(words))
      groups.push({ label: "New class", options: [{ id: NEW, text: words, hint: "add" }] });
    return { groups, note: searchNote(found, groups.length) };
  };

  /** Take a class; a new one is read from its words first. */
  const taking = (take: (id: number) => void) => async (id: number, words: string) => {
    if (id !== NEW) return take(id);
    const answer = await store.request("word", { words }, [], `reading ${words}`);
    if (answer) take(Number(answer.result.class));
  };
  const main = combobox(
    abort,
    "Class",
    "Class name or id",
    search,
    taking((id) => {
      // Picking the other one's class swaps them: a class is never compared with itself.
      store.set(id === state.compare_index.peek() ? swapped() : { class_index: id });
    }),
  );
  const other = combobox(
    abort,
    "Compare with",
    "Compare with …",
    search,
    taking((id) => {
      store.set(id === state.class_index.peek() ? swapped() : { compare_index: id });
    }),
  );
  const swapped = () => {
    const now = state.compare_index.peek();
    return now === null ? {} : { class_index: now, compare_index: state.class_index.peek() };
  };
  const swap = button({ class: "csw-swap", "aria-label": "Swap the two classes", title: "Swap" }, "⇄");
  const stop = "Do not compare";
  const clear = button({ class: "csw-clear", "aria-label": stop, title: stop }, "×");
  main.field.classList.add("csw-main");
  other.field.classList.add("csw-other");
  other.field.append(swap, clear);
  section.append(main.field, other.field);

  listen(swap, abort, { click: () => store.set(swapped()) });
  listen(clear, abort, {
    click: () => {
      store.set({ compare_index: null });
      other.input.focus();
    },
  });

  const tell = (box: Combobox, id: number | null) => {
    const full = id === null ? "" : store.data.value.snapshot.className(id);
    box.show(full, id === null ? "" : `${full} (class ${id})`);
  };
  onFrame(abort, () => {
    tell(main, state.class_index.value);
    tell(other, state.compare_index.value);
    swap.hidden = clear.hidden = state.compare_index.value === null;
  });
}
