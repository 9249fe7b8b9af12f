import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { pack, unpack } from "../src/core/codec";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { FakeModel, fixture } from "./model";

const stores: Store[] = [];
const open = (name = "all", values: Record<string, unknown> = {}) => {
  const bytes = fixture(name);
  const snapshot = Snapshot.parse(bytes);
  const model = new FakeModel({
    _snapshot: bytes,
    block: snapshot.L,
    sublayer: "mlp",
    class_index: 1,
    ...values,
  });
  const store = new Store(snapshot, model);
  stores.push(store);
  return { store, model, snapshot };
};

beforeEach(() => {
  vi.useFakeTimers();
});
afterEach(() => {
  for (const store of stores.splice(0)) store.dispose();
  vi.useRealTimers();
});

describe("without a kernel", () => {
  it("starts at the model's own output", () => {
    const snapshot = Snapshot.parse(fixture("all"));
    const store = new Store(snapshot, null, { reading: "logit" });
    expect(store.state.reading.value).toBe("logit");
    expect(store.state.class_index.value).toBe(snapshot.predicted(1)[0].id);
    expect(store.position.value).toBe(snapshot.N - 1);
    expect(store.point.value).toBe(snapshot.S - 1);
    expect(store.activeTokens.value).toEqual([snapshot.output]);
    expect(store.kernel.value).toBe("none");
    store.dispose();
  });

  it("says so when something would need a kernel", async () => {
    const store = new Store(Snapshot.parse(fixture("classes")), null);
    expect(await store.request("image", {}, [], "reading x.png")).toBeNull();
    expect(store.notice.value).toMatchObject({
      kind: "error",
      text: "No kernel: reading x.png is not possible here.",
    });
    store.dismiss();
    expect(store.notice.value.kind).toBe("idle");
    store.dispose();
  });
});

describe("a snapshot from a file", () => {
  it("has no model behind it until a traced one is shown", () => {
    const { store, model } = open("all", { _answers: false });
    expect(store.kernel.value).toBe("none");
    store.setKernel(false);
    expect(store.kernel.value).toBe("none");
    model.set("_answers", true);
    expect(store.live).toBe(true);
    model.set("_answers", false);
    expect(store.live).toBe(false);
  });
});

describe("state", () => {
  it("moves from the views to the model, many writes in few messages, the last one always", () => {
    const { store, model, snapshot } = open();
    for (let i = 0; i < 100; i++) {
      store.setPosition(i % snapshot.N);
      vi.advanceTimersByTime(2);
    }
    vi.advanceTimersByTime(200);
    expect(model.values.block).toBe(store.state.block.value);
    expect(model.values.sublayer).toBe(store.state.sublayer.value);
    expect(model.saved.length).toBeLessThan(8);
    expect(model.saved.length).toBeGreaterThan(0);
  });

  it("moves from Python to the views", () => {
    const { store, model } = open();
    model.fromKernel("class_index", 3);
    model.fromKernel("tokens", [2, 3]);
    expect(store.state.class_index.value).toBe(3);
    expect(store.activeTokens.value).toEqual([2, 3]);
    vi.advanceTimersByTime(200);
    expect(model.saved).toEqual([]);
  });

  it("sends nothing when nothing changes", () => {
    const { store, model } = open("all", { tokens: [1] });
    store.set({ tokens: [1], class_index: 1 });
    vi.advanceTimersByTime(200);
    expect(model.saved).toEqual([]);
  });

  it("selects, adds and clears tokens", () => {
    const { store } = open();
    store.selectToken(2);
    store.selectToken(4, true);
    expect(store.state.tokens.value).toEqual([2, 4]);
    store.selectToken(2, true);
    expect(store.state.tokens.value).toEqual([4]);
    store.selectToken(4);
    expect(store.state.tokens.value).toEqual([]);
  });

  it("leaves no listener behind", () => {
    const { store, model } = open();
    expect(model.listening).toBeGreaterThan(10);
    store.dispose();
    expect(model.listening).toBe(0);
  });
});

describe("another picture", () => {
  it("replaces the data and keeps the state", () => {
    const { store, model } = open("all", { block: 1, sublayer: "attention" });
    const before = store.data.value;
    model.fromKernel("_intervened", fixture("all"));
    store.hovered.value = 3;
    model.fromKernel("_snapshot", fixture("all_pooled"));
    // Of the other picture there is no pass with an intervention, and nothing is pointed at.
    expect(store.intervened.value).toBeNull();
    expect(store.hovered.value).toBeNull();
    expect(store.data.value).not.toBe(before);
    expect(store.data.value.snapshot.meta.tokens.pooled).toBe(true);
    expect(store.position.value).toBe(1);
  });

  it("keeps the old one when the new one is damaged, and says why", () => {
    const { store, model } = open();
    const before = store.data.value;
    model.fromKernel("_snapshot", fixture("all").subarray(0, 400));
    expect(store.data.value).toBe(before);
    expect(store.notice.value.kind).toBe("error");
    expect(store.notice.value.text).toContain("damaged snapshot");
  });

  it("shows an intervened pass beside the baseline", () => {
    const { store, model } = open("all");
    expect(store.intervened.value).toBeNull();
    model.fromKernel("_intervened", fixture("all"));
    store.set({ shown: "intervened" });
    expect(store.data.value).toBe(store.intervened.value);
    store.set({ shown: "difference" });
    expect(store.data.value).toBe(store.intervened.value);
    model.fromKernel("_intervened", new Uint8Array());
    expect(store.data.value).toBe(store.baseline.value);
  });
});

describe("what-if states", () => {
  it("are forgotten by the kernel, too", () => {
    const { store, model } = open("all");
    model.fromKernel("_intervened", fixture("all"));
    store.removeInterventions();
    expect(store.intervened.value).toBeNull();
    expect((model.values._intervened as DataView).byteLength).toBe(0);
    expect(model.saved.some((change) => "_intervened" in change)).toBe(true);
  });

  it("are pinned for the kernel, and pinned by it", () => {
    const { store, model } = open("all");
    const steps = [{ spec: { type: "Ablate" }, label: "a" }];
    store.pin("one", steps);
    store.pin("two", steps);
    store.pin("one", []);
    store.unpin("two");
    expect(model.values._pins).toEqual([{ label: "one", steps: [] }]);
    model.fromKernel("_pins", [{ label: "from Python", steps }]);
    expect(store.pins.value.map((p) => p.label)).toEqual(["from Python"]);
  });
});

describe("passes that came with a page", () => {
  it("are shown one at a time, the first to begin with", () => {
    const store = new Store(Snapshot.parse(fixture("all")), null);
    for (let i = 0; i < 2; i++) store.addPinnedPass(fixture("all"));
    const [first, second] = store.pinned.value;
    expect(first).not.toBe(second);
    expect(store.intervened.value).toBe(first);
    store.showPinned(1);
    expect(store.intervened.value).toBe(second);
    expect(store.state.shown.value).toBe("intervened");
    // Whoever looks at the difference goes on looking at it.
    store.set({ shown: "difference" });
    store.showPinned(0);
    expect([store.intervened.value, store.state.shown.value]).toEqual([first, "difference"]);
    store.showPinned(7);
    expect(store.intervened.value).toBe(first);
    store.dispose();
  });

  it("are refused where their sizes are not those of the baseline", () => {
    const { meta, arrays } = unpack(fixture("all"));
    const heads = ["attention", "head_raw", "value_raw"];
    const other = (group: "model" | "tokens", change: object) => {
      const { attention: _, ...rest } = meta;
      const own = { ...rest, [group]: { ...(meta[group] as object), ...change } };
      return pack(
        own,
        [...arrays.values()].filter(({ name }) => !heads.includes(name)),
      );
    };
    const store = new Store(Snapshot.parse(fixture("all")), null);
    for (const bytes of [
      other("tokens", { grid: [3, 2] }),
      other("tokens", { grid: [1, 3], prefix: ["[CLS]", "a", "b", "c"] }),
      other("model", { heads: 5 }),
    ]) {
      expect(() => store.addPinnedPass(bytes)).toThrow("the intervened pass is of another model");
    }
    store.addPinnedPass(other("model", {}));
    expect(store.pinned.value).toHaveLength(1);
    store.dispose();
  });
});

describe("classes on request", () => {
  /** The answer of a kernel that knows these classes. */
  const answer = (snapshot: Snapshot, classes: number[]) => {
    const { N, V, S } = snapshot;
    const K = classes.length;
    return pack({ kind: "part", classes: { kept: classes } }, [
      { name: "raw", dtype: "f4", shape: [K, N, V], data: new Float32Array(K * N * V).fill(1) },
      { name: "ranks", dtype: "u2", shape: [K, S, V], data: new Uint16Array(K * S * V).fill(2) },
    ]);
  };

  it("fetches what is looked at, once, and then has it", async () => {
    const { store, model, snapshot } = open("classes", { class_index: 4 });
    expect(model.sent).toEqual([]);
    store.set({ class_index: 0 });
    expect(model.sent).toHaveLength(1);
    expect(model.sent[0]).toMatchObject({ type: "request", kind: "classes", params: { classes: [0] } });
    expect(store.data.value.readings.has(0)).toBe(false);
    expect(store.notice.value.kind).toBe("busy");
    model.message({ type: "progress", id: model.sent[0].id, fraction: 0.5, text: "half" });
    expect(store.notice.value).toEqual({ kind: "busy", text: "half", progress: 0.5 });
    model.message({ type: "response", id: model.sent[0].id, ok: true, result: {} }, [answer(snapshot, [0])]);
    await vi.advanceTimersByTimeAsync(1);
    expect(store.data.value.readings.ranks(0)?.[0]).toBe(2);
    expect(store.notice.value.kind).toBe("idle");
    store.set({ class_index: 4 });
    store.set({ class_index: 0 });
    expect(model.sent).toHaveLength(1);
  });

  it("reads anew what was read less exactly before the answer", async () => {
    const { store, model, snapshot } = open("increments");
    const id = [...Array(snapshot.C).keys()].find((c) => !snapshot.classArrays(c)) as number;
    const before = store.data.value.readings.logits(id)?.[0];
    expect(store.data.value.readings.ranks(id)?.[0]).toBeNaN();
    void store.request("classes", { classes: [id] });
    const sent = model.sent[model.sent.length - 1];
    model.message({ type: "response", id: sent.id, ok: true, result: {} }, [answer(snapshot, [id])]);
    await vi.advanceTimersByTimeAsync(1);
    expect(store.data.value.readings.ranks(id)?.[0]).toBe(2);
    expect(store.data.value.readings.logits(id)?.[0]).toBeCloseTo(
      1 / snapshot.sigma[0] + snapshot.offset[id],
      5,
    );
    expect(store.data.value.readings.logits(id)?.[0]).not.toBe(before);
  });

  it("asks only for the last of many classes while a request is under way", async () => {
    const { store, model, snapshot } = open("classes", { class_index: 4 });
    for (const c of [0, 2, 3, 5, 6]) store.set({ class_index: c });
    expect(model.sent).toHaveLength(1);
    model.message({ type: "response", id: model.sent[0].id, ok: true, result: {} }, [answer(snapshot, [0])]);
    await vi.advanceTimersByTimeAsync(1);
    expect(model.sent.map((m) => m.params.classes)).toEqual([[0], [6]]);
  });

  it("asks for no heads that the model does not have", () => {
    for (const [refused, kinds] of [
      ["", ["classes", "attention"]],
      ["blocks are parallel", ["classes"]],
    ] as const) {
      const { store, model, snapshot } = open("classes", { class_index: 4 });
      (snapshot.meta.model as { heads_refused?: string }).heads_refused = refused;
      store.set({ class_index: 0 });
      store.requests.attention([snapshot.attentionRows[0]]);
      expect(model.sent.map((m) => m.kind)).toEqual(kinds);
    }
  });

  it("asks again when another picture comes before the answer", async () => {
    const { store, model } = open("classes", { class_index: 4 });
    store.set({ class_index: 0 });
    expect(model.sent).toHaveLength(1);
    model.fromKernel("_snapshot", fixture("classes"));
    const error = { title: "RuntimeError", message: "too late" };
    model.message({ type: "response", id: model.sent[0].id, ok: false, error });
    await vi.advanceTimersByTimeAsync(1);
    expect(model.sent.map((m) => m.params.classes)).toEqual([[0], [0]]);
  });

  it("shows the kernel's error and stays usable", async () => {
    const { store, model } = open("classes", { class_index: 4 });
    store.set({ class_index: 0 });
    model.message({
      type: "response",
      id: model.sent[0].id,
      ok: false,
      error: { title: "RuntimeError", message: "out of memory" },
    });
    await vi.advanceTimersByTimeAsync(1);
    expect(store.notice.value).toMatchObject({ kind: "error", text: "out of memory" });
    store.set({ class_index: 4 });
    store.set({ class_index: 0 });
    expect(model.sent).toHaveLength(2);
  });

  it("reads the intervened pass for a class, too, when it is shown", async () => {
    const { store, model, snapshot } = open("classes", { class_index: 4 });
    model.fromKernel("_intervened", new DataView(fixture("classes").buffer));
    store.set({ class_index: 0 });
    expect(model.sent.map((m) => m.kind)).toEqual(["classes"]);
    store.set({ shown: "intervened" });
    expect(model.sent.map((m) => m.kind)).toEqual(["classes", "intervened classes"]);
    expect(model.sent[1].params).toEqual({ classes: [0] });
    const { N, V, S } = snapshot;
    const part = pack({ kind: "part", intervened: true, classes: { kept: [0] } }, [
      { name: "raw", dtype: "f4", shape: [1, N, V], data: new Float32Array(N * V).fill(1) },
      { name: "ranks", dtype: "u2", shape: [1, S, V], data: new Uint16Array(S * V).fill(5) },
    ]);
    model.message({ type: "response", id: model.sent[1].id, ok: true, result: {} }, [part]);
    await vi.advanceTimersByTimeAsync(1);
    expect(store.data.value.readings.ranks(0)?.[0]).toBe(5);
    expect(store.baseline.value.readings.has(0)).toBe(false);
    // Another intervention brings a pass of its own, which was not read for the class.
    model.fromKernel("_intervened", new DataView(fixture("classes").buffer.slice(0)));
    expect(model.sent.map((m) => m.kind)).toEqual(["classes", "intervened classes", "intervened classes"]);
    // Undone before the answer comes: there is nothing to merge it into, and nothing to complain of.
    store.removeInterventions();
    model.message({ type: "response", id: model.sent[2].id, ok: true, result: {} }, [part]);
    await vi.advanceTimersByTimeAsync(1);
    expect(store.notice.value.kind).not.toBe("error");
  });

  it("keeps working when the kernel goes, and asks again when it is back", async () => {
    const { store, model } = open("classes", { class_index: 4 });
    store.set({ class_index: 0 });
    store.setKernel(false);
    await vi.advanceTimersByTimeAsync(1);
    expect(store.kernel.value).toBe("gone");
    expect(store.notice.value.text).toContain("No kernel");
    store.set({ class_index: 1 });
    expect(store.data.value.readings.has(1)).toBe(true);
    expect(model.sent).toHaveLength(1);
  });
});

describe("a model in reserve", () => {
  const reserved = (values: Record<string, unknown> = {}) => {
    const { store, model } = open("classes", { class_index: 4 });
    const line = Object.assign(new FakeModel(values), { here: true });
    store.keepReserve(() => line);
    return { store, model, line };
  };
  const answer = (model: FakeModel) =>
    model.message({ type: "response", id: model.sent.at(-1)?.id, ok: true, result: {} });

  it("answers once the kernel is gone, and what the kernel had not answered", async () => {
    const { store, model, line } = reserved();
    const asked = store.request("whatif", { spec: [] });
    expect(model.sent.map((m) => m.kind)).toEqual(["whatif"]);
    store.setKernel(false);
    await vi.advanceTimersByTimeAsync(1);
    expect([store.kernel.value, store.live, store.runsHere]).toEqual(["instead", true, true]);
    expect(line.sent.map((m) => m.kind)).toEqual(["whatif"]);
    line.fromKernel("_intervened", fixture("classes"));
    answer(line);
    expect(await asked).not.toBeNull();
    expect(store.intervened.value).not.toBeNull();
    // What only a kernel can do is not offered.
    expect(store.offers("neighbours")).toBe(false);
  });

  it("is found when the kernel cannot be asked", async () => {
    const { store, model, line } = reserved();
    model.send = () => {
      throw new Error("dead");
    };
    const asked = store.request("whatif", { spec: [] });
    await vi.advanceTimersByTimeAsync(1);
    answer(line);
    expect(await asked).not.toBeNull();
    expect(store.kernel.value).toBe("instead");
  });

  it("steps back when there is a kernel, which shows its own picture and intervention", async () => {
    const { store, model, line } = reserved();
    const before = store.baseline.value.snapshot.meta.model.name;
    store.setKernel(false);
    line.fromKernel("_snapshot", fixture("all"));
    // Another picture is read for what the model takes it for.
    expect(store.state.class_index.value).toBe(store.baseline.value.snapshot.predicted(1)[0].id);
    line.fromKernel("_intervened", fixture("all"));
    expect(store.baseline.value.snapshot.meta.payload.mode).toBe("all");
    store.setKernel(true);
    expect(store.kernel.value).toBe("live");
    expect(store.baseline.value.snapshot.meta.payload.mode).toBe("classes");
    expect(store.baseline.value.snapshot.meta.model.name).toBe(before);
    expect(store.intervened.value).toBeNull();
    void store.request("whatif", { spec: [] });
    expect(model.sent.map((m) => m.kind)).toEqual(["whatif"]);
    expect(line.listening).toBe(0);
  });

  it("comes too late for a kernel that is gone already, and answers nonetheless", () => {
    const { store } = open("classes");
    store.setKernel(false);
    expect(store.kernel.value).toBe("gone");
    store.keepReserve(() => new FakeModel({}));
    expect(store.kernel.value).toBe("instead");
  });

  it("that cannot run here leaves a kernel that is gone", () => {
    const { store, line } = reserved();
    store.setKernel(false);
    line.fromKernel("status", { kind: "error", text: "no workers" });
    line.fromKernel("_answers", false);
    expect([store.kernel.value, store.live]).toEqual(["gone", false]);
    expect(store.notice.value.text).toBe("no workers");
    const unknown = open("classes").store;
    unknown.keepReserve(() => null);
    unknown.setKernel(false);
    expect(unknown.kernel.value).toBe("gone");
  });
});

describe("mode increments", () => {
  it("counts in the pass that is shown, also when the other one was being counted", async () => {
    const { store, model, snapshot } = open("increments");
    const missing = [...Array(snapshot.C).keys()].find((c) => !snapshot.classArrays(c)) as number;
    store.set({ class_index: missing });
    model.fromKernel("_intervened", fixture("increments"));
    store.set({ shown: "intervened" });
    const { readings } = store.data.value;
    expect(readings).not.toBe(store.baseline.value.readings);
    await vi.advanceTimersByTimeAsync(500);
    expect(readings.all.known(store.point.value)).toBe(true);
  });

  it("counts ranks of any class in idle time, the point that is looked at first", async () => {
    const { store, snapshot } = open("increments", { block: 1, sublayer: "attention" });
    const missing = [...Array(snapshot.C).keys()].find((c) => !snapshot.classArrays(c)) as number;
    const known = () =>
      [...(store.data.value.readings.ranks(missing) as Float32Array)].filter((v) => !Number.isNaN(v)).length;
    store.set({ class_index: missing });
    expect(known()).toBe(0);
    let first = -1;
    for (let i = 0; i < 2000 && known() < snapshot.N * snapshot.V; i++) {
      await vi.advanceTimersByTimeAsync(1);
      if (first < 0 && known() > 0) {
        first = (store.data.value.readings.ranks(missing) as Float32Array).findIndex((v) => !Number.isNaN(v));
      }
    }
    expect(known()).toBe(snapshot.N * snapshot.V);
    expect(Math.floor(first / snapshot.V)).toBe(store.point.value);
    store.set({ stream: "output" });
    await vi.advanceTimersByTimeAsync(500);
    expect(known()).toBe(snapshot.S * snapshot.V);
  });
});
