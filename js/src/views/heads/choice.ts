/** Choosing an attention head: the patch map shows what it sends, or importance through it, until it is let go. */

import { untracked } from "@preact/signals-core";
import type { Reading } from "../../core/state";
import type { Store } from "../../core/store";

/** What chooses a head, or lets it go where it is chosen already. */
export function headChoice(store: Store): (block: number, head: number) => void {
  const { state } = store;
  /** Reading to go back to. */
  let before: Reading = "identifiability";
  return (block, head) => {
    const chosen = state.head.peek();
    const reading = state.reading.peek();
    const own = store.data.peek().snapshot.meta.model.sources_refused ? "attention" : "source";
    if (chosen?.[0] === block && chosen[1] === head) {
      const whole = reading === "importance" ? ({ importance_of: "all" } as const) : {};
      return store.set({ head: null, reading: reading === own ? before : reading, ...whole });
    }
    if (reading === "importance") return store.set({ head: [block, head], importance_of: "head" });
    if (reading !== own) before = reading;
    store.set({ head: [block, head], reading: own });
    untracked(() => store.requests.attention(store.activeTokens.peek()));
  };
}
