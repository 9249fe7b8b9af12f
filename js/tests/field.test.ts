import { describe, expect, it } from "vitest";
import { fieldOf } from "../src/core/field";
import { Snapshot } from "../src/core/snapshot";
import { READINGS, type State, Store } from "../src/core/store";
import { fixture } from "./model";

const open = (name: string, state: Partial<State> = {}) =>
  new Store(Snapshot.parse(fixture(name)), null, state);

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
    expect(fieldOf(store).note).toContain("not in what was saved");
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

  it("shows what an intervention changed", () => {
    const store = open("all", { reading: "logit", shown: "difference" });
    store.addVariant(fixture("all"));
    const field = fieldOf(store);
    expect(field.kind).toBe("diverging");
    expect(field.values.every((v) => v === 0)).toBe(true);
    store.set({ reading: "top1" });
    expect(fieldOf(store).values.every(Number.isNaN)).toBe(true);
  });
});
