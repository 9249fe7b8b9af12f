/** Blocks x heads: what every attention head contributes directly to the class at the selected tokens. */

import { computed, signal, untracked } from "@preact/signals-core";
import { thin } from "../charts/scale";
import { claim, h, say } from "../core/dom";
import { peakOf } from "../core/fieldScale";
import { number, signed } from "../core/format";
import { onFrame, watch } from "../core/frame";
import { type Reading, SHOWN, type Shown } from "../core/state";
import type { Store } from "../core/store";
import { headValues, knownTokens, recorded, whyNone } from "./heads";
import { fitButton, gridKey, OWN_KEYS, root, subject, tokensName, widthOf } from "./parts";

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "heads", "Contributions of attention heads");
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
  const legend = h(
    "div",
    { class: "csw-head-scale" },
    low,
    h("i"),
    h("span", {}, "0"),
    h("i", { class: "csw-up" }),
    high,
  );
  const readout = h("p", { class: "csw-readout", "aria-hidden": "true" });
  const { state } = store;
  const width = widthOf(section, abort);
  const pointed = signal<number | null>(null);
  const classes = computed(() =>
    [state.class_index.value, state.compare_index.value].filter((c) => c !== null),
  );
  /** The tokens that are known, and their mean values, of a pass or of the change. */
  const of = (shown: Shown) => {
    const before = store.baseline.value;
    const data = (shown !== "baseline" && store.intervened.value) || before;
    const changed = shown === "difference" && data !== before;
    const ids = classes.value;
    let tokens: readonly number[] = knownTokens(data, ids, store.activeTokens.value);
    if (changed) tokens = knownTokens(before, ids, tokens);
    if (tokens.length === 0) return { tokens, values: null };
    const values = headValues(data, ids, tokens);
    const base = changed && headValues(before, ids, tokens);
    return { tokens, values: base ? values.map((v, i) => v - base[i]) : values };
  };
  const now = computed(() => of(state.shown.value));
  const known = computed(() => now.value.tokens);
  const values = computed(() => now.value.values);
  const [fit, own] = fitButton(store, abort);
  /** The largest value of the passes before and after and of the change: one scale for the three. */
  const peak = computed(() => {
    const some = own.value || !store.intervened.value ? [now.value] : SHOWN.map(of);
    return Math.max(1e-9, ...some.map((one) => peakOf(one.values ?? [])));
  });
  section.append(h("header", {}, title, fit, legend), empty, grid, readout);
  let cells: HTMLElement[] = [];
  let shape = "";
  let focused = 0;
  /** Reading to go back to when the head is let go. */
  let before: Reading = "identifiability";

  // Asked once for the same tokens and classes of a picture: an answer may bring less than was wished for.
  let asked = "";
  watch(abort, () => {
    const tokens = store.activeTokens.value;
    const wish = `${classes.value} ${tokens}`;
    if (known.value.length === tokens.length) asked = "";
    else if (store.kernel.value === "live" && asked !== wish && recorded(store)) {
      asked = wish;
      untracked(() => store.wishes.attention(tokens));
    }
  });

  // Cells are built once per model and width, and then only coloured.
  const build = (L: number, H: number, room: number) => {
    if (shape === `${L} ${H} ${room}`) return;
    shape = `${L} ${H} ${room}`;
    const keepBlock = thin(L + 1, (room - 22) / L, 17);
    const keepHead = thin(H, 13, 12);
    const { activeElement } = section.getRootNode() as Document | ShadowRoot;
    const held = cells.some((cell) => cell === activeElement);
    cells = [];
    const rows = Array.from({ length: H }, (_, head) => {
      const row = h(
        "div",
        { role: "row" },
        h("span", { role: "rowheader", "aria-label": `head ${head}` }, keepHead(head) ? String(head) : ""),
      );
      for (let b = 1; b <= L; b++) {
        const cell = h("div", { role: "gridcell", tabindex: -1 });
        cells.push(cell);
        row.append(cell);
      }
      return row;
    });
    const foot = h(
      "div",
      { role: "row" },
      h("span", { role: "columnheader" }, h("span", { class: "csw-sr" }, "head")),
    );
    for (let b = 1; b <= L; b++) {
      foot.append(
        h("span", { role: "columnheader", "aria-label": `block ${b}` }, keepBlock(b) ? String(b) : ""),
      );
    }
    grid.style.setProperty("--columns", String(L));
    grid.style.setProperty("--rows", String(H));
    grid.replaceChildren(...rows, foot);
    focused = Math.min(focused, cells.length - 1);
    cells[focused]?.setAttribute("tabindex", "0");
    if (held) cells[focused]?.focus();
  };
  /** Cells stand row by row (head by head), values block by block. */
  const place = (index: number): [number, number] => {
    const { L } = store.data.peek().snapshot;
    return [(index % L) + 1, Math.floor(index / L)];
  };

  const mark = () => {
    const now = values.value;
    const { H } = store.data.value.snapshot;
    const chosen = state.head.value;
    const block = state.block.value;
    const at = pointed.value;
    for (let i = 0; i < cells.length; i++) {
      const [b, head] = place(i);
      const own = chosen !== null && chosen[0] === b && chosen[1] === head;
      cells[i].setAttribute("aria-selected", String(own));
      cells[i].classList.toggle("csw-here", b === block);
    }
    // Without a hand on the grid, the head with the largest value is told.
    let most = 0;
    now?.forEach((v, i) => {
      if (Math.abs(v) > Math.abs(now[most])) most = i;
    });
    const spot = at !== null ? place(at) : (chosen ?? [Math.floor(most / H) + 1, most % H]);
    if (!now) say(readout, "");
    else {
      const value = now[(spot[0] - 1) * H + spot[1]];
      let all = 0;
      for (let i = 0; i < H; i++) all += now[(spot[0] - 1) * H + i];
      const which = at === null && !chosen ? "largest: " : "";
      readout.replaceChildren(
        `${which}block ${spot[0]} head ${spot[1]} `,
        h("b", {}, signed(value)),
        ` of ${signed(all)} in the block`,
      );
    }
  };

  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const { L, H } = snapshot;
    const now = values.value;
    const tokens = store.activeTokens.value;
    title.replaceChildren(
      "Heads for ",
      h("b", {}, subject(store, snapshot)),
      ` at ${tokensName(snapshot, now ? known.value : tokens)}`,
    );
    title.title = title.textContent ?? "";
    empty.hidden = now !== null;
    grid.hidden = legend.hidden = now === null;
    if (!now) {
      say(empty, whyNone(store, tokens));
      return;
    }
    build(L, H, width.value);
    const most = peak.value;
    for (let i = 0; i < cells.length; i++) {
      const [block, head] = place(i);
      const v = now[(block - 1) * H + head];
      cells[i].style.setProperty("--v", `${((100 * Math.abs(v)) / most).toFixed(1)}%`);
      cells[i].classList.toggle("csw-up", v > 0);
      cells[i].setAttribute("aria-label", `block ${block} head ${head}: ${signed(v)}`);
    }
    say(low, `−${number(most)}`);
    say(high, `+${number(most)}`);
    untracked(mark);
  });

  onFrame(abort, mark);

  const indexOf = (event: Event) => cells.indexOf(event.target as HTMLElement);
  const focus = (index: number) => {
    cells[focused]?.setAttribute("tabindex", "-1");
    focused = index;
    cells[index]?.setAttribute("tabindex", "0");
  };
  const pick = (index: number) => {
    if (index < 0) return;
    const [block, head] = place(index);
    const chosen = state.head.peek();
    const reading = state.reading.peek();
    const through = store.data.peek().snapshot.meta.model.sources_refused ? "attention" : "source";
    if (chosen?.[0] === block && chosen[1] === head) {
      const whole = reading === "importance" ? ({ importance_of: "all" } as const) : {};
      return store.set({ head: null, reading: reading === through ? before : reading, ...whole });
    }
    if (reading === "importance") return store.set({ head: [block, head], importance_of: "head" });
    if (reading !== through) before = reading;
    store.set({ head: [block, head], reading: through });
    untracked(() => store.wishes.attention(store.activeTokens.peek()));
  };
  const options = { signal: abort };
  grid.addEventListener(
    "click",
    (event) => {
      const index = indexOf(event);
      if (index >= 0) focus(index);
      pick(index);
    },
    options,
  );
  grid.addEventListener(
    "pointerover",
    (event) => {
      const index = indexOf(event);
      pointed.value = index < 0 ? null : index;
    },
    options,
  );
  const leave = () => {
    pointed.value = null;
  };
  grid.addEventListener("pointerleave", leave, options);
  grid.addEventListener("focusout", leave, options);
  grid.addEventListener(
    "focusin",
    (event) => {
      const index = indexOf(event);
      if (index < 0) return;
      focus(index);
      pointed.value = index;
    },
    options,
  );
  grid.addEventListener(
    "keydown",
    (event) => {
      const index = indexOf(event);
      if (index < 0 || event.altKey || event.metaKey) return;
      const { L, H } = store.data.peek().snapshot;
      const next = gridKey(event.key, index, L, H, event.ctrlKey);
      if (next !== null) {
        focus(next);
        cells[next].focus();
      } else if (event.key === "Enter" || event.key === " ") pick(index);
      else return;
      claim(event);
    },
    options,
  );
}
