/** Tokens that are no patch - prefix tokens, the mean of the patches - as chips, and what is selected. */

import type { ReadonlySignal } from "@preact/signals-core";
import { css } from "../../core/color";
import { h } from "../../core/dom";
import type { Field } from "../../core/field";
import { onFrame } from "../../core/frame";
import { placeColor } from "../../core/paint";
import type { Store } from "../../core/store";

export function chips(
  store: Store,
  abort: AbortSignal,
  field: ReadonlySignal<Field>,
  leading: ReadonlySignal<readonly number[]>,
): HTMLElement {
  const { state } = store;
  const on = { signal: abort };
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
      const button = h("button", {
        class: "csw-token",
        type: "button",
        "aria-pressed": String(active.includes(token)),
        title: token === snapshot.output ? "The model's output is read from this token" : null,
        "data-token": token,
      });
      button.append(
        swatch,
        snapshot.tokenName(token),
        h("output", {}, known ? f.format(f.values[token]) : "–"),
      );
      return button;
    });
    const patches = state.tokens.value.filter((t) => snapshot.isImageToken(t));
    if (patches.length > 0) {
      const text = patches.length === 1 ? snapshot.tokenName(patches[0]) : `${patches.length} patches`;
      const clear = h("button", {
        class: "csw-token",
        type: "button",
        "aria-pressed": "true",
        "aria-label": `Clear the selection of ${text}`,
        title: "Clear the selection",
        "data-token": "clear",
      });
      clear.append(text, h("output", {}, "✕"));
      buttons.push(clear);
    }
    const focus = node.querySelector<HTMLElement>(":focus")?.dataset.token;
    node.replaceChildren(...buttons);
    if (focus !== undefined) node.querySelector<HTMLElement>(`[data-token="${focus}"]`)?.focus();
  });
  const tokenOf = (event: Event) =>
    (event.target as Element).closest<HTMLElement>("[data-token]")?.dataset.token;
  node.addEventListener(
    "click",
    (event) => {
      const token = tokenOf(event);
      if (token === "clear") store.set({ tokens: [] });
      else if (token !== undefined) store.selectToken(Number(token), event.shiftKey);
    },
    on,
  );
  node.addEventListener(
    "pointerover",
    (event) => {
      const token = tokenOf(event);
      store.hovered.value = token === undefined || token === "clear" ? null : Number(token);
    },
    on,
  );
  node.addEventListener(
    "pointerleave",
    () => {
      store.hovered.value = null;
    },
    on,
  );
  return node;
}
