// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Fragment } from "../src/core/fragment";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { TARGETS } from "../src/generated/tour";
import { mount as Explorer } from "../src/views/Explorer";
import { mount as mountTour } from "../src/views/Tour";
import { begin, holds } from "../src/views/tour/facts";
import type { Condition, Step, Tour } from "../src/views/tour/tour";
import { objectTokens } from "../src/views/trajectories/lines";
import { stubDrawing } from "./drawing";
import { FakeModel, fixture } from "./model";

let el: HTMLElement;
let abort: AbortController;
let store: Store;

const step = (more: Partial<Step> = {}): Step => ({
  title: "Look",
  text: [
    ["", "Move the "],
    ["strong", "slider"],
    ["", " <b>now</b>"],
  ],
  target: "layer slider",
  until: [],
  begin: {},
  undo: false,
  done: [["", "Well done"]],
  ...more,
});
const tour = (...steps: Partial<Step>[]): Tour => ({
  name: "mine",
  title: "Mine",
  intro: [["", "A story"]],
  steps: steps.map(step),
});
const open = (live = false, name = "all") => {
  const bytes = fixture(name);
  const model = live
    ? new FakeModel({ _snapshot: bytes, class_index: 1, block: 2, sublayer: "mlp", tokens: [] })
    : null;
  store = new Store(Snapshot.parse(bytes), model);
  return store;
};
const explore = (...tours: Tour[]) => {
  Explorer(el, store, abort.signal);
  const explorer = el.querySelector<HTMLElement>(".csw-explorer") as HTMLElement;
  mountTour(explorer, store, abort.signal, tours);
  return explorer;
};
const one = (selector: string) => el.querySelector(selector) as HTMLElement;
const click = (text: string) =>
  [...el.querySelectorAll<HTMLButtonElement>(".csw-tour button, .csw-tour-offer button")]
    .find((b) => b.textContent?.startsWith(text))
    ?.click();
const said = () => one(".csw-tour-outcome").textContent;

beforeEach(() => {
  stubDrawing();
  location.hash = "";
  el = document.createElement("div");
  document.body.append(el);
  abort = new AbortController();
});

afterEach(() => {
  abort.abort();
  expect(el.childElementCount).toBe(0);
  store.dispose();
  el.remove();
  vi.unstubAllGlobals();
});

describe("a guided tour", () => {
  it("invites, points at its control, waits, says that it was done, and goes on to the end", () => {
    open();
    explore(
      tour(
        { until: [["block", "=", 0]], begin: { tokens: [3] } },
        { title: "Then", target: "picture", until: [["selected object", ">", 0]] },
      ),
    );
    expect(one(".csw-tour")).toBeNull();
    click("Mine · 2 steps");
    expect(one(".csw-tour-offer").hidden).toBe(true);
    const card = one(".csw-tour");
    const slider = one(".csw-range");
    expect(card.querySelector("header p")?.textContent).toBe("Step 1 of 2 · Mine");
    expect(document.activeElement).toBe(card.querySelector("h3"));
    expect(card.parentElement).toBe(slider.closest(".csw-area"));
    expect(slider.classList.contains("csw-tour-target")).toBe(true);
    expect(slider.getAttribute("aria-describedby")).toBe(card.querySelector("h3 + p")?.id);
    expect(card.querySelector("h3 + p")?.innerHTML).toBe(
      "Move the <strong>slider</strong> &lt;b&gt;now&lt;/b&gt;",
    );
    expect(store.state.tokens.value).toEqual([3]);
    expect(said()).toBe("");
    expect(card.textContent).toContain("Skip");
    store.setPosition(0);
    expect(said()).toBe("✓ Well done");
    // What was done stays done.
    store.setPosition(1);
    expect(said()).toBe("✓ Well done");
    click("Next");
    expect(store.state.tour_step.value).toBe(2);
    expect(slider.classList.contains("csw-tour-target")).toBe(false);
    expect(slider.hasAttribute("aria-describedby")).toBe(false);
    expect(one(".csw-picture").getAttribute("aria-describedby")?.split(" ")).toHaveLength(2);
    expect(said()).toBe("");
    store.set({ tokens: [objectTokens(store)?.inside[0] ?? -1] });
    expect(said()).toBe("✓ Well done");
    click("Back");
    expect([store.state.tour_step.value, said()]).toEqual([1, ""]);
    click("Skip");
    click("Finish");
    expect(one(".csw-tour")).toBeNull();
    expect(one(".csw-tour-target")).toBeNull();
    expect(one(".csw-picture").getAttribute("aria-describedby")?.split(" ")).toHaveLength(1);
    expect(document.activeElement?.textContent).toContain("Mine");
    expect(store.state.open_tour.value).toBe("");
  });

  it("ends with Escape, and leads to its control", () => {
    open();
    explore(tour({ target: "heads" }));
    click("Mine");
    click("Go to: heads");
    expect(document.activeElement?.closest(".csw-grid")).not.toBeNull();
    one(".csw-tour").dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    expect(one(".csw-tour")).toBeNull();
  });

  it("stands in the page's address, from which it begins as it would after the step before", () => {
    vi.useFakeTimers();
    open();
    const fragment = new Fragment(store, 0);
    fragment.follow(abort.signal);
    explore(tour({}, { title: "Two", begin: { tokens: [4] } }, {}));
    click("Mine");
    click("Next");
    vi.runAllTimers();
    expect(location.hash).toBe("#tokens=4&tour=mine&step=2");
    location.hash = "#tour=mine&step=2";
    store.set({ tokens: [], open_tour: "" });
    dispatchEvent(new Event("hashchange"));
    expect(one(".csw-tour h3").textContent).toBe("Two");
    expect(store.state.tokens.value).toEqual([4]);
    location.hash = "#tour=mine&step=99";
    dispatchEvent(new Event("hashchange"));
    expect(one(".csw-tour header p").textContent).toContain("Step 3 of 3");
    location.hash = "#tour=another&step=1";
    dispatchEvent(new Event("hashchange"));
    expect(one(".csw-tour")).toBeNull();
    vi.useRealTimers();
  });

  it("knows no tour that was not given, and a control that is not there is no end", () => {
    open();
    store.set({ open_tour: "mine", tour_step: 1 });
    explore(tour({ target: "new picture" }));
    expect(one(".csw-tour")).not.toBeNull();
    expect(document.activeElement).toBe(document.body);
  });
});

describe("what a tour points at", () => {
  it.each(Object.keys(TARGETS))("%s is one control of the explorer", (name) => {
    open(true, name === "lens" ? "lenses" : "all");
    explore(tour({}));
    expect(el.querySelectorAll(TARGETS[name])).toHaveLength(1);
  });
});

describe("what a tour waits for", () => {
  const check = (...condition: Condition) => holds(store, condition, store.baseline.peek().snapshot);

  it("is a value of the state", () => {
    open();
    store.set({
      class_index: 3,
      block: 1,
      sublayer: "mlp",
      tokens: [4, 2],
      head: [2, 1],
      compare_index: null,
    });
    expect(check("class", "=", 3)).toBe(true);
    expect(check("class", "!=", 3)).toBe(false);
    expect(check("block", ">=", 1)).toBe(true);
    expect(check("block", ">", 1)).toBe(false);
    expect(check("block", "<=", 0)).toBe(false);
    expect(check("tokens", "=", [2, 4])).toBe(true);
    expect(check("head", "=", [1, 2])).toBe(false);
    expect(check("head", "!=", [1, 2])).toBe(true);
    expect(check("head", "=", [2, 1])).toBe(true);
    expect(check("compare", "=", null)).toBe(true);
  });

  it("follows from the state and the passes", () => {
    open();
    const inside = objectTokens(store)?.inside ?? [];
    expect(inside.length).toBeGreaterThan(0);
    expect(check("selected object", ">", 0)).toBe(false);
    begin(store, step({ begin: { tokens: "object" } }));
    expect(check("selected object", ">=", 100)).toBe(true);
    expect(check("tokens", "=", "object")).toBe(true);
    expect(check("what-if", "=", "none")).toBe(true);
    expect(check("removed", "=", [])).toBe(true);
    expect(check("new picture", "=", "no")).toBe(true);
    const { snapshot } = store.baseline.peek();
    expect(check("answer", "=", snapshot.predicted(1)[0].id)).toBe(true);
    expect(holds(store, ["new picture", "=", "yes"], Snapshot.parse(fixture("all")))).toBe(true);
  });

  it("knows the rank at the slider and the place of a head", () => {
    open();
    const { snapshot, readings } = store.baseline.peek();
    const id = store.state.class_index.peek();
    const ranks = readings.ranks(id) as Float32Array;
    store.setPosition(snapshot.N - 1);
    expect(check("rank", "=", ranks[store.point.peek() * snapshot.V + snapshot.output])).toBe(true);
    const heads = readings.headDirect(id, snapshot.output) as Float32Array;
    const best = heads.indexOf(Math.max(...heads));
    expect(check("head place", "=", 1)).toBe(false);
    store.set({ head: [Math.floor(best / snapshot.H) + 1, best % snapshot.H] });
    expect(check("head place", "=", 1)).toBe(true);
  });
});
