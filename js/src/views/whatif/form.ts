/** Choosing an intervention: what is done, in which blocks, and how. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { carriedOf, carriedWords } from "../../core/carried";
import { range } from "../../core/collections";
import { button, h, listen } from "../../core/dom";
import { onFrame, watch } from "../../core/frame";
import { ACTIONS, type Action, type Choice, describe, obstacle } from "../../core/interventions";
import type { PinnedStep } from "../../core/pins";
import type { Store } from "../../core/store";
import { OUTLIER } from "../../fields/norm";
import { checkbox, options, select } from "../controls";
import { carriedFields } from "./carried";
import type { Steps } from "./steps";

export interface Form {
  readonly node: HTMLElement;
  readonly apply: HTMLButtonElement;
  readonly action: ReadonlySignal<Action>;
  /** Why it cannot be applied now; empty when it can. */
  readonly obstacle: ReadonlySignal<string>;
  /** The intervention that is chosen. */
  step(): PinnedStep;
  /** Show an intervention as it was chosen; whether that is possible. */
  show(step: PinnedStep): void;
}

/** Whether the form can show an intervention, to be changed there. */
export const isEditable = ({ spec }: PinnedStep): boolean => carriedOf(spec) !== null;

/** `tools` stand beside the button that applies what is chosen. */
export function form(store: Store, abort: AbortSignal, steps: Steps, ...tools: Node[]): Form {
  const { state, baseline } = store;
  const { chosen } = steps;
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
  const carried = carriedFields(store, abort);
  const [long, longer] = longTokens(store, abort);
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
      longer: action.value.needs.includes("longer") ? longer.value : null,
      carried: carried.value.value,
      second: store.other.value !== null,
    };
  });
  listen(actions, abort, {
    change: () => {
      chosen.value = actions.value;
      steps.problem.value = "";
    },
  });
  onFrame(abort, () => {
    const { title, needs } = action.value;
    actions.title = title;
    actions.value = chosen.value;
    long.hidden = !needs.includes("longer");
    carried.node.hidden = !needs.includes("carried");
    blocks.hidden = !needs.includes("blocks");
    norm.hidden = !needs.includes("renormalise");
  });
  const doing = h("span", { class: "csw-tools" }, apply, ...tools);
  return {
    node: h("div", { class: "csw-bar-row" }, actions, long, blocks, norm, carried.node, doing),
    apply,
    action,
    obstacle: computed(() => obstacle(action.value, choice.value, baseline.value.snapshot)),
    step() {
      const spec = action.peek().build(choice.peek());
      const own = baseline.peek().snapshot;
      const put = carriedOf(spec);
      if (put) return { spec, label: carriedWords(put, choice.peek().tokens, own) };
      return { spec, label: describe(spec, action.peek(), own.L) };
    },
    show({ spec }) {
      const put = carriedOf(spec);
      if (!put) return;
      chosen.value = "carry";
      carried.set(put);
      store.set({
        tokens: (spec.tokens as number[] | undefined) ?? range(baseline.peek().snapshot.T, (t) => t),
      });
    },
  };
}

/** The tokens that are selected, or those longer than so many medians of a block (null: those selected). */
function longTokens(store: Store, abort: AbortSignal): readonly [HTMLElement, Signal<number | null>] {
  const longer = signal<number | null>(null);
  const which = select("Which tokens", [
    ["", "selected"],
    ["long", "longer than"],
  ]);
  const number = h("input", {
    class: "csw-number",
    type: "number",
    min: 0,
    step: 0.1,
    value: OUTLIER,
    "aria-label": "Medians of the block",
    title: "Length after any block, in units of the median of that block's patches",
  });
  const take = () => {
    longer.value = which.value === "" ? null : number.valueAsNumber;
  };
  listen(which, abort, { change: take });
  listen(number, abort, { input: take });
  const medians = h("span", { class: "csw-label" }, "medians");
  watch(abort, () => {
    number.hidden = medians.hidden = longer.value === null;
    // The model in a page does not measure them.
    which.hidden = store.runsHere;
  });
  return [h("span", { class: "csw-bar-row" }, which, number, medians), longer];
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
