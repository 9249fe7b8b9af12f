/** One picture under one map: painted once a frame, pointed at, and said in words. */

import type { ReadonlySignal } from "@preact/signals-core";
import { assign, h, say } from "../../core/dom";
import type { Field } from "../../core/field";
import { number, shortName } from "../../core/format";
import { onFrame } from "../../core/frame";
import { type MaskOutline, type Picture, paint } from "../../core/paint";
import type { Store } from "../../core/store";
import { OWN_KEYS, widthOf } from "../parts";
import { pointing } from "./pointing";

export interface Shared {
  readonly leading: ReadonlySignal<readonly number[]>;
  readonly pixels: Picture;
  readonly outline: MaskOutline;
  /** Id of the element that describes the keys. */
  readonly help: string;
  /** Where the focused patch is said. */
  readonly live: HTMLElement;
}

/** `field` is null while this pane is not shown; `own` is the class that it is of. */
export function pane(
  store: Store,
  abort: AbortSignal,
  field: ReadonlySignal<Field | null>,
  own: ReadonlySignal<number>,
  { leading, pixels, outline, help, live }: Shared,
): HTMLElement {
  const { state } = store;
  const canvas = h("canvas", { "aria-hidden": "true" });
  const box = h("div", { class: "csw-box", hidden: true });
  const curtain = h("div", { class: "csw-curtain", hidden: true });
  const tip = h("div", { class: "csw-tip", hidden: true, "aria-hidden": "true" });
  const picture = h("div", {
    class: "csw-picture",
    tabindex: 0,
    role: "application",
    "aria-roledescription": "patch map",
    "aria-describedby": help,
    ...OWN_KEYS,
  });
  picture.append(canvas, box, curtain, tip);
  const pointer = pointing(picture, store, abort);
  const width = widthOf(picture, abort);

  // One canvas, painted at most once a frame.
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const f = field.value;
    picture.hidden = f === null;
    if (!f) return;
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
      // An intervened pass has none of its own.
      outline: state.outline.value ? outline.of(store.baseline.value.snapshot) : null,
      selected: state.tokens.value,
      hovered: store.hovered.value,
      focused: pointer.focused.value,
      ratio,
    });
  });

  // Words over the picture when there is nothing to see.
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const f = field.value;
    if (!f) return;
    const ready = f.state === "ready";
    say(curtain, ready ? "" : f.note);
    curtain.hidden = ready;
    assign(picture, {
      "aria-label": `${f.title}, ${snapshot.positionName(store.position.value)}`,
      "aria-busy": String(f.state === "pending"),
    });
  });
  onFrame(abort, () => {
    const token = store.hovered.value;
    const f = field.value;
    if (!f) return;
    const { snapshot } = store.data.value;
    const shown = token !== null && snapshot.isImageToken(token) && pointer.box.value === null;
    tip.hidden = !shown || !pointer.here.value;
    if (!pointer.here.value && token !== null) return;
    if (token === null) return say(live, "");
    const { nodes, text } = describe(f, token);
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
  function describe(f: Field, token: number): { nodes: Node[]; text: string } {
    const { snapshot, readings } = store.data.value;
    const point = store.point.value;
    const shown = f.state === "ready" ? f.format(f.values[token]) : "–";
    const name = snapshot.tokenName(token);
    const top = readings.top(point, token, 5) ?? [];
    const rows = top.map(({ id: c, logit }) => ({ id: c, logit }));
    const logits = readings.logits(own.value);
    if (logits && !rows.some((c) => c.id === own.value)) {
      rows.push({ id: own.value, logit: logits[point * snapshot.V + token] });
    }
    const nodes = rows.map(({ id: c, logit }) =>
      h(
        "div",
        { class: c === own.value ? "csw-tip-row csw-own" : "csw-tip-row" },
        h("span", {}, shortName(snapshot.className(c))),
        h("span", {}, number(logit)),
      ),
    );
    // The token's number is the one to type in Python.
    const title = h(
      "div",
      { class: "csw-tip-head" },
      h("span", {}, name, h("small", {}, `token ${token}`)),
      h("span", {}, shown),
    );
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
  return picture;
}
