/** The explorer's header: the model and its picture, what is being done, and the predicted classes. */

import { range } from "../../core/collections";
import { assign, button, h, say, setPressed } from "../../core/dom";
import { count, percent, shortName } from "../../core/format";
import { onFrame, watch } from "../../core/frame";
import type { Store } from "../../core/store";
import { choosesClass, passChoice, whatIfPossible } from "../controls";
import { statusLine } from "../status";

/** How many classes of the model's own output stand in the header: as many as its columns. */
const PREDICTED = 3;

/** `tools` stand beside the choice of the pass. */
export function header(store: Store, abort: AbortSignal, ...tools: Node[]): HTMLElement {
  return h(
    "header",
    { class: "csw-head" },
    title(store, abort),
    h("div", { class: "csw-tools" }, passChoice(store, abort), ...tools),
    predicted(store, abort),
  );
}

function title(store: Store, abort: AbortSignal): HTMLElement {
  const name = h("h2");
  const about = h("p");
  const doing = h("p");
  const status = h("div", { class: "csw-doing" }, doing, statusLine(store, abort));
  const node = h("div", { class: "csw-title" }, name, about, status);
  watch(abort, () => {
    node.classList.toggle("csw-roomy", whatIfPossible(store));
  });
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const { model, tokens, intervention } = snapshot.meta;
    // An intervened pass is of the same picture, and does not say so again.
    const { image } = store.baseline.value.snapshot.meta;
    const label = image?.label;
    const words = [
      image?.name ?? "",
      typeof label === "number" ? `labelled ${snapshot.shortName(label)}` : "",
      `${model.blocks} blocks`,
      `${tokens.grid[0]}\u00a0×\u00a0${tokens.grid[1]} patches`,
      `${count(snapshot.C)} classes`,
      store.runsHere ? "runs in this page" : "",
    ];
    say(name, model.name);
    say(about, words.filter(Boolean).join("  ·  "));
    const done = store.changed.value ? (intervention?.label ?? "intervened") : "";
    say(doing, done);
    doing.title = done;
  });
  return node;
}

function predicted(store: Store, abort: AbortSignal): HTMLElement {
  const chips = range(PREDICTED, () => button({ class: "csw-prediction" }, h("span"), h("data")));
  const sure = h("p", { class: "csw-sure" });
  const node = h(
    "div",
    { class: "csw-predicted", role: "group", "aria-label": "Predicted classes" },
    ...chips,
    sure,
  );
  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const label = store.baseline.value.snapshot.meta.image?.label ?? -1;
    const own = store.state.class_index.value;
    const best = snapshot.predicted(PREDICTED);
    say(sure, snapshot.meta.answer?.text ?? "");
    chips.forEach((chip, i) => {
      chip.hidden = i >= best.length;
      if (chip.hidden) return;
      const { id, probability } = best[i];
      const name = snapshot.className(id);
      const known = id === label ? " (the picture's label)" : "";
      setPressed(chip, id === own);
      assign(chip, { "data-class": id, title: `${name}${known}: read this class` });
      chip.style.setProperty("--p", `${100 * probability}%`);
      say(chip.children[0], shortName(name));
      say(chip.children[1], percent(probability));
    });
  });
  choosesClass(node, store, abort);
  return node;
}
