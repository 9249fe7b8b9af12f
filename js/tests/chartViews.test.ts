// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { floats, pack, unpack } from "../src/core/codec";
import { number, signed } from "../src/core/format";
import { Points } from "../src/core/points";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { fieldOf } from "../src/fields";
import { mount as mountPicker } from "../src/views/ClassPicker";
import { mount as mountBars } from "../src/views/ContributionBars";
import { meanRank, topClasses } from "../src/views/classes/ranking";
import { mount as mountHeads } from "../src/views/HeadGrid";
import { mount as mountSlider } from "../src/views/LayerSlider";
import { gridKey } from "../src/views/roving";
import { mount as mountPaths } from "../src/views/TokenTrajectories";
import { mount as mountTop } from "../src/views/TopClasses";
import { along, chanceOf, coverage, splitTokens } from "../src/views/trajectories/lines";
import { fixture } from "./model";
import { breakdownOf, C, drawn, L, NAMES, S, T, tinyStore } from "./tiny";

let store: Store;
let abort: AbortController;
let el: HTMLElement;
const all = <E extends Element = HTMLElement>(selector: string) => [...el.querySelectorAll<E>(selector)];
const one = <E extends Element = HTMLElement>(selector: string) => el.querySelector<E>(selector) as E;
const text = () => el.textContent ?? "";
const press = (node: Element, key: string, more: KeyboardEventInit = {}) =>
  node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const click = (node: Element, more: MouseEventInit = {}) =>
  node.dispatchEvent(new MouseEvent("click", { bubbles: true, ...more }));

beforeEach(() => {
  store = tinyStore();
  abort = new AbortController();
  el = document.createElement("div");
  document.body.append(el);
});

afterEach(() => {
  // Every view leaves nothing behind, and nothing of it listens any more.
  abort.abort();
  expect(el.childElementCount).toBe(0);
  store.set({ class_index: 0, compare_index: 2, tokens: [1, 2], contribution: "step" });
  el.remove();
  store.dispose();
});

describe("ContributionBars", () => {
  const bars = () => all<SVGGElement>(".csw-bar");

  it("names every bar with its value, and what they add up to", async () => {
    mountBars(el, store, abort.signal);
    const { readings, snapshot } = store.data.value;
    const direct = readings.direct(1) as Float32Array;
    expect(bars().map((bar) => bar.getAttribute("aria-label"))).toEqual([
      `embedding: ${signed(direct[0])}`,
      `block 1 attention: ${signed(direct[T])}`,
      `block 1 MLP: ${signed(direct[2 * T])}`,
      `block 2 attention: ${signed(direct[3 * T])}`,
      `block 2 MLP: ${signed(direct[4 * T])}`,
      `bias: ${signed(snapshot.offset[1])}`,
    ]);
    expect(one(".csw-sum").textContent).toContain(`logit ${number(snapshot.outputLogits[1])}`);
    store.set({ contribution: "step" });
    await drawn();
    expect(bars()).toHaveLength(5);
    expect(one(".csw-sum").textContent).toContain(`logit ${number(snapshot.outputLogits[1])}`);
    store.set({ contribution: "paper" });
    await drawn();
    expect(one(".csw-sum").textContent).toMatch(/block’s input in \d of 2/);
  });

  it("shows the difference of two classes", async () => {
    mountBars(el, store, abort.signal);
    store.set({ compare_index: 3 });
    await drawn();
    const z = store.data.value.snapshot.outputLogits;
    expect(one(".csw-sum").textContent).toContain(`difference ${number(z[1] - z[3])}`);
    expect(one("h3").textContent).toContain("tabby − <img src=x onerror=alert(1)>");
    expect(all("img")).toHaveLength(0);
  });

  it("goes to a layer by click and by keys, and marks the current one", async () => {
    mountBars(el, store, abort.signal);
    expect(bars().findIndex((bar) => bar.hasAttribute("aria-current"))).toBe(4);
    click(bars()[1]);
    expect([store.state.block.value, store.state.sublayer.value]).toEqual([1, "attention"]);
    await drawn();
    expect(bars().findIndex((bar) => bar.hasAttribute("aria-current"))).toBe(1);
    expect(bars().map((bar) => bar.getAttribute("tabindex"))).toEqual(["-1", "0", "-1", "-1", "-1", "-1"]);
    press(bars()[1], "ArrowRight");
    press(bars()[2], "Enter");
    expect([store.state.block.value, store.state.sublayer.value]).toEqual([1, "mlp"]);
    click(bars()[5]);
    expect(store.position.value).toBe(2);
  });
});

describe("one scale for the passes before and after, and for their change", () => {
  /** A pass whose readings are a part of the baseline's, or a multiple. */
  function quarter(times = 0.25): Uint8Array {
    const { meta, arrays } = unpack(fixture("all"));
    const list = [...arrays.values()].map((a) =>
      a.name === "raw" || a.name === "head_raw"
        ? { ...a, dtype: "f4" as const, data: Float32Array.from(floats(a), (v) => v * times) }
        : a,
    );
    return pack({ ...meta }, list);
  }
  const passes = ["baseline", "intervened", "difference"] as const;

  it("in the head grid, whose values are means over the tokens; or one of each its own", async () => {
    const both = new Store(Snapshot.parse(fixture("all")), null, { class_index: 1, tokens: [1, 4] });
    mountHeads(el, both, abort.signal);
    await drawn();
    const shown = () => one(".csw-head-scale").textContent;
    const { readings, snapshot } = both.data.value;
    const of = (t: number) => [...(readings.headDirect(1, t) as Float32Array)];
    const means = of(1).map((v, i) => (v + of(4)[i]) / 2);
    const most = Math.max(...means.map(Math.abs));
    expect(shown()).toBe(`−${number(most)}0+${number(most)}`);
    const at = means.findIndex((v) => Math.abs(v) === most);
    const [block, head] = [Math.floor(at / snapshot.H) + 1, at % snapshot.H];
    expect(one(".csw-readout").textContent).toContain(
      `largest: block ${block} head ${head} ${signed(means[at])}`,
    );
    both.addPinnedPass(quarter());
    const seen: string[] = [];
    const each = async () => {
      seen.length = 0;
      for (const pass of passes) {
        both.set({ shown: pass });
        await drawn();
        seen.push(shown() ?? "");
      }
    };
    await each();
    expect(new Set(seen)).toEqual(new Set([`−${number(most)}0+${number(most)}`]));
    click(one(".csw-toggle"));
    await each();
    expect(seen[1]).toBe(`−${number(most / 4)}0+${number(most / 4)}`);
    expect(seen[2]).toBe(`−${number((most * 3) / 4)}0+${number((most * 3) / 4)}`);
    both.dispose();
  });

  it("in the bars", async () => {
    const both = new Store(Snapshot.parse(fixture("all")), null, { class_index: 1 });
    both.addPinnedPass(quarter());
    mountBars(el, both, abort.signal);
    const ticks = () => all(".csw-tick").map((tick) => `${tick.textContent} ${tick.getAttribute("y")}`);
    const seen: string[] = [];
    for (const pass of passes) {
      both.set({ shown: pass });
      await drawn();
      seen.push(ticks().join());
    }
    expect(new Set(seen).size).toBe(1);
    click(one(".csw-toggle"));
    await drawn();
    expect(ticks().join()).not.toBe(seen[0]);
    both.dispose();
  });

  it.each([0.25, 4])("in the trajectories and in the slider's curve (%f times)", async (times) => {
    const both = new Store(Snapshot.parse(fixture("all")), null, { class_index: 1 });
    both.addPinnedPass(quarter(times));
    mountPaths(el, both, abort.signal);
    mountSlider(el, both, abort.signal);
    one<HTMLInputElement>("input[value=logit]").click();
    click(one(".csw-slider-foot .csw-link:last-child"));
    const seen: string[] = [];
    for (const shown of ["baseline", "intervened"] as const) {
      both.set({ shown });
      await drawn();
      seen.push(
        all(".csw-trajectories .csw-tick, .csw-spark text")
          .map((t) => t.textContent)
          .join(),
      );
    }
    expect(seen[0]).toBe(seen[1]);
    both.dispose();
  });
});

describe("removed tokens", () => {
  beforeEach(() => {
    store.dispose();
    store = tinyStore(true, [3]);
  });

  it("do not count", async () => {
    store.set({ tokens: [2, 3] });
    mountBars(el, store, abort.signal);
    const { snapshot, readings } = store.data.value;
    const alone = breakdownOf(
      { points: new Points(L), V: T, sigma: snapshot.sigma },
      readings.increments(1) as Float32Array,
      snapshot.offset[1],
      [2],
      "direct",
    );
    expect(one(".csw-sum").textContent).toContain(`logit ${number(alone.logit)}`);
    abort.abort();
    abort = new AbortController();
    mountSlider(el, store, abort.signal);
    const ranks = readings.ranks(1) as Float32Array;
    const point = snapshot.points.at(store.position.value, "residual");
    expect(one(".csw-slider-value").textContent).toBe(
      `tabby: rank ${ranks[point * T + 2]} of ${C} at patch row 1, column 2`,
    );
  });

  it("leave the output token to be read where all that is selected was removed", async () => {
    store.set({ tokens: [3] });
    expect(store.activeTokens.value).toEqual([0]);
    mountTop(el, store, abort.signal);
    expect(all("li:not([hidden])").length).toBeGreaterThan(0);
    expect(text()).toContain("[CLS] after block 2 MLP");
    expect(text()).not.toContain("NaN");
  });
});

describe("HeadGrid", () => {
  const cells = () => all("[role=gridcell]");

  it("names every head with its contribution", () => {
    mountHeads(el, store, abort.signal);
    const values = store.data.value.readings.headDirect(1, 0) as Float32Array;
    expect(cells().map((cell) => cell.getAttribute("aria-label"))).toEqual([
      `block 1 head 0: ${signed(values[0])}`,
      `block 2 head 0: ${signed(values[2])}`,
      `block 1 head 1: ${signed(values[1])}`,
      `block 2 head 1: ${signed(values[3])}`,
    ]);
  });

  it("shows the difference of two classes", () => {
    store.set({ compare_index: 4 });
    mountHeads(el, store, abort.signal);
    const [a, b] = [1, 4].map((id) => store.data.value.readings.headDirect(id, 0) as Float32Array);
    expect(cells()[0].getAttribute("aria-label")).toBe(`block 1 head 0: ${signed(a[0] - b[0])}`);
  });

  it("picks a head and lets it go", async () => {
    store.set({ reading: "logit" });
    mountHeads(el, store, abort.signal);
    click(cells()[3]);
    expect(store.state.head.value).toEqual([2, 1]);
    expect(store.state.reading.value).toBe("source");
    await drawn();
    expect(cells().map((cell) => cell.getAttribute("aria-selected"))).toEqual([
      "false",
      "false",
      "false",
      "true",
    ]);
    press(cells()[3], "Enter");
    expect(store.state.head.value).toBeNull();
    expect(store.state.reading.value).toBe("logit");
  });

  it("is one stop of the tab key, and arrows move inside", () => {
    mountHeads(el, store, abort.signal);
    press(cells()[0], "ArrowDown");
    expect(cells().map((cell) => cell.tabIndex)).toEqual([-1, -1, 0, -1]);
    expect(gridKey("ArrowRight", 4, 5, 3, false)).toBe(4);
    expect(gridKey("End", 5, 5, 3, false)).toBe(9);
    expect(gridKey("End", 5, 5, 3, true)).toBe(14);
    expect(gridKey("PageDown", 1, 5, 3, false)).toBe(11);
    expect(gridKey("x", 1, 5, 3, false)).toBeNull();
  });

  it("says how to get heads that were not recorded", () => {
    const without = tinyStore(false);
    mountHeads(el, without, abort.signal);
    expect(text()).toContain("take it with attention=True, heads=True");
    without.dispose();
  });

  it("says why a model's heads have no reading, and shows weights where sources have none", () => {
    const model = store.data.peek().snapshot.meta.model as {
      heads_refused?: string;
      sources_refused?: string;
    };
    model.sources_refused = "a gate acts";
    mountHeads(el, store, abort.signal);
    cells()[1].click();
    expect([store.state.head.value, store.state.reading.value]).toEqual([[2, 0], "attention"]);
    store.set({ reading: "source" });
    expect(fieldOf(store).note).toContain("not defined in this model: a gate acts.");
    el.replaceChildren();
    model.heads_refused = "blocks are parallel";
    store.set({ tokens: [2] });
    mountHeads(el, store, abort.signal);
    expect(text()).toContain("cannot be read one by one: blocks are parallel.");
  });

  it("says what is not at hand, and keeps to the tokens that are", async () => {
    mountHeads(el, store, abort.signal);
    store.set({ tokens: [2] });
    await drawn();
    expect(one(".csw-empty").hidden).toBe(false);
    expect(text()).toContain("were not saved");
    store.set({ tokens: [0, 2] });
    await drawn();
    expect(one(".csw-empty").hidden).toBe(true);
    expect(one("h3").textContent).toBe("Heads for tabby at [CLS]");
  });
});

describe("TopClasses", () => {
  it("ranks as a slow reference does", () => {
    const { data } = store;
    const { readings } = data.value;
    for (const tokens of [[0], [1, 3]]) {
      for (const point of [0, 3, S - 1]) {
        const slow = NAMES.map((_, id) => {
          const own = readings.logits(id) as Float32Array;
          return { id, logit: tokens.reduce((sum, t) => sum + own[point * T + t], 0) / tokens.length };
        }).sort((a, b) => b.logit - a.logit);
        const quick = topClasses(data.value, point, tokens, 4);
        expect(quick.map((e) => e.id)).toEqual(slow.slice(0, 4).map((e) => e.id));
        for (const [i, e] of quick.entries()) expect(e.logit).toBeCloseTo(slow[i].logit, 4);
      }
    }
    const everything = topClasses(data.value, S - 1, [2], C);
    expect(everything.reduce((sum, e) => sum + e.probability, 0)).toBeCloseTo(1, 5);
    for (const [i, e] of everything.entries()) expect(meanRank(data.value, e.id, S - 1, [2])).toBe(i);
  });

  it("picks by click, compares by shift-click", async () => {
    mountTop(el, store, abort.signal);
    const rows = () => all<HTMLButtonElement>("li:not([hidden]) button");
    expect(rows()).toHaveLength(C);
    const [first, second] = rows().map((row) => Number(row.dataset.id));
    click(rows()[0]);
    click(rows()[1], { shiftKey: true });
    expect([store.state.class_index.value, store.state.compare_index.value]).toEqual([first, second]);
    await drawn();
    expect(rows()[0].getAttribute("aria-pressed")).toBe("true");
    click(rows()[1], { altKey: true });
    expect(store.state.compare_index.value).toBeNull();
    expect(text()).toContain("<img src=x onerror=alert(1)>");
    expect(all("img")).toHaveLength(0);
  });
});

describe("ClassPicker", () => {
  const inputs = () => all<HTMLInputElement>("[role=combobox]");
  const type = (input: HTMLInputElement, value: string) => {
    input.value = value;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const offered = () => all("[role=option] span").map((node) => node.textContent);

  it("puts the predicted classes on top", () => {
    mountPicker(el, store, abort.signal);
    const [main] = inputs();
    expect(main.value).toBe("tabby, tabby cat");
    press(main, "ArrowDown");
    expect(main.getAttribute("aria-expanded")).toBe("true");
    const predicted = store.data.value.snapshot.predicted(5).map(({ id }) => NAMES[id]);
    expect(offered().slice(0, 5)).toEqual(predicted);
    expect(offered()).toHaveLength(C);
  });

  it("filters while typing; Enter picks, Escape goes back", () => {
    mountPicker(el, store, abort.signal);
    const [main] = inputs();
    type(main, "cat");
    expect(offered().sort()).toEqual(["tabby, tabby cat", "tiger cat"]);
    press(main, "Escape");
    expect([main.value, main.getAttribute("aria-expanded")]).toEqual(["tabby, tabby cat", "false"]);
    type(main, "tig");
    const active = el.querySelector(`#${main.getAttribute("aria-activedescendant")}`);
    expect(active?.textContent).toContain("tiger cat");
    press(main, "Enter");
    expect(store.state.class_index.value).toBe(2);
    type(main, "zzz");
    expect(one("[role=status]").textContent).toContain("No class");
    press(main, "Enter");
    expect(store.state.class_index.value).toBe(2);
  });

  it("compares, swaps and clears; never a class with itself", async () => {
    mountPicker(el, store, abort.signal);
    const [main, other] = inputs();
    type(other, "4");
    press(other, "Enter");
    expect(store.state.compare_index.value).toBe(4);
    await drawn();
    click(one(".csw-swap"));
    expect([store.state.class_index.value, store.state.compare_index.value]).toEqual([4, 1]);
    type(main, "tabby");
    press(main, "Enter");
    expect([store.state.class_index.value, store.state.compare_index.value]).toEqual([1, 4]);
    click(one(".csw-clear"));
    await drawn();
    expect(store.state.compare_index.value).toBeNull();
    expect(other.value).toBe("");
    expect(one(".csw-swap").hidden).toBe(true);
  });
});

describe("TokenTrajectories", () => {
  const keys = () =>
    all<HTMLButtonElement>(".csw-keys button").map((key) => key.querySelector("span")?.textContent);

  it("splits tokens at half of the patch", () => {
    const mask = store.data.value.snapshot.mask();
    if (!mask) throw new Error("the snapshot has a mask");
    expect([...coverage(mask, 2, 2, 1)]).toEqual([1, 0.5, 0.25, 0]);
    expect(splitTokens(coverage(mask, 2, 2, 1), 1)).toEqual({ inside: [1, 2], outside: [3, 4] });
    expect(along(Float32Array.from([1, 2, 3, 4]), 2, [1, 0], [0, 1])).toEqual([3.5, 1.5]);
    const gaps = Float32Array.from([1, Number.NaN, Number.NaN, Number.NaN]);
    expect(along(gaps, 2, [0, 1], [0, 1])).toEqual([1, Number.NaN]);
  });

  it("has a line for the output, the selected, class and context tokens", async () => {
    mountPaths(el, store, abort.signal);
    expect(keys()).toEqual(["[CLS]", "class tokens", "context tokens"]);
    store.set({ tokens: [4], compare_index: 2 });
    await drawn();
    expect(keys()).toEqual(["[CLS]", "tiger cat at [CLS]", "patch 2, 2", "class tokens", "context tokens"]);
    expect(all("path")).toHaveLength(5);
    click(all(".csw-keys button")[1]);
    await drawn();
    expect(all("path")).toHaveLength(4);
    expect(all(".csw-keys button")[1].getAttribute("aria-pressed")).toBe("false");
  });

  it("has room for the line of any token", async () => {
    mountPaths(el, store, abort.signal);
    one<HTMLInputElement>("input[value=logit]").click();
    for (let token = 1; token < T; token++) {
      store.hovered.value = token;
      await drawn();
      const d = one(".csw-look-hovered").getAttribute("d") ?? "";
      const ys = [...d.matchAll(/[\d.]+[ ,]([-\d.]+)/g)].map(([, y]) => Number(y));
      expect(ys.length).toBeGreaterThan(1);
      const low = Number(one(".csw-cursor-now").getAttribute("y2"));
      const high = Number(one(".csw-cursor-now").getAttribute("y1"));
      for (const y of ys) {
        expect(y).toBeGreaterThanOrEqual(high);
        expect(y).toBeLessThanOrEqual(low);
      }
    }
  });

  it("marks chance: the mean over all ranks, and no logit", async () => {
    mountPaths(el, store, abort.signal);
    const C = store.data.value.snapshot.C;
    const ranks = Array.from({ length: C }, (_, rank) => rank);
    const mean = (values: number[]) => values.reduce((a, b) => a + b) / C;
    expect(chanceOf("rank", C)).toBeCloseTo(mean(ranks), 12);
    expect(chanceOf("identifiability", C)).toBeCloseTo(mean(ranks.map((rank) => 1 - rank / C)), 12);
    expect(chanceOf("identifiability", 5)).toBeCloseTo(0.6, 12);
    expect(chanceOf("logit", C)).toBe(null);
    one<HTMLInputElement>("input[value=identifiability]").click();
    await drawn();
    const at = (text: string) => {
      const tick = all(".csw-tick").find((node) => node.textContent === text);
      return Number(tick?.getAttribute("y"));
    };
    const y = Number(one(".csw-chance").getAttribute("y1"));
    const share = (at("0") - 3.5 - y) / (at("0") - at("1"));
    expect(share).toBeCloseTo((C + 1) / (2 * C), 6);
    expect(at("chance")).toBe(y - 3);
    one<HTMLInputElement>("input[value=logit]").click();
    await drawn();
    expect(all(".csw-chance")).toHaveLength(0);
  });

  it("adds a line for the token under the pointer", async () => {
    mountPaths(el, store, abort.signal);
    store.hovered.value = 3;
    await drawn();
    const rank = (store.data.value.readings.ranks(1) as Float32Array)[(S - 1) * T + 3];
    expect(one(".csw-readout").textContent).toBe(`after block 2 MLP; patch 2, 1 ${rank}`);
    expect(all(".csw-look-hovered")).toHaveLength(1);
    store.hovered.value = null;
    await drawn();
    expect(all(".csw-look-hovered")).toHaveLength(0);
  });

  it("has its blocks below those of the bars, whatever the bars show", async () => {
    mountBars(el, store, abort.signal);
    mountPaths(el, store, abort.signal);
    const places = (kind: string) =>
      all(`${kind} .csw-tick[text-anchor=middle]`)
        .filter((tick) => /^[1-9]/.test(tick.textContent ?? ""))
        .map((tick) => tick.getAttribute("x"));
    for (const contribution of ["direct", "step", "paper"] as const) {
      store.set({ contribution });
      await drawn();
      expect(places(".csw-bars")).toHaveLength(L);
      expect(places(".csw-trajectories")).toEqual(places(".csw-bars"));
    }
  });

  it("is a slider over the depth", async () => {
    mountPaths(el, store, abort.signal);
    const chart = one("[role=slider]");
    expect(chart.getAttribute("aria-valuenow")).toBe(String(2 * L));
    press(chart, "Home");
    press(chart, "ArrowRight");
    await drawn();
    expect(store.position.value).toBe(1);
    const rank = (store.data.value.readings.ranks(1) as Float32Array)[2 * T];
    expect(chart.getAttribute("aria-valuetext")).toContain(`block 1 attention: [CLS] rank ${rank}`);
  });
});
