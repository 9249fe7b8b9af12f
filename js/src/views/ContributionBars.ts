/** Attention against MLP: what every sublayer contributes to a class, as diverging bars over the depth. */

import { computed, untracked } from "@preact/signals-core";
import { assign, entitle, h, say, svg } from "../core/dom";
import { onFrame } from "../core/frame";
import { type Contribution, SHOWN } from "../core/state";
import type { Store } from "../core/store";
import { undefinedHere } from "../fields/lens";
import { describe, draw, summary } from "./bars/draw";
import { modelOf, valuesOf } from "./bars/model";
import { scaleSwitch, segmented } from "./controls";
import { root, widthOf } from "./parts";
import { OWN_KEYS, Roving, stepKey } from "./roving";
import { lensName, subject, tokensName } from "./words";

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

/** A fitted lens reads what is added without its offset, and the block's input with it. */
const NO_OFFSET = "This lens reads what is added without its offset.";

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "chart csw-bars", "Contributions of attention and MLP");
  const { state } = store;
  const title = h("h3");
  const why = h("p", { class: "csw-why" });
  const sum = h("data", { class: "csw-sum" });
  const empty = h("p", { class: "csw-empty" });
  const chart = svg("svg", { role: "group", "aria-label": "Contributions by block", ...OWN_KEYS });
  const readout = h("p", { class: "csw-readout", "aria-hidden": "true" });
  const choice = segmented(abort, "Reading", READINGS, state.contribution);
  const [fit, own] = scaleSwitch(store, abort);
  const head = h("header", {}, title, h("span", { class: "csw-tools" }, fit, choice));
  section.append(head, why, sum, empty, chart, readout);

  const width = widthOf(section, abort);
  const model = computed(() => modelOf(store, state.shown.value));
  /** Values of the passes before and after and of the change: one scale for the three. */
  const others = () =>
    own.value || !store.intervened.value
      ? []
      : SHOWN.map((shown) => modelOf(store, shown)).flatMap((m) =>
          typeof m === "string" ? [] : valuesOf(m),
        );
  const bars: Roving<SVGGElement> = new Roving(section, chart, abort, {
    next: (key, index) => stepKey(key, index, bars.parts.length),
    pick: (index) => {
      const now = model.peek();
      if (typeof now === "string" || index < 0) return;
      const { position } = now.shown.parts[index];
      if (position >= 0) store.setPosition(position);
    },
  });

  const mark = () => {
    const position = store.position.value;
    const at = bars.pointed.value ?? position;
    const now = model.value;
    if (typeof now === "string") return;
    bars.parts.forEach((bar, i) => {
      const here = now.shown.parts[i]?.position === position;
      bar.classList.toggle("csw-current", here);
      assign(bar, { "aria-current": here && "true" });
    });
    const part = now.shown.parts[at];
    readout.replaceChildren(...(part ? describe(now, part) : []));
  };

  onFrame(abort, () => {
    const now = model.value;
    const { snapshot } = store.data.value;
    const where = tokensName(snapshot, store.activeTokens.value);
    const mode = state.contribution.value;
    entitle(
      title,
      "Added to ",
      h("b", {}, subject(store, snapshot)),
      ` at ${where}${mode === "direct" ? "" : lensName(store)}`,
    );
    const lens = mode === "direct" ? undefined : store.data.value.readings.lens;
    const open = lens && typeof now !== "string" && now.shown.parts.some(({ value }) => Number.isNaN(value));
    say(
      why,
      [WHY[mode], lens && mode === "paper" && NO_OFFSET, open && undefinedHere(lens)]
        .filter(Boolean)
        .join(" "),
    );
    const missing = typeof now === "string";
    empty.hidden = !missing;
    sum.hidden = readout.hidden = missing;
    chart.style.display = missing ? "none" : "";
    if (missing) {
      say(empty, now);
      return bars.renew(() => []);
    }
    sum.replaceChildren(...summary(now));
    bars.renew(() => draw(chart, now, width.value, others()));
    untracked(mark);
  });

  // The marker alone follows the slider: a move must not redraw the bars.
  onFrame(abort, mark);
}
