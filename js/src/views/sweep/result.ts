/** The grid of a sweep, from the kernel's answer. */

import { floats, unpack } from "../../core/codec";
import { signed } from "../../core/format";
import type { Store } from "../../core/store";
import type { Answer } from "../../core/transport";
import type { Grid } from "./board";

export type Kind = "heads" | "tokens";

/** A grid, and what a click on a cell goes to. */
export interface Sweep extends Grid {
  readonly pick: (row: number, column: number) => void;
}

/** What a sweep of a kind showed for a class. */
export function sweepOf(store: Store, kind: Kind, id: number, { result, buffers }: Answer): Sweep {
  const array = unpack(buffers[0]).arrays.get("grid");
  if (!array) throw new Error("the kernel's answer holds no grid");
  const { snapshot } = store.baseline.peek();
  const blocks = result.rows as number[];
  const places = result.columns as number[];
  const values = floats(array);
  const format = (v: number) => signed(v, 3);
  const change = `Change of ${snapshot.shortName(id)}'s logit when`;
  if (kind === "tokens") {
    const { prefix, columns } = snapshot;
    const starts = (t: number) => snapshot.isImageToken(t) && (t - prefix) % columns === 0;
    return {
      values,
      format,
      rows: blocks.map(String),
      columns: places.map((t) => (starts(t) ? String((t - prefix) / columns + 1) : "")),
      name: (row, column) => `block ${blocks[row]}, ${snapshot.tokenName(places[column])}`,
      title: `${change} no other token may read a token: a row for each block, a column for each token (numbers: rows of patches)`,
      pick: (row, column) =>
        store.set({ tokens: [places[column]], block: blocks[row], sublayer: "attention" }),
    };
  }
  // Heads down, blocks across: a head stands where it stands in the head grid.
  const n = places.length;
  return {
    values: values.map((_, i) => values[(i % blocks.length) * n + Math.floor(i / blocks.length)]),
    format,
    rows: places.map(String),
    columns: blocks.map(String),
    name: (row, column) => `block ${blocks[column]}, head ${places[row]}`,
    title: `${change} a head is switched off: a row for each head, a column for each block`,
    pick: (row, column) => {
      const block = blocks[column];
      store.set({ head: [block, places[row]], block, sublayer: "attention" });
    },
  };
}
