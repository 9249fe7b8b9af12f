/** Attention against MLP: what every sublayer contributes to a class, as diverging bars over the depth. */

import { computed, signal, untracked } from "@preact/signals-core";
import { barPath, blockAxis, heightOf, LEFT, label, RIGHT, slotWidth, TOP, valueAxis } from "../charts/marks";
import { extentWithZero, linear, ticks } from "../charts/scale";
import { claim, h, say, svg } from "../core/dom";
import { hundredths, number, shortName, signed } from "../core/format";
import { onFrame } from "../core/frame";
import { type Contribution, SHOWN, type Shown } from "../core/state";
import type { Data, Store } from "../core/store";
import { type Breakdown, breakdown, difference, exceeding, type Part } from "./contributions";
import {
  absence,
  fitButton,
  OWN_KEYS,
  root,
  segmented,
  stepKey,
  subject,
  tokensName,
  widthOf,
} from "./parts";

const READINGS: readonly (readonly [Contribution, string])[] = [
  ["direct", "Direct"],
  ["step", "Step"],
  ["paper", "Paper"],
];

const WHY: Record<Contribution, string> = {
  direct: "What each sublayer adds to the final logit; adds up exactly.",
  step: "How far the lens logit moves across each sublayer; adds up along the depth.",
  paper: "Lens logit of each sublayer’s output alone; the line across is the block’s input.",
};

interface Model {
  readonly data: Data;
  readonly mode: Contribution;
  /** What the parts add up to. */
  readonly total: "logit" | "difference" | "change";
  readonly shown: Breakdown;
  /** The two terms of a difference, each with its name. */
  readonly terms: readonly (readonly [string, Breakdown])[];
}

/** What the bars show of the passes before and after an intervention, or of the change; or why there is nothing. */
function modelOf(store: Store, shown: Shown): Model | string {
  const { class_index, compare_index, contribution } = store.state;
  const before = store.baseline.value;
  const data = (shown !== "baseline" && store.intervened.value) || before;
  const mode = contribution.value;
  const changed = shown === "difference" && data !== before;
  const of = ({ snapshot, readings }: Data, id: number): Breakdown | null => {
    const raw = readings.increments(id);
    if (!raw) return null;
    const { N, V, S, sigma, offset } = snapshot;
    const parallel = snapshot.meta.model.layout === "parallel";
    return breakdown({ N, V, S, sigma, parallel }, raw, offset[id], store.activeTokens.value, mode);
  };
  const terms: [string, Breakdown][] = [];
  for (const id of [class_index.value, compare_index.value]) {
    if (id === null) continue;
    const name = shortName(data.snapshot.className(id));
    const own = of(data, id);
    if (!own) return absence(store, name);
    const base = changed ? of(before, id) : null;
    terms.push([name, base ? difference(own, base) : own]);
  }
  const sum = terms.length > 1 ? difference(terms[0][1], terms[1][1]) : terms[0][1];
  const total = changed ? "change" : terms.length > 1 ? "difference" : "logit";
  return { data, mode, total, shown: sum, terms: terms.length > 1 ? terms : [] };
}

const valuesOf = (b: Breakdown): number[] => b.parts.flatMap((p) => [p.value, p.reference ?? 0]);

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "bars", "Contributions of attention and MLP");
  const title = h("h3");
  const why = h("p", { class: "csw-why" });
  const sum = h("output", { class: "csw-sum" });
  const empty = h("p", { class: "csw-empty" });
  const chart = svg("svg", { role: "group", "aria-label": "Contributions by block", ...OWN_KEYS });
  const readout = h("p", { class: "csw-readout", "aria-hidden": "true" });
  const choice = segmented(abort, "Reading", READINGS, store.state.contribution, (contribution) =>
    store.set({ contribution }),
  );
  const [fit, own] = fitButton(store, abort);
  section.append(
    h("header", {}, title, h("span", { class: "csw-tools" }, fit, choice)),
    why,
    sum,
    empty,
    chart,
    readout,
  );

  const width = widthOf(section, abort);
  const model = computed(() => modelOf(store, store.state.shown.value));
  const pointed = signal<number | null>(null);
  /** Values of the passes before and after and of the change: one scale for the three. */
  const others = () =>
    own.value || !store.intervened.value
      ? []
      : SHOWN.flatMap((shown) => {
          const one = modelOf(store, shown);
          return typeof one === "string" ? [] : valuesOf(one.shown);
        });
  let bars: SVGGElement[] = [];
  let focused = 0;

  const mark = () => {
    const position = store.position.value;
    const at = pointed.value ?? position;
    const now = model.value;
    if (typeof now === "string") return;
    bars.forEach((bar, i) => {
      const own = now.shown.parts[i]?.position === position;
      bar.classList.toggle("csw-current", own);
      if (own) bar.setAttribute("aria-current", "true");
      else bar.removeAttribute("aria-current");
    });
    const part = now.shown.parts[at];
    readout.replaceChildren(...(part ? describe(now, part) : []));
  };

  onFrame(abort, () => {
    const now = model.value;
    const { snapshot } = store.data.value;
    const mode = store.state.contribution.value;
    const where = tokensName(snapshot, store.activeTokens.value);
    title.replaceChildren("Added to ", h("b", {}, subject(store, snapshot)), ` at ${where}`);
    title.title = title.textContent ?? "";
    say(why, WHY[mode]);
    const missing = typeof now === "string";
    empty.hidden = !missing;
    sum.hidden = readout.hidden = missing;
    chart.style.display = missing ? "none" : "";
    if (missing) {
      say(empty, now);
      bars = [];
      return;
    }
    sum.replaceChildren(...summary(now));
    // In a shadow root only that root knows what has the focus.
    const { activeElement } = section.getRootNode() as Document | ShadowRoot;
    const held = bars.indexOf(activeElement as unknown as SVGGElement);
    bars = draw(chart, now, width.value, others());
    focused = Math.min(focused, bars.length - 1);
    bars[focused]?.setAttribute("tabindex", "0");
    if (held >= 0) bars[Math.min(held, bars.length - 1)].focus({ preventScroll: true });
    untracked(mark);
  });

  // The marker alone follows the slider: a move must not redraw the bars.
  onFrame(abort, mark);

  const indexOf = (event: Event) => bars.findIndex((bar) => bar.contains(event.target as Node));
  const go = (index: number) => {
    const now = model.peek();
    if (typeof now === "string" || index < 0) return;
    const { position } = now.shown.parts[index];
    if (position >= 0) store.setPosition(position);
  };
  const focus = (index: number) => {
    bars[focused]?.setAttribute("tabindex", "-1");
    focused = index;
    bars[index]?.setAttribute("tabindex", "0");
  };
  const options = { signal: abort };
  chart.addEventListener(
    "click",
    (event) => {
      const index = indexOf(event);
      if (index >= 0) focus(index);
      go(index);
    },
    options,
  );
  chart.addEventListener(
    "pointermove",
    (event) => {
      const index = indexOf(event);
      pointed.value = index < 0 ? null : index;
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
  // Not on the chart: Chromium makes an SVG with focus listeners a tab stop.
  section.addEventListener(
    "focusin",
    (event) => {
      const index = indexOf(event);
      if (index < 0) return;
      focus(index);
      pointed.value = index;
    },
    options,
  );
  section.addEventListener(
    "focusout",
    () => {
      pointed.value = null;
    },
    options,
  );
  chart.addEventListener(
    "keydown",
    (event) => {
      const index = indexOf(event);
      if (index < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
      if (event.key === "Enter" || event.key === " ") go(index);
      else {
        const next = stepKey(event.key, index, bars.length);
        if (next === null) return;
        focus(next);
        bars[next].focus();
      }
      claim(event);
    },
    options,
  );
}

const NAMES = { embedding: "embedding", attention: "attention", mlp: "MLP", block: "block", bias: "bias" };

function partName(part: Part): string {
  if (part.block < 1) return NAMES[part.kind];
  return part.kind === "block" ? `block ${part.block}` : `block ${part.block} ${NAMES[part.kind]}`;
}

function describe({ shown, terms }: Model, part: Part): (Node | string)[] {
  const at = shown.parts.indexOf(part);
  const out: (Node | string)[] = [h("i", { class: `csw-chip csw-is-${part.kind}` }), partName(part), " "];
  out.push(h("b", {}, signed(part.value)));
  if (part.reference !== null) out.push(`, block input ${signed(part.reference)}`);
  if (terms.length > 1) {
    out.push(` (${terms.map(([name, t]) => `${name} ${signed(t.parts[at].value)}`).join(", ")})`);
  }
  return out;
}

/** The legend is the equation: every kind of bar with its sum, and what they add up to. */
function summary({ shown, mode, total, data }: Model): Node[] {
  const parallel = data.snapshot.meta.model.layout === "parallel";
  const term = (kind: Part["kind"], text: string, words = "") =>
    h("span", {}, h("i", { class: `csw-chip csw-is-${kind}` }), `${NAMES[kind]} ${words}`, h("b", {}, text));
  const blocks: Part["kind"][] = parallel ? ["block"] : ["attention", "mlp"];
  if (mode === "paper") {
    return blocks.map((kind) => {
      const [above, of] = exceeding(shown.parts, kind);
      const words = term(kind, `${above} of ${of}`, "above the block’s input in ");
      words.className = "csw-wide";
      return words;
    });
  }
  const out = [term("embedding", signed(hundredths(shown.embedding)))];
  for (const kind of blocks) {
    out.push(term(kind, signed(hundredths(kind === "attention" ? shown.attention : shown.mlp))));
  }
  if (mode === "direct") out.push(term("bias", signed(hundredths(shown.bias))));
  out.push(h("span", { class: "csw-total" }, `= ${total} `, h("b", {}, number(hundredths(shown.logit)))));
  return out;
}

function draw(
  chart: SVGSVGElement,
  { shown, mode, data }: Model,
  width: number,
  others: readonly number[],
): SVGGElement[] {
  const { parts } = shown;
  const right = width - RIGHT;
  const { height, bottom } = heightOf(width);
  const pitch = slotWidth(width, data.snapshot.N);
  const [low, high] = extentWithZero([...valuesOf(shown), ...others]);
  const y = linear(low, high, bottom - 2, TOP + 2);
  const grid = valueAxis(ticks(low, high, 4), y, right, tickText);
  const bars = parts.map((part, i) => {
    const paired = part.kind === "attention" || part.kind === "mlp";
    const size = Math.min(pitch * (pitch < 6 ? 0.86 : 0.78), 32);
    // The two of a block stand close together, blocks apart.
    const middle = LEFT + (i + 0.5) * pitch;
    const free = pitch - size - Math.min(1, pitch * 0.08);
    const x = middle - size / 2 + (paired ? (part.kind === "attention" ? 0.5 : -0.5) * Math.max(free, 0) : 0);
    const air = Math.min(3, free / 2);
    const clamped = Number.isFinite(part.value) ? part.value : 0;
    const group = svg(
      "g",
      { class: `csw-bar csw-is-${part.kind}`, role: part.position < 0 ? "img" : "button", tabindex: -1 },
      svg("rect", { class: "csw-slot", x: LEFT + i * pitch, y: TOP, width: pitch, height: height - TOP }),
      svg("rect", {
        class: "csw-band",
        x: x - air,
        y: TOP,
        width: size + 2 * air,
        height: height - TOP,
        rx: air,
      }),
      svg("path", { d: barPath(x, size, y(0), y(clamped)) }),
    );
    if (part.reference !== null) {
      const at = y(part.reference);
      group.append(svg("line", { class: "csw-reference", x1: x - 1, x2: x + size + 1, y1: at, y2: at }));
    }
    const input = part.reference === null ? "" : `, block input ${number(part.reference)}`;
    group.setAttribute("aria-label", `${partName(part)}: ${signed(part.value)}${input}`);
    return group;
  });
  const perBlock = parts.some((p) => p.kind === "block") ? 1 : 2;
  const last = parts.length - (mode === "direct" ? 2 : 1);
  const blocks = last / perBlock;
  const labels = blockAxis(blocks, perBlock, pitch, height - 4);
  if (mode === "direct" && pitch > 7) labels.push(label(right - pitch / 2, height - 4, "middle", "b"));
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.setAttribute("height", String(height));
  chart.replaceChildren(...grid, ...bars, ...labels);
  return bars;
}

function tickText(value: number): string {
  const text = String(Math.abs(value));
  return value < 0 ? `−${text}` : text;
}
