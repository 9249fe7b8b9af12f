/** Blocks x heads: what every attention head contributes directly to the class at the selected tokens. */

import { computed, type ReadonlySignal, untracked } from "@preact/signals-core";
import { assign, entitle, h, say } from "../core/dom";
import { number, signed } from "../core/format";
import { onFrame, watch } from "../core/frame";
import { SHOWN } from "../core/state";
import type { Store } from "../core/store";
import { peakOf } from "../fields/scale";
import { scaleSwitch } from "./controls";
import { headChoice } from "./heads/choice";
import { cellsOf } from "./heads/grid";
import { type Heads, headsOf, recorded, whyNone } from "./heads/values";
import { root, widthOf } from "./parts";
import { gridKey, OWN_KEYS, Roving } from "./roving";
import { subject, tokensName } from "./words";

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "chart csw-heads", "Contributions of attention heads");
  const title = h("h3");
  const empty = h("p", { class: "csw-empty" });
  const grid = h("div", {
    class: "csw-grid",
    role: "grid",
    "aria-label": "Attention heads: one row per head, one column per block",
    ...OWN_KEYS,
  });
  const low = h("span");
  const high = h("span");
  const up = h("i", { class: "csw-up" });
  const legend = h("div", { class: "csw-head-scale" }, low, h("i"), h("span", {}, "0"), up, high);
  const readout = h("p", { class: "csw-readout", "aria-hidden": "true" });
  const { state } = store;
  const width = widthOf(section, abort);
  const heads = computed(() => headsOf(store, state.shown.value));
  const [fit, own] = scaleSwitch(store, abort);
  /** The largest value of the passes before and after and of the change: one scale for the three. */
  const peak = computed(() => {
    const together = !own.value && store.intervened.value;
    const some = together ? SHOWN.map((shown) => headsOf(store, shown)) : [heads.value];
    return Math.max(1e-9, ...some.map(({ values }) => peakOf(values ?? [])));
  });
  section.append(h("header", {}, title, fit, legend), empty, grid, readout);
  fetchHeads(store, abort, heads);

  /** Cells stand row by row (head by head), values block by block. */
  const place = (index: number): readonly [block: number, head: number] => {
    const { L } = store.data.peek().snapshot;
    return [(index % L) + 1, Math.floor(index / L)];
  };
  const choose = headChoice(store);
  const cells = new Roving<HTMLElement>(section, grid, abort, {
    next: (key, index, control) => {
      const { L, H } = store.data.peek().snapshot;
      return gridKey(key, index, L, H, control);
    },
    pick: (index) => index >= 0 && choose(...place(index)),
    control: true,
  });

  const mark = () => {
    const { values } = heads.value;
    const { H } = store.data.value.snapshot;
    const chosen = state.head.value;
    const block = state.block.value;
    const at = cells.pointed.value;
    cells.parts.forEach((cell, i) => {
      const [b, head] = place(i);
      assign(cell, { "aria-selected": String(chosen?.[0] === b && chosen[1] === head) });
      cell.classList.toggle("csw-here", b === block);
    });
    if (!values) return say(readout, "");
    // Without a hand on the grid, the head with the largest value is told.
    const most = values.reduce((best, v, i) => (Math.abs(v) > Math.abs(values[best]) ? i : best), 0);
    const [b, head] = at !== null ? place(at) : (chosen ?? [Math.floor(most / H) + 1, most % H]);
    const ofBlock = values.subarray((b - 1) * H, b * H);
    readout.replaceChildren(
      `${at === null && !chosen ? "largest: " : ""}block ${b} head ${head} `,
      h("b", {}, signed(ofBlock[head])),
      ` of ${signed(ofBlock.reduce((sum, v) => sum + v, 0))} in the block`,
    );
  };

  // Cells are built once per model and width, and then only coloured.
  let built = "";
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const { L, H } = snapshot;
    const { values, tokens } = heads.value;
    const active = store.activeTokens.value;
    const where = tokensName(snapshot, values ? tokens : active);
    entitle(title, "Heads for ", h("b", {}, subject(store, snapshot)), ` at ${where}`);
    empty.hidden = values !== null;
    grid.hidden = legend.hidden = values === null;
    if (!values) return say(empty, whyNone(store, active));
    const shape = `${L} ${H} ${width.value}`;
    if (built !== shape) cells.renew(() => cellsOf(grid, L, H, width.value));
    built = shape;
    const most = peak.value;
    cells.parts.forEach((cell, i) => {
      const [block, head] = place(i);
      const v = values[(block - 1) * H + head];
      cell.style.setProperty("--v", `${((100 * Math.abs(v)) / most).toFixed(1)}%`);
      cell.classList.toggle("csw-up", v > 0);
      assign(cell, { "aria-label": `block ${block} head ${head}: ${signed(v)}` });
    });
    say(low, `−${number(most)}`);
    say(high, `+${number(most)}`);
    untracked(mark);
  });
  onFrame(abort, mark);
}

/** Ask for heads that are missing: once for the same tokens and classes, since an answer may bring less than was asked for. */
function fetchHeads(store: Store, abort: AbortSignal, heads: ReadonlySignal<Heads>): void {
  let asked = "";
  watch(abort, () => {
    const tokens = store.activeTokens.value;
    const now = `${store.classes.value} ${tokens}`;
    if (heads.value.tokens.length === tokens.length) asked = "";
    else if (store.live && asked !== now && recorded(store)) {
      asked = now;
      untracked(() => store.requests.attention(tokens));
    }
  });
}
