/** Views that stand in a script of their own, loaded when they are first needed: until then, words stand in their place. */

import { message } from "../core/codec";
import { button, h, listen } from "../core/dom";
import { onAbort, watch } from "../core/frame";
import { atHand, load } from "../core/scripts";
import type { Store } from "../core/store";
import { addStyles, type Styles } from "../core/styles";
import { protect } from "./parts";
import type { Mount, Options } from "./view";

/** The script `actions.js`: what asks the model for something new. */
export interface Actions {
  readonly STYLES: Styles;
  readonly WhatIf: Mount;
  readonly HeatGrid: Mount;
  cropEditor(store: Store, abort: AbortSignal, close: () => void): Node[];
}

/** A view of `actions.js`, loaded once a model answers, or a pass with interventions is there. */
export function later(view: "WhatIf" | "HeatGrid", title: string): Mount {
  return (el, store, abort, options) => {
    const place = h("div", { class: "csw-later" });
    el.append(place);
    onAbort(abort, () => place.remove());
    let begun = false;
    watch(abort, () => {
      if (begun || !(store.live || store.intervened.value || store.pinned.value.length > 0)) return;
      begun = true;
      fill(place, store, abort, view, title, options);
    });
  };
}

function fill(
  place: HTMLElement,
  store: Store,
  abort: AbortSignal,
  view: "WhatIf" | "HeatGrid",
  title: string,
  options: Options | undefined,
): void {
  const show = (actions: Actions) => {
    if (abort.aborted) return;
    place.replaceChildren();
    addStyles(place, actions.STYLES);
    protect(place, abort, view, (own) => actions[view](place, store, own, options));
  };
  const ready = atHand<Actions>("actions");
  if (ready) {
    show(ready);
    return;
  }
  const say = (words: string, ...more: Node[]) =>
    place.replaceChildren(h("p", { class: "csw-note", role: "status" }, words, " ", ...more));
  const ask = () => {
    say(`Loading ${title} …`);
    load<Actions>("actions", store.transport).then(show, (error) => {
      const again = button({ class: "csw-button" }, "Try again");
      listen(again, abort, { click: ask });
      say(`Cannot load ${title}: ${message(error)}.`, again);
    });
  };
  ask();
}
