/** The controls of the patch map: which reading, of which stream, in which colours. */

import type { ReadonlySignal } from "@preact/signals-core";
import { DIVERGING, type MapName, SEQUENTIAL } from "../../core/color";
import { button, h, listen, say } from "../../core/dom";
import { watch } from "../../core/frame";
import {
  DEFAULTS,
  type Importance,
  type ImportanceOf,
  READINGS,
  type Reading,
  type State,
} from "../../core/state";
import type { Store } from "../../core/store";
import { FIELDS } from "../../fields";
import type { Field } from "../../fields/field";
import { METHOD_NAMES } from "../../fields/importance";
import { questionOf } from "../../fields/lens";
import { checkbox, options, segmented, select } from "../controls";

const COLOR_NAMES: Readonly<Record<MapName, string>> = {
  viridis: "viridis",
  magma: "magma",
  cividis: "cividis",
  blues: "blues",
  redblue: "red–blue",
  brownteal: "brown–teal",
};

export function readingRow(store: Store, abort: AbortSignal): HTMLElement {
  return h(
    "div",
    { class: "csw-bar-row" },
    readingSelect(store, abort),
    lensSelect(store, abort),
    ...importanceSelects(store, abort),
    streamChoice(store, abort),
    backButton(store, abort),
  );
}

/** Of extra maps every one is a choice of its own. */
function readingSelect(store: Store, abort: AbortSignal): HTMLElement {
  const { state, baseline } = store;
  const node = select("Reading");
  watch(abort, () => {
    const maps = baseline.value.snapshot.maps.infos;
    const wanted = state.reading.value;
    const choices = READINGS.filter((r) => FIELDS[r].offered?.(store) ?? true).flatMap(
      (r): (readonly [string, string])[] =>
        r === "map" ? maps.map((m) => [`map:${m.name}`, m.label]) : [[r, FIELDS[r].name]],
    );
    node.replaceChildren(...options(choices));
    node.value = wanted === "map" ? `map:${state.map_name.value || maps[0]?.name}` : wanted;
    node.title = FIELDS[wanted].help;
  });
  listen(node, abort, {
    change: () => {
      const [reading, name] = node.value.split(/:(.*)/s);
      store.set(name === undefined ? { reading: reading as Reading } : { reading: "map", map_name: name });
    },
  });
  return node;
}

/** Through which lens the tokens are read, in all views. */
function lensSelect(store: Store, abort: AbortSignal): HTMLElement {
  const node = select("Lens");
  watch(abort, () => {
    const { snapshot, readings } = store.baseline.value;
    const labels = [DEFAULTS.lens, ...snapshot.lenses.map(({ label }) => label)];
    node.hidden = labels.length < 2;
    node.replaceChildren(...options(labels.map((label, i) => [label, i ? label : "logit lens"])));
    node.value = readings.lens?.label ?? DEFAULTS.lens;
    node.title = `Read through this lens: ${questionOf(readings.lens)} (key L)`;
  });
  listen(node, abort, { change: () => store.set({ lens: node.value }) });
  return node;
}

function streamChoice({ state }: Store, abort: AbortSignal): HTMLElement {
  const node = segmented(
    abort,
    "What is read",
    [
      ["residual", "Stream"],
      ["output", "Sublayer"],
    ],
    state.stream,
  );
  node.title = "Read the residual stream after the sublayer, or only what the sublayer adds to it";
  watch(abort, () => {
    node.hidden = FIELDS[state.reading.value].at !== "point";
  });
  return node;
}

/** By which method, and through which part of the model. */
function importanceSelects(store: Store, abort: AbortSignal): HTMLElement[] {
  const { state } = store;
  const method = select("Method", Object.entries(METHOD_NAMES));
  const through = select("Through", [
    ["all", "all blocks"],
    ["block", ""],
    ["head", ""],
  ]);
  listen(method, abort, { change: () => store.set({ importance: method.value as Importance }) });
  listen(through, abort, { change: () => store.set({ importance_of: through.value as ImportanceOf }) });
  watch(abort, () => {
    method.hidden = through.hidden = state.reading.value !== "importance";
    method.value = state.importance.value;
    const head = state.head.value;
    const block = state.block.value;
    say(through.options[1], block > 0 ? `block ${block}` : "one block");
    say(through.options[2], head ? `block ${head[0]} head ${head[1]}` : "one head");
    through.value = state.importance_of.value;
  });
  return [method, through];
}

/** From a reading of a head back to the one before. */
function backButton(store: Store, abort: AbortSignal): HTMLElement {
  const { reading } = store.state;
  const back = button({ class: "csw-button" });
  let last: Reading = "identifiability";
  watch(abort, () => {
    const { ofHead } = FIELDS[reading.value];
    if (!ofHead) last = reading.value;
    back.hidden = !ofHead;
    say(back, `← ${FIELDS[last].name}`);
  });
  listen(back, abort, { click: () => store.set({ head: null, reading: last }) });
  return back;
}

export function optionsRow(store: Store, abort: AbortSignal, field: ReadonlySignal<Field>): HTMLElement {
  const { state } = store;
  const name = "Opacity of the map";
  const opacity = h("input", {
    class: "csw-range",
    type: "range",
    min: 0,
    max: 1,
    step: 0.02,
    "aria-label": name,
    title: name,
  });
  listen(opacity, abort, { input: () => store.set({ opacity: opacity.valueAsNumber }) });
  const outline = checkbox(abort, "outline", state.outline, "Outline of the objects whose mask is known");
  const input = checkbox(abort, "model's pixels", state.model_input, "The pixels that the model saw");
  const pair = checkbox(
    abort,
    "side by side",
    state.side_by_side,
    "The two classes in two maps of one scale, rather than their difference in one",
  );
  watch(abort, () => {
    opacity.valueAsNumber = state.opacity.value;
    opacity.style.setProperty("--fill", `${100 * state.opacity.value}%`);
    pair.hidden = state.compare_index.value === null || !FIELDS[state.reading.value].ofClass;
    input.hidden = !store.baseline.value.snapshot.meta.image?.photo;
    outline.hidden = store.baseline.value.snapshot.mask() === null;
  });
  return h(
    "div",
    { class: "csw-options" },
    h("label", { class: "csw-grow" }, "map", opacity),
    checkbox(abort, "smooth", state.smooth),
    outline,
    input,
    pair,
    colorSelect(store, abort, field),
  );
}

/** The colour maps of the field's kind; the first one is what "auto" means. */
function colorSelect({ state }: Store, abort: AbortSignal, field: ReadonlySignal<Field>): HTMLElement {
  const node = select("Colour map");
  listen(node, abort, {
    change: () => {
      state.colormap.value = node.value as State["colormap"];
    },
  });
  watch(abort, () => {
    const { kind } = field.value;
    const [auto, ...others] = kind === "diverging" ? DIVERGING : SEQUENTIAL;
    node.hidden = kind === "categorical";
    if (node.dataset.kind !== kind) {
      node.dataset.kind = kind;
      const choices = others.map((n) => [n, COLOR_NAMES[n]] as const);
      node.replaceChildren(...options([["auto", COLOR_NAMES[auto]], ...choices]));
    }
    node.value = others.find((n) => n === state.colormap.value) ?? "auto";
  });
  return node;
}
