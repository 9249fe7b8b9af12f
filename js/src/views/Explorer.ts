/** All views of a session, composed for any width from a phone to a full page. */

import { assign, attach, claim, h, say } from "../core/dom";
import { approximateNote, count, percent, shortName } from "../core/format";
import { onFrame, watch } from "../core/frame";
import type { Store } from "../core/store";
import { mount as ClassPicker } from "./ClassPicker";
import { mount as ContributionBars } from "./ContributionBars";
import { mount as HeadGrid } from "./HeadGrid";
import { mount as HeatGrid } from "./HeatGrid";
import type { Mount } from "./index";
import { mount as LayerSlider } from "./LayerSlider";
import { mount as PatchHeatmap } from "./PatchHeatmap";
import { choosesClass, passes, protect, statusLine, whatIfPossible } from "./parts";
import { mount as TokenTrajectories } from "./TokenTrajectories";
import { mount as TopClasses } from "./TopClasses";
import { mount as WhatIf } from "./WhatIf";

/** Places of the layout, and the views in each. */
const AREAS: readonly (readonly [string, Readonly<Record<string, Mount>>])[] = [
  ["slider", { LayerSlider }],
  ["picture", { PatchHeatmap }],
  ["side", { ClassPicker, TopClasses }],
  ["heads", { HeadGrid }],
  ["charts", { ContributionBars, TokenTrajectories }],
  ["whatif", { WhatIf, HeatGrid }],
];

/** How many classes of the model's own output stand in the header. */
const PREDICTED = 3;

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const on = { signal: abort };
  const name = h("h2");
  const about = h("p");
  const doing = h("p");
  const title = h(
    "div",
    { class: "csw-title" },
    name,
    about,
    h("div", { class: "csw-doing" }, doing, statusLine(store, abort)),
  );
  const predicted = h("div", { class: "csw-predicted", role: "group", "aria-label": "Predicted classes" });
  const file = h("input", { type: "file", accept: "image/*", hidden: true });
  const upload = h(
    "button",
    { class: "csw-button", type: "button", title: "Or drop a picture here" },
    "New picture…",
  );
  const head = h(
    "header",
    { class: "csw-head" },
    title,
    h("div", { class: "csw-tools" }, passes(store, abort), upload),
    predicted,
    file,
  );
  const chips = Array.from({ length: PREDICTED }, () =>
    h("button", { class: "csw-prediction", type: "button" }, h("span", {}), h("output", {})),
  );
  predicted.append(...chips);
  const layout = h("div", { class: "csw-layout" });
  const notes = h("div", { class: "csw-footnotes" });
  const root = h(
    "section",
    { class: "csw-view csw-explorer", "aria-label": "Class space explorer" },
    head,
    layout,
    notes,
  );
  attach(el, root, abort);

  for (const [area, views] of AREAS) {
    const place = h("div", { class: "csw-area", "data-area": area });
    layout.append(place);
    for (const [name, view] of Object.entries(views)) {
      protect(place, abort, name, (own) => view(place, store, own, { composed: true }));
    }
  }

  onFrame(abort, () => {
    const { snapshot } = store.data.value;
    const { model, tokens, intervention } = snapshot.meta;
    // An intervened pass is of the same picture, and does not say so again.
    const { image } = store.baseline.value.snapshot.meta;
    const shown = store.state.shown.value;
    const { intervened } = store;
    say(name, model.name);
    const label = image?.label;
    const words = [
      image?.name ?? "",
      typeof label === "number" ? `labelled ${shortName(snapshot.className(label))}` : "",
      `${model.blocks} blocks`,
      `${tokens.grid[0]}\u00a0×\u00a0${tokens.grid[1]} patches`,
      `${count(snapshot.C)} classes`,
    ];
    say(about, words.filter(Boolean).join("  ·  "));
    const done = shown !== "baseline" && intervened.value ? (intervention?.label ?? "intervened") : "";
    say(doing, done);
    doing.title = done;
    const own = store.state.class_index.value;
    const label2 = typeof label === "number" ? label : -1;
    const best = snapshot.predicted(PREDICTED);
    chips.forEach((chip, i) => {
      chip.hidden = i >= best.length;
      if (chip.hidden) return;
      const { id, probability } = best[i];
      assign(chip, {
        "data-class": id,
        "aria-pressed": String(id === own),
        title: `${snapshot.className(id)}${id === label2 ? " (the picture's label)" : ""}: read this class`,
      });
      chip.style.setProperty("--p", `${100 * probability}%`);
      say(chip.children[0], shortName(snapshot.className(id)));
      say(chip.children[1], percent(probability));
    });
    const footnotes = [
      snapshot.meta.payload.note,
      approximateNote(snapshot.meta),
      ...(snapshot.meta.caveats ?? []),
    ];
    notes.replaceChildren(
      ...[...new Set(footnotes)].filter((n) => n).map((n) => h("p", { class: "csw-note" }, n ?? "")),
    );
    notes.hidden = notes.childElementCount === 0;
  });
  choosesClass(predicted, store, abort);

  watch(abort, () => {
    title.classList.toggle("csw-roomy", whatIfPossible(store));
    upload.hidden = store.kernel.value !== "live";
    upload.disabled = store.notice.value.kind === "busy";
  });

  const send = async (picture: File) => {
    if (store.kernel.peek() !== "live") return;
    const bytes = await picture.arrayBuffer();
    await store.request("image", { name: picture.name }, [bytes], `reading ${picture.name}`);
  };
  upload.addEventListener("click", () => file.click(), on);
  file.addEventListener(
    "change",
    () => {
      const chosen = file.files?.[0];
      if (chosen) void send(chosen);
      file.value = "";
    },
    on,
  );
  const carriesFile = (event: DragEvent) =>
    store.kernel.peek() === "live" && (event.dataTransfer?.types.includes("Files") ?? false);
  root.addEventListener(
    "dragover",
    (event) => {
      if (!carriesFile(event)) return;
      event.preventDefault();
      root.classList.add("csw-drop");
    },
    on,
  );
  root.addEventListener(
    "dragleave",
    (event) => {
      if (!root.contains(event.relatedTarget as Node | null)) root.classList.remove("csw-drop");
    },
    on,
  );
  root.addEventListener(
    "drop",
    (event) => {
      root.classList.remove("csw-drop");
      if (!carriesFile(event)) return;
      claim(event);
      const dropped = [...(event.dataTransfer?.files ?? [])].find((f) => f.type.startsWith("image/"));
      if (dropped) void send(dropped);
      else store.fail(new Error("what was dropped is no picture"));
    },
    on,
  );
}
