/** Under the slider: how the logit divides over the depth into prefix tokens, image tokens on and off the object, and biases. */

import { computed, type ReadonlySignal, signal, untracked } from "@preact/signals-core";
import { linear } from "../../charts/scale";
import { range } from "../../core/collections";
import { assign, button, h, listen, pointIn, say, svg } from "../../core/dom";
import { number } from "../../core/format";
import { onAbort, onFrame, watch } from "../../core/frame";
import type { Points } from "../../core/points";
import type { Store } from "../../core/store";
import { whyNoFlow } from "../../fields/flow";
import { objectTokens } from "../trajectories/lines";
import { placeOf, positionAt } from "./spark";

/** Pixels; the height is also that of `.csw-flow svg`. */
const [HEIGHT, PAD] = [44, 2];

/** A part of the logit, over the positions. */
interface Part {
  /** Class that sets the colour in the stylesheet. */
  readonly look: string;
  readonly name: string;
  readonly values: readonly number[];
}

/** The parts of the logit of the class that is read; null where it is not at hand. */
function partsOf(store: Store): readonly Part[] | null {
  const { snapshot } = store.baseline.value;
  const { N, V, T, prefix, meta } = snapshot;
  const flow = snapshot.classArrays(store.state.class_index.value)?.flow;
  if (!flow) return null;
  const over = (tokens: readonly number[]) =>
    range(N, (n) => tokens.reduce((sum, t) => sum + flow.tokens[n * V + t], 0));
  const object = objectTokens(store);
  const image = range(T - prefix, (i) => prefix + i);
  const parts: Part[] = object
    ? [
        { look: "inside", name: object.name, values: over(object.inside) },
        { look: "outside", name: "context tokens", values: over(object.outside) },
      ]
    : [{ look: "inside", name: "image tokens", values: over(image) }];
  if (prefix > 0) {
    const name = prefix === 1 ? meta.tokens.prefix[0] : "prefix tokens";
    parts.unshift({ look: "prefix", name, values: over(range(prefix, (t) => t)) });
  }
  return [...parts, { look: "biases", name: "biases", values: [...flow.biases] }];
}

/** Lower and upper edge over the positions. */
type Edge = readonly (readonly [number, number])[];

/** Areas of every part: what is positive is stacked above zero, what is negative below it; an empty one is left out. */
export function stack(parts: readonly Part[]): readonly (readonly Edge[])[] {
  const sides = [1, -1].map((sign) => ({ sign, sums: parts[0].values.map(() => 0) }));
  return parts.map(({ values }) =>
    sides
      .filter(({ sign }) => values.some((v) => v * sign > 0))
      .map(({ sign, sums }) =>
        values.map((v, n): readonly [number, number] => {
          const from = sums[n];
          if (v * sign > 0) sums[n] += v;
          return [from, sums[n]];
        }),
      ),
  );
}

const share = (value: number) => `${number(100 * value, 0)} %`;

/** The part that holds most of the logit at a position. */
const largest = (parts: readonly Part[], n: number) =>
  parts.reduce((best, part) => (part.values[n] > best.values[n] ? part : best));

const total = (parts: readonly Part[], n: number) => parts.reduce((sum, part) => sum + part.values[n], 0);

export function logitBand(
  store: Store,
  abort: AbortSignal,
  width: ReadonlySignal<number>,
  go: (position: number) => void,
): HTMLElement {
  const stem = svg("line", { class: "csw-spark-stem", y1: 0, y2: HEIGHT });
  const zero = svg("line", { class: "csw-flow-zero" });
  const areas = svg("g");
  const chart = svg("svg", {}, areas, zero, stem);
  const legend = h("div", { class: "csw-flow-parts" });
  const offer = button({ class: "csw-link" });
  const words = h("p", { class: "csw-label" });
  const node = h("div", { class: "csw-flow" }, chart, legend, offer, words);
  onAbort(abort, () => node.remove());
  const wanted = signal(false);
  const parts = computed(() => partsOf(store));
  listen(offer, abort, {
    click: () => {
      wanted.value = true;
    },
  });
  watch(abort, () => {
    if (wanted.value) store.requests.flow();
  });
  const told = (shown: readonly Part[], n: number) => {
    const sum = total(shown, n);
    const list = shown.map(({ name, values }) => `${name} ${number(values[n])} (${share(values[n] / sum)})`);
    return `${store.baseline.peek().snapshot.points.name(n)}: ${list.join(", ")}; together ${number(sum)}`;
  };
  listen(chart, abort, {
    pointermove: (event) => {
      const at = positionAt(store, pointIn(chart, event, width.peek(), HEIGHT).x, width.peek());
      if (event.buttons & 1) go(at);
      const shown = parts.peek();
      if (shown) node.title = told(shown, at);
    },
    pointerdown: (event) =>
      go(positionAt(store, pointIn(chart, event, width.peek(), HEIGHT).x, width.peek())),
  });

  /** The numbers at the slider's position. */
  const tell = () => {
    const shown = parts.value;
    const n = store.position.value;
    const at = placeOf(n, store.baseline.value.snapshot.N, width.value);
    assign(stem, { x1: at, x2: at });
    if (!shown) return;
    const values = [...shown.map((part) => part.values[n]), total(shown, n)];
    [...legend.children].forEach((child, i) => {
      say(child.lastElementChild as Element, number(values[i]));
    });
    node.title = told(shown, n);
  };

  onFrame(abort, () => {
    const { snapshot } = store.baseline.value;
    const id = store.state.class_index.value;
    const name = snapshot.shortName(id);
    const shown = parts.value;
    assign(chart, { hidden: shown ? null : "" });
    legend.hidden = !shown;
    const [why, waiting] = shown ? ["", false] : whyNoFlow(store, snapshot, id);
    offer.hidden = shown !== null || !store.offers("flow") || wanted.value;
    words.hidden = shown !== null || !wanted.value;
    say(offer, `Show where the logit of ${name} stands`);
    say(words, why);
    words.classList.toggle("csw-failed", !waiting);
    node.hidden = !shown && offer.hidden && words.hidden;
    if (!shown) return;
    const { N } = snapshot;
    const edges = stack(shown);
    const all = edges.flat(3);
    const y = linear(Math.min(0, ...all), Math.max(0, ...all), HEIGHT - PAD, PAD);
    const x = (n: number) => placeOf(n, N, width.value).toFixed(1);
    const line = (points: readonly (readonly [number, number])[]) =>
      points.map(([n, v]) => `${x(n)},${y(v).toFixed(1)}`).join("L");
    const outline = (edge: Edge) => {
      const upper = edge.map(([, v], n) => [n, v] as const);
      const lower = edge.map(([v], n) => [n, v] as const).reverse();
      return `M${line(upper)}L${line(lower)}Z`;
    };
    areas.replaceChildren(
      ...edges.map((own, i) =>
        svg("path", { class: `csw-look-${shown[i].look}`, d: own.map(outline).join("") }),
      ),
    );
    assign(chart, {
      viewBox: `0 0 ${width.value} ${HEIGHT}`,
      role: "img",
      "aria-label": summary(shown, snapshot.points, name),
    });
    assign(zero, { x1: x(0), x2: x(N - 1), y1: y(0), y2: y(0) });
    legend.replaceChildren(
      ...[...shown, { look: "", name: "logit" }].map(({ look, name }) =>
        h(
          "span",
          {},
          ...(look ? [h("i", { class: `csw-chip csw-look-${look}` })] : []),
          h("span", {}, name),
          h("data"),
        ),
      ),
    );
    untracked(tell);
  });
  onFrame(abort, tell);
  return node;
}

/** Where the logit stands at the ends of the depth, and from where on it stands elsewhere. */
function summary(parts: readonly Part[], points: Points, name: string): string {
  const last = parts[0].values.length - 1;
  const [first, then] = [0, last].map((n) => largest(parts, n));
  const held = (part: Part, n: number) => `${share(part.values[n] / total(parts, n))} in ${part.name}`;
  let from = last;
  while (from > 0 && largest(parts, from - 1) === then) from--;
  const since = from > 0 ? `, most of it from ${points.name(from)} on` : "";
  return `Where the logit of ${name} stands: at the embedding ${held(first, 0)}, at the end ${held(then, last)}${since}`;
}
