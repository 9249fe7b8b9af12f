// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Fragment } from "../src/core/fragment";
import { link } from "../src/core/link";
import type { Store } from "../src/core/store";
import { fieldOf } from "../src/fields";
import { lensCaption } from "../src/fields/lens";
import { mountView } from "../src/runtime";
import { modelOf } from "../src/views/bars/model";
import { meanRank, topClasses } from "../src/views/classes/ranking";
import { stubDrawing } from "./drawing";
import { C, drawn, L, lensStore, S, T, tinyStore } from "./tiny";

let store: Store;
let abort: AbortController;
let el: HTMLElement;
const one = <E extends Element = HTMLElement>(selector: string) => el.querySelector<E>(selector) as E;
const JACOBIAN = { lens: "jacobian" };
/** The last point of block 1, where image tokens have a map; and the last one, where they have none. */
const [KNOWN, LAST] = [S - 5, S - 1];

beforeEach(() => {
  store = lensStore();
  abort = new AbortController();
  el = document.createElement("div");
  document.body.append(el);
  stubDrawing();
});
afterEach(() => {
  abort.abort();
  store.dispose();
  el.remove();
  location.hash = "";
  vi.unstubAllGlobals();
});

describe("readings through a fitted lens", () => {
  it("are those that travel, and not those of the logit lens", () => {
    const logit = store.data.value.readings;
    store.set(JACOBIAN);
    const { readings, snapshot } = store.data.value;
    const stored = snapshot.array("lens0_logits")?.data as Float32Array;
    expect(readings.logits(1)).toEqual(stored.slice(S * T, 2 * S * T));
    expect(readings.logits(1)).not.toEqual(logit.logits(1));
    expect(readings.base).toBe(logit);
  });

  it("rank, order and share the classes as a slow count does", () => {
    store.set(JACOBIAN);
    const { readings } = store.data.value;
    const all = Array.from({ length: C }, (_, c) => readings.logits(c) as Float32Array);
    for (let token = 0; token < T; token++) {
      const own = all.map((logits) => logits[KNOWN * T + token]);
      const order = own.map((_, c) => c).sort((a, b) => own[b] - own[a]);
      expect(readings.ranks(2)?.[KNOWN * T + token]).toBe(order.indexOf(2));
      expect(readings.all.top(KNOWN, token)?.map(({ id }) => id)).toEqual(order.slice(0, 5));
      expect(readings.all.top1(KNOWN)?.[token]).toBe(order[0]);
      const sum = own.reduce((total, v) => total + Math.exp(v), 0);
      expect(readings.probabilities(2)?.[KNOWN * T + token]).toBeCloseTo(Math.exp(own[2]) / sum, 5);
    }
  });

  it("are not a number where the lens has no map, and never zero", () => {
    store.set(JACOBIAN);
    const { readings } = store.data.value;
    for (const all of [
      readings.logits(1),
      readings.ranks(1),
      readings.identifiability(1),
      readings.probabilities(1),
    ])
      expect(Array.from(all?.slice(LAST * T, S * T) ?? []).map(Number.isNaN)).toEqual([
        false,
        true,
        true,
        true,
        true,
      ]);
    expect(Array.from(readings.all.top1(LAST) ?? []).slice(1)).toEqual([-1, -1, -1, -1]);
    expect(readings.all.top(LAST, 2)).toEqual([]);
    expect(readings.defined(LAST, 2)).toBe(false);
    expect(readings.defined(KNOWN, 2)).toBe(true);
    expect(topClasses(store.data.value, LAST, [2], 5)).toEqual([]);
    // A mean is of the tokens that can be read.
    expect(topClasses(store.data.value, LAST, [0, 2], 5)).toEqual(topClasses(store.data.value, LAST, [0], 5));
    expect(meanRank(store.data.value, 1, LAST, [0, 2])).toBe(readings.ranks(1)?.[LAST * T]);
  });

  it("of a lens of some classes lack the others, ranks and probabilities", () => {
    store.set({ lens: "probe" });
    const { readings } = store.data.value;
    expect([0, 1, 2, 3].map((id) => readings.has(id))).toEqual([false, true, true, false]);
    expect([1, 3].map((id) => readings.lacks(id))).toEqual([false, false]);
    expect(readings.ranks(1)).toBeNull();
    for (const [reading, class_index, words] of [
      ["rank", 1, "Only a lens of all 6 classes can tell: the probe lens was fitted for 2."],
      ["probability", 1, "Only a lens of all 6 classes can tell: the probe lens was fitted for 2."],
      ["top1", 1, "Only a lens of all 6 classes can tell: the probe lens was fitted for 2."],
      ["logit", 0, "The probe lens was not fitted for tench."],
    ] as const) {
      store.set({ reading, class_index });
      expect(fieldOf(store)).toMatchObject({ state: "nothing", note: words });
    }
  });

  it("leave direct contributions alone", () => {
    store.set({ reading: "direct", contribution: "direct" });
    const before = [fieldOf(store).values, modelOf(store, "baseline")];
    store.set(JACOBIAN);
    expect([fieldOf(store).values, modelOf(store, "baseline")]).toEqual(before);
    store.set({ contribution: "step", tokens: [0] });
    const bars = modelOf(store, "baseline");
    if (typeof bars === "string") throw new Error(bars);
    const logits = store.data.value.readings.logits(1) as Float32Array;
    expect(bars.shown.parts[1].value).toBeCloseTo(logits[2 * T] - logits[0], 5);
    store.set({ contribution: "paper" });
    const paper = modelOf(store, "baseline");
    if (typeof paper === "string") throw new Error(paper);
    expect(paper.shown.parts[1].value).toBeCloseTo(logits[T], 5);
  });
});

describe("the map", () => {
  it("says what the lens is, how far it can be trusted here, and where it has no map", () => {
    store.set({ ...JACOBIAN, reading: "logit", block: 1, sublayer: "mlp" });
    expect(lensCaption(store)).toBe(
      "jacobian lens: what of this token the answer goes on to use; at block 1, average precision 0.67 (logit 0.35) " +
        "on held-out pictures, standard error of its map 4 %.",
    );
    expect(fieldOf(store)).toMatchObject({
      state: "ready",
      blank: "",
      title: "logit of tabby · jacobian",
    });
    store.set({ block: L });
    const field = fieldOf(store);
    expect(field.blank).toBe(
      "The jacobian lens has no map for image tokens here: nothing in the model reads them from here on.",
    );
    expect([...field.values].map(Number.isNaN)).toEqual([false, true, true, true, true]);
    store.set({ lens: "logit" });
    expect(fieldOf(store).blank).toBe("");
    store.set({ lens: "probe", block: 1 });
    expect(lensCaption(store)).toBe(
      "probe lens: what can be decoded here; how far it can be trusted here was not measured.",
    );
  });

  it("and all other views name the lens, and come back", async () => {
    mountView("Explorer", el, store, abort.signal);
    const select = one<HTMLSelectElement>("select[aria-label=Lens]");
    expect(select.hidden).toBe(false);
    expect([...select.options].map((o) => o.value)).toEqual(["logit", "jacobian", "probe"]);
    select.value = "jacobian";
    select.dispatchEvent(new Event("change", { bubbles: true }));
    await drawn();
    for (const view of ["slider-value", "top h3", "trajectories h3"])
      expect(one(`.csw-${view}`).textContent).toContain(" · jacobian");
    expect(one(".csw-trust").hidden).toBe(false);
    expect(one(".csw-note").textContent).toContain("jacobian lens: what of this token");
    const press = () =>
      one(".csw-picture").dispatchEvent(
        new KeyboardEvent("keydown", { key: "l", bubbles: true, cancelable: true }),
      );
    press();
    await drawn();
    expect(store.state.lens.value).toBe("probe");
    press();
    await drawn();
    expect([store.state.lens.value, select.value]).toEqual(["logit", "logit"]);
    expect(one(".csw-trajectories h3").textContent).not.toContain("jacobian");
  });

  it("has no lens to choose where none travels", async () => {
    const plain = tinyStore();
    mountView("Explorer", el, plain, abort.signal);
    expect(one<HTMLSelectElement>("select[aria-label=Lens]").hidden).toBe(true);
    expect(one(".csw-trust").hidden).toBe(true);
    one(".csw-picture").dispatchEvent(
      new KeyboardEvent("keydown", { key: "l", bubbles: true, cancelable: true }),
    );
    expect(plain.state.lens.value).toBe("logit");
    plain.dispose();
  });
});

describe("trust under the slider", () => {
  it("shows one measure, and the next one at a click", async () => {
    mountView("LayerSlider", el, store, abort.signal);
    store.set({ ...JACOBIAN, block: 1, sublayer: "mlp" });
    await drawn();
    const words = one<HTMLButtonElement>(".csw-trust button");
    expect(words.textContent).toBe("Trust: average precision 0.67 (logit 0.35)");
    expect(one(".csw-trust .csw-spark-line").getAttribute("d")).toMatch(/^M[^M]*L[^M]*$/);
    words.click();
    await drawn();
    expect(words.textContent).toBe("Trust: agreement with the answer 0.20");
    words.click();
    store.set({ lens: "logit", block: 2 });
    await drawn();
    expect(words.textContent).toBe("Trust: average precision 0.31");
    store.set({ lens: "probe" });
    await drawn();
    expect(one(".csw-trust").hidden).toBe(true);
  });
});

describe("the address and links", () => {
  it("remember the lens, where there is one of that name", () => {
    location.hash = "lens=jacobian";
    new Fragment(store, 0).take();
    expect(store.state.lens.value).toBe("jacobian");
    location.hash = "lens=tuned";
    new Fragment(store, 0).take();
    expect(store.state.lens.value).toBe("jacobian");
  });

  it("carry it to sessions that have it", () => {
    const [other, plain] = [lensStore(), tinyStore()];
    link(store, other, abort.signal);
    link(store, plain, abort.signal);
    store.set(JACOBIAN);
    expect([other, plain].map((s) => s.state.lens.value)).toEqual(["jacobian", "logit"]);
    for (const s of [other, plain]) s.dispose();
  });
});
