// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { pack, unpack } from "../src/core/codec";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { mountView } from "../src/runtime";
import { stubDrawing } from "./drawing";
import { FakeModel, fixture } from "./model";

/** Every picture is 60 x 40 pixels on the screen: two rows and three columns of 20; the second one stands beside the first. */
const SIZE = { width: 60, height: 40 };
const SECOND_AT = 100;

let el: HTMLElement;
let abort: AbortController;
let model: FakeModel;
let store: Store;
let second: Store;

const settle = async () => {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => requestAnimationFrame(() => resolve(null)));
  await new Promise((resolve) => setTimeout(resolve, 5));
};
const all = (selector: string) => [...el.querySelectorAll<HTMLElement>(selector)];
const one = (selector: string) => el.querySelector(selector) as HTMLElement;
const open = (): [FakeModel, Store] => {
  const values = { class_index: 1, block: 2, sublayer: "mlp", tokens: [], lens: "logit", shown: "baseline" };
  const made = new FakeModel({ _snapshot: fixture("all"), ...values });
  return [made, new Store(Snapshot.parse(fixture("all")), made)];
};
const pointer = (node: Element, type: string, clientX = 0, clientY = 0, more: PointerEventInit = {}) => {
  const event = new PointerEvent(type, {
    bubbles: true,
    cancelable: true,
    button: 0,
    clientX,
    clientY,
    ...more,
  });
  node.dispatchEvent(event);
};
const press = (node: Element, key: string) =>
  node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
const said = () => all(".csw-panes > [aria-live]").map((node) => node.textContent)[0] ?? "";
const specs = () => model.sent.filter(({ kind }) => kind === "whatif").map(({ params }) => params.spec);
/** The kernel ran the last request. */
const ran = () => {
  const { id, params } = model.sent.at(-1) as (typeof model.sent)[number];
  const { meta, arrays } = unpack(fixture("all"));
  model.fromKernel(
    "_intervened",
    pack({ ...meta, intervention: { code: "", ...params } }, [...arrays.values()]),
  );
  model.message({ type: "response", id, ok: true, result: {} });
  return settle();
};

beforeEach(async () => {
  stubDrawing();
  vi.spyOn(HTMLElement.prototype, "getBoundingClientRect").mockImplementation(function (this: HTMLElement) {
    const left = this.closest(".csw-second") ? SECOND_AT : 0;
    return { ...SIZE, left, top: 0, right: left + SIZE.width, bottom: SIZE.height, x: left, y: 0 } as DOMRect;
  });
  vi.spyOn(HTMLElement.prototype, "clientWidth", "get").mockReturnValue(SIZE.width);
  vi.spyOn(HTMLElement.prototype, "clientHeight", "get").mockReturnValue(SIZE.height);
  HTMLElement.prototype.setPointerCapture = () => {};
  el = document.createElement("div");
  document.body.append(el);
  abort = new AbortController();
  [model, store] = open();
  [, second] = open();
  store.other.value = second;
  mountView("Explorer", el, store, abort.signal);
  await settle();
});

afterEach(() => {
  abort.abort();
  expect(el.childElementCount).toBe(0);
  store.dispose();
  second.dispose();
  el.remove();
  vi.restoreAllMocks();
  vi.unstubAllGlobals();
});

describe("dragging by pointer", () => {
  const whole = () => one(".csw-second .csw-grab");
  const shown = () => all(".csw-target").find((node) => !node.hidden);

  it("puts a state of the second picture where it is dropped", async () => {
    pointer(whole(), "pointerdown", SECOND_AT + 45, 5);
    pointer(whole(), "pointermove", SECOND_AT + 46, 5);
    // A click that trembles is none.
    expect(one(".csw-ghost").hidden).toBe(true);
    pointer(whole(), "pointermove", 25, 25);
    expect(one(".csw-ghost").hidden).toBe(false);
    expect(shown()?.style.left).toMatch(/^33\.3/);
    expect(shown()?.style.top).toBe("50%");
    pointer(whole(), "pointerup", 25, 25);
    expect(one(".csw-ghost").hidden).toBe(true);
    expect(specs()).toEqual([
      [{ type: "PatchResidual", target_block: 2, tokens: [5], source: "other", source_token: 3 }],
    ]);
    await ran();
    expect(one(".csw-steps li").textContent).toContain(
      "patch 1, 3 of the second picture → patch 2, 2, after block 2",
    );
    expect(store.state.shown.value).toBe("intervened");
    expect(said()).toMatch(/patch 2, 2, after block 2: .*%, before /);
    // No box was dragged meanwhile.
    expect(second.state.tokens.value).toEqual([]);
  });

  it("takes and puts after the blocks that are chosen", async () => {
    store.set({ source_block: 2, target_block: 0 });
    pointer(whole(), "pointerdown", SECOND_AT + 5, 5);
    pointer(whole(), "pointermove", 5, 5);
    pointer(whole(), "pointerup", 5, 5);
    expect(specs()[0]).toEqual([
      {
        type: "PatchResidual",
        target_block: 0,
        tokens: [1],
        source: "other",
        source_block: 2,
        source_token: 1,
      },
    ]);
    await settle();
  });

  it("is cancelled by Escape, beside the picture, and when the pointer is lost", async () => {
    const begin = () => {
      pointer(whole(), "pointerdown", SECOND_AT + 5, 5);
      pointer(whole(), "pointermove", 25, 25);
      expect(one(".csw-ghost").hidden).toBe(false);
    };
    begin();
    press(document.body, "Escape");
    expect(one(".csw-ghost").hidden).toBe(true);
    pointer(whole(), "pointerup", 25, 25);
    begin();
    pointer(whole(), "pointermove", 25, 300);
    expect(shown()).toBeUndefined();
    pointer(whole(), "pointerup", 25, 300);
    begin();
    pointer(whole(), "pointercancel");
    expect(one(".csw-ghost").hidden).toBe(true);
    expect(said()).toContain("Cancelled");
    expect(specs()).toEqual([]);
    // A click selects there, and the selected token is the one that the panel takes.
    pointer(whole(), "pointerdown", SECOND_AT + 25, 5);
    pointer(whole(), "pointerup", SECOND_AT + 25, 5);
    expect(second.state.tokens.value).toEqual([2]);
    await settle();
    expect((one("[aria-label='Token whose state is taken']") as HTMLInputElement).value).toBe("2");
  });

  it("starts in the picture itself at the patch that is selected alone", async () => {
    const grab = () => all("figure:not(.csw-second) .csw-grab")[0];
    expect(grab().hidden).toBe(true);
    store.set({ tokens: [1, 2] });
    expect(grab().hidden).toBe(true);
    store.set({ tokens: [2] });
    expect(grab().hidden).toBe(false);
    pointer(grab(), "pointerdown", 25, 5);
    pointer(grab(), "pointermove", 5, 25);
    pointer(grab(), "pointerup", 5, 25);
    expect(specs()).toEqual([[{ type: "PatchResidual", target_block: 2, tokens: [4], source_token: 2 }]]);
    await ran();
    // Blocks that cannot be: said, and nothing is asked.
    store.set({ source_block: 2, target_block: 1 });
    pointer(grab(), "pointerdown", 25, 5);
    pointer(grab(), "pointermove", 5, 25);
    pointer(grab(), "pointerup", 5, 25);
    await settle();
    expect(specs()).toHaveLength(1);
    expect(one(".csw-whatif .csw-failed").textContent).toContain(
      "after block 2 is not there yet after block 1",
    );
    expect(said()).toContain("not there yet");
    // A click takes the selection back, as on any patch.
    pointer(grab(), "pointerdown", 25, 5);
    pointer(grab(), "pointerup", 25, 5);
    expect(store.state.tokens.value).toEqual([]);
  });

  it("goes with the second picture, and needs a kernel", async () => {
    expect(all(".csw-second")).toHaveLength(1);
    store.other.value = null;
    expect(all(".csw-second")).toHaveLength(0);
    store.other.value = second;
    expect(all(".csw-second")).toHaveLength(1);
    store.setKernel(false);
    expect(all(".csw-second")).toHaveLength(0);
    store.set({ tokens: [2] });
    expect(all(".csw-grab").every((node) => node.hidden)).toBe(true);
    await settle();
  });
});

describe("carrying by key", () => {
  const own = () => one("figure:not(.csw-second) .csw-picture");
  const theirs = () => one(".csw-second .csw-picture");

  it("picks up, moves, and drops; everything is said", async () => {
    second.hovered.value = 3;
    press(theirs(), "p");
    expect(said()).toContain("Picked up the state of patch 1, 3 after block 2");
    expect(document.activeElement).toBe(own());
    store.hovered.value = 1;
    expect(said()).toBe("onto patch 1, 1");
    expect(all(".csw-target").filter((node) => !node.hidden).length).toBeGreaterThan(0);
    store.hovered.value = 4;
    expect(said()).toBe("onto patch 2, 1");
    press(own(), "Enter");
    expect(specs()).toEqual([
      [{ type: "PatchResidual", target_block: 2, tokens: [4], source: "other", source_token: 3 }],
    ]);
    // Enter put it there, and selected nothing.
    expect(store.state.tokens.value).toEqual([]);
    await ran();
    expect(said()).toMatch(/before/);
  });

  it("is cancelled by Escape, where it was picked up", async () => {
    second.hovered.value = 3;
    press(theirs(), "P");
    press(own(), "Escape");
    expect(said()).toContain("Cancelled");
    expect(document.activeElement).toBe(theirs());
    press(own(), "Enter");
    expect(specs()).toEqual([]);
    await settle();
  });

  it("works within the picture", async () => {
    store.hovered.value = 2;
    press(own(), "p");
    store.hovered.value = 6;
    press(own(), " ");
    expect(specs()).toEqual([[{ type: "PatchResidual", target_block: 2, tokens: [6], source_token: 2 }]]);
    await ran();
  });
});

describe("the panel", () => {
  const field = <E extends HTMLElement = HTMLSelectElement>(name: string) =>
    one(`[aria-label='${name}']`) as unknown as E;
  const choose = (name: string, value: string, type = "change") => {
    const node = field(name);
    node.value = value;
    node.dispatchEvent(new Event(type));
    return settle();
  };
  const apply = () => (one(".csw-primary") as HTMLButtonElement).click();

  it("has fields for both blocks, which follow the slider until they are set", async () => {
    await choose("Intervention", "carry");
    store.set({ tokens: [4, 5], block: 1 });
    await settle();
    expect(field("Taken after block").selectedOptions[0].text).toBe("slider: 1");
    await choose("Token whose state is taken", "3", "input");
    await choose("Put after block", "2");
    expect(store.state.target_block.value).toBe(2);
    apply();
    expect(specs()[0]).toEqual([
      {
        type: "PatchResidual",
        target_block: 2,
        tokens: [4, 5],
        source: "other",
        source_block: 1,
        source_token: 3,
      },
    ]);
    await ran();
    // The step can be changed: the form shows it, and takes its place.
    one("[data-edit='0']").click();
    await settle();
    expect(one(".csw-primary").textContent).toBe("Replace");
    expect(field("Taken after block").value).toBe("1");
    expect(store.state.tokens.value).toEqual([4, 5]);
    await choose("Token whose state is taken", "", "input");
    apply();
    expect(specs()[1]).toEqual([
      { type: "PatchResidual", target_block: 2, tokens: [4, 5], source: "other", source_block: 1 },
    ]);
    await ran();
    expect(one(".csw-primary").textContent).toBe("Apply");
    expect(all(".csw-steps li")).toHaveLength(1);
  });

  it("says what is missing", async () => {
    await choose("Intervention", "carry");
    store.set({ tokens: [4] });
    await choose("Picture that the state is of", "");
    expect(one(".csw-whatif .csw-note").textContent).toContain("Say which token's state is taken");
    await choose("Token whose state is taken", "9", "input");
    expect(one(".csw-whatif .csw-note").textContent).toContain("numbered 0 to 6");
    store.other.value = null;
    await choose("Picture that the state is of", "other");
    expect(one(".csw-whatif .csw-note").textContent).toContain("no second picture");
    expect((one(".csw-primary") as HTMLButtonElement).disabled).toBe(true);
  });

  it("takes long patches in place of those selected", async () => {
    expect(field("Which tokens").hidden).toBe(false);
    await choose("Which tokens", "long");
    await choose("Medians of the block", "2.5", "input");
    apply();
    expect(specs()).toEqual([[{ type: "RemoveTokens", norm_above: 2.5 }]]);
    await ran();
  });
});
