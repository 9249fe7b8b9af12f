// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { floats, type NdArray, pack, unpack } from "../src/core/codec";
import { number, signed } from "../src/core/format";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { FIELDS, fieldOf } from "../src/fields";
import { mountView } from "../src/runtime";
import { stack } from "../src/views/slider/band";
import { stubDrawing } from "./drawing";
import { FakeModel, fixture } from "./model";

let el: HTMLElement;
let abort: AbortController;
const stores: Store[] = [];
const one = <E extends Element = HTMLElement>(selector: string) => el.querySelector<E>(selector) as E;
const settle = async () => {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => requestAnimationFrame(() => resolve(null)));
  await new Promise((resolve) => setTimeout(resolve, 5));
};

/** A fixture with other meta data, or without where logits stand. */
function changed(name: string, more: object, without = false): Uint8Array {
  const { meta, arrays } = unpack(fixture(name));
  const all = [...arrays.values()].filter((array) => !without || !array.name.startsWith("flow"));
  return pack({ ...meta, ...more }, all);
}
function open(bytes: Uint8Array, live = false): { store: Store; model: FakeModel } {
  const model = new FakeModel({ _snapshot: bytes, class_index: 1, block: 2, sublayer: "mlp", tokens: [] });
  const store = new Store(Snapshot.parse(bytes), live ? model : null, { reading: "flow", class_index: 1 });
  if (live) store.set({ reading: "flow" });
  stores.push(store);
  return { store, model };
}
/** Shares [N, T] and biases [N] of a class in a fixture, and its logit. */
function expected(name: string, id: number) {
  const { arrays } = unpack(fixture(name));
  const get = (array: string) => floats(arrays.get(array) as NdArray);
  const [, N, T] = (arrays.get("flow") as NdArray).shape;
  return {
    N,
    T,
    tokens: get("flow").subarray(id * N * T, (id + 1) * N * T),
    biases: get("flow_bias").subarray(id * N, (id + 1) * N),
    logit: get("output_logits")[id],
  };
}

beforeEach(() => {
  stubDrawing();
  el = document.body.appendChild(document.createElement("div"));
  abort = new AbortController();
});
afterEach(() => {
  abort.abort();
  for (const store of stores.splice(0)) store.dispose();
  el.remove();
  vi.unstubAllGlobals();
});

describe("the map of where the logit stands", () => {
  it.each(["all", "all_pooled"])(
    "has the shares of tokens, and says that they sum to the logit: %s",
    (name) => {
      const { store } = open(fixture(name));
      const { N, T, tokens, logit } = expected(name, 1);
      for (let n = 0; n < N; n++) {
        store.setPosition(n);
        const field = fieldOf(store);
        expect(field.kind).toBe("diverging");
        expect([...field.values.subarray(0, T)]).toEqual([...tokens.subarray(n * T, (n + 1) * T)]);
        expect([...field.values.subarray(T)].every(Number.isNaN)).toBe(true);
        expect(field.note).toContain(`sum to the logit, ${number(logit)}.`);
      }
    },
  );

  it("of two classes is their difference, sums and all", () => {
    const { store } = open(fixture("all"));
    store.set({ compare_index: 2 });
    store.setPosition(1);
    const [own, other] = [1, 2].map((id) => expected("all", id));
    const field = fieldOf(store);
    const values = [...own.tokens.subarray(own.T, 2 * own.T)].map((v, t) =>
      Math.fround(v - other.tokens[own.T + t]),
    );
    expect([...field.values.subarray(0, own.T)]).toEqual(values);
    expect(field.note).toContain(`biases ${signed(own.biases[1] - other.biases[1])}`);
    expect(field.note).toContain(number(own.logit - other.logit));
  });

  it("is asked of the kernel once, and refused in words", async () => {
    const { store, model } = open(changed("all", { offers: ["flow"] }, true), true);
    mountView("PatchHeatmap", el, store, abort.signal);
    await settle();
    const asked = () => model.sent.filter(({ kind }) => kind === "flow");
    expect(asked().map(({ params }) => params)).toEqual([{ classes: [1] }]);
    expect(fieldOf(store)).toMatchObject({ state: "pending" });
    const error = { title: "RuntimeError", message: "no room" };
    model.message({ type: "response", id: asked()[0].id, ok: false, error });
    await settle();
    expect(asked()).toHaveLength(1);
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
    expect(fieldOf(store).note).toContain("could not be computed");
  });

  it("that was not saved, or is not defined, says so, and is not offered without need", () => {
    const saved = open(changed("all", {}, true)).store;
    expect(fieldOf(saved).note).toContain("was not saved; a running kernel would compute it");
    expect(FIELDS.flow.offered?.(saved)).toBe(true);
    saved.set({ reading: "logit" });
    expect(FIELDS.flow.offered?.(saved)).toBe(false);
    // A page that runs its model offers what its engine answers.
    expect(fieldOf(open(changed("all", { offers: [] }, true), true).store).note).toContain(
      "model in this page",
    );
    const { meta } = unpack(fixture("all"));
    const model = { ...(meta.model as object), flow_refused: "Its blocks add both at once." };
    expect(fieldOf(open(changed("all", { model }, true)).store).note).toBe("Its blocks add both at once.");
  });
});

describe("the band under the slider", () => {
  const shown = () =>
    [...el.querySelectorAll(".csw-flow-parts > span")].map((part) => [
      part.querySelector("span")?.textContent ?? "",
      part.querySelector("data")?.textContent ?? "",
    ]);

  it.each([
    ["all", true],
    ["all_pooled", false],
  ])("has a part for each place, which sum to the logit at every depth: %s", async (name, masked) => {
    const bytes = changed(name, masked ? {} : { objects: [] });
    const { store } = open(bytes);
    mountView("LayerSlider", el, store, abort.signal);
    const { N, T, tokens, biases, logit } = expected(name, 1);
    const { prefix } = store.baseline.value.snapshot;
    const mask = store.baseline.value.snapshot.mask() !== null;
    expect(el.querySelectorAll(".csw-flow path")).toHaveLength(mask ? 4 : 3);
    for (let n = 0; n < N; n++) {
      store.setPosition(n);
      await settle();
      const parts = shown();
      const sum = [...tokens.subarray(n * T, n * T + prefix)].reduce((a, b) => a + b, 0);
      expect(parts[0][1]).toBe(number(sum));
      expect(parts.at(-2)).toEqual(["biases", number(biases[n])]);
      expect(parts.at(-1)).toEqual(["logit", number(logit)]);
      expect(one(".csw-flow").title).toContain(`together ${number(logit)}`);
    }
    expect(one(".csw-flow svg").getAttribute("aria-label")).toMatch(
      /^Where the logit of .+ stands: at the embedding −?\d+ % in .+, at the end −?\d+ % in /,
    );
  });

  it("tells the numbers of another class at once", async () => {
    const { store } = open(fixture("all"));
    mountView("LayerSlider", el, store, abort.signal);
    store.set({ class_index: 3 });
    await settle();
    expect(shown().at(-1)).toEqual(["logit", number(expected("all", 3).logit)]);
  });

  it("stacks what is positive above zero and what is negative below it", () => {
    const part = (...values: number[]) => ({ look: "", name: "", values });
    expect(stack([part(1, -1), part(2, 0), part(-3, 3)])).toEqual([
      [
        [
          [0, 1],
          [0, 0],
        ],
        [
          [0, 0],
          [0, -1],
        ],
      ],
      [
        [
          [1, 3],
          [0, 0],
        ],
      ],
      [
        [
          [3, 3],
          [0, 3],
        ],
        [
          [0, -3],
          [-1, -1],
        ],
      ],
    ]);
  });

  it("is offered where a kernel can tell, and comes with a click", async () => {
    const { store, model } = open(changed("all", { offers: ["flow"] }, true), true);
    store.set({ reading: "rank" });
    mountView("LayerSlider", el, store, abort.signal);
    await settle();
    expect(model.sent.filter(({ kind }) => kind === "flow")).toHaveLength(0);
    const offer = one<HTMLButtonElement>(".csw-flow .csw-link");
    expect(offer.textContent).toMatch(/^Show where the logit of .+ stands$/);
    offer.click();
    await settle();
    expect(offer.hidden).toBe(true);
    expect(one(".csw-flow p").textContent).toMatch(/^Finding where the logit/);
    const [{ id, params }] = model.sent.filter(({ kind }) => kind === "flow");
    const { N, T, tokens, biases } = expected("all", 1);
    const part = pack({ kind: "part", classes: { kept: params.classes } }, [
      { name: "flow", dtype: "f4", shape: [1, N, T], data: tokens.slice() },
      { name: "flow_bias", dtype: "f4", shape: [1, N], data: biases.slice() },
    ]);
    model.message({ type: "response", id, ok: true, result: {} }, [part]);
    await settle();
    expect(shown().at(-1)).toEqual(["logit", number(expected("all", 1).logit)]);
    // From then on every class that is looked at.
    store.set({ class_index: 3 });
    await settle();
    expect(model.sent.filter(({ kind }) => kind === "flow").at(-1)?.params).toEqual({ classes: [3] });
  });

  it("is not there where nothing can tell", () => {
    mountView("LayerSlider", el, open(changed("all", {}, true)).store, abort.signal);
    expect(one(".csw-flow").hidden).toBe(true);
  });
});
