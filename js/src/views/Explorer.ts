/** All views of a session, composed for any width from a phone to a full page. */

import { message } from "../core/codec";
import { h } from "../core/dom";
import { approximateNote } from "../core/format";
import { onFrame } from "../core/frame";
import { runIdle } from "../core/idle";
import { load } from "../core/scripts";
import type { Store } from "../core/store";
import { addStyles, type Styles } from "../core/styles";
import { mount as ClassPicker } from "./ClassPicker";
import { mount as ContributionBars } from "./ContributionBars";
import { crop } from "./explorer/crop";
import { header } from "./explorer/header";
import { upload } from "./explorer/upload";
import { mount as HeadGrid } from "./HeadGrid";
import { mount as LayerSlider } from "./LayerSlider";
import { later } from "./later";
import { mount as PatchHeatmap } from "./PatchHeatmap";
import { protect, root } from "./parts";
import { mount as TokenTrajectories } from "./TokenTrajectories";
import { mount as TopClasses } from "./TopClasses";
import type { Mount, Options } from "./view";

/** Places of the layout, and the views in each. */
const AREAS: Readonly<Record<string, Readonly<Record<string, Mount>>>> = {
  slider: { LayerSlider },
  picture: { PatchHeatmap },
  side: { ClassPicker, TopClasses },
  heads: { HeadGrid },
  charts: { ContributionBars, TokenTrajectories },
  whatif: {
    WhatIf: later("WhatIf", "the what-if panel"),
    HeatGrid: later("HeatGrid", "the sweeps"),
  },
};

/** The script `tour.js`: guided tours. */
export interface Tours {
  readonly STYLES: Styles;
  mount(el: HTMLElement, store: Store, abort: AbortSignal, tours: unknown): void;
}

interface ExplorerOptions extends Options {
  /** Mount views one after the other, so that a page is not blocked by all of them at once. */
  readonly paced?: boolean;
}

export function mount(
  el: HTMLElement,
  store: Store,
  abort: AbortSignal,
  { paced = false, tours }: ExplorerOptions = {},
): void {
  const section = root(el, abort, "explorer", "Class space explorer");
  const layout = h("div", { class: "csw-layout" });
  const head = header(store, abort, ...crop(store, abort), ...upload(store, abort, section));
  section.append(head, layout, footnotes(store, abort));
  const mounting = mountAll(layout, store, abort);
  if (paced) void runIdle(mounting, abort);
  else for (const _ of mounting);
  if (tours) void tour(section, store, abort, tours);
}

function* mountAll(layout: HTMLElement, store: Store, abort: AbortSignal): Generator<void, void, void> {
  for (const [area, views] of Object.entries(AREAS)) {
    const place = h("div", { class: "csw-area", "data-area": area });
    place.style.gridArea = area;
    layout.append(place);
    for (const [name, view] of Object.entries(views)) {
      protect(place, abort, name, (own) => view(place, store, own, { composed: true }));
      yield;
    }
  }
}

async function tour(section: HTMLElement, store: Store, abort: AbortSignal, tours: unknown): Promise<void> {
  try {
    const { STYLES, mount } = await load<Tours>("tour", store.transport);
    if (abort.aborted) return;
    addStyles(section, STYLES);
    mount(section, store, abort, tours);
  } catch (error) {
    store.fail(new Error(`The guided tour cannot be loaded: ${message(error)}`));
  }
}

/** What is to be known of the numbers: how they travel, how exact they are, and what the model's readings mean. */
function footnotes(store: Store, abort: AbortSignal): HTMLElement {
  const node = h("div", { class: "csw-footnotes" });
  onFrame(abort, () => {
    const { meta } = store.data.value.snapshot;
    const notes = [meta.model.description, meta.payload.note, approximateNote(meta), ...(meta.caveats ?? [])];
    node.replaceChildren(
      ...[...new Set(notes)].filter((n) => n).map((n) => h("p", { class: "csw-note" }, n ?? "")),
    );
    node.hidden = node.childElementCount === 0;
  });
  return node;
}
