/** Mounting a view of a session by name. */

import { claim, listen } from "./core/dom";
import type { Store } from "./core/store";
import { frameIn, showProblem } from "./mounting";
import { VIEWS } from "./views";
import { protect } from "./views/parts";
import { statusLine } from "./views/status";
import { STYLES } from "./views/styles";
import type { Options } from "./views/view";

/** Key D shows the pass before an intervention, after it, and the change; key L takes the next lens. */
function shortcuts(event: KeyboardEvent, store: Store): void {
  const typing =
    event.target instanceof Element && event.target.matches("input:not([type=range]), textarea, select");
  if (event.ctrlKey || event.metaKey || event.altKey || typing) return;
  const key = event.key.toLowerCase();
  if (key === "d" && store.intervened.peek()) store.nextShown();
  else if (key === "l" && store.baseline.peek().snapshot.lenses.length > 0) store.nextLens();
  else return;
  claim(event);
}

export function mountView(
  view: string,
  el: HTMLElement,
  store: Store,
  abort: AbortSignal,
  options: Options = {},
): void {
  const mount = Object.hasOwn(VIEWS, view) ? VIEWS[view] : undefined;
  if (!mount) {
    showProblem(
      el,
      abort,
      STYLES,
      "This view is not known",
      `Expected one of ${Object.keys(VIEWS).join(", ")}, got ${view}.`,
    );
    return;
  }
  const frame = frameIn(el, abort, STYLES);
  listen(frame, abort, { keydown: (event) => shortcuts(event, store) });
  protect(frame, abort, view, (own) => mount(frame, store, own, options));
  if (view !== "Explorer") frame.append(statusLine(store, abort, "error"));
}
