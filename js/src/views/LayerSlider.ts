/** Steps through the embedding, then attention and MLP of every block; a sparkline shows the class over the depth. */

import { signal } from "@preact/signals-core";
import { assign, button, entitle, h, listen, say } from "../core/dom";
import { count, number, signed } from "../core/format";
import { onFrame, watch } from "../core/frame";
import type { Store } from "../core/store";
import { protect, root, widthOf } from "./parts";
import { OWN_KEYS } from "./roving";
import { logitBand } from "./slider/band";
import { curvesOf, type Measure } from "./slider/curves";
import { playButton } from "./slider/play";
import { spark } from "./slider/spark";
import { ticks } from "./slider/ticks";
import { trustCurve } from "./slider/trust";
import { lensName, placeName } from "./words";

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "slider", "Layer slider");
  const { state } = store;
  const measure = signal<Measure>("rank");
  const curves = curvesOf(store, measure);
  const [play, playing] = playButton(store, abort);
  const go = (position: number) => {
    playing.value = false;
    store.setPosition(position);
  };
  const where = h("div", { class: "csw-slider-where" });
  const value = h("div", { class: "csw-slider-value" });
  const range = h("input", {
    class: "csw-range",
    type: "range",
    min: 0,
    step: 1,
    "aria-label": "Layer",
    ...OWN_KEYS,
  });
  const body = h("div", { class: "csw-slider-body" });
  const toggle = button({ class: "csw-link" });
  const first = button({ class: "csw-link" });
  section.append(
    h("div", { class: "csw-slider-head" }, play, where, value),
    body,
    h("div", { class: "csw-slider-foot" }, kindsOf(store, abort), first, toggle),
  );
  const width = widthOf(body, abort);
  body.append(
    spark(store, abort, width, curves, go),
    range,
    ticks(store, abort, width),
    trustCurve(store, abort, width),
  );

  // A mask that cannot be read costs the band, not the slider.
  protect(body, abort, "The division of the logit", (own) => body.append(logitBand(store, own, width, go)));

  listen(range, abort, { input: () => go(range.valueAsNumber) });
  listen(toggle, abort, {
    click: () => {
      measure.value = measure.value === "rank" ? "logit" : "rank";
    },
  });
  listen(first, abort, {
    click: () => curves.best.value && store.setPosition(curves.best.value.position),
  });

  watch(abort, () => {
    range.max = String(store.baseline.value.snapshot.N - 1);
  });
  onFrame(abort, () => {
    const { snapshot, readings } = store.data.value;
    const { points, N } = snapshot;
    const position = store.position.value;
    range.valueAsNumber = position;
    range.style.setProperty("--fill", `${(100 * position) / Math.max(1, N - 1)}%`);
    const what = points.name(position);
    const stream = state.stream.value === "residual" ? "residual stream after" : "what is added by";
    const reads = position === 0 ? "" : stream;
    where.replaceChildren(h("span", { class: "csw-label" }, reads ? `${reads} ` : ""), what);

    const id = state.class_index.value;
    const name = snapshot.shortName(id);
    const rank = measure.value === "rank";
    const about = rank && readings.ranksApproximate(id) ? "≈ " : "";
    const now = curves.shown.value;
    const own = now ? now[position] : Number.NaN;
    const digits = rank ? (Number.isInteger(own) ? count(own) : number(own, 1)) : number(own);
    const waiting = readings.lens ? "undefined" : "…";
    const shown = Number.isNaN(own) ? waiting : about + digits;
    const before = state.shown.value === "difference" && curves.before.value;
    const change = before && now ? ` (${signed(own - before[position], rank ? 1 : 2)})` : "";
    const unit = rank ? ` of ${count(snapshot.C)}` : "";
    const at = ` at ${placeName(snapshot, store.activeTokens.value)}`;
    entitle(value, `${name}: ${measure.value} `, h("b", {}, shown), unit + change + at + lensName(store));
    const stands = `${what}${reads ? `, ${reads} it` : ""}`;
    assign(range, { "aria-valuetext": `${stands}: ${measure.value} of ${name} ${shown}${unit}${at}` });

    const best = curves.best.value;
    first.style.visibility = best ? "" : "hidden";
    if (best) {
      const zero = best.rank === 0 ? "first rank 0" : `best rank ${number(best.rank, best.rank % 1 && 1)}`;
      say(first, `${about}${zero}: ${points.name(best.position)}`);
    }
    say(toggle, rank ? "show logit" : "show rank");
  });
}

/** What the marks below the slider are. */
function kindsOf(store: Store, abort: AbortSignal): HTMLElement {
  const node = h("span");
  watch(abort, () => {
    if (store.baseline.value.snapshot.points.perBlock === 1) return node.replaceChildren("blocks");
    const keys = [
      ["attention", "attention"],
      ["mlp", "MLP"],
    ].map(([kind, text]) =>
      h(
        "span",
        { class: `csw-slider-key csw-is-${kind}` },
        h("i", { class: "csw-chip" }),
        h("span", {}, text),
      ),
    );
    node.replaceChildren(...keys);
  });
  return node;
}
