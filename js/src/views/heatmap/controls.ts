/** The controls of the patch map: which reading, of which stream, in which colours. */

import type { ReadonlySignal } from "@preact/signals-core";
import { DIVERGING, type MapName, SEQUENTIAL } from "../../core/color";
import { h, say } from "../../core/dom";
import { BY_CLASS, type Field, READING_HELP, READING_NAMES } from "../../core/field";
import { METHOD_NAMES } from "../../core/fieldThrough";
import { watch } from "../../core/frame";
import { type Importance, type ImportanceOf, READINGS, type Reading, type State } from "../../core/state";
import type { Store } from "../../core/store";
import { segmented } from "../parts";

const COLOR_NAMES: Readonly<Record<MapName, string>> = {
  viridis: "viridis",
  magma: "magma",
  cividis: "cividis",
  blues: "blues",
  redblue: "red–blue",
  brownteal: "brown–teal",
};

/** Readings that are of one sublayer, or of no stream at all. */
const NO_STREAM: readonly Reading[] = ["step", "direct", "attention", "source", "importance", "map"];

export function readingRow(store: Store, abort: AbortSignal): HTMLElement {
  const { state } = store;
  const select = h("select", { class: "csw-select", "aria-label": "Reading" });
  watch(abort, () => {
    const { snapshot } = store.baseline.value;
    const wanted = state.reading.value;
    const heads = snapshot.attentionRows.length > 0 || store.kernel.value === "live";
    const live = store.kernel.value === "live";
    const possible = READINGS.filter((r) => {
      if (r === "importance") return live || wanted === r;
      return heads || (r !== "attention" && r !== "source");
    });
    select.replaceChildren(
      ...possible.flatMap((r) =>
        r === "map"
          ? snapshot.maps.map((m) => h("option", { value: `map:${m.name}` }, m.label))
          : [h("option", { value: r }, READING_NAMES[r])],
      ),
    );
    select.value = wanted === "map" ? `map:${state.map_name.value || snapshot.maps[0]?.name}` : wanted;
    select.title = READING_HELP[wanted];
  });
  select.addEventListener(
    "change",
    () => {
      const [reading, name] = select.value.split(/:(.*)/s);
      store.set(name === undefined ? { reading: reading as Reading } : { reading: "map", map_name: name });
    },
    { signal: abort },
  );
  const streams = segmented(
    abort,
    "What is read",
    [
      ["residual", "Stream"],
      ["output", "Sublayer"],
    ],
    state.stream,
    (stream) => store.set({ stream }),
  );
  streams.title = "Read the residual stream after the sublayer, or only what the sublayer adds to it";
  watch(abort, () => {
    streams.hidden = NO_STREAM.includes(state.reading.value);
  });
  const method = h("select", { class: "csw-select", "aria-label": "Method" });
  method.append(...Object.entries(METHOD_NAMES).map(([value, name]) => h("option", { value }, name)));
  method.addEventListener("change", () => store.set({ importance: method.value as Importance }), {
    signal: abort,
  });
  const through = h("select", { class: "csw-select", "aria-label": "Through" });
  const options = (["all", "block", "head"] as const).map((value) => h("option", { value }));
  through.append(...options);
  through.addEventListener("change", () => store.set({ importance_of: through.value as ImportanceOf }), {
    signal: abort,
  });
  watch(abort, () => {
    method.hidden = through.hidden = state.reading.value !== "importance";
    method.value = state.importance.value;
    const head = state.head.value;
    const block = state.block.value;
    say(options[0], "all blocks");
    say(options[1], block > 0 ? `block ${block}` : "one block");
    say(options[2], head ? `block ${head[0]} head ${head[1]}` : "one head");
    through.value = state.importance_of.value;
  });
  const back = h("button", { class: "csw-button", type: "button" });
  let last: Reading = "identifiability";
  watch(abort, () => {
    const reading = state.reading.value;
    const ofHead = reading === "attention" || reading === "source";
    if (!ofHead) last = reading;
    back.hidden = !ofHead;
    say(back, `← ${READING_NAMES[last]}`);
  });
  back.addEventListener("click", () => store.set({ head: null, reading: last }), { signal: abort });
  return h("div", { class: "csw-bar-row" }, select, method, through, streams, back);
}

export function optionsRow(store: Store, abort: AbortSignal, field: ReadonlySignal<Field>): HTMLElement {
  const { state } = store;
  const on = { signal: abort };
  const opacity = h("input", {
    class: "csw-range",
    type: "range",
    min: 0,
    max: 1,
    step: 0.02,
    "aria-label": "Opacity of the map",
    title: "Opacity of the map",
  });
  opacity.addEventListener("input", () => store.set({ opacity: opacity.valueAsNumber }), on);
  const smooth = h("input", { type: "checkbox" });
  smooth.addEventListener("change", () => store.set({ smooth: smooth.checked }), on);
  const mask = h("input", { type: "checkbox" });
  mask.addEventListener("change", () => store.set({ outline: mask.checked }), on);
  const maskLabel = h("label", { class: "csw-check" }, mask, "outline");
  maskLabel.title = "Outline of the objects whose mask is known";
  const split = h("input", { type: "checkbox" });
  split.addEventListener("change", () => store.set({ side_by_side: split.checked }), on);
  const splitLabel = h("label", { class: "csw-check" }, split, "side by side");
  splitLabel.title = "The two classes in two maps of one scale, rather than their difference in one";
  const colors = h("select", { class: "csw-select", "aria-label": "Colour map" });
  colors.addEventListener("change", () => store.set({ colormap: colors.value as State["colormap"] }), on);
  watch(abort, () => {
    opacity.valueAsNumber = state.opacity.value;
    opacity.style.setProperty("--csw-fill", `${100 * state.opacity.value}%`);
    smooth.checked = state.smooth.value;
    mask.checked = state.outline.value;
    split.checked = state.side_by_side.value;
    splitLabel.hidden = state.compare_index.value === null || !BY_CLASS.includes(state.reading.value);
    maskLabel.hidden = store.baseline.value.snapshot.mask() === null;
  });
  watch(abort, () => {
    const { kind } = field.value;
    const names: readonly MapName[] = kind === "diverging" ? DIVERGING : SEQUENTIAL;
    colors.hidden = kind === "categorical";
    if (colors.dataset.kind !== kind) {
      colors.dataset.kind = kind;
      const options = names.slice(1).map((n) => h("option", { value: n }, COLOR_NAMES[n]));
      colors.replaceChildren(h("option", { value: "auto" }, COLOR_NAMES[names[0]]), ...options);
    }
    colors.value = names.slice(1).find((n) => n === state.colormap.value) ?? "auto";
  });
  return h(
    "div",
    { class: "csw-options" },
    h("label", { class: "csw-grow" }, "map", opacity),
    h("label", { class: "csw-check" }, smooth, "smooth"),
    maskLabel,
    splitLabel,
    colors,
  );
}
