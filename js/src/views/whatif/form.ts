/** Choosing an intervention: what is done, in which blocks, and how. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { range } from "../../core/collections";
import { button, h, listen } from "../../core/dom";
import { onFrame, watch } from "../../core/frame";
import { ACTIONS, type Action, type Choice, describe, obstacle } from "../../core/interventions";
import type { PinnedStep } from "../../core/pins";
import type { Store } from "../../core/store";
import { checkbox, options, select } from "../controls";

export interface Form {
  readonly node: HTMLElement;
  readonly apply: HTMLButtonElement;
  readonly action: ReadonlySignal<Action>;
  /** Why it cannot be applied now; empty when it can. */
  readonly obstacle: ReadonlySignal<string>;
  /** The intervention that is chosen. */
  step(): PinnedStep;
}

/** `changed` is told when another intervention was chosen; `tools` stand beside the button that applies it. */
export function form(store: Store, abort: AbortSignal, changed: () => void, ...tools: Node[]): Form {
  const { state, baseline } = store;
  const chosen = signal("remove");
  const action = computed(() => ACTIONS[chosen.value]);
  const renormalise = signal(false);
  const actions = select(
    "Intervention",
    Object.entries(ACTIONS).map(([key, { name }]) => [key, name]),
  );
  const [blocks, span] = blockSpan(store, abort);
  const norm = checkbox(
    abort,
    "renormalise",
    renormalise,
    "Mask before the softmax, so that the other weights grow; else set weights to zero after it",
  );
  norm.classList.add("csw-label");
  const apply = button({ class: "csw-button csw-primary" }, "Apply");
  const choice = computed((): Choice => {
    const { snapshot } = baseline.value;
    const wanted = action.value.needs.includes("patches");
    const tokens = state.tokens.value.filter((t) => (wanted ? snapshot.isImageToken(t) : t < snapshot.T));
    return {
      tokens: [...tokens].sort((a, b) => a - b),
      from: span.value[0],
      to: span.value[1],
      renormalise: renormalise.value,
      head: state.head.value,
    };
  });
  listen(actions, abort, {
    change: () => {
      chosen.value = actions.value;
      changed();
    },
  });
  onFrame(abort, () => {
    const { title, needs } = action.value;
    actions.title = title;
    blocks.hidden = !needs.includes("blocks");
    norm.hidden = !needs.includes("renormalise");
  });
  const doing = h("span", { class: "csw-tools" }, apply, ...tools);
  return {
    node: h("div", { class: "csw-bar-row" }, actions, blocks, norm, doing),
    apply,
    action,
    obstacle: computed(() => obstacle(action.value, choice.value, baseline.value.snapshot)),
    step() {
      const spec = action.peek().build(choice.peek());
      return { spec, label: describe(spec, action.peek(), baseline.peek().snapshot.L) };
    },
  };
}

/** First and last block. */
function blockSpan(
  { baseline }: Store,
  abort: AbortSignal,
): readonly [HTMLElement, Signal<readonly [number, number]>] {
  const span = signal<readonly [number, number]>([1, baseline.peek().snapshot.L]);
  const ends = [select("First block"), select("Last block")];
  const [from, to] = ends;
  for (const end of ends) {
    listen(end, abort, {
      change: () => {
        span.value = [Number(from.value), Number(to.value)];
      },
    });
  }
  watch(abort, () => {
    const { L } = baseline.value.snapshot;
    for (const end of ends) {
      if (end.options.length !== L) end.replaceChildren(...options(range(L, (i) => [i + 1, String(i + 1)])));
    }
    if (span.peek()[1] > L) span.value = [1, L];
  });
  onFrame(abort, () => {
    ends.forEach((end, i) => {
      end.value = String(span.value[i]);
    });
  });
  const words = h("span", { class: "csw-label" }, "blocks");
  return [h("span", { class: "csw-bar-row" }, words, from, "–", to), span];
}
