// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type NdArray, pack, unpack } from "../src/core/codec";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { mountView } from "../src/runtime";
import { stubDrawing } from "./drawing";
import { FakeModel, fixture } from "./model";

let el: HTMLElement;
let abort: AbortController;
let store: Store;
let model: FakeModel;
const one = <E extends Element = HTMLElement>(selector: string) => el.querySelector<E>(selector) as E;
const settle = async () => {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => requestAnimationFrame(() => resolve(null)));
  await new Promise((resolve) => setTimeout(resolve, 5));
};

const BY_CLASS = [
  "raw",
  "offset",
  "output_logits",
  "value_raw",
  "head_raw",
  "attention_bias_raw",
  "flow",
  "flow_bias",
];

/** The fixture with other meta data, and of `extra` more classes. */
function offering(offers: readonly string[], extra: readonly string[] = []): Uint8Array {
  const { meta, arrays } = unpack(fixture("all"));
  const { classes } = meta as unknown as { classes: { names: string[] } };
  const more = extra.length;
  const count = 7 + more;
  const grown = [...arrays.values()].map((array): NdArray => {
    if (!BY_CLASS.includes(array.name)) return array;
    const size = array.data.length / 7;
    const data = new (array.data.constructor as Float32ArrayConstructor)(size * count);
    data.set(array.data as Float32Array);
    return { ...array, shape: [count, ...array.shape.slice(1)], data };
  });
  const all = { ...classes, count, names: [...classes.names, ...extra], kept: [...Array(count).keys()] };
  return pack({ ...meta, offers, classes: all }, grown);
}

const open = (offers: readonly string[]) => {
  const bytes = offering(offers);
  model = new FakeModel({
    _snapshot: bytes,
    class_index: 1,
    block: 2,
    sublayer: "mlp",
    tokens: [],
    lens: "logit",
  });
  store = new Store(Snapshot.parse(bytes), model);
};
const asked = (kind: string) => model.sent.filter((message) => message.kind === kind);

const reply = (id: number, result: object, buffers: readonly ArrayBufferView[] = []) =>
  model.message({ type: "response", id, ok: true, result }, buffers);

beforeEach(() => {
  stubDrawing();
  el = document.createElement("div");
  document.body.append(el);
  abort = new AbortController();
});
afterEach(() => {
  abort.abort();
  store.dispose();
  el.remove();
  vi.unstubAllGlobals();
});

describe("classes in words", () => {
  const type = async (words: string) => {
    const input = one<HTMLInputElement>("input[aria-label=Class]");
    input.focus();
    input.value = words;
    input.dispatchEvent(new Event("input", { bubbles: true }));
    await settle();
    return [...el.querySelectorAll<HTMLElement>("[role=option]")];
  };

  it("are offered where a kernel can read them, typed as new ones, and then chosen", async () => {
    open(["word"]);
    mountView("ClassPicker", el, store, abort.signal);
    expect((await type("boat")).map((o) => o.title)).toEqual(["boat"]);
    const [option, ...others] = await type(" zebra ");
    expect([option.title, others.length]).toEqual(["zebra", 0]);
    expect(el.textContent).toContain("New class");
    option.dispatchEvent(new MouseEvent("click", { bubbles: true }));
    expect(asked("word").map(({ params }) => params)).toEqual([{ words: "zebra" }]);
    model.fromKernel("_snapshot", offering(["word"], ["zebra"]));
    reply(asked("word")[0].id, { class: 7 });
    await settle();
    expect(store.state.class_index.value).toBe(7);
    expect(one<HTMLInputElement>("input[aria-label=Class]").value).toBe("zebra");
  });

  it("are not offered by other kernels, or when the kernel has gone", async () => {
    open([]);
    mountView("ClassPicker", el, store, abort.signal);
    expect(await type("zebra")).toEqual([]);
    abort.abort();
    abort = new AbortController();
    store.dispose();
    open(["word"]);
    store.setKernel(false);
    mountView("ClassPicker", el, store, abort.signal);
    expect(await type("zebra")).toEqual([]);
  });
});

describe("nearest states", () => {
  const answer = (id: number) => {
    const part = pack({ kind: "part", classes: { kept: [] } }, [
      { name: "picture_bytes", dtype: "u1", shape: [5], data: Uint8Array.from([1, 2, 3, 4, 5]) },
      { name: "picture_ends", dtype: "u4", shape: [2], data: Uint32Array.from([2, 5]) },
    ]);
    const patch = {
      cosine: 0.934,
      picture: 3,
      name: "<b>pond</b>",
      row: 1,
      column: 2,
      label: "fish",
      answer: "boat",
    };
    const neighbours = [patch, { ...patch, cosine: 0.5, row: 0, column: 0, label: "" }];
    reply(id, { token: 2, block: 2, grid: [2, 4], neighbours }, [part]);
  };

  it("stand below the map when one patch is selected", async () => {
    const blobs: Blob[] = [];
    vi.stubGlobal(
      "URL",
      Object.assign(URL, { createObjectURL: (b: Blob) => `blob:${blobs.push(b)}`, revokeObjectURL() {} }),
    );
    open(["neighbours"]);
    mountView("PatchHeatmap", el, store, abort.signal);
    expect(one(".csw-nearest").textContent).toContain("Select one patch");
    expect(asked("neighbours")).toEqual([]);
    store.set({ tokens: [2] });
    await settle();
    expect(asked("neighbours").map(({ params }) => params)).toEqual([{ token: 2, block: 2, k: 6 }]);
    answer(asked("neighbours")[0].id);
    await settle();
    const figures = [...el.querySelectorAll<HTMLElement>(".csw-nearest figure")];
    expect(figures.map((f) => f.textContent)).toEqual(["0.93 fish", "0.50 boat"]);
    expect(figures[0].title).toBe("<b>pond</b>, patch 2, 3: answer boat");
    expect(one(".csw-nearest i").style.left).toBe("50%");
    expect(await Promise.all(blobs.map(async (b) => [...new Uint8Array(await b.arrayBuffer())]))).toEqual([
      [1, 2],
      [3, 4, 5],
    ]);
    expect(one(".csw-nearest p").textContent).toBe("Nearest states to patch 1, 2 after block 2");
    store.set({ tokens: [2, 3] });
    await settle();
    expect(el.querySelectorAll(".csw-nearest figure").length).toBe(0);
  });

  it("say why there are none", async () => {
    open(["neighbours"]);
    mountView("PatchHeatmap", el, store, abort.signal);
    store.set({ tokens: [2] });
    await settle();
    model.message({
      type: "response",
      id: asked("neighbours")[0].id,
      ok: false,
      error: { title: "ValueError", message: "the bank keeps blocks 1 and 2" },
    });
    await settle();
    expect(one(".csw-nearest p").textContent).toBe("the bank keeps blocks 1 and 2");
  });

  it("are not there without a bank", async () => {
    open([]);
    mountView("PatchHeatmap", el, store, abort.signal);
    store.set({ tokens: [2] });
    await settle();
    expect(one(".csw-nearest").hidden).toBe(true);
    expect(asked("neighbours")).toEqual([]);
  });
});
