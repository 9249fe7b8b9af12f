/** Fields of one attention head: where it looks, and what it sends. */

import { percent, signed } from "../core/format";
import type { Snapshot } from "../core/snapshot";
import type { Field, Question } from "./field";
import { around, peakOf, robustPeak, sequential } from "./scale";

/** What a head sends for the class, or for the class minus the other one. */
function sent(
  { readings, id, other }: Question,
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
export function headField(asked: Question): Field {
  const { store, snapshot, versus, empty, filled } = asked;
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
    const live = store.live;
    return empty(
      live
        ? `Reading the attention weights of ${from} …`
        : `The attention weights of ${from} were not saved; known: ${nameRows(snapshot)}.`,
      live,
    );
  }
  const name = `head ${h} of block ${block}`;
  const values = new Float32Array(snapshot.V).fill(Number.NaN);
  values.fill(0, 0, snapshot.T);
  for (const t of known) {
    const part = reading === "attention" ? snapshot.attention(block, h, t) : sent(asked, block, h, t);
    if (!part)
      return empty(`What each token sends through ${name} is not available for ${versus}.`, store.live);
    for (let s = 0; s < snapshot.T; s++) values[s] += part[s] / known.length;
  }
  if (reading === "attention") {
    let peak = 0;
    for (let s = snapshot.prefix; s < snapshot.T; s++) peak = Math.max(peak, values[s]);
    const top = peak || 1;
    return filled(values, {
      ...sequential(0, top),
      title: `attention of ${name} from ${from}`,
      format: (v) => percent(v),
      clipped: peakOf(values) > top,
    });
  }
  return filled(values, {
    ...around(values, robustPeak(values, snapshot)),
    title: `sent through ${name} to ${versus} at ${from}`,
    format: (v) => signed(v, 3),
  });
}

function nameRows(snapshot: Snapshot): string {
  const names = snapshot.attentionRows.slice(0, 4).map((t) => snapshot.tokenName(t));
  return names.length > 0 ? names.join(", ") : "none";
}
