/** A map in one sentence, for who cannot see it. */

import { range } from "../../core/collections";
import type { Snapshot } from "../../core/snapshot";
import type { Field } from "../../fields/field";

/** Where a map is highest: at its highest patch, and those around it that are within a quarter of its range. */
export function summary(f: Field, { prefix, rows, columns }: Snapshot): string {
  if (f.state !== "ready" || f.kind === "categorical") return f.blank || f.note || f.title;
  const sign = f.reading === "rank" ? -1 : 1;
  const all = range(rows * columns, (i) => sign * f.values[prefix + i]);
  const known = all.filter((value) => !Number.isNaN(value));
  const top = Math.max(...known);
  const least = top - (top - Math.min(...known)) / 4;
  const found = new Set([all.indexOf(top)]);
  // What is added on the way is visited, too.
  for (const i of found) {
    const left = i % columns ? i - 1 : -1;
    const right = (i + 1) % columns ? i + 1 : -1;
    for (const next of [i - columns, i + columns, left, right]) if (all[next] >= least) found.add(next);
  }
  const span = (name: string, at: (i: number) => number) => {
    const places = [...found].map((i) => Math.floor(at(i)) + 1);
    const [first, last] = [Math.min(...places), Math.max(...places)];
    return first === last ? `${name} ${first}` : `${name}s ${first} to ${last}`;
  };
  const where = `${span("row", (i) => i / columns)}, ${span("column", (i) => i % columns)}`;
  return `${f.title}: ${sign < 0 ? "lowest" : "highest"} on ${where}`;
}
