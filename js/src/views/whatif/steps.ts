/** The interventions of the pass that is shown beside the baseline, and running others: one list for all views of a store. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals-core";
import { kept } from "../../core/collections";
import type { PinnedStep } from "../../core/pins";
import type { Store } from "../../core/store";

const labelOf = (steps: readonly PinnedStep[]) => steps.map((step) => step.label).join("; ");

export class Steps {
  /** What was done to the pass, whichever view or cell asked for it. */
  readonly all: ReadonlySignal<readonly PinnedStep[]>;
  readonly running: Signal<boolean> = signal(false);
  /** Why the last one did not run. */
  readonly problem: Signal<string> = signal("");
  /** The action that is chosen in the panel. */
  readonly chosen: Signal<string> = signal("remove");
  readonly #store: Store;

  constructor(store: Store) {
    this.#store = store;
    this.all = computed(() => {
      const done = store.intervened.value?.snapshot.meta.intervention;
      return (done?.spec ?? []).map((spec, i) => ({ spec, label: done?.labels?.[i] ?? String(spec.type) }));
    });
  }

  /** Run the model with these steps; the old state stays until the answer is there. Whether it came. */
  async run(next: readonly PinnedStep[], label = labelOf(next)): Promise<boolean> {
    const store = this.#store;
    this.problem.value = "";
    if (next.length === 0) {
      store.removeInterventions();
      return true;
    }
    const { mode } = store.baseline.peek().snapshot.meta.payload;
    const [spec, labels] = [next.map((step) => step.spec), next.map((step) => step.label)];
    const params = { spec, labels, label, payload: mode };
    this.running.value = true;
    const answer = await store.request("whatif", params, [], "running the model with the intervention");
    this.running.value = false;
    if (store.signal.aborted) return false;
    if (!answer) this.problem.value = store.notice.peek().text;
    else if (store.state.shown.peek() === "baseline") store.set({ shown: "intervened" });
    return answer !== null;
  }

  /** One more step. */
  add(step: PinnedStep): Promise<boolean> {
    return this.run([...this.all.peek(), step]);
  }
}

const made = new WeakMap<Store, Steps>();

/** The steps of a store. */
export const stepsOf = (store: Store): Steps => kept(made, store, () => new Steps(store));

export { labelOf };
