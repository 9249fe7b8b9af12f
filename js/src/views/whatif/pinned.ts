/** Coming back to interventions that were kept: those that the kernel knows, or the passes that a page carries. */

import type { ReadonlySignal } from "@preact/signals-core";
import { h, listen } from "../../core/dom";
import { onFrame } from "../../core/frame";
import type { Pin, PinnedStep } from "../../core/pins";
import type { Store } from "../../core/store";
import { select } from "../controls";

const specs = (list: readonly PinnedStep[]) => JSON.stringify(list.map((step) => step.spec));

/** The pin of these interventions, if they are kept. */
export function pinOf(store: Store, steps: readonly PinnedStep[]): Pin | undefined {
  return store.pins.value.find((pin) => specs(pin.steps) === specs(steps));
}

/** The names of what can be come back to; with a kernel, the first one is none of them. */
export function pinnedNames({ live, pins, pinned }: Store): string[] {
  if (live) return ["pinned …", ...pins.value.map((pin) => pin.label)];
  return pinned.value.map((pass, i) =>
    pass ? pass.snapshot.meta.intervention?.label || `pass ${i + 1}` : `pass ${i + 1} (damaged)`,
  );
}

export function pinnedSelect(
  store: Store,
  abort: AbortSignal,
  steps: ReadonlySignal<readonly PinnedStep[]>,
  run: (steps: readonly PinnedStep[], label?: string) => void,
): HTMLElement {
  const { pins, pinned, intervened } = store;
  const node = select("Pinned interventions");
  listen(node, abort, {
    change: () => {
      const at = Number(node.value);
      const pin = pins.peek()[at];
      if (!store.live) store.showPinned(at);
      else run(pin?.steps ?? [], pin?.label);
    },
  });
  onFrame(abort, () => {
    const { live } = store;
    const names = pinnedNames(store);
    node.hidden = names.length < 2;
    if ([...node.options].map((o) => o.text).join("\n") !== names.join("\n")) {
      node.replaceChildren(
        ...names.map((name, i) => {
          const disabled = !live && !pinned.value[i];
          return h("option", { value: live ? i - 1 : i, disabled }, name);
        }),
      );
    }
    const kept = pinOf(store, steps.value);
    if (live) node.value = String(kept ? pins.value.indexOf(kept) : -1);
    else if (intervened.value) node.value = String(store.pinnedShown);
  });
  return node;
}
