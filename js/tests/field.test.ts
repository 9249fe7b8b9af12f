import { describe, expect, it } from "vitest";
import { pack, unpack } from "../src/core/codec";
import type { Readings } from "../src/core/readings";
import { Snapshot } from "../src/core/snapshot";
import { READINGS, type State } from "../src/core/state";
import { Store } from "../src/core/store";
import { fieldOf, pairOf } from "../src/fields";
import { fixture } from "./model";

const open = (name: string, state: Partial<State> = {}) =>
  new Store(Snapshot.parse(fixture(name)), null, state);

/** The fixture "all" with other readings: every class takes those of the next one, made larger. */
function moved(): Uint8Array {
  const { meta, arrays } = unpack(fixture("all"));
  const C = (meta.classes as { count: number }).count;
  const list = [...arrays.values()].map((array) => {
    if (array.name !== "raw") return array;
    const size = array.data.length / C;
    const data = Float32Array.from(
      array.data,
      (_, i) => 1.25 * array.data[(i + size) % array.data.length] + 0.1,
    );
    return { ...array, data };
  });
  return pack({ ...meta }, list);
}

describe("fields", () => {
  it("exist for every reading, and put every value on the scale", () => {
    for (const name of ["all", "all_pooled", "all_parallel"]) {
      const store = open(name, { head: [1, 0] });
      for (const reading of READINGS) {
        store.set({ reading });
        for (let p = 0; p < store.data.value.snapshot.N; p++) {
          store.setPosition(p);
          const field = fieldOf(store);
          expect(field.title).not.toBe("");
          if (field.state !== "ready") {
            expect(field.note).not.toBe("");
            continue;
          }
          const { T } = store.data.value.snapshot;
          for (let t = 0; t < T; t++) expect(Number.isNaN(field.values[t])).toBe(false);
          expect(field.format(field.values[0])).not.toContain("NaN");
        }
      }
    }
  });

  it("says why a step of the embedding is undefined", () => {
    const store = open("all", { reading: "step", block: 0, sublayer: "embedding" });
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
    expect(fieldOf(store).note).toContain("nothing before it");
  });

  it("says when image tokens cannot reach the output", () => {
    const store = open("all", { reading: "logit" });
    const { snapshot } = store.data.value;
    const blocked = snapshot.meta.unreachable ?? [];
    for (let p = 0; p < snapshot.N; p++) {
      store.setPosition(p);
      expect(fieldOf(store).note !== "").toBe(blocked.includes(store.point.value));
    }
  });

  it("says when a class is not in what was saved", () => {
    const store = open("classes", { class_index: 0 });
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
    expect(fieldOf(store).note).toContain("were not saved");
  });

  it("has rank 0 at the bright end and the last rank at the dark one", () => {
    const store = open("all", { reading: "rank" });
    const { place } = fieldOf(store);
    expect(place(0)).toBe(1);
    expect(place(store.data.value.snapshot.C - 1)).toBeCloseTo(0);
  });

  it("shows the difference of two classes around zero", () => {
    const store = open("all", { reading: "logit", class_index: 1, compare_index: 2 });
    const { readings } = store.data.value;
    const field = fieldOf(store);
    const base = store.point.value * store.data.value.snapshot.V;
    const [a, b] = [readings.logits(1), readings.logits(2)];
    expect(field.kind).toBe("diverging");
    expect(field.values[0]).toBeCloseTo((a?.[base] ?? 0) - (b?.[base] ?? 0), 5);
    expect(field.place(0)).toBe(0.5);
  });

  it("shows what an intervention changed: after minus before", () => {
    const store = open("all", { shown: "difference", compare_index: null });
    store.addPinnedPass(moved());
    const [before, after] = [store.baseline.value.readings, store.intervened.value?.readings as Readings];
    const { V, N } = store.baseline.value.snapshot;
    let changes = 0;
    for (const reading of ["logit", "rank", "identifiability", "probability", "step", "direct"] as const) {
      store.set({ reading });
      for (let p = 1; p < N; p++) {
        store.setPosition(p);
        const field = fieldOf(store);
        expect(field).toMatchObject({ state: "ready", kind: "diverging" });
        expect(field.title).toContain("change");
        const of = (r: Readings) => {
          const id = store.state.class_index.value;
          const at = reading === "step" || reading === "direct" ? p : store.point.value;
          const all = {
            logit: r.logits(id),
            rank: r.ranks(id),
            identifiability: r.identifiability(id),
            probability: r.probabilities(id),
            step: r.step(id),
            direct: r.direct(id),
          }[reading] as Float32Array;
          return all.subarray(at * V, (at + 1) * V);
        };
        for (let t = 0; t < V; t++) {
          const change = of(after)[t] - of(before)[t];
          expect(field.values[t]).toBeCloseTo(change, 5);
          if (change > 0.01) expect(field.place(field.values[t])).toBeGreaterThan(0.5);
          if (Math.abs(change) > 0.01) changes++;
        }
      }
    }
    expect(changes).toBeGreaterThan(50);
    store.set({ reading: "top1" });
    const [was, is] = [before, after].map((r) => r.all.top1(store.point.value) as Int32Array);
    expect([...is].some((id, t) => id !== was[t])).toBe(true);
    expect([...fieldOf(store).values]).toEqual([...is].map((id, t) => (id === was[t] ? Number.NaN : id)));
  });

  it("shows that nothing changed where nothing did", () => {
    const store = open("all", { reading: "logit", shown: "difference" });
    store.addPinnedPass(fixture("all"));
    expect(fieldOf(store).values.every((v) => v === 0)).toBe(true);
    store.set({ reading: "top1" });
    expect(fieldOf(store).values.every(Number.isNaN)).toBe(true);
  });
});

describe("token importance", () => {
  /** Class 1 by block, head and token: 100 * block + 10 * head + token; class 2 the negative of it. */
  function withImportance(heads = 2) {
    const store = open("all", { reading: "importance", class_index: 1 });
    const { snapshot } = store.data.value;
    const { L, V } = snapshot;
    const own = Float32Array.from({ length: L * heads * V }, (_, i) => {
      const t = i % V;
      const k = Math.floor(i / V) % heads;
      return 100 * (Math.floor(i / V / heads) + 1) + 10 * (k + 1) + t;
    });
    const data = Float32Array.from([...own, ...own.map((v) => -v)]);
    const meta = {
      kind: "part",
      classes: { kept: [] },
      importance: { method: "gradient", classes: [1, 2], signed: true },
    };
    snapshot.merge(unpack(pack(meta, [{ name: "importance", dtype: "f4", shape: [2, L, heads, V], data }])));
    return { store, L, V };
  }

  it("is summed over all blocks and heads, over one block, or of one head", () => {
    const { store, L } = withImportance();
    const at = (t: number) => fieldOf(store).values[t];
    // Sum over blocks b and heads k of 100 b + 10 k + t.
    expect(at(3)).toBe(2 * 100 * ((L * (L + 1)) / 2) + L * 30 + 2 * L * 3);
    store.set({ importance_of: "block", block: 2, sublayer: "attention" });
    expect(at(3)).toBe(200 + 10 + 3 + 200 + 20 + 3);
    store.set({ importance_of: "head", head: [1, 1] });
    expect(at(3)).toBe(100 + 20 + 3);
    expect(fieldOf(store).title).toContain("through head 1 of block 1");
    store.set({ compare_index: 2 });
    expect(at(3)).toBe(2 * (100 + 20 + 3));
  });

  it("says what is missing, and why", () => {
    const { store } = withImportance(1);
    store.set({ importance_of: "head", head: null });
    expect(fieldOf(store).note).toContain("Choose an attention head");
    store.set({ head: [1, 0] });
    expect(fieldOf(store).note).toContain("does not tell heads apart");
    store.set({ importance_of: "block", block: 0, sublayer: "embedding" });
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
    store.set({ importance_of: "all", importance: "chefer" });
    expect(fieldOf(store).note).toContain("was not saved");
  });

  it("stands side by side for two classes, on one scale", () => {
    const { store, V } = withImportance();
    expect(pairOf(store)).toBeNull();
    store.set({ compare_index: 2, side_by_side: true });
    const [a, b] = pairOf(store) ?? [];
    if (!a || !b) throw new Error("expected two maps");
    for (let t = 0; t < V; t++) expect(b.values[t]).toBe(-a.values[t]);
    expect([a.low, a.high]).toEqual([b.low, b.high]);
    expect(a.place(0)).toBe(0.5);
    store.set({ reading: "top1" });
    expect(pairOf(store)).toBeNull();
    // A reading whose own scales differ gets the wider one for both.
    store.set({ reading: "logit" });
    const [c, d] = pairOf(store) ?? [];
    if (!c || !d) throw new Error("expected two maps");
    expect([c.low, c.high]).toEqual([d.low, d.high]);
    expect([c.place(c.low), c.place(c.high)]).toEqual([0, 1]);
    for (const v of [...c.values, ...d.values]) expect(v).toBeGreaterThanOrEqual(c.low - 1e-6);
  });
});
