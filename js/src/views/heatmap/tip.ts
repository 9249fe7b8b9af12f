/** What is said of a patch that is pointed at. */

import { h } from "../../core/dom";
import { number } from "../../core/format";
import type { Snapshot } from "../../core/snapshot";
import type { Store } from "../../core/store";
import type { Field } from "../../fields/field";

/** Classes in the tip, and how many of them are read aloud; pixels between the patch and the tip. */
const [BEST, ALOUD, GAP] = [5, 3, 8];

/** A token's value and top classes, for the eye and for the ear; `own` is the class of the map. */
export function describe(
  store: Store,
  f: Field,
  own: number,
  token: number,
): { readonly nodes: Node[]; readonly text: string } {
  const { snapshot, readings } = store.data.value;
  const point = store.point.value;
  const shown = f.state === "ready" ? f.format(f.values[token]) : "–";
  const name = snapshot.tokenName(token);
  const top = readings.all.top(point, token, BEST) ?? [];
  const rows = [...top];
  const logits = readings.logits(own);
  if (logits && !rows.some(({ id }) => id === own)) {
    rows.push({ id: own, logit: logits[point * snapshot.V + token] });
  }
  // The token's number is the one to type in Python.
  const title = h(
    "div",
    { class: "csw-tip-head" },
    h("span", {}, name, h("small", {}, `token ${token}`)),
    h("span", {}, shown),
  );
  const nodes = rows.map(({ id, logit }) =>
    h(
      "div",
      { class: id === own ? "csw-tip-row csw-own" : "csw-tip-row" },
      h("span", {}, snapshot.shortName(id)),
      h("span", {}, number(logit)),
    ),
  );
  const best = top.slice(0, ALOUD).map(({ id }) => snapshot.shortName(id));
  const selected = store.state.tokens.value.includes(token) ? ", selected" : "";
  const classes = best.length > 0 ? `; top classes ${best.join(", ")}` : "";
  return { nodes: [title, ...nodes], text: `${name}${selected}: ${f.title} ${shown}${classes}` };
}

/** Beside the patch, on the side where there is room. */
export function placeTip(tip: HTMLElement, picture: HTMLElement, snapshot: Snapshot, token: number): void {
  const { prefix, rows, columns } = snapshot;
  const row = Math.floor((token - prefix) / columns);
  const column = (token - prefix) % columns;
  const { clientWidth: w, clientHeight: tall } = picture;
  const right = ((column + 1) / columns) * w + GAP;
  const left = (column / columns) * w - tip.offsetWidth - GAP;
  const x = right + tip.offsetWidth <= w || left < 0 ? Math.min(right, w - tip.offsetWidth) : left;
  const y = Math.max(0, Math.min(tall - tip.offsetHeight, (row / rows) * tall));
  tip.style.transform = `translate(${Math.round(Math.max(0, x))}px, ${Math.round(y)}px)`;
}
