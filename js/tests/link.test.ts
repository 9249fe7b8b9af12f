import { describe, expect, it } from "vitest";
import { fits, link } from "../src/core/link";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { fixture } from "./model";

const open = (name: string, initial = {}) => new Store(Snapshot.parse(fixture(name)), null, initial);

describe("link", () => {
  it("takes the first's values, then goes both ways", () => {
    const [a, b] = [open("all", { class_index: 2, reading: "rank" }), open("all_pooled", { class_index: 5 })];
    link(a, b, new AbortController().signal);
    expect(b.state.class_index.value).toBe(2);
    expect(b.state.reading.value).toBe("rank");
    b.setPosition(1);
    expect(a.position.value).toBe(1);
    a.set({ class_index: 4 });
    expect(b.state.class_index.value).toBe(4);
  });

  it("links only what is named, and ends with the signal", () => {
    const [a, b] = [open("all", { class_index: 1 }), open("all", { class_index: 3 })];
    const abort = new AbortController();
    link(a, b, abort.signal, ["opacity"]);
    a.set({ opacity: 0.25, class_index: 2 });
    expect(b.state.opacity.value).toBe(0.25);
    expect(b.state.class_index.value).toBe(3);
    abort.abort();
    a.set({ opacity: 0.5 });
    expect(b.state.opacity.value).toBe(0.25);
  });

  it("does not send what the other does not have", () => {
    const [a, b] = [open("all_pooled"), open("all")];
    link(a, b, new AbortController().signal, ["tokens"]);
    const pooled = a.baseline.value.snapshot.T;
    a.set({ tokens: [pooled] });
    expect(b.state.tokens.value).toEqual([]);
    a.set({ tokens: [1] });
    expect(b.state.tokens.value).toEqual([1]);
  });

  it("takes the last class, block, head and token there are, and none beyond", () => {
    const store = open("all");
    const { C, L, H, V } = store.baseline.value.snapshot;
    expect([fits(store, "class_index", C - 1), fits(store, "class_index", C)]).toEqual([true, false]);
    expect([fits(store, "compare_index", null), fits(store, "compare_index", C)]).toEqual([true, false]);
    expect([fits(store, "block", L), fits(store, "block", L + 1)]).toEqual([true, false]);
    expect([fits(store, "head", [L, H - 1]), fits(store, "head", [L, H])]).toEqual([true, false]);
    expect([fits(store, "head", null), fits(store, "head", [L + 1, 0])]).toEqual([true, false]);
    expect([fits(store, "tokens", [V - 1]), fits(store, "tokens", [0, V])]).toEqual([true, false]);
  });
});
