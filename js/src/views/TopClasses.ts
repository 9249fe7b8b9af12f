/** The classes that the selected tokens read best as, at the point where the slider stands. */

import { computed } from "@preact/signals-core";
import { range } from "../core/collections";
import { assign, button, dataAt, entitle, h, listen, say, setPressed } from "../core/dom";
import { count, hundredths, number, percent, shortName } from "../core/format";
import { onFrame } from "../core/frame";
import type { Readings } from "../core/readings";
import type { Store } from "../core/store";
import { ofSomeClasses, undefinedHere } from "../fields/lens";
import { meanRank, topClasses } from "./classes/ranking";
import { root } from "./parts";
import { OWN_KEYS, walk } from "./roving";
import { lensName, tokensName } from "./words";

const COUNT = 8;

interface Row {
  readonly item: HTMLElement;
  readonly choice: HTMLButtonElement;
  readonly name: HTMLElement;
  readonly logit: HTMLElement;
  readonly share: HTMLElement;
}

function row(): Row {
  const name = h("span", { class: "csw-name" });
  const logit = h("span");
  const share = h("span");
  // The spaces are for those who hear them.
  const choice = button({}, name, " ", logit, " ", share);
  return { item: h("li", {}, choice), choice, name, logit, share };
}

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "chart csw-top", "Top classes");
  const title = h("h3");
  const list = h("ol", {
    class: "csw-list",
    "aria-label": "Classes with logit and probability",
    ...OWN_KEYS,
  });
  const rank = h("p", { class: "csw-readout" });
  const head = h(
    "div",
    { class: "csw-columns", "aria-hidden": "true" },
    h("span", {}, "class"),
    h("span", {}, "logit"),
    h("span", {}, "prob."),
  );
  const few = h("p", { class: "csw-readout" });
  section.append(h("header", {}, title), head, list, few, rank);
  const rows = range(COUNT, row);
  list.append(...rows.map((r) => r.item));

  const { state } = store;
  const entries = computed(() =>
    topClasses(store.data.value, store.point.value, store.activeTokens.value, COUNT),
  );

  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const now = entries.value;
    const id = state.class_index.value;
    const other = state.compare_index.value;
    const tokens = store.activeTokens.value;
    const point = store.point.value;
    entitle(title, h("b", {}, tokensName(snapshot, tokens)), ` ${where(store)}${lensName(store)}`);
    rows.forEach(({ item, choice, name, logit, share }, i) => {
      const entry = now[i];
      item.hidden = !entry;
      if (!entry) return;
      const full = snapshot.className(entry.id);
      choice.classList.toggle("csw-main", entry.id === id);
      choice.classList.toggle("csw-other", entry.id === other);
      choice.style.setProperty("--p", `${(100 * (entry.probability || 0)).toFixed(2)}%`);
      setPressed(choice, entry.id === id);
      assign(choice, { "data-id": entry.id, title: `${full}\nShift-click to compare` });
      say(name, shortName(full));
      say(logit, number(hundredths(entry.logit)));
      say(share, percent(entry.probability));
    });
    say(few, caveat(store.data.value.readings, point, tokens.length, now.length));
    few.hidden = few.textContent === "";
    const parts: (Node | string)[] = [];
    for (const [c, kind] of [
      [id, "main"],
      [other, "other"],
    ] as const) {
      if (c === null) continue;
      const own = meanRank(store.data.value, c, point, tokens);
      const about = store.data.value.readings.ranksApproximate(c) ? "≈ " : "";
      const waiting = tokens.length === 0 || store.data.value.readings.lens ? "–" : "…";
      const place =
        own === null || Number.isNaN(own) ? waiting : about + (own % 1 === 0 ? count(own) : own.toFixed(1));
      parts.push(
        parts.length ? " · " : "",
        h("i", { class: `csw-chip csw-is-${kind}` }),
        `${snapshot.shortName(c)} rank `,
        h("b", {}, place),
      );
    }
    parts.push(` of ${count(snapshot.C)}`);
    rank.replaceChildren(...parts);
  });

  listen(list, abort, {
    click: (event) => {
      const chosen = dataAt(event, "id");
      if (chosen === undefined) return;
      const id = Number(chosen);
      if (!event.shiftKey && !event.altKey) return store.set({ class_index: id });
      const known = id === state.compare_index.peek() || id === state.class_index.peek();
      store.set({ compare_index: known ? null : id });
    },
    keydown: walk,
  });
}

/** Only every token's own top classes are stored with large snapshots: a mean over tokens may miss some. */
function caveat(readings: Readings, point: number, tokens: number, classes: number): string {
  const all = readings.all.logits(point) !== null;
  const { lens } = readings;
  if (lens && classes === 0) return lens.classes ? ofSomeClasses(readings) : undefinedHere(lens);
  if (classes === 0)
    return tokens > 1 ? "Only the top classes of single tokens were saved: select one token." : "…";
  return all || tokens === 1 ? "" : "Among the classes that were saved.";
}

/** "after block 3 MLP", or "in what block 3 MLP adds". */
function where(store: Store): string {
  const name = store.data.value.snapshot.points.name(store.position.value);
  if (store.position.value === 0) return "at the embedding";
  return store.state.stream.value === "residual" ? `after ${name}` : `in what ${name} adds`;
}
