/** When every token settles: the first point of the residual stream from which its last class stays first. */

import { kept } from "../core/collections";
import type { Readings } from "../core/readings";
import type { Field, Question } from "./field";
import { ofSomeClasses, undefinedHere } from "./lens";
import { sequential } from "./scale";

const known = new WeakMap<Readings, Float32Array>();

/** Positions [V], NaN for tokens that are not read; null where the top classes of some points are not at hand. */
export function decidedAt(readings: Readings): Float32Array | null {
  const { points, V } = readings.snapshot;
  const tops = points.along("residual").map((point) => readings.all.top1(point));
  if (tops.some((top) => top === null)) return null;
  return kept(known, readings, () =>
    Float32Array.from({ length: V }, (_, t) => {
      const classes = tops.map((top) => top?.[t] ?? -1);
      const final = classes[classes.length - 1];
      return final < 0 ? Number.NaN : classes.reduce((from, id, at) => (id === final ? from : at + 1), 0);
    }),
  );
}

export function decidedField({ snapshot, readings, empty, filled }: Question): Field {
  const { points, N, S, prefix } = snapshot;
  if (readings.lens?.classes) return empty(ofSomeClasses(readings));
  const values = decidedAt(readings);
  if (!values) return empty("The top classes of all points of the residual stream are not at hand.");
  const { lens } = readings;
  return filled(values, {
    ...sequential(0, N - 1),
    title: "where each token settles",
    format: (v) => points.name(Math.round(v)),
    blank: lens && !readings.defined(S - 1, prefix) ? undefinedHere(lens) : "",
  });
}
