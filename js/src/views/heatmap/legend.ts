/** What the colours of the patch map mean, with numbers. */

import type { ReadonlySignal } from "@preact/signals-core";
import { classColor, css, gradient, tableFor } from "../../core/color";
import { button, h } from "../../core/dom";
import { count, shortName } from "../../core/format";
import { onFrame } from "../../core/frame";
import type { Store } from "../../core/store";
import { FIELDS } from "../../fields";
import type { Field } from "../../fields/field";
import { choosesClass } from "../controls";

/** Classes named in the legend of the top-1 map: as many as three lines have room for. */
const NAMED = 8;

export function legend(
  store: Store,
  abort: AbortSignal,
  field: ReadonlySignal<Field>,
  leading: ReadonlySignal<readonly number[]>,
): HTMLElement {
  const node = h("div", { class: "csw-map-legend" });
  onFrame(abort, () => {
    const f = field.value;
    const title = h(
      "div",
      { class: "csw-map-title" },
      h("span", { title: `${f.title}: ${FIELDS[f.reading].help}` }, f.title),
    );
    if (f.approximate) title.append(h("span", { class: "csw-approximate" }, "approximate"));
    if (f.state !== "ready") node.replaceChildren(title);
    else if (f.kind === "categorical") node.replaceChildren(title, classes(store, f, leading.value));
    else node.replaceChildren(title, ramp(store, f, f.kind), numbers(f));
  });
  choosesClass(node, store, abort);
  return node;
}

/** The colour scale; a mark shows where the pointed or selected token is. */
function ramp(store: Store, f: Field, kind: "sequential" | "diverging"): HTMLElement {
  const bar = h("div", { class: "csw-ramp" });
  bar.style.background = gradient(tableFor(kind, store.state.colormap.value));
  const active = store.activeTokens.value;
  const token = store.hovered.value ?? (active.length === 1 ? active[0] : null);
  if (token !== null && !Number.isNaN(f.values[token])) {
    const mark = h("i", {});
    mark.style.left = `${100 * Math.max(0.003, Math.min(0.997, f.place(f.values[token])))}%`;
    bar.append(mark);
  }
  return bar;
}

function numbers(f: Field): HTMLElement {
  const spans = scaleWords(f).map((text) => h("span", {}, text));
  return h("div", { class: "csw-map-numbers", "aria-hidden": "true" }, ...spans);
}

function scaleWords(f: Field): [string, string, string] {
  if (f.reading === "rank" && f.kind === "sequential") {
    return [count(f.low), count(Math.expm1(Math.log1p(f.low) / 2)), "0"];
  }
  const low = f.format(f.low);
  const high = f.format(f.high);
  const middle = f.kind === "diverging" ? "0" : f.format((f.low + f.high) / 2);
  return [f.clipped && f.kind === "diverging" ? `≤ ${low}` : low, middle, f.clipped ? `≥ ${high}` : high];
}

function classes(store: Store, f: Field, leading: readonly number[]): HTMLElement {
  const { snapshot } = store.data.value;
  const counts = new Map<number, number>();
  for (let t = snapshot.prefix; t < snapshot.T; t++) {
    const id = f.values[t];
    if (!Number.isNaN(id)) counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  const list = [...counts].sort((a, b) => b[1] - a[1]);
  const items: HTMLElement[] = list.slice(0, NAMED).map(([id, n]) => {
    const swatch = h("i", {});
    swatch.style.background = css(classColor(id, leading));
    const name = snapshot.className(id);
    return button(
      { "data-class": id, title: `Read ${name}` },
      swatch,
      h("span", {}, shortName(name)),
      h("data", {}, String(n)),
    );
  });
  if (list.length > NAMED) items.push(h("span", { class: "csw-label" }, `and ${list.length - NAMED} more`));
  return h("div", { class: "csw-map-classes" }, ...items);
}
