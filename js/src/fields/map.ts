/** The field of an extra map that the snapshot carries. */

import { number } from "../core/format";
import type { Field, Question } from "./field";
import { diverging, peakOf, robustPeak, sequential } from "./scale";

export function mapField({ store, snapshot, empty, filled }: Question): Field {
  const found =
    snapshot.maps.get(store.state.map_name.value) ??
    (snapshot.maps.infos[0] && snapshot.maps.get(snapshot.maps.infos[0].name));
  if (!found) return empty("This snapshot holds no token map.");
  const { info, values } = found;
  return filled(values, {
    ...(info.signed ? diverging(robustPeak(values, snapshot)) : sequential(0, peakOf(values))),
    title: info.label,
    format: (v) => number(v, 3),
    note: info.note ?? "",
  });
}
