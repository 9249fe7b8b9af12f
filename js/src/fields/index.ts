/**
 * What the patch map can show: one entry for every reading, and the field of the current state.
 *
 * A new reading is one more name in `classspace_widgets/state.json` and one more entry here.
 */

import { signed } from "../core/format";
import type { Data } from "../core/passes";
import type { Reading } from "../core/state";
import type { Store } from "../core/store";
import { contributionField, logitField, probabilityField, rankField, topField } from "./classes";
import { decidedField } from "./decided";
import { type Field, type FieldKind, question } from "./field";
import { flowField, knowsFlow } from "./flow";
import { headField } from "./heads";
import { importanceField } from "./importance";
import { undefinedHere } from "./lens";
import { mapField } from "./map";
import { normField, receivedField } from "./norm";
import { around, diverging, outside, robustPeak, sequential } from "./scale";

/** What readings of a head have in common. */
const OF_HEAD = {
  make: headField,
  ofHead: true,
  offered: (store: Store) => store.live || store.baseline.value.snapshot.attentionRows.length > 0,
  fetch: (store: Store) => store.requests.attention(store.activeTokens.value),
};

export const FIELDS: Readonly<Record<Reading, FieldKind>> = {
  identifiability: {
    name: "identifiability",
    help: "1 − rank / classes: how near the class is to the top, read at each token",
    make: (asked) => rankField(asked, true),
    ofLens: true,
    at: "point",
    ofClass: true,
  },
  rank: {
    name: "rank",
    help: "how many classes have a larger logit; 0 is best",
    make: (asked) => rankField(asked, false),
    ofLens: true,
    at: "point",
    ofClass: true,
  },
  logit: {
    name: "logit",
    help: "class logit of each token through the final norm and the classifier",
    make: logitField,
    ofLens: true,
    at: "point",
    ofClass: true,
  },
  probability: {
    name: "probability",
    help: "softmax of the logits over all classes",
    make: probabilityField,
    ofLens: true,
    at: "point",
    ofClass: true,
  },
  step: {
    name: "step contribution",
    help: "change of the class logit across this sublayer",
    make: (asked) => contributionField(asked, true),
    ofLens: true,
    at: "increment",
    ofClass: true,
  },
  direct: {
    name: "direct contribution",
    help: "what this sublayer adds to each token's final logit; sums exactly",
    make: (asked) => contributionField(asked, false),
    at: "increment",
    ofClass: true,
  },
  flow: {
    name: "flow",
    help: "what each token brings to the class logit from here on; with the biases it sums to the logit exactly",
    make: flowField,
    ofClass: true,
    ofBaseline: true,
    offered: knowsFlow,
    fetch: (store) => store.requests.flow(),
  },
  top1: {
    name: "top class",
    help: "the class with the largest logit at each token",
    make: topField,
    ofLens: true,
    at: "point",
  },
  decided: {
    name: "decided at",
    help: "the point of the depth from which on each token's last top class stays first",
    make: decidedField,
    ofLens: true,
  },
  norm: {
    name: "norm",
    help: "length of the residual stream at each token, in units of the median of its block's image tokens",
    make: normField,
    offered: (store) => store.baseline.value.snapshot.array("norms") !== undefined,
  },
  received: {
    name: "attention received",
    help: "share of the block's attention that each token receives, of all heads and reading tokens",
    make: receivedField,
    offered: (store) => store.baseline.value.snapshot.array("received") !== undefined,
  },
  attention: {
    name: "attention",
    help: "where the chosen attention head looks from the selected token",
    ...OF_HEAD,
  },
  source: {
    name: "source of a head",
    help: "what each token sends through the chosen head to the selected token's class logit",
    ofClass: true,
    ...OF_HEAD,
  },
  importance: {
    name: "token importance",
    help: "how much each token matters for the class in the model's own pass",
    make: importanceField,
    ofClass: true,
    ofBaseline: true,
    offered: (store) => store.live || store.state.reading.value === "importance",
    fetch: (store) => store.requests.importance(),
  },
  map: { name: "token map", help: "an extra value per token", make: mapField },
};

/** Which class a field is of, and which one it is compared with. */
type Classes = readonly [id: number, other: number | null];

/** The field of the current state; tracked, so that a view may just call it when it draws. */
export function fieldOf(store: Store): Field {
  return shownField(store, [store.state.class_index.value, store.state.compare_index.value]);
}

/** Two classes in two maps of one scale; null where they are shown as one map. */
export function pairOf(store: Store): readonly [Field, Field] | null {
  const { class_index, compare_index, side_by_side, reading } = store.state;
  const other = compare_index.value;
  if (!side_by_side.value || other === null || !FIELDS[reading.value].ofClass) return null;
  const [a, b] = [class_index.value, other].map((id) => shownField(store, [id, null]));
  return [onScaleOf(a, b), onScaleOf(b, a)];
}

/** A field on the wider of the scales of two. */
function onScaleOf(a: Field, b: Field): Field {
  if (a.state !== "ready" || b.state !== "ready" || a.reading === "rank" || a.kind === "categorical")
    return a;
  const ends = [Math.min(a.low, b.low), Math.max(a.high, b.high)] as const;
  const scale = a.kind === "diverging" ? diverging(ends[1]) : sequential(...ends);
  return { ...a, ...scale, clipped: outside(a.values, ...ends) };
}

/** The field of the pass that is shown: before an intervention, after it, or the change. */
function shownField(store: Store, classes: Classes): Field {
  const { shown, reading } = store.state;
  const base = passField(store, store.baseline.value, classes);
  const other = FIELDS[reading.value].ofBaseline ? null : store.intervened.value;
  if (!other) return base;
  const after = passField(store, other, classes);
  // Before and after are compared by eye: they have one scale.
  if (shown.value === "baseline") return onScaleOf(base, after);
  if (shown.value === "intervened") return onScaleOf(after, base);
  if (base.kind === "categorical") {
    const values = after.values.map((v, i) => (v === base.values[i] ? Number.NaN : v));
    return { ...after, values, note: "Where the top class changed: the class after the intervention." };
  }
  const values = after.values.map((v, i) => v - base.values[i]);
  const digits = base.reading === "rank" ? 0 : 3;
  return {
    ...base,
    values,
    ...around(values, robustPeak(values, store.baseline.value.snapshot)),
    format: (v) => signed(v, digits),
    title: `${base.title}, change`,
  };
}

function passField(store: Store, data: Data, classes: Classes): Field {
  const { name, at, ofLens, make } = FIELDS[store.state.reading.value];
  const { snapshot, readings } = data;
  // Image tokens that can no longer reach the output are still readable, but that must be said.
  const lost = at && snapshot.meta.unreachable?.includes(store.point.value);
  const caution = lost ? "Nothing reads image tokens from here on: they cannot change the output." : "";
  const through = ofLens ? readings : readings.base;
  const field = make(question(store, { snapshot, readings: through }, classes, name, caution));
  if (!through.lens || field.state !== "ready") return field;
  const title = `${field.title} · ${through.lens.label}`;
  const known = !at || through.defined(store.point.value, snapshot.prefix);
  return {
    ...field,
    title,
    blank: known ? field.blank : undefinedHere(through.lens),
    note: known ? field.note : "",
  };
}
