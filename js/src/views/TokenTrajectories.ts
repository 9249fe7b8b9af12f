/** How the class rises over the depth: for the output token, the selected tokens, inside and outside of the object. */

import { computed, type Signal, signal, untracked } from "@preact/signals-core";
import {
  blockAxis,
  chanceLine,
  heightOf,
  LEFT,
  linePath,
  RIGHT,
  slotWidth,
  TOP,
  valueAxis,
} from "../charts/marks";
import { linear, log1, rankTicks, ticks } from "../charts/scale";
import { claim, h, pointIn, say, svg } from "../core/dom";
import { count, number, shortCount, shortName } from "../core/format";
import { onFrame } from "../core/frame";
import type { Store } from "../core/store";
import { keepPlace, OWN_KEYS, root, segmented, subject, widthOf } from "./parts";
import { chanceOf, hoveredLine, type Line, linesOf, type Measure, objectTokens } from "./trajectories";

const MEASURES: readonly (readonly [Measure, string])[] = [
  ["rank", "Rank"],
  ["identifiability", "Ident."],
  ["logit", "Logit"],
];
export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "trajectories", "Trajectories over the depth");
  const { state } = store;
  const measure: Signal<Measure> = signal("rank");
  const logarithmic = signal(true);
  const hidden: Signal<ReadonlySet<string>> = signal(new Set());
  const pointed: Signal<number | null> = signal(null);

  const title = h("h3");
  const rough = h("span", { class: "csw-approximate" }, "approximate");
  const log = h("button", { type: "button", class: "csw-toggle", title: "Logarithmic rank axis" }, "log");
  const choice = segmented(abort, "Measure", MEASURES, measure, (value) => {
    measure.value = value;
  });
  const empty = h("p", { class: "csw-empty" });
  const chart = svg("svg", {
    role: "slider",
    tabindex: 0,
    "aria-label": "Layer",
    "aria-valuemin": 0,
    ...OWN_KEYS,
  });
  const plot = svg("g");
  const cursor = svg("g", { class: "csw-cursor" });
  chart.append(plot, cursor);
  const legend = h("div", { class: "csw-keys", role: "group", "aria-label": "Lines" });
  const readout = h("p", { class: "csw-readout" });
  section.append(
    h("header", {}, title, rough, h("span", { class: "csw-tools" }, log, choice)),
    empty,
    chart,
    legend,
    readout,
  );

  const width = widthOf(section, abort);
  const split = computed(() => objectTokens(store));
  const model = computed(() => linesOf(store, measure.value, split.value));
  const format = (value: number) => {
    if (measure.value !== "rank") return number(value);
    // Mean ranks: tenths say enough.
    return value < 10 && value % 1 !== 0 ? value.toFixed(1) : count(value);
  };
  const keys: HTMLButtonElement[] = [];
  let slot = { pitch: 1, count: 1 };
  let scale: (v: number) => number = () => 0;

  const path = ({ look, values }: Line) => {
    const points = values.map((v, p) => [LEFT + (p + 0.5) * slot.pitch, scale(v)] as const);
    const d = linePath(
      store.data.value.snapshot.sparse ? points.filter(([, y]) => !Number.isNaN(y)) : points,
    );
    return svg("path", { class: `csw-line csw-look-${look}`, d });
  };
  const mark = () => {
    const now = model.value;
    const { snapshot } = store.data.value;
    const position = store.position.value;
    const at = pointed.value ?? position;
    const off = hidden.value;
    const over = hoveredLine(store, measure.value);
    if (typeof now === "string") return;
    const x = (p: number) => (LEFT + (p + 0.5) * slot.pitch).toFixed(1);
    const line = (p: number, kind: string) =>
      svg("line", { class: kind, x1: x(p), x2: x(p), y1: TOP, y2: heightOf(width.value).bottom });
    const dots = now.lines.filter(({ key, values }) => !off.has(key) && Number.isFinite(values[at]));
    cursor.replaceChildren(
      line(position, "csw-cursor-now"),
      ...(at === position ? [] : [line(at, "csw-pointed")]),
      ...(over ? [path(over)] : []),
      ...dots
        .reverse()
        .map(({ look, values }) =>
          svg("circle", { class: `csw-look-${look}`, cx: x(at), cy: scale(values[at]).toFixed(1), r: 3.2 }),
        ),
    );
    now.lines.forEach(({ values }, i) => {
      if (keys[i]) say(keys[i].children[2], format(values[at] ?? Number.NaN));
    });
    const place = state.stream.value === "residual" ? "after" : "output of";
    const where = at === 0 ? "at the embedding" : `${place} ${snapshot.positionName(at)}`;
    say(readout, over ? `${where}; ${over.name} ${format(over.values[at])}` : where);
    chart.setAttribute("aria-valuemax", String(snapshot.N - 1));
    chart.setAttribute("aria-valuenow", String(position));
    const said = now.lines
      .filter(({ values }) => values.length > 0)
      .map(({ name, values }) => `${name} ${now.measure} ${format(values[position])}`);
    chart.setAttribute("aria-valuetext", `${snapshot.positionName(position)}: ${said.join(", ")}`);
  };

  onFrame(abort, () => {
    const now = model.value;
    const { snapshot } = store.data.value;
    const kind = measure.value;
    const what = MEASURES.find(([m]) => m === kind)?.[1] ?? kind;
    const of =
      kind === "logit" ? subject(store, snapshot) : shortName(snapshot.className(state.class_index.value));
    title.replaceChildren(
      `${kind === "identifiability" ? "Identifiability" : what} of `,
      h("b", {}, of),
      state.stream.value === "output" ? " in sublayer outputs" : "",
    );
    title.title = title.textContent ?? "";
    rough.hidden = kind === "logit" || !store.data.value.readings.ranksApproximate(state.class_index.value);
    log.hidden = kind !== "rank";
    log.setAttribute("aria-pressed", String(logarithmic.value));
    const missing = typeof now === "string";
    empty.hidden = !missing;
    chart.style.display = missing ? "none" : "";
    legend.hidden = readout.hidden = missing;
    if (missing) return say(empty, now);
    const off = hidden.value;
    const lines = now.lines.filter(({ key }) => !off.has(key));
    const W = width.value;
    const right = W - RIGHT;
    const pitch = slotWidth(W, snapshot.N);
    slot = { pitch, count: snapshot.N };
    const { height, bottom: foot } = heightOf(W);
    const bottom = foot - 2;
    let marks: number[];
    const chance = chanceOf(kind, snapshot.C);
    let highest = Number.POSITIVE_INFINITY;
    if (kind === "rank") {
      const worst = Math.max(Math.min(4, snapshot.C - 1), now.extent[1]);
      scale = (logarithmic.value ? log1 : linear)(0, worst, TOP + 4, bottom);
      highest = worst;
      marks = logarithmic.value ? rankTicks(worst) : ticks(0, worst, 4).filter(Number.isInteger);
    } else {
      const [low, high] = kind === "identifiability" ? [0, 1] : now.extent;
      scale = linear(low, high, bottom, TOP + 2);
      marks = ticks(low, high, 4);
    }
    const perBlock = snapshot.meta.model.layout === "parallel" ? 1 : 2;
    const text = (v: number) => (kind === "rank" ? shortCount(v) : number(v, v % 1 === 0 ? 0 : 1));
    plot.replaceChildren(
      ...valueAxis(marks, scale, right, text),
      // Drawn last to first: the output token lies on top.
      ...[...lines].reverse().map(path),
      ...(chance !== null && chance <= highest ? chanceLine(scale(chance), right) : []),
      ...blockAxis(snapshot.L, perBlock, pitch, height - 4),
    );
    chart.setAttribute("viewBox", `0 0 ${W} ${height}`);
    chart.setAttribute("height", String(height));
    while (keys.length < now.lines.length) {
      const key = h("button", { type: "button" }, h("i"), h("span", { class: "csw-key-name" }), h("b"));
      keys.push(key);
      legend.append(key);
    }
    for (const key of keys.splice(now.lines.length)) key.remove();
    now.lines.forEach((line, i) => {
      keys[i].className = `csw-look-${line.look}`;
      keys[i].dataset.key = line.key;
      keys[i].setAttribute("aria-pressed", String(!off.has(line.key)));
      keepPlace(keys[i], line.values.length > 0, true);
      say(keys[i].children[1], line.name);
    });
    untracked(mark);
  });

  onFrame(abort, mark);

  const options = { signal: abort };
  const positionAt = (event: PointerEvent) => {
    const { x } = pointIn(chart, event, width.value, 1);
    const p = Math.floor((x - LEFT) / slot.pitch);
    return Math.max(0, Math.min(slot.count - 1, p));
  };
  chart.addEventListener(
    "pointermove",
    (event) => {
      pointed.value = positionAt(event);
      if (event.buttons & 1) store.setPosition(positionAt(event));
    },
    options,
  );
  chart.addEventListener(
    "pointerdown",
    (event) => {
      if (event.button !== 0) return;
      chart.setPointerCapture(event.pointerId);
      store.setPosition(positionAt(event));
    },
    options,
  );
  chart.addEventListener(
    "pointerleave",
    () => {
      pointed.value = null;
    },
    options,
  );
  chart.addEventListener(
    "keydown",
    (event) => {
      const now = store.position.peek();
      const steps: Record<string, number> = {
        ArrowRight: now + 1,
        ArrowUp: now + 1,
        ArrowLeft: now - 1,
        ArrowDown: now - 1,
        PageUp: now + 2,
        PageDown: now - 2,
        Home: 0,
        End: slot.count - 1,
      };
      const next = steps[event.key];
      if (next === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      store.setPosition(Math.max(0, Math.min(slot.count - 1, next)));
      claim(event);
    },
    options,
  );
  legend.addEventListener(
    "click",
    (event) => {
      const key = (event.target as Element).closest("button")?.dataset.key;
      if (key === undefined) return;
      const next = new Set(hidden.peek());
      if (!next.delete(key)) next.add(key);
      hidden.value = next;
    },
    options,
  );
  log.addEventListener(
    "click",
    () => {
      logarithmic.value = !logarithmic.peek();
    },
    options,
  );
}
