/** The classes of the model's output before and after. */

import { button, h } from "../../core/dom";
import { percent } from "../../core/format";
import { onFrame } from "../../core/frame";
import type { Snapshot } from "../../core/snapshot";
import type { Store } from "../../core/store";
import { choosesClass } from "../controls";

/** Classes in each column. */
const TOP = 5;

export function outcome(store: Store, abort: AbortSignal): HTMLElement {
  const node = h("div", { class: "csw-outcome" });
  onFrame(abort, () => {
    const { snapshot } = store.baseline.value;
    const after = store.intervened.value?.snapshot;
    node.hidden = !after && !store.live;
    node.replaceChildren(
      column("before", snapshot, after, "gone", "after"),
      // Without an intervention there is its place.
      ...(after ? [column("after", after, snapshot, "new", "before")] : []),
    );
  });
  choosesClass(node, store, abort);
  return node;
}

/** Classes that are not among those of the `other` pass have a tag. */
function column(
  name: string,
  own: Snapshot,
  other: Snapshot | undefined,
  tag: string,
  away: string,
): HTMLElement {
  const known = other?.predicted(TOP).map(({ id }) => id);
  const rows = own.predicted(TOP).map(({ id, probability }) => {
    const row = button({ class: "csw-outcome-row", "data-class": id }, h("span", {}, own.shortName(id)));
    row.style.setProperty("--p", `${100 * probability}%`);
    if (known && !known.includes(id))
      row.append(h("small", { class: "csw-tag", title: `Not among the first ${TOP} ${away}` }, tag));
    row.append(h("data", {}, percent(probability)));
    return row;
  });
  return h("div", {}, h("p", { class: "csw-label" }, name), ...rows);
}
