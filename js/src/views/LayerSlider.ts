/** Steps through the embedding, then attention and MLP of every block; a sparkline shows the class over the depth. */

import { computed, signal } from "@preact/signals-core";
import { assign, attach, h, pointIn, say, svg } from "../core/dom";
import { count, number, shortCount, shortName, signed } from "../core/format";
import { onFrame, watch } from "../core/frame";
import type { Data, Store } from "../core/store";
import { OWN_KEYS, placeName } from "./parts";
import { along } from "./trajectories";

const HEIGHT = 48;
const PAD = 6;
const THUMB = 16;
const BEAT_MS = 420;
const PLAY = "M3 1.5v11l9-5.5z";
const PAUSE = "M3 1.5h3v11H3zm5 0h3v11H8z";

type Curve = "rank" | "logit";

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const curve = signal<Curve>("rank");
  const playing = signal(false);
  const width = signal(el.clientWidth || 320);

  const shape = svg("path");
  const play = h("button", { class: "csw-button csw-icon", type: "button" });
  play.append(svg("svg", { viewBox: "0 0 14 14", "aria-hidden": "true" }, shape));
  const where = h("div", { class: "csw-slider-where" });
  const value = h("div", { class: "csw-slider-value" });
  const area = svg("path", { class: "csw-spark-area" });
  const line = svg("path", { class: "csw-spark-line" });
  const before = svg("path", { class: "csw-spark-before" });
  const stem = svg("line", { class: "csw-spark-stem" });
  const dot = svg("circle", { class: "csw-spark-now", r: 4.5 });
  const high = svg("text", { x: -8, y: PAD + 3.5 });
  const low = svg("text", { x: -8, y: HEIGHT - PAD + 3.5 });
  const spark = svg(
    "svg",
    { class: "csw-spark", "aria-hidden": "true" },
    area,
    stem,
    before,
    line,
    dot,
    high,
    low,
  );
  const range = h("input", {
    class: "csw-range",
    type: "range",
    min: 0,
    step: 1,
    "aria-label": "Layer",
    ...OWN_KEYS,
  });
  const ticks = h("div", { class: "csw-ticks", "aria-hidden": "true" });
  const body = h("div", { class: "csw-slider-body" });
  body.append(spark, range, ticks);
  const keys = h("span", {});
  const toggle = h("button", { class: "csw-link", type: "button" });
  const first = h("button", { class: "csw-link", type: "button" });
  const foot = h("div", { class: "csw-slider-foot" }, keys, first, toggle);
  const head = h("div", { class: "csw-slider-head" }, play, where, value);
  const root = h("section", { class: "csw-view csw-slider", "aria-label": "Layer slider" }, head, body, foot);
  attach(el, root, abort);

  const observer = new ResizeObserver(() => {
    if (body.clientWidth > 0) width.value = body.clientWidth;
  });
  observer.observe(body);
  abort.addEventListener("abort", () => observer.disconnect());

  const options = { signal: abort };
  range.addEventListener(
    "input",
    () => {
      playing.value = false;
      store.setPosition(range.valueAsNumber);
    },
    options,
  );
  toggle.addEventListener(
    "click",
    () => {
      curve.value = curve.value === "rank" ? "logit" : "rank";
    },
    options,
  );
  const scrub = (event: PointerEvent) => {
    const { x } = pointIn(spark, event, width.peek(), HEIGHT);
    const last = store.baseline.peek().snapshot.N - 1;
    const at = (x - THUMB / 2) / Math.max(1, width.peek() - THUMB);
    playing.value = false;
    store.setPosition(Math.round(Math.max(0, Math.min(1, at)) * last));
  };
  spark.addEventListener(
    "pointerdown",
    (event) => {
      spark.setPointerCapture(event.pointerId);
      scrub(event);
    },
    options,
  );
  spark.addEventListener(
    "pointermove",
    (event) => {
      if (event.buttons & 1) scrub(event);
    },
    options,
  );

  let timer: ReturnType<typeof setInterval> | undefined;
  const stop = () => clearInterval(timer);
  abort.addEventListener("abort", stop);
  play.addEventListener(
    "click",
    () => {
      const last = store.baseline.peek().snapshot.N - 1;
      playing.value = !playing.value;
      if (playing.value && store.position.peek() === last) store.setPosition(0);
    },
    options,
  );
  watch(abort, () => {
    stop();
    if (!playing.value) return;
    timer = setInterval(() => {
      const last = store.baseline.peek().snapshot.N - 1;
      const next = store.position.peek() + 1;
      if (next <= last) store.setPosition(next);
      if (next >= last) playing.value = false;
    }, BEAT_MS);
  });
  watch(abort, () => {
    const name = playing.value ? "Pause" : "Play through the layers";
    assign(play, { "aria-label": name, title: name });
    shape.setAttribute("d", playing.value ? PAUSE : PLAY);
  });

  /** Values of the curve at every slider position: mean over the active tokens. */
  const curveOf = ({ snapshot, readings }: Data, kind = curve.value): Float32Array | null => {
    const id = store.state.class_index.value;
    const stream = store.state.stream.value;
    const all = kind === "rank" ? readings.ranks(id) : readings.logits(id);
    if (!all) return null;
    const points = Array.from({ length: snapshot.N }, (_, n) => snapshot.pointOf(n, stream));
    return Float32Array.from(along(all, snapshot.V, points, store.activeTokens.value));
  };
  const values = computed(() => curveOf(store.data.value));
  const reference = computed(() => {
    const { shown } = store.state;
    return shown.value !== "baseline" && store.intervened.value ? curveOf(store.baseline.value) : null;
  });
  /** The pass that is not shown: the curve's scale has room for both. */
  const unshown = computed(() => {
    const { intervened, baseline, data } = store;
    return intervened.value && curveOf(data.value === baseline.value ? intervened.value : baseline.value);
  });
  /** Where the rank is best for the first time; null as long as some are not known. */
  const best = computed(() => {
    const ranks = curveOf(store.data.value, "rank");
    const known = ranks?.filter((v) => !Number.isNaN(v)) ?? [];
    if (!ranks || known.length === 0 || (known.length < ranks.length && !store.data.value.snapshot.sparse))
      return null;
    const rank = Math.min(...known);
    return { rank, position: ranks.indexOf(rank) };
  });
  first.addEventListener("click", () => best.value && store.setPosition(best.value.position), options);

  /** Axis labels, marks and words that change with the snapshot, not with the position. */
  watch(abort, () => {
    const { snapshot } = store.baseline.value;
    range.max = String(snapshot.N - 1);
    const parallel = snapshot.meta.model.layout === "parallel";
    ticks.replaceChildren();
    for (let p = 0; p < snapshot.N; p++) {
      const { block, sublayer } = snapshot.placeOf(p);
      const left = `${(100 * p) / Math.max(1, snapshot.N - 1)}%`;
      const kind = p === 0 || parallel ? "" : sublayer === "mlp" ? " csw-is-mlp" : " csw-is-attention";
      const mark = h("i", { class: `csw-tick-mark${kind}` });
      mark.style.left = left;
      ticks.append(mark);
      if (sublayer === "attention") continue;
      const label = h("span", { class: "csw-tick-label" }, String(block));
      label.dataset.block = String(block);
      // In the middle of the two marks of its block.
      const middle = p > 0 && !parallel ? p - 0.5 : p;
      label.style.left = `${(100 * middle) / Math.max(1, snapshot.N - 1)}%`;
      ticks.append(label);
    }
    keys.replaceChildren();
    if (parallel) keys.append("blocks");
    else {
      for (const [kind, text] of [
        ["attention", "attention"],
        ["mlp", "MLP"],
      ]) {
        const key = h("span", { class: `csw-slider-key csw-is-${kind}` }, h("span", {}, text));
        key.style.marginRight = "12px";
        keys.append(key);
      }
    }
  });

  onFrame(abort, () => {
    const data = store.data.value;
    const { snapshot, readings } = data;
    const last = Math.max(1, snapshot.N - 1);
    const position = store.position.value;
    const stream = store.state.stream.value;
    const { block, sublayer } = snapshot.placeOf(position);
    const name = shortName(snapshot.className(store.state.class_index.value));
    range.valueAsNumber = position;
    range.style.setProperty("--csw-fill", `${(100 * position) / last}%`);

    const what = snapshot.positionName(position);
    const reads = position === 0 ? "" : stream === "residual" ? "residual stream after" : "what is added by";
    where.replaceChildren(h("span", { class: "csw-label" }, reads ? `${reads} ` : ""), what);

    const now = values.value;
    const current = now ? now[position] : Number.NaN;
    const difference = store.state.shown.value === "difference" && reference.value;
    const rank = curve.value === "rank";
    const approximate = rank && readings.ranksApproximate(store.state.class_index.value) ? "≈ " : "";
    const shown = Number.isNaN(current)
      ? "…"
      : approximate +
        (rank ? (Number.isInteger(current) ? count(current) : number(current, 1)) : number(current));
    const change = difference && now ? ` (${signed(current - difference[position], rank ? 1 : 2)})` : "";
    const unit = rank ? ` of ${count(snapshot.C)}` : "";
    const at = ` at ${placeName(snapshot, store.activeTokens.value)}`;
    value.replaceChildren(`${name}: ${curve.value} `, h("b", {}, shown), unit + change + at);
    value.title = value.textContent ?? "";
    assign(range, {
      "aria-valuetext": `${what}${reads ? `, ${reads} it` : ""}: ${curve.value} of ${name} ${shown}${unit}${at}`,
    });
    const top = best.value;
    first.style.visibility = top ? "" : "hidden";
    if (top) {
      const zero = top.rank === 0 ? "first rank 0" : `best rank ${number(top.rank, top.rank % 1 && 1)}`;
      say(first, `${approximate}${zero}: ${snapshot.positionName(top.position)}`);
    }
    say(toggle, rank ? "show logit" : "show rank");

    for (const label of ticks.querySelectorAll<HTMLElement>(".csw-tick-label")) {
      const own = label.dataset.block === String(sublayer === "embedding" ? 0 : block);
      label.classList.toggle("csw-here", own);
      // Numbers that would run into each other are left out.
      const every = Math.ceil((snapshot.L * 20) / Math.max(60, width.value));
      const hidden = !own && Number(label.dataset.block) % every !== 0;
      if (label.hidden !== hidden) label.hidden = hidden;
    }
    drawSpark(now, reference.value, position, last, rank, snapshot.C);
  });

  function drawSpark(
    now: Float32Array | null,
    base: Float32Array | null,
    position: number,
    last: number,
    rank: boolean,
    classes: number,
  ): void {
    const inner = width.value - THUMB;
    // On paper the page is narrower than what was drawn.
    spark.setAttribute("viewBox", `0 0 ${width.value} ${HEIGHT}`);
    const x = (p: number) => THUMB / 2 + (p / last) * inner;
    let min = Number.POSITIVE_INFINITY;
    let max = Number.NEGATIVE_INFINITY;
    for (const list of [now, base, unshown.value]) {
      for (const v of list ?? []) {
        if (v < min) min = v;
        if (v > max) max = v;
      }
    }
    const known = min <= max;
    if (!known) [min, max] = [0, 1];
    const worst = Math.max(max, Math.min(9, classes - 1), 1);
    // Ranks on a logarithmic scale with the best, 0, on top: the last steps to the top are what matters.
    const to = rank ? Math.log1p(worst) : max - min || 1;
    const y = (v: number) => {
      const t = rank ? 1 - Math.log1p(v) / to : (v - min) / to;
      return PAD + (1 - t) * (HEIGHT - 2 * PAD);
    };
    const { sparse } = store.data.value.snapshot;
    const path = (list: Float32Array | null) => {
      let d = "";
      let pen = "M";
      for (let p = 0; list && p < list.length; p++) {
        if (Number.isNaN(list[p])) {
          if (!sparse) pen = "M";
        } else {
          d += `${pen}${x(p).toFixed(1)} ${y(list[p]).toFixed(1)}`;
          pen = "L";
        }
      }
      return d;
    };
    const d = path(now);
    line.setAttribute("d", d);
    before.setAttribute("d", path(base));
    const whole = now !== null && !now.some(Number.isNaN);
    area.setAttribute("d", whole ? `${d}L${x(last)} ${HEIGHT}L${x(0)} ${HEIGHT}Z` : "");
    const at = x(position);
    const level = now && !Number.isNaN(now[position]) ? y(now[position]) : HEIGHT / 2;
    assign(dot, { cx: at, cy: level, visibility: known ? "visible" : "hidden" });
    assign(stem, { x1: at, x2: at, y1: level, y2: HEIGHT });
    high.textContent = known ? (rank ? "0" : number(max, 1)) : "";
    low.textContent = known ? (rank ? shortCount(worst) : number(min, 1)) : "";
  }
}
