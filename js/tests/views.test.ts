// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { pack, unpack } from "../src/core/codec";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { mountView } from "../src/runtime";
import { VIEWS } from "../src/views";
import { heatGrid } from "../src/views/sweep/board";
import { stubDrawing } from "./drawing";
import { FakeModel, fixture } from "./model";

let el: HTMLElement;
let abort: AbortController;
const stores: Store[] = [];

const open = (name = "all", model: FakeModel | null = null) => {
  const store = new Store(Snapshot.parse(fixture(name)), model);
  stores.push(store);
  return store;
};
const live = (name = "all") => {
  const bytes = fixture(name);
  const model = new FakeModel({ _snapshot: bytes, class_index: 1, block: 2, sublayer: "mlp", tokens: [] });
  return { model, store: open(name, model) };
};
const one = <E extends Element = HTMLElement>(selector: string) => el.querySelector<E>(selector) as E;
const press = (node: Element, key: string, more: KeyboardEventInit = {}) =>
  node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true, ...more }));
const click = (node: Element) => node.dispatchEvent(new MouseEvent("click", { bubbles: true }));
/** Two frames, and what was promised meanwhile. */
const settle = async () => {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => requestAnimationFrame(() => resolve(null)));
  await new Promise((resolve) => setTimeout(resolve, 5));
};

beforeEach(() => {
  stubDrawing();
  el = document.createElement("div");
  document.body.append(el);
  abort = new AbortController();
});

afterEach(() => {
  abort.abort();
  expect(el.childElementCount).toBe(0);
  for (const store of stores.splice(0)) store.dispose();
  el.remove();
  vi.unstubAllGlobals();
});

describe("every view", () => {
  it.each(Object.keys(VIEWS))(
    "%s mounts on every fixture, follows all state, and leaves nothing",
    async (view) => {
      for (const name of [
        "all",
        "all_pooled",
        "all_parallel",
        "classes",
        "increments",
        "lenses",
        "lenses_classes",
      ]) {
        const store = open(name);
        store.set({ lens: "jacobian" });
        const own = new AbortController();
        mountView(view, el, store, own.signal);
        expect(el.querySelector(".csw-problem")).toBeNull();
        store.set({ class_index: 4, compare_index: 1, tokens: [1, 2], head: [1, 1], reading: "attention" });
        store.setPosition(1);
        await settle();
        store.set({
          reading: "step",
          stream: "output",
          contribution: "paper",
          compare_index: null,
          tokens: [],
        });
        store.setPosition(0);
        await settle();
        own.abort();
        expect(el.childElementCount).toBe(0);
        // Nothing listens any more.
        store.set({ class_index: 1 });
      }
    },
  );

  it("shows names that are HTML as text", async () => {
    const store = open();
    mountView("Explorer", el, store, abort.signal);
    store.set({ class_index: 3, tokens: [1] });
    store.hovered.value = 2;
    await settle();
    expect(el.querySelector("img")).toBeNull();
    expect(el.textContent).toContain("<img src=x onerror=alert(1)>");
  });

  it("is refused by name when there is no such view", () => {
    mountView("constructor", el, open(), abort.signal);
    expect(one(".csw-problem").textContent).toContain("got constructor");
  });
});

describe("LayerSlider", () => {
  it("has a native range that says where it stands", async () => {
    const store = open();
    mountView("LayerSlider", el, store, abort.signal);
    const range = one<HTMLInputElement>("input[type=range]");
    expect(range.max).toBe(String(store.data.value.snapshot.N - 1));
    range.value = "1";
    range.dispatchEvent(new Event("input"));
    await settle();
    expect(store.state.block.value).toBe(1);
    expect(store.state.sublayer.value).toBe("attention");
    expect(range.getAttribute("aria-valuetext")).toMatch(
      /^block 1 attention, residual stream after it: rank of/,
    );
    store.setPosition(0);
    await settle();
    expect(range.getAttribute("aria-valuetext")).toMatch(/^embedding: rank of/);
  });

  it("has every block's number between the marks of its attention and its MLP", () => {
    const store = open();
    mountView("LayerSlider", el, store, abort.signal);
    const at = (node: HTMLElement) => Number.parseFloat(node.style.left);
    const marks = [...el.querySelectorAll<HTMLElement>(".csw-tick-mark")].map(at);
    const numbers = [...el.querySelectorAll<HTMLElement>(".csw-tick-label")].map(at);
    expect(numbers).toHaveLength(store.data.value.snapshot.L + 1);
    expect(numbers[0]).toBe(marks[0]);
    expect(numbers[2]).toBeCloseTo((marks[3] + marks[4]) / 2);
  });

  it("plays from the start when it stands at the end, and stops by itself", async () => {
    vi.useFakeTimers();
    const store = open();
    mountView("LayerSlider", el, store, abort.signal);
    const play = one(".csw-slider .csw-icon");
    click(play);
    expect(store.position.value).toBe(0);
    expect(play.getAttribute("aria-label")).toBe("Pause");
    vi.advanceTimersByTime(60_000);
    expect(store.position.value).toBe(store.data.value.snapshot.N - 1);
    expect(play.getAttribute("aria-label")).toContain("Play");
    vi.useRealTimers();
  });
});

describe("PatchHeatmap", () => {
  it("moves over patches with the arrow keys, and selects", async () => {
    const store = open();
    mountView("PatchHeatmap", el, store, abort.signal);
    const picture = one(".csw-picture");
    press(picture, "ArrowRight");
    await settle();
    // The grid is 2 x 3 after [CLS]: the second patch of the first row.
    expect(store.hovered.value).toBe(2);
    press(picture, "ArrowDown");
    press(picture, "End");
    press(picture, "ArrowDown");
    expect(store.hovered.value).toBe(6);
    await settle();
    expect(one(".csw-tip-head").textContent).toMatch(/^patch 2, 3token 6/);
    press(picture, "Enter");
    press(picture, "Home");
    press(picture, "Enter", { shiftKey: true });
    expect(store.state.tokens.value).toEqual([6, 4]);
    await settle();
    expect(one("[aria-live]").textContent).toContain("patch 2, 1, selected: identifiability of");
    press(picture, "Escape");
    expect(store.state.tokens.value).toEqual([]);
  });

  it("has prefix tokens and the mean of the patches as chips", async () => {
    const store = open("all_pooled");
    mountView("PatchHeatmap", el, store, abort.signal);
    const chips = [...el.querySelectorAll<HTMLElement>(".csw-token")];
    expect(chips.map((chip) => chip.textContent?.split(/[−\d–]/)[0])).toEqual(["[CLS]", "mean of patches"]);
    expect(chips[1].getAttribute("aria-pressed")).toBe("true");
    click(chips[0]);
    await settle();
    expect(store.state.tokens.value).toEqual([0]);
  });

  it("says in words why there is nothing to see", async () => {
    const store = open("classes");
    store.set({ class_index: 0 });
    mountView("PatchHeatmap", el, store, abort.signal);
    expect(one(".csw-curtain").textContent).toContain("were not saved");
    store.set({ class_index: 4, reading: "step" });
    store.setPosition(0);
    await settle();
    expect(one(".csw-curtain").textContent).toContain("nothing before it");
    store.set({ reading: "logit" });
    await settle();
    expect(one(".csw-curtain").hidden).toBe(true);
  });
});

describe("Explorer", () => {
  it("says nothing of how far its readings are off where they are exact", () => {
    mountView("Explorer", el, open("all"), abort.signal);
    expect(one(".csw-footnotes").textContent).not.toContain("float32");
  });

  it("says how sure the model is, and what it knows", () => {
    const { meta, arrays } = unpack(fixture("all"));
    const model = { ...(meta.model as object), description: "Trained on <b>toys</b>." };
    const data = pack({ ...meta, model, answer: { text: "Unsure: cat 30%." } }, [...arrays.values()]);
    const store = new Store(Snapshot.parse(data), null);
    stores.push(store);
    mountView("Explorer", el, store, abort.signal);
    expect(one(".csw-sure").textContent).toBe("Unsure: cat 30%.");
    expect(one(".csw-footnotes").textContent).toContain("Trained on <b>toys</b>.");
    abort.abort();
    abort = new AbortController();
    mountView("Explorer", el, open("all"), abort.signal);
    expect(one(".csw-sure").textContent).toBe("");
  });

  it("offers new pictures only where a kernel is", async () => {
    mountView("Explorer", el, open(), abort.signal);
    const upload = () =>
      [...el.querySelectorAll("button")].find((b) => b.textContent === "New picture…") as HTMLElement;
    expect(upload().hidden).toBe(true);
    abort.abort();
    abort = new AbortController();
    const { store } = live();
    mountView("Explorer", el, store, abort.signal);
    expect(upload().hidden).toBe(false);
    store.setKernel(false);
    await settle();
    expect(upload().hidden).toBe(true);
    expect(one(".csw-status").textContent).toContain("The kernel is gone");
  });

  it("shows what the kernel does, and its errors, in words", async () => {
    const { model, store } = live();
    mountView("Explorer", el, store, abort.signal);
    const request = store.request("image", { name: "a.png" }, [], "reading a.png");
    expect(one(".csw-status").textContent).toContain("reading a.png …");
    const { id } = model.sent[0];
    model.message({
      type: "response",
      id,
      ok: false,
      error: { title: "ValueError", message: "no such <b>file</b>" },
    });
    await request;
    expect(one(".csw-status span").textContent).toBe("no such <b>file</b>");
    expect(one(".csw-status").dataset.kind).toBe("error");
    expect(one(".csw-status").hidden).toBe(false);
  });

  it("shows no progress of what is done at once", async () => {
    const { model, store } = live();
    mountView("Explorer", el, store, abort.signal);
    const status = one(".csw-status");
    const quick = store.request("image", { name: "a.png" });
    expect(status.hidden).toBe(true);
    model.message({ type: "response", id: model.sent[0].id, ok: true, result: {} });
    await quick;
    await new Promise((done) => setTimeout(done, 200));
    expect(status.hidden).toBe(true);
    const slow = store.request("image", { name: "b.png" });
    await new Promise((done) => setTimeout(done, 200));
    expect(status.hidden).toBe(false);
    model.message({ type: "response", id: model.sent[1].id, ok: true, result: {} });
    await slow;
    expect(status.hidden).toBe(true);
  });
});

describe("a view by itself", () => {
  it("says what failed, too", async () => {
    const { model, store } = live();
    mountView("PatchHeatmap", el, store, abort.signal);
    const request = store.request("attention", { rows: [1] });
    expect(one(".csw-status").hidden).toBe(true);
    const error = { title: "RuntimeError", message: "taken without attention" };
    model.message({ type: "response", id: model.sent[0].id, ok: false, error });
    await request;
    expect(one(".csw-status").hidden).toBe(false);
    expect(one(".csw-status span").textContent).toBe("taken without attention");
    click(one(".csw-status button"));
    expect(one(".csw-status").hidden).toBe(true);
  });
});

describe("WhatIf", () => {
  const apply = () => one<HTMLButtonElement>(".csw-primary");
  /** The kernel ran the last request: the intervened pass comes, and says what was done to it. */
  const ran = (model: FakeModel) => {
    const { id, params } = model.sent.at(-1) as (typeof model.sent)[number];
    const { meta, arrays } = unpack(fixture("all"));
    const logits = arrays.get("output_logits");
    const turned = [...arrays.values()].map((a) =>
      a === logits ? { ...a, data: (a.data as Float32Array).map((v) => -v) } : a,
    );
    model.fromKernel(
      "_intervened",
      pack({ ...meta, intervention: { code: "trace = ...", ...params } }, turned),
    );
    model.message({ type: "response", id, ok: true, result: {} });
    return settle();
  };

  it("is there only where it can do something", async () => {
    const store = open();
    mountView("WhatIf", el, store, abort.signal);
    expect(el.querySelector(".csw-whatif")).toBeNull();
    store.addPinnedPass(fixture("all"));
    await settle();
    expect(one(".csw-whatif").hidden).toBe(false);
    expect(apply().closest("[hidden]")).not.toBeNull();
  });

  it("says what is missing, applies, stacks, and undoes", async () => {
    const { model, store } = live();
    mountView("WhatIf", el, store, abort.signal);
    expect(apply().disabled).toBe(true);
    expect(el.textContent).toContain("Select patches on the picture first");
    store.set({ tokens: [3, 2] });
    await settle();
    expect(apply().disabled).toBe(false);
    click(apply());
    expect(model.sent[0]).toMatchObject({
      kind: "whatif",
      params: { spec: [{ type: "RemoveTokens", tokens: [2, 3] }] },
    });
    // Until the answer is there nothing is asked that would rest on it.
    await settle();
    expect(apply().disabled).toBe(true);
    expect(one(".csw-note").textContent).toBe("Running the model …");
    await ran(model);
    expect(apply().disabled).toBe(false);
    expect(store.state.shown.value).toBe("intervened");
    const columns = [...el.querySelectorAll(".csw-outcome > div")].map(
      (column) => column.querySelector(".csw-outcome-row span")?.textContent,
    );
    const best = (data: typeof store.baseline.value | null) =>
      data?.snapshot.className(data.snapshot.predicted(1)[0].id);
    expect(columns).toEqual([best(store.baseline.value), best(store.intervened.value)]);
    expect(columns[0]).not.toBe(columns[1]);
    // What comes into the first five, and what leaves them, is said in words.
    const tags = (column: number) =>
      [...el.querySelectorAll(`.csw-outcome > div:nth-child(${column}) .csw-outcome-row`)].map((row) => [
        Number((row as HTMLElement).dataset.class),
        row.querySelector(".csw-tag")?.textContent,
      ]);
    const first = (data: typeof store.baseline.value | null) =>
      data?.snapshot.predicted(5).map(({ id }) => id) ?? [];
    const [was, is] = [first(store.baseline.value), first(store.intervened.value)];
    expect(tags(1)).toEqual(was.map((id) => [id, is.includes(id) ? undefined : "gone"]));
    expect(tags(2)).toEqual(is.map((id) => [id, was.includes(id) ? undefined : "new"]));
    expect(el.querySelectorAll(".csw-tag").length).toBeGreaterThan(0);
    const action = one<HTMLSelectElement>(".csw-whatif select[aria-label=Intervention]");
    action.value = "no_cls";
    action.dispatchEvent(new Event("change"));
    await settle();
    click(apply());
    const blocks = [1, 2];
    expect(model.sent[1].params.spec).toEqual([
      { type: "RemoveTokens", tokens: [2, 3] },
      { type: "KnockOutAttention", kind: "no_cls", blocks },
    ]);
    await ran(model);
    expect(el.querySelectorAll(".csw-steps li")).toHaveLength(2);
    // Taking the first one back leaves the second.
    click(one(".csw-steps [data-step='0']"));
    expect(model.sent[2].params.spec).toHaveLength(1);
    await ran(model);
    click([...el.querySelectorAll("button")].find((b) => b.textContent === "Undo") as HTMLElement);
    await settle();
    expect(store.intervened.value).toBeNull();
    expect(store.state.shown.value).toBe("baseline");
  });

  it("keeps what was there when the kernel refuses", async () => {
    const { model, store } = live();
    mountView("WhatIf", el, store, abort.signal);
    store.set({ tokens: [1] });
    await settle();
    click(apply());
    const error = { title: "ValueError", message: "RemoveTokens: every image token would be removed" };
    model.message({ type: "response", id: model.sent[0].id, ok: false, error });
    await settle();
    expect(store.notice.value.text).toContain("every image token");
    expect(el.querySelectorAll(".csw-steps li")).toHaveLength(0);
    // Said where one looks, until something else is chosen.
    expect(one(".csw-failed").textContent).toContain("every image token");
    const action = one<HTMLSelectElement>(".csw-whatif select[aria-label=Intervention]");
    action.value = "attention";
    action.dispatchEvent(new Event("change"));
    await settle();
    expect(el.querySelector(".csw-failed")).toBeNull();
  });

  it("is the same in every view of a session, and in one that opens later", async () => {
    const { model, store } = live();
    const places = [0, 1].map(() => el.appendChild(document.createElement("div")));
    for (const place of places) mountView("WhatIf", place, store, abort.signal);
    store.set({ tokens: [1] });
    await settle();
    click(apply());
    await ran(model);
    const later = el.appendChild(document.createElement("div"));
    mountView("WhatIf", later, store, abort.signal);
    await settle();
    const said = [...places, later].map((place) => place.querySelector(".csw-steps")?.textContent);
    expect(said).toEqual(Array(3).fill("Remove patches (1 token) ✕"));
    const undo = [...later.querySelectorAll("button")].find((b) => b.textContent === "Undo") as HTMLElement;
    click(undo);
    await settle();
    expect(el.querySelectorAll(".csw-steps li")).toHaveLength(0);
    expect(store.intervened.value).toBeNull();
    for (const place of [...places, later]) place.remove();
  });

  it("does not offer to cut [CLS] off where there is none", async () => {
    const { store } = live("all_pooled");
    (store.baseline.value.snapshot as { prefix: number }).prefix = 0;
    mountView("WhatIf", el, store, abort.signal);
    const action = one<HTMLSelectElement>(".csw-whatif select[aria-label=Intervention]");
    action.value = "no_cls";
    action.dispatchEvent(new Event("change"));
    await settle();
    expect(apply().disabled).toBe(true);
    expect(one(".csw-note").textContent).toBe("This model has no [CLS] token.");
  });

  it("pins a state, and comes back to it", async () => {
    const { model, store } = live();
    mountView("WhatIf", el, store, abort.signal);
    const [pin] = [...el.querySelectorAll("button")].filter((b) => b.textContent === "Pin");
    expect(pin.disabled).toBe(true);
    store.set({ tokens: [2] });
    await settle();
    click(apply());
    await ran(model);
    click(pin);
    await settle();
    const spec = { type: "RemoveTokens", tokens: [2] };
    const [{ label, steps }] = model.values._pins as { label: string; steps: { spec: object }[] }[];
    expect(steps[0].spec).toEqual(spec);
    expect(pin.textContent).toBe("Unpin");
    const chooser = one<HTMLSelectElement>("select[aria-label='Pinned interventions']");
    expect(chooser.hidden).toBe(false);
    expect(chooser.selectedOptions[0].text).toBe(label);
    chooser.value = "-1";
    chooser.dispatchEvent(new Event("change"));
    await settle();
    expect(el.querySelectorAll(".csw-steps li")).toHaveLength(0);
    chooser.value = "0";
    chooser.dispatchEvent(new Event("change"));
    expect(model.sent.at(-1)).toMatchObject({ kind: "whatif", params: { spec: [spec] } });
  });

  it.each([
    ["Explorer", 1],
    ["WhatIf", 1],
    ["PatchHeatmap", 1],
    ["LayerSlider", 0],
  ])("offers the choice of the pass in %s: %i time", async (view, times) => {
    const store = open();
    mountView(view, el, store, abort.signal);
    const choices = () => [...el.querySelectorAll<HTMLElement>("[aria-label=Pass]")].filter((c) => !c.hidden);
    expect(choices()).toHaveLength(0);
    store.addPinnedPass(fixture("all"));
    await settle();
    expect(choices()).toHaveLength(times);
  });

  it("goes round the passes with the key D", () => {
    const store = open();
    store.addPinnedPass(fixture("all"));
    mountView("LayerSlider", el, store, abort.signal);
    const seen = [1, 2, 3].map(() => {
      press(one("input[type=range]"), "d");
      return store.state.shown.value;
    });
    expect(seen).toEqual(["intervened", "difference", "baseline"]);
  });
});

describe("HeatGrid", () => {
  it("runs a sweep, can be cancelled, and goes to what is picked", async () => {
    const { model, store } = live();
    mountView("HeatGrid", el, store, abort.signal);
    const run = one<HTMLButtonElement>(".csw-sweep header > .csw-button");
    click(run);
    await settle();
    expect(model.sent[0]).toMatchObject({ kind: "sweep", params: { kind: "heads", class: 1 } });
    expect(run.textContent).toBe("Cancel");
    click(run);
    expect(model.sent[1]).toMatchObject({ type: "cancel", id: model.sent[0].id });
    model.message({
      type: "response",
      id: model.sent[0].id,
      ok: false,
      error: { title: "Cancelled", message: "" },
    });
    await settle();
    expect(run.textContent).toBe("Run");
    expect(store.notice.value.kind).toBe("idle");
    click(run);
    const data = Float32Array.of(0.5, -1, 0.25, 0);
    const part = pack({ kind: "part" }, [{ name: "grid", dtype: "f4", shape: [2, 2], data }]);
    const answer = {
      type: "response",
      id: model.sent[2].id,
      ok: true,
      result: { rows: [1, 2], columns: [0, 1] },
    };
    model.message(answer, [part]);
    await settle();
    const board = one(".csw-board");
    expect(board.hidden).toBe(false);
    press(board, "ArrowRight");
    press(board, "ArrowDown");
    await settle();
    expect(el.textContent).toContain("block 2, head 1: 0.000");
    // Heads down, blocks across, as in the head grid.
    press(board, "ArrowUp");
    await settle();
    expect(el.textContent).toContain("block 2, head 0: +0.250");
    press(board, "Enter");
    expect(store.state.head.value).toEqual([2, 0]);
    expect(store.position.value).toBe(3);
  });
});

describe("a grid of effects in a page that shows it smaller or larger", () => {
  it.each([
    [1, 1],
    [0.5, 0.5],
    [1.4, 0.7],
  ])("takes a click for the cell under the pointer (%f, %f)", async (wide, high) => {
    const picked: (readonly [number, number])[] = [];
    const [rows, columns] = [
      ["0", "1"],
      ["1", "2", "3"],
    ];
    const grid = {
      values: new Float32Array(6),
      rows,
      columns,
      name: () => "a cell",
      title: "effects",
      format: String,
    };
    heatGrid(
      el,
      abort.signal,
      () => grid,
      () => "auto",
      (row, column) => picked.push([row, column]),
    );
    await settle();
    const board = one(".csw-board");
    // Laid out 320 wide: 26 for the rows' labels, 98 for each column; two rows of 24 over the columns' labels of 16.
    const [left, top] = [50, 20];
    board.getBoundingClientRect = () => new DOMRect(left, top, 320 * wide, 64 * high);
    const at = (x: number, y: number) =>
      board.dispatchEvent(
        new MouseEvent("click", { clientX: left + x * wide, clientY: top + y * high, bubbles: true }),
      );
    at(26 + 10, 5);
    at(26 + 2 * 98 + 90, 24 + 20);
    at(26 + 98 + 2, 24 - 2);
    at(10, 10); // the labels
    at(200, 24 + 24 + 4);
    expect(picked).toEqual([
      [0, 0],
      [1, 2],
      [0, 1],
    ]);
    abort.abort();
    el.replaceChildren();
  });
});

describe("a view that cannot be shown", () => {
  it("says so in its place, at once or later, and the views beside it go on", async () => {
    const silent = vi.spyOn(console, "error").mockImplementation(() => {});
    const store = open();
    const mask = vi.spyOn(store.baseline.peek().snapshot, "mask").mockImplementation(() => {
      throw new Error("the mask is torn");
    });
    mountView("Explorer", el, store, abort.signal);
    await settle();
    const words = () => [...el.querySelectorAll(".csw-problem")].map((p) => p.textContent ?? "");
    expect(words().sort()).toEqual([
      "PatchHeatmap cannot be shownthe mask is torn",
      "The division of the logit cannot be shownthe mask is torn",
      "TokenTrajectories cannot be shownthe mask is torn",
    ]);
    expect(one(".csw-trajectories")).toBeNull();
    const { readings } = store.data.peek();
    vi.spyOn(readings, "increments").mockImplementation(() => {
      throw new Error("no increments here");
    });
    store.set({ class_index: 3 });
    await settle();
    expect(words()).toContain("ContributionBars cannot be shownno increments here");
    const range = one<HTMLInputElement>(".csw-slider input");
    store.setPosition(1);
    await settle();
    expect(range.valueAsNumber).toBe(1);
    expect(silent).toHaveBeenCalled();
    mask.mockRestore();
    silent.mockRestore();
  });
});
