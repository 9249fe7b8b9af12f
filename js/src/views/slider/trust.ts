/** How far the lens can be trusted, under the slider: one measure over the blocks, beside that of the logit lens. */

import { computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { linePath } from "../../charts/marks";
import { linear } from "../../charts/scale";
import { assign, button, entitle, h, listen, say, svg } from "../../core/dom";
import { number } from "../../core/format";
import { onFrame } from "../../core/frame";
import type { Store } from "../../core/store";
import { type Trust, trustAt, trustOf } from "../../fields/lens";
import { placeOf } from "./spark";

/** Pixels; the height is also that of `.csw-trust svg`. */
const [HEIGHT, PAD] = [34, 5];

export function trustCurve(store: Store, abort: AbortSignal, width: ReadonlySignal<number>): HTMLElement {
  const [own, logit] = ["line", "before"].map((name) => svg("path", { class: `csw-spark-${name}` }));
  const stem = svg("line", { class: "csw-spark-stem", y1: 0, y2: HEIGHT });
  const ends = [PAD, HEIGHT - PAD].map((at) => svg("text", { x: -8, y: at + 3.5 }));
  const chart = svg("svg", { "aria-hidden": "true" }, stem, logit, own, ...ends);
  const words = button({ class: "csw-link" });
  const node = h("div", { class: "csw-trust" }, chart, words);
  const chosen = signal(0);
  const known = computed(() => trustOf(store));
  listen(words, abort, {
    click: () => {
      chosen.value++;
    },
  });
  onFrame(abort, () => {
    const { points, N } = store.baseline.value.snapshot;
    const trust: Trust | undefined = known.value[chosen.value % known.value.length];
    node.hidden = !trust;
    if (!trust) return;
    const all = [...trust.own, ...trust.logit].filter((v) => !Number.isNaN(v));
    const [top, low] = [Math.max(1, ...all), Math.min(0, ...all)];
    const y = linear(low, top, HEIGHT - PAD, PAD);
    say(ends[0], number(top, +(top > 1)));
    say(ends[1], number(low, +(low < 0)));
    const line = (values: readonly number[]) =>
      linePath(
        values.map((v, block) => [placeOf(points.position(block, "mlp"), N, width.value), y(v)] as const),
      );
    const at = placeOf(store.position.value, N, width.value);
    assign(chart, { viewBox: `0 0 ${width.value} ${HEIGHT}` });
    assign(own, { d: line(trust.own) });
    assign(logit, { d: line(trust.logit) });
    assign(stem, { x1: at, x2: at });
    entitle(words, `Trust: ${trust.name} `, h("b", {}, trustAt(trust, store.state.block.value)));
    words.disabled = known.value.length < 2;
  });
  return node;
}
