/** A grid of colours to click: the effect of an intervention at every head, or at every token of every block. */

import { signal } from "@preact/signals-core";
import { thin } from "../charts/scale";
import { floats, unpack } from "../core/codec";
import { css, gradient, table, tableFor } from "../core/color";
import { assign, attach, claim, h, pointIn, say } from "../core/dom";
import { percent, shortName, signed } from "../core/format";
import { onFrame } from "../core/frame";
import type { Store } from "../core/store";
import { gridKey, OWN_KEYS, segmented, widthOf } from "./parts";

export interface Grid {
  /** [rows, columns], NaN where there is nothing. */
  readonly values: Float32Array;
  /** Labels, where there is room for them; an empty one is none. */
  readonly rows: readonly string[];
  readonly columns: readonly string[];
  readonly name: (row: number, column: number) => string;
  readonly title: string;
  readonly format: (value: number) => string;
}

const LEFT = 26;
/** Room for the columns' labels. */
const FOOT = 16;

/** Draws a grid, lets pointer and arrow keys go over it, and says what was picked. */
export function heatGrid(
  el: HTMLElement,
  abort: AbortSignal,
  grid: () => Grid | null,
  colormap: () => string,
  pick: (row: number, column: number) => void,
): void {
  const on = { signal: abort };
  const canvas = h("canvas", { "aria-hidden": "true" });
  const board = h(
    "div",
    { class: "csw-board", tabindex: 0, role: "application", "aria-roledescription": "grid", ...OWN_KEYS },
    canvas,
  );
  const ramp = h("div", { class: "csw-ramp" });
  const low = h("span", {});
  const high = h("span", {});
  const numbers = h(
    "div",
    { class: "csw-map-numbers", "aria-hidden": "true" },
    low,
    h("span", {}, "0"),
    high,
  );
  const words = h("p", { class: "csw-note", "aria-live": "polite" });
  el.append(board, words, ramp, numbers);
  const at = signal<readonly [number, number] | null>(null);
  const width = widthOf(board, abort);
  let cell: readonly [number, number] = [1, 1];

  const place = (event: MouseEvent): readonly [number, number] | null => {
    const g = grid();
    if (!g) return null;
    const { x, y } = pointIn(board, event, width.value, cell[1] * g.rows.length + FOOT);
    const column = Math.floor((x - LEFT) / cell[0]);
    const row = Math.floor(y / cell[1]);
    return row >= 0 && column >= 0 && row < g.rows.length && column < g.columns.length ? [row, column] : null;
  };
  board.addEventListener(
    "pointermove",
    (event) => {
      at.value = place(event);
    },
    on,
  );
  board.addEventListener(
    "pointerleave",
    () => {
      at.value = null;
    },
    on,
  );
  board.addEventListener(
    "click",
    (event) => {
      const target = place(event);
      if (target) pick(...target);
    },
    on,
  );
  board.addEventListener(
    "keydown",
    (event) => {
      const g = grid();
      if (!g) return;
      const [row, column] = at.peek() ?? [0, 0];
      const { length } = g.columns;
      const next = gridKey(event.key, row * length + column, length, g.rows.length, event.ctrlKey);
      if (next !== null) at.value = [Math.floor(next / length), next % length];
      else if (event.key === "Enter" || event.key === " ") pick(row, column);
      else return;
      claim(event);
    },
    on,
  );

  onFrame(abort, () => {
    const g = grid();
    const empty = g === null;
    for (const node of [board, ramp, numbers, words]) node.hidden = empty;
    if (!g) return;
    const ratio = Math.min(2, globalThis.devicePixelRatio || 1);
    cell = [(width.value - LEFT) / g.columns.length, Math.max(13, Math.min(24, 144 / g.rows.length))];
    const tall = cell[1] * g.rows.length;
    canvas.width = Math.round(width.value * ratio);
    canvas.height = Math.round((tall + FOOT) * ratio);
    canvas.style.height = `${tall + FOOT}px`;
    const here = at.value;
    let peak = 0;
    for (const v of g.values) if (Math.abs(v) > peak) peak = Math.abs(v);
    const name = tableFor("diverging", colormap());
    const text = here
      ? `${g.name(...here)}: ${g.format(g.values[here[0] * g.columns.length + here[1]])}`
      : g.title;
    say(words, text);
    assign(board, { "aria-label": g.title });
    ramp.style.background = gradient(name);
    say(low, g.format(-peak));
    say(high, g.format(peak));
    const context = canvas.getContext("2d");
    if (!context) return;
    context.scale(ratio, ratio);
    const colors = table(name);
    const gap = cell[0] > 5 ? 1 : 0;
    g.values.forEach((v, i) => {
      if (Number.isNaN(v)) return;
      const k = 3 * Math.round(127.5 * (1 + v / (peak || 1)));
      context.fillStyle = css([colors[k], colors[k + 1], colors[k + 2]]);
      const row = Math.floor(i / g.columns.length);
      const column = i % g.columns.length;
      context.fillRect(LEFT + column * cell[0], row * cell[1], cell[0] - gap, cell[1] - 1);
    });
    const style = getComputedStyle(board);
    context.fillStyle = style.getPropertyValue("--csw-muted");
    context.font = `10.5px ${style.fontFamily}`;
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const [row, text] of g.rows.entries()) context.fillText(text, LEFT - 6, (row + 0.5) * cell[1]);
    context.textAlign = "center";
    const labelled = [...g.columns.keys()].filter((column) => g.columns[column]);
    const keep = thin(labelled.length + 1, (width.value - LEFT) / labelled.length, 17);
    labelled.forEach((column, i) => {
      if (keep(i + 1)) context.fillText(g.columns[column], LEFT + (column + 0.5) * cell[0], tall + FOOT / 2);
    });
    if (here) {
      context.strokeStyle = style.getPropertyValue("--csw-fg");
      context.lineWidth = 2;
      context.strokeRect(LEFT + here[1] * cell[0], here[0] * cell[1], cell[0] - gap, cell[1] - 1);
    }
  });
}

type Kind = "heads" | "tokens";

/** Sweeps: one intervention at every (block, head) or (block, token), and its effect on the class logit. */
export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const on = { signal: abort };
  const kind = signal<Kind>("heads");
  const result = signal<(Grid & { pick: (row: number, column: number) => void }) | null>(null);
  const running = signal<"" | "running" | "cancelled">("");
  /** Why the last one did not run. */
  const problem = signal("");
  const start = h("button", { class: "csw-button", type: "button" });
  const kinds = segmented(
    abort,
    "What is swept",
    [
      ["heads", "Heads"],
      ["tokens", "Tokens"],
    ],
    kind,
    (value) => {
      kind.value = value;
    },
  );
  const head = h(
    "header",
    { class: "csw-bar-row" },
    h("h3", {}, "Sweep"),
    h("span", { class: "csw-grow" }),
    kinds,
    start,
  );
  const about = h("p", { class: "csw-note" });
  const root = h("section", { class: "csw-view csw-sweep", "aria-label": "Sweep over blocks" }, head, about);
  attach(el, root, abort);

  heatGrid(
    root,
    abort,
    () => result.value,
    () => store.state.colormap.value,
    (row, column) => result.peek()?.pick(row, column),
  );

  const sweep = async () => {
    const { snapshot } = store.baseline.peek();
    const id = store.state.class_index.peek();
    const what = kind.peek();
    running.value = "running";
    problem.value = "";
    const answer = await store.request("sweep", { kind: what, class: id }, [], `sweeping ${what}`);
    running.value = "";
    if (!answer) problem.value = store.notice.peek().text;
    const buffer = answer?.buffers[0];
    if (!answer || !buffer || abort.aborted) return;
    const array = unpack(buffer).arrays.get("grid");
    if (!array) return store.fail(new Error("the kernel's answer holds no grid"));
    const blocks = answer.result.rows as number[];
    const places = answer.result.columns as number[];
    const name = shortName(snapshot.className(id));
    const values = floats(array);
    const format = (v: number) => signed(v, 3);
    const change = `Change of ${name}'s logit when`;
    if (what === "tokens") {
      const starts = (t: number) =>
        snapshot.isImageToken(t) && (t - snapshot.prefix) % snapshot.columns === 0;
      result.value = {
        values,
        format,
        rows: blocks.map(String),
        columns: places.map((t) => (starts(t) ? String((t - snapshot.prefix) / snapshot.columns + 1) : "")),
        name: (row, column) => `block ${blocks[row]}, ${snapshot.tokenName(places[column])}`,
        title: `${change} no other token may read a token: a row for each block, a column for each token (numbers: rows of patches)`,
        pick: (row, column) =>
          store.set({ tokens: [places[column]], block: blocks[row], sublayer: "attention" }),
      };
    } else {
      // Heads down, blocks across: a head stands where it stands in the head grid.
      const n = places.length;
      result.value = {
        values: values.map((_, i) => values[(i % blocks.length) * n + Math.floor(i / blocks.length)]),
        format,
        rows: places.map(String),
        columns: blocks.map(String),
        name: (row, column) => `block ${blocks[column]}, head ${places[row]}`,
        title: `${change} a head is switched off: a row for each head, a column for each block`,
        pick: (row, column) => {
          const block = blocks[column];
          store.set({ head: [block, places[row]], block, sublayer: "attention" });
        },
      };
    }
  };
  start.addEventListener(
    "click",
    () => {
      if (!running.peek()) return void sweep();
      // It stops at its next step.
      running.value = "cancelled";
      store.transport.cancel("sweep");
    },
    on,
  );
  let picture = store.baseline.peek().snapshot;
  onFrame(abort, () => {
    const { snapshot } = store.baseline.value;
    if (snapshot !== picture) {
      picture = snapshot;
      result.value = null;
    }
    root.hidden = store.kernel.value !== "live" && result.value === null;
    start.hidden = store.kernel.value !== "live";
    say(start, { "": "Run", running: "Cancel", cancelled: "Cancelling …" }[running.value]);
    start.disabled = running.value === "cancelled";
    const name = shortName(snapshot.className(store.state.class_index.value));
    const { text, progress } = store.notice.value;
    about.classList.toggle("csw-failed", problem.value !== "");
    say(
      about,
      running.value
        ? `${text} … ${progress ? percent(progress) : ""}`
        : problem.value ||
            (kind.value === "heads"
              ? `Switch off every attention head in turn: what does ${name} lose?`
              : `Hide every token from the others, block by block: what does ${name} lose?`),
    );
  });
}
