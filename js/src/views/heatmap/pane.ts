/** One picture under one map: painted once a frame, pointed at, and said in words. */

import type { ReadonlySignal } from "@preact/signals-core";
import { assign, claim, h, listen, say } from "../../core/dom";
import { inFrame, onFrame } from "../../core/frame";
import type { Store } from "../../core/store";
import type { Field } from "../../fields/field";
import { widthOf } from "../parts";
import { OWN_KEYS } from "../roving";
import { paint } from "./paint";
import type { MaskOutline, Picture } from "./picture";
import { type Box, pointing } from "./pointing";
import { summary } from "./summary";
import { describe, placeTip } from "./tip";

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
    const { points } = store.data.value.snapshot;
    const f = field.value;
    if (!f) return;
    const ready = f.state === "ready";
    const words = ready ? f.blank : f.note;
    say(curtain, words);
    curtain.hidden = words === "";
    assign(picture, {
      "aria-label": `${f.title}, ${points.name(store.position.value)}`,
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
    const { nodes, text } = describe(store, f, own.value, token);
    if (!tip.hidden) {
      tip.replaceChildren(...nodes);
      placeTip(tip, picture, snapshot, token);
    }
    say(live, pointer.focused.value === token ? text : "");
  });
  listen(picture, abort, {
    keydown: (event) => {
      const f = field.peek();
      if (!f || event.key.toLowerCase() !== "s" || event.ctrlKey || event.metaKey) return;
      // After what a key pressed just before is about to say.
      inFrame(() => say(live, summary(f, store.data.peek().snapshot)));
      claim(event);
    },
  });
  onFrame(abort, () => {
    const span = pointer.box.value;
    box.hidden = span === null;
    if (span) Object.assign(box.style, placeOf(span));
  });
  return picture;
}

/** Left, top, width and height of a box, as styles. */
function placeOf([x0, y0, x1, y1]: Box) {
  return {
    left: `${Math.min(x0, x1)}px`,
    top: `${Math.min(y0, y1)}px`,
    width: `${Math.abs(x1 - x0)}px`,
    height: `${Math.abs(y1 - y0)}px`,
  };
}
