/** Tokens that are no patch - prefix tokens, the mean of the patches - as chips, and what is selected. */

import type { ReadonlySignal } from "@preact/signals-core";
import { css } from "../../core/color";
import { button, dataAt, h, listen } from "../../core/dom";
import { onFrame } from "../../core/frame";
import type { Store } from "../../core/store";
import type { Field } from "../../fields/field";
import { placeColor } from "./paint";

export function chips(
  store: Store,
  abort: AbortSignal,
  field: ReadonlySignal<Field>,
  leading: ReadonlySignal<readonly number[]>,
): HTMLElement {
  const { state } = store;
  const node = h("div", { class: "csw-tokens", role: "group", "aria-label": "Tokens that are no patch" });
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const f = field.value;
    const tokens = [...Array(snapshot.prefix).keys()];
    if (snapshot.V > snapshot.T) tokens.push(snapshot.T);
    const active = store.activeTokens.value;
    const buttons = tokens.map((token) => {
      const known = f.state === "ready" && !Number.isNaN(f.values[token]);
      const swatch = h("i", {});
      if (known) {
        swatch.style.background = css(placeColor(f, f.values[token], state.colormap.value, leading.value));
      }
      return button(
        {
          class: "csw-token",
          "aria-pressed": String(active.includes(token)),
          title: token === snapshot.output ? "The model's output is read from this token" : null,
          "data-token": token,
        },
        swatch,
        snapshot.tokenName(token),
        h("data", {}, known ? f.format(f.values[token]) : "–"),
      );
    });
    const patches = state.tokens.value.filter((t) => snapshot.isImageToken(t));
    if (patches.length > 0) {
      const text = patches.length === 1 ? snapshot.tokenName(patches[0]) : `${patches.length} patches`;
      const clear = {
        class: "csw-token",
        "aria-pressed": "true",
        "aria-label": `Clear the selection of ${text}`,
        title: "Clear the selection",
        "data-token": "clear",
      };
      buttons.push(button(clear, text, h("data", {}, "✕")));
    }
    const focus = node.querySelector<HTMLElement>(":focus")?.dataset.token;
    node.replaceChildren(...buttons);
    if (focus !== undefined) node.querySelector<HTMLElement>(`[data-token="${focus}"]`)?.focus();
  });
  listen(node, abort, {
    click: (event) => {
      const token = dataAt(event, "token");
      if (token === "clear") store.set({ tokens: [] });
      else if (token !== undefined) store.selectToken(Number(token), event.shiftKey);
    },
    pointerover: (event) => {
      const token = dataAt(event, "token");
      store.hovered.value = token === undefined || token === "clear" ? null : Number(token);
    },
    pointerleave: () => {
      store.hovered.value = null;
    },
  });
  return node;
}
