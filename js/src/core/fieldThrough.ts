/** Fields of what passes between tokens: attention, what a head sends, and how much a token matters. */

import type { Field } from "./field";
import { diverging, peakOf, robustPeak, sequential } from "./fieldScale";
import { number, percent, shortName, signed } from "./format";
import type { Readings } from "./readings";
import type { Shares, Snapshot } from "./snapshot";
import type { Importance } from "./state";
import type { Store } from "./store";

/** Of what a field is asked, and how it is answered. */
export interface Asked {
  readonly store: Store;
  readonly snapshot: Snapshot;
  readonly readings: Readings;
  readonly id: number;
  readonly other: number | null;
  /** The class, or the difference of the two, in words. */
  readonly versus: string;
  /** Nothing to see, and why. */
  readonly empty: (note: string, pending?: boolean) => Field;
  readonly make: (values: Float32Array, part: Partial<Field>) => Field;
}

export const METHOD_NAMES: Readonly<Record<Importance, string>> = {
  gradient: "gradient",
  direct: "direct contribution",
  chefer: "Chefer et al.",
  rollout: "rollout",
  attention: "attention",
};

const METHODS: Readonly<Record<Importance, string>> = {
  gradient: "Gradient of the class logit of what attention adds, with respect to attention weights.",
  direct: "What moves straight from each token through attention to the final class logit.",
  chefer: "Chefer et al. 2021: attention weighted by its gradient, carried through the blocks.",
  rollout: "Attention carried through the blocks; the same for every class.",
  attention: "Attention of the last block, mean over heads; the same for every class.",
};

/** First and last block, first and last head; the last ones excluded. */
type Through = readonly [number, number, number, number];

/** How much each token matters, in the model's own pass, through all blocks, one block, or one head. */
export function importanceField({ store, snapshot, id, other, versus, empty, make }: Asked): Field {
  const { state } = store;
  const method = state.importance.value;
  const parts = [id, other].filter((c): c is number => c !== null);
  const shares = parts.map((c) => snapshot.importance(method, c));
  const lost = parts.find((_, i) => !shares[i]);
  if (lost !== undefined) {
    const name = shortName(snapshot.className(lost));
    if (store.kernel.value !== "live") {
      return empty(
        `The token importance for ${name} is not in what was saved; with a kernel it would be computed.`,
      );
    }
    return store.notice.value.kind === "error" && store.wishes.wished(method, lost)
      ? empty(`The token importance for ${name} could not be computed.`)
      : empty(`Looking for what matters for ${name} …`, true);
  }
  const [own, against] = shares as Shares[];
  const [through, words] = scope(store, snapshot, own);
  if (!through) return empty(words);
  const values = portion(own, through, snapshot.V);
  const others = against && portion(against, through, snapshot.V);
  if (others) for (let t = 0; t < values.length; t++) values[t] -= others[t];
  const peak = robustPeak(values, snapshot);
  return make(values, {
    ...(own.signed || against ? diverging(peak) : sequential(0, peak)),
    title: `importance for ${versus}${words}`,
    format: (v) => (own.signed || against ? signed(v, 3) : number(v, 3)),
    note: METHODS[method],
    clipped: peakOf(values) > peak,
  });
}

/** The blocks and heads that importance is summed over, and words for them. */
function scope({ state }: Store, snapshot: Snapshot, { blocks, heads }: Shares): [Through | null, string] {
  const of = state.importance_of.value;
  if (of === "all") return [[0, blocks, 0, heads], ""];
  const method = METHOD_NAMES[state.importance.value];
  if (of === "block") {
    const block = state.block.value;
    if (blocks === 1 && snapshot.L > 1) return [null, `${method} does not tell blocks apart.`];
    if (block === 0) return [null, "Tokens matter through blocks: move the slider to one."];
    return [[block - 1, block, 0, heads], ` through block ${block}`];
  }
  const head = state.head.value;
  if (!head) return [null, "Choose an attention head in the head grid: importance through it is shown here."];
  if (heads === 1 && snapshot.H > 1) return [null, `${method} does not tell heads apart.`];
  return [[head[0] - 1, head[0], head[1], head[1] + 1], ` through head ${head[1]} of block ${head[0]}`];
}

/** Importance of every token, summed over some blocks and heads. */
function portion({ heads, values }: Shares, [b0, b1, h0, h1]: Through, V: number): Float32Array {
  const out = new Float32Array(V);
  for (let b = b0; b < b1; b++) {
    for (let k = h0; k < h1; k++) {
      const base = (b * heads + k) * V;
      for (let t = 0; t < V; t++) out[t] += values[base + t];
    }
  }
  return out;
}

/** What a head sends for the class, or for the class minus the other one. */
function sent(
  { readings, id, other }: Asked,
  block: number,
  head: number,
  token: number,
): Float32Array | null {
  const mine = readings.source(id, block, head, token);
  if (other === null) return mine;
  const theirs = readings.source(other, block, head, token);
  return mine && theirs ? mine.map((v, i) => v - theirs[i]) : null;
}

/** Where a head looks from the selected tokens, or what it sends them for the class. */
export function headField(asked: Asked): Field {
  const { store, snapshot, versus, empty, make } = asked;
  const { state } = store;
  const reading = state.reading.value;
  const head = state.head.value;
  if (!head) return empty("Choose an attention head in the head grid: its weights are shown here.");
  const [block, h] = head;
  const refused = snapshot.meta.model.sources_refused;
  if (reading === "source" && refused) {
    return empty(`What a head sends from every token is not defined in this model: ${refused}.`);
  }
  const tokens = store.activeTokens.value;
  const from = tokens.length === 1 ? snapshot.tokenName(tokens[0]) : `${tokens.length} tokens`;
  const known = tokens.filter((t) => snapshot.attentionRows.includes(t));
  if (known.length === 0) {
    const live = store.kernel.value === "live";
    return empty(
      live
        ? `Reading the attention weights of ${from} …`
        : `The attention weights of ${from} are not in what was saved; known: ${nameRows(snapshot)}.`,
      live,
    );
  }
  const name = `head ${h} of block ${block}`;
  const values = new Float32Array(snapshot.V).fill(Number.NaN);
  values.fill(0, 0, snapshot.T);
  for (const t of known) {
    const part = reading === "attention" ? snapshot.attention(block, h, t) : sent(asked, block, h, t);
    if (!part)
      return empty(
        `What each token sends through ${name} is not at hand for ${versus}.`,
        store.kernel.value === "live",
      );
    for (let s = 0; s < snapshot.T; s++) values[s] += part[s] / known.length;
  }
  if (reading === "attention") {
    let peak = 0;
    for (let s = snapshot.prefix; s < snapshot.T; s++) peak = Math.max(peak, values[s]);
    const top = peak || 1;
    return make(values, {
      ...sequential(0, top),
      title: `attention of ${name} from ${from}`,
      format: (v) => percent(v),
      clipped: peakOf(values) > top,
    });
  }
  const peak = robustPeak(values, snapshot);
  return make(values, {
    ...diverging(peak),
    title: `sent through ${name} to ${versus} at ${from}`,
    format: (v) => signed(v, 3),
    clipped: peakOf(values) > peak,
  });
}

function nameRows(snapshot: Snapshot): string {
  const names = snapshot.attentionRows.slice(0, 4).map((t) => snapshot.tokenName(t));
  return names.length > 0 ? names.join(", ") : "none";
}
