/** Marks and block numbers below the slider. */

import { computed, type ReadonlySignal } from "@preact/signals-core";
import { range } from "../../core/collections";
import { h } from "../../core/dom";
import { onFrame } from "../../core/frame";
import type { Store } from "../../core/store";
import { decidedAt } from "../../fields/decided";

/** Pixels that a block number needs. */
const ROOM = 20;
/** The narrowest width that numbers are thinned out for. */
const NARROW = 60;

export function ticks(store: Store, abort: AbortSignal, width: ReadonlySignal<number>): HTMLElement {
  const node = h("div", { class: "csw-ticks", "aria-hidden": "true" });
  // They change with the model, not with the position.
  const labels = computed(() => {
    const { points, L, N } = store.baseline.value.snapshot;
    const placed = <E extends HTMLElement>(tick: E, position: number): E => {
      tick.style.left = `${(100 * position) / Math.max(1, N - 1)}%`;
      return tick;
    };
    const numbers = range(L + 1, (block) =>
      placed(h("span", { class: "csw-tick-label" }, String(block)), points.middle(block)),
    );
    const marks = range(N, (position) => {
      const kind = points.kind(position);
      const name = kind === "attention" || kind === "mlp" ? ` csw-is-${kind}` : "";
      return placed(h("i", { class: `csw-tick-mark${name}` }), position);
    });
    node.replaceChildren(...marks, ...numbers);
    return { marks, numbers };
  });
  onFrame(abort, () => {
    const { points, L } = store.data.value.snapshot;
    const { block } = points.place(store.position.value);
    // Numbers that would run into each other are left out.
    const every = Math.ceil((L * ROOM) / Math.max(NARROW, width.value));
    const { readings, snapshot } = store.data.value;
    const settled = decidedAt(readings)?.[snapshot.output];
    labels.value.marks.forEach((mark, at) => {
      mark.classList.toggle("csw-settled", at === settled);
      mark.title = at === settled ? "From here on the answer's class stays first" : "";
    });
    labels.value.numbers.forEach((label, b) => {
      label.classList.toggle("csw-here", b === block);
      const hidden = b !== block && b % every !== 0;
      // Setting it again would cost a new layout in every frame.
      if (label.hidden !== hidden) label.hidden = hidden;
    });
  });
  return node;
}
