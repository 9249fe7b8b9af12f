/** The picture under a map of any reading, patch by patch; patches are selected by pointer or keyboard. */

import { computed } from "@preact/signals-core";
import { assign, h, say } from "../core/dom";
import { fieldOf } from "../core/field";
import { number, shortName } from "../core/format";
import { onFrame, watch } from "../core/frame";
import { MaskOutline, Picture, paint } from "../core/paint";
import type { Store } from "../core/store";
import { chips } from "./heatmap/chips";
import { optionsRow, readingRow } from "./heatmap/controls";
import { legend } from "./heatmap/legend";
import { pointing } from "./heatmap/pointing";
import { OWN_KEYS, widthOf } from "./parts";

export interface HeatmapOptions {
  /** Leave out the controls around the picture. */
  readonly bare?: boolean;
}

let made = 0;

export function mount(el: HTMLElement, store: Store, abort: AbortSignal, options: HeatmapOptions = {}): void {
  const { state } = store;
  const field = computed(() => fieldOf(store));
  // The first colours go to what matters most in this picture.
  const leading = computed(() => {
    const { snapshot } = store.baseline.value;
    return [...new Set([state.class_index.value, ...snapshot.predicted(6).map((p) => p.id)])];
  });

  const id = `csw-map-${++made}`;
  const canvas = h("canvas", { "aria-hidden": "true" });
  const box = h("div", { class: "csw-box", hidden: true });
  const curtain = h("div", { class: "csw-curtain", hidden: true });
  const tip = h("div", { class: "csw-tip", hidden: true, "aria-hidden": "true" });
  const picture = h("div", {
    class: "csw-picture",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "patch map",
    "aria-describedby": id,
    ...OWN_KEYS,
  });
  picture.append(canvas, box, curtain, tip);
  const help = h(
    "p",
    { class: "csw-sr", id },
    "Arrow keys move over the patches, Enter selects one, Shift and Enter adds one, Escape clears the selection.",
  );
  const live = h("p", { class: "csw-sr", "aria-live": "polite" });
  const note = h("p", { class: "csw-note" });
  const root = h("section", { class: "csw-view csw-heatmap", "aria-label": "Patch map" });
  const key = legend(store, abort, field, leading);
  if (!options.bare) root.append(readingRow(store, abort));
  root.append(picture, chips(store, abort, field, leading), key, note);
  if (!options.bare) root.append(optionsRow(store, abort, field));
  root.append(help, live);
  el.append(root);
  abort.addEventListener("abort", () => root.remove());

  const pointer = pointing(picture, store, abort);
  const width = widthOf(picture, abort);
  const pixels = new Picture(store, abort);
  const outline = new MaskOutline();

  // One canvas, painted at most once a frame.
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const f = field.value;
    const ratio = Math.min(2, globalThis.devicePixelRatio || 1);
    const { width: w0, height: h0 } = snapshot.meta.image ?? {
      width: snapshot.columns,
      height: snapshot.rows,
    };
    const w = Math.round(width.value * ratio);
    const tall = Math.round((w * h0) / w0);
    if (canvas.width !== w || canvas.height !== tall) {
      canvas.width = w;
      canvas.height = tall;
      picture.style.aspectRatio = `${w0} / ${h0}`;
    }
    paint(canvas, {
      snapshot,
      field: f,
      base: pixels.ready.value,
      colormap: state.colormap.value,
      leading: leading.value,
      opacity: f.state === "ready" ? state.opacity.value : 0,
      smooth: state.smooth.value && f.kind !== "categorical",
      outline: state.outline.value ? outline.of(snapshot) : null,
      selected: state.tokens.value,
      hovered: store.hovered.value,
      focused: pointer.focused.value,
      ratio,
    });
  });

  // Words: over the picture when there is nothing to see, under it when there is something to mind.
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const f = field.value;
    const ready = f.state === "ready";
    say(curtain, ready ? "" : f.note);
    curtain.hidden = ready;
    const notes = [ready ? f.note : "", f.approximate ? (snapshot.meta.exactness?.note ?? "") : ""];
    const ranks = f.reading === "rank" || f.reading === "identifiability";
    if (ranks && state.compare_index.value !== null)
      notes.push("Ranks are of one class: they are not compared.");
    say(note, notes.filter(Boolean).join(" "));
    note.hidden = note.textContent === "";
    assign(picture, {
      "aria-label": `${f.title}, ${snapshot.positionName(store.position.value)}`,
      "aria-busy": String(f.state === "pending"),
    });
  });
  watch(abort, () => {
    const reading = state.reading.value;
    if (reading === "attention" || reading === "source") store.fetchAttention(store.activeTokens.value);
  });

  onFrame(abort, () => {
    const token = store.hovered.value;
    const { snapshot } = store.data.value;
    const shown = token !== null && snapshot.isImageToken(token) && pointer.box.value === null;
    tip.hidden = !shown || !pointer.here.value;
    if (token === null) return say(live, "");
    const { nodes, text } = describe(token);
    if (!tip.hidden) {
      tip.replaceChildren(...nodes);
      placeTip(token);
    }
    say(live, pointer.focused.value === token ? text : "");
  });
  onFrame(abort, () => {
    const span = pointer.box.value;
    box.hidden = span === null;
    if (!span) return;
    const [x0, y0, x1, y1] = span;
    box.style.left = `${Math.min(x0, x1)}px`;
    box.style.top = `${Math.min(y0, y1)}px`;
    box.style.width = `${Math.abs(x1 - x0)}px`;
    box.style.height = `${Math.abs(y1 - y0)}px`;
  });

  /** A token's value and top classes, for the eye and for the ear. */
  function describe(token: number): { nodes: Node[]; text: string } {
    const { snapshot, readings } = store.data.value;
    const f = field.value;
    const point = store.point.value;
    const own = state.class_index.value;
    const shown = f.state === "ready" ? f.format(f.values[token]) : "–";
    const name = snapshot.tokenName(token);
    const top = readings.top(point, token, 5) ?? [];
    const rows = top.map(({ id: c, logit }) => ({ id: c, logit }));
    const logits = readings.logits(own);
    if (logits && !rows.some((c) => c.id === own)) {
      rows.push({ id: own, logit: logits[point * snapshot.V + token] });
    }
    const nodes = rows.map(({ id: c, logit }) =>
      h(
        "div",
        { class: c === own ? "csw-tip-row csw-own" : "csw-tip-row" },
        h("span", {}, shortName(snapshot.className(c))),
        h("span", {}, number(logit)),
      ),
    );
    const title = h("div", { class: "csw-tip-head" }, h("span", {}, name), h("span", {}, shown));
    const best = top.slice(0, 3).map((c) => shortName(snapshot.className(c.id)));
    const selected = state.tokens.value.includes(token) ? ", selected" : "";
    const classes = best.length > 0 ? `; top classes ${best.join(", ")}` : "";
    return { nodes: [title, ...nodes], text: `${name}${selected}: ${f.title} ${shown}${classes}` };
  }

  /** Beside the patch, on the side where there is room. */
  function placeTip(token: number): void {
    const { prefix, rows, columns } = store.data.peek().snapshot;
    const row = Math.floor((token - prefix) / columns);
    const column = (token - prefix) % columns;
    const { clientWidth: w, clientHeight: tall } = picture;
    const right = ((column + 1) / columns) * w + 8;
    const left = (column / columns) * w - tip.offsetWidth - 8;
    const x = right + tip.offsetWidth <= w || left < 0 ? Math.min(right, w - tip.offsetWidth) : left;
    const y = Math.max(0, Math.min(tall - tip.offsetHeight, (row / rows) * tall));
    tip.style.transform = `translate(${Math.round(Math.max(0, x))}px, ${Math.round(y)}px)`;
  }
}
