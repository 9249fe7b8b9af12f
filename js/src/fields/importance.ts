/** Fields of token importance: how much each token matters in the model's own pass. */

import { number, signed } from "../core/format";
import type { Shares } from "../core/importance";
import type { Snapshot } from "../core/snapshot";
import type { Importance } from "../core/state";
import type { Store } from "../core/store";
import type { Field, Question } from "./field";
import { diverging, peakOf, robustPeak, sequential } from "./scale";

export const METHOD_NAMES: Readonly<Record<Importance, string>> = {
  gradient: "gradient",
  direct: "direct contribution",
  flow: "flow from the embedding",
  chefer: "Chefer et al.",
  rollout: "rollout",
  attention: "attention",
};

const METHODS: Readonly<Record<Importance, string>> = {
  gradient: "Gradient of the class logit of what attention adds, with respect to attention weights.",
  direct: "What moves straight from each token through attention to the final class logit.",
  flow: "What each token of the embedding brings to the class logit through all blocks; adds up exactly with the biases.",
  chefer: "Chefer et al. 2021: attention weighted by its gradient, carried through the blocks.",
  rollout: "Attention carried through the blocks; the same for every class.",
  attention: "Attention of the last block, mean over heads; the same for every class.",
};

/** First and last block, first and last head that importance is summed over; the last ones excluded. */
type Span = readonly [number, number, number, number];

/** How much each token matters, in the model's own pass, through all blocks, one block, or one head. */
export function importanceField({ store, snapshot, id, other, versus, empty, filled }: Question): Field {
  const { state } = store;
  const method = state.importance.value;
  const parts = [id, other].filter((c) => c !== null);
  const shares = parts.map((c) => snapshot.importance.get(method, c));
  const lost = parts.find((_, i) => !shares[i]);
  if (lost !== undefined) {
    const name = snapshot.shortName(lost);
    if (!store.live) {
      return empty(`The token importance for ${name} was not saved; a running kernel would compute it.`);
    }
    return store.notice.value.kind === "error" && store.requests.asked("importance", { method }, lost)
      ? empty(`The token importance for ${name} could not be computed.`)
      : empty(`Computing the token importance for ${name} …`, true);
  }
  const [own, against] = shares as Shares[];
  const [span, words] = spanOf(store, snapshot, own);
  if (!span) return empty(words);
  const values = portion(own, span, snapshot.V);
  const others = against && portion(against, span, snapshot.V);
  if (others) for (let t = 0; t < values.length; t++) values[t] -= others[t];
  const peak = robustPeak(values, snapshot);
  return filled(values, {
    ...(own.signed || against
      ? { ...diverging(peak), format: (v) => signed(v, 3) }
      : { ...sequential(0, peak), format: (v) => number(v, 3) }),
    title: `importance for ${versus}${words}`,
    note: METHODS[method],
    clipped: peakOf(values) > peak,
  });
}

/** The blocks and heads that importance is summed over, and words for them. */
function spanOf({ state }: Store, snapshot: Snapshot, { blocks, heads }: Shares): [Span | null, string] {
  const of = state.importance_of.value;
  if (of === "all") return [[0, blocks, 0, heads], ""];
  const method = METHOD_NAMES[state.importance.value];
  if (of === "block") {
    const block = state.block.value;
    if (blocks === 1 && snapshot.L > 1) return [null, `${method} does not tell blocks apart.`];
    if (block === 0) return [null, "The embedding is before all blocks: move the slider to a block."];
    return [[block - 1, block, 0, heads], ` through block ${block}`];
  }
  const head = state.head.value;
  if (!head) return [null, "Choose an attention head in the head grid: importance through it is shown here."];
  if (heads === 1 && snapshot.H > 1) return [null, `${method} does not tell heads apart.`];
  return [[head[0] - 1, head[0], head[1], head[1] + 1], ` through head ${head[1]} of block ${head[0]}`];
}

/** Importance of every token, summed over some blocks and heads. */
function portion({ heads, values }: Shares, [b0, b1, h0, h1]: Span, V: number): Float32Array {
  const out = new Float32Array(V);
  for (let b = b0; b < b1; b++) {
    for (let k = h0; k < h1; k++) {
      const base = (b * heads + k) * V;
      for (let t = 0; t < V; t++) out[t] += values[base + t];
    }
  }
  return out;
}
