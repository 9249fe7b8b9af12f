/** How the class rises over the depth: for the output token, the selected tokens, inside and outside of the object. */

import { computed, type Signal, signal, untracked } from "@preact/signals-core";
import { assign, claim, entitle, h, listen, pointIn, say } from "../core/dom";
import { count, number } from "../core/format";
import { onFrame } from "../core/frame";
import type { Store } from "../core/store";
import { segmented, toggle } from "./controls";
import { root, widthOf } from "./parts";
import { OWN_KEYS } from "./roving";
import { Legend } from "./trajectories/legend";
import { hoveredLine, linesOf, type Measure, objectTokens } from "./trajectories/lines";
import { Plot } from "./trajectories/plot";
import { lensName, subject } from "./words";

const MEASURES: readonly (readonly [Measure, string])[] = [
  ["rank", "Rank"],
  ["identifiability", "Ident."],
  ["logit", "Logit"],
];
const TITLES: Readonly<Record<Measure, string>> = {
  rank: "Rank",
  identifiability: "Identifiability",
  logit: "Logit",
};

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "chart csw-trajectories", "Trajectories over the depth");
  const { state } = store;
  const measure: Signal<Measure> = signal("rank");
  const logarithmic = signal(true);
  const pointed: Signal<number | null> = signal(null);

  const title = h("h3");
  const rough = h("span", { class: "csw-approximate" }, "approximate");
  const log = toggle(abort, "log", "Logarithmic rank axis", logarithmic);
  const choice = segmented(abort, "Measure", MEASURES, measure);
  const empty = h("p", { class: "csw-empty" });
  const plot = new Plot({
    role: "slider",
    tabindex: 0,
    "aria-label": "Layer",
    "aria-valuemin": 0,
    ...OWN_KEYS,
  });
  const chart = plot.node;
  const legend = new Legend(abort);
  const readout = h("p", { class: "csw-readout" });
  const head = h("header", {}, title, rough, h("span", { class: "csw-tools" }, log, choice));
  section.append(head, empty, chart, legend.node, readout);

  const width = widthOf(section, abort);
  const split = computed(() => objectTokens(store));
  const model = computed(() => linesOf(store, measure.value, split.value));
  const format = (value: number) => {
    if (measure.value !== "rank") return number(value);
    // Mean ranks: tenths say enough.
    return value < 10 && value % 1 !== 0 ? value.toFixed(1) : count(value);
  };

  const mark = () => {
    const now = model.value;
    const { points, N } = store.data.value.snapshot;
    const position = store.position.value;
    const at = pointed.value ?? position;
    const off = legend.hidden.value;
    const over = hoveredLine(store, measure.value);
    if (typeof now === "string") return;
    const { lines } = now;
    plot.mark(
      position,
      at,
      lines.filter(({ key }) => !off.has(key)),
      over,
    );
    legend.mark(lines.map(({ values }) => format(values[at] ?? Number.NaN)));
    const place = state.stream.value === "residual" ? "after" : "output of";
    const where = at === 0 ? "at the embedding" : `${place} ${points.name(at)}`;
    say(readout, over ? `${where}; ${over.name} ${format(over.values[at])}` : where);
    const told = lines
      .filter(({ values }) => values.length > 0)
      .map(({ name, values }) => `${name} ${now.measure} ${format(values[position])}`);
    assign(chart, {
      "aria-valuemax": N - 1,
      "aria-valuenow": position,
      "aria-valuetext": `${points.name(position)}: ${told.join(", ")}`,
    });
  };

  onFrame(abort, () => {
    const now = model.value;
    const { snapshot, readings } = store.data.value;
    const kind = measure.value;
    const id = state.class_index.value;
    const of = kind === "logit" ? subject(store, snapshot) : snapshot.shortName(id);
    const outputs = state.stream.value === "output" ? " in sublayer outputs" : "";
    entitle(title, `${TITLES[kind]} of `, h("b", {}, of), outputs + lensName(store));
    rough.hidden = kind === "logit" || !readings.ranksApproximate(id);
    log.hidden = kind !== "rank";
    const missing = typeof now === "string";
    empty.hidden = !missing;
    chart.style.display = missing ? "none" : "";
    legend.node.hidden = readout.hidden = missing;
    if (missing) return say(empty, now);
    plot.draw(now, snapshot, width.value, logarithmic.value, legend.hidden.value);
    legend.draw(now.lines);
    untracked(mark);
  });
  onFrame(abort, mark);
  goes(store, abort, plot, pointed);
}

/** Going to a layer, by pointer and by keys. */
function goes(store: Store, abort: AbortSignal, plot: Plot, pointed: Signal<number | null>): void {
  const inside = (position: number) => Math.max(0, Math.min(store.data.peek().snapshot.N - 1, position));
  const positionAt = (event: PointerEvent) => inside(plot.slotAt(pointIn(plot.node, event, plot.width, 1).x));
  listen(plot.node, abort, {
    pointermove: (event) => {
      pointed.value = positionAt(event);
      if (event.buttons & 1) store.setPosition(positionAt(event));
    },
    pointerdown: (event) => {
      if (event.button !== 0) return;
      plot.node.setPointerCapture(event.pointerId);
      store.setPosition(positionAt(event));
    },
    pointerleave: () => {
      pointed.value = null;
    },
    keydown: (event) => {
      const now = store.position.peek();
      const steps: Record<string, number> = {
        ArrowRight: now + 1,
        ArrowUp: now + 1,
        ArrowLeft: now - 1,
        ArrowDown: now - 1,
        PageUp: now + 2,
        PageDown: now - 2,
        Home: 0,
        End: Number.POSITIVE_INFINITY,
      };
      const next = steps[event.key];
      if (next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      store.setPosition(inside(next));
      claim(event);
    },
  });
}
