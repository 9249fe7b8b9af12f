// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Fragment } from "../src/core/fragment";
import { Snapshot } from "../src/core/snapshot";
import type { State } from "../src/core/state";
import { Store } from "../src/core/store";
import { fixture } from "./model";

let abort: AbortController;
const open = (name = "all", initial: Partial<State> = {}) =>
  new Store(Snapshot.parse(fixture(name)), null, initial);
const go = (hash: string) => {
  location.hash = hash;
  dispatchEvent(new Event("hashchange"));
};

beforeEach(() => {
  vi.useFakeTimers();
  location.hash = "";
  abort = new AbortController();
});

afterEach(() => {
  abort.abort();
  vi.useRealTimers();
});

describe("the page's address", () => {
  it("tells what differs from how the page opened, and a second page takes it", () => {
    const store = open("all", { class_index: 2 });
    new Fragment(store, 0).follow(abort.signal);
    vi.runAllTimers();
    expect(location.hash).toBe("");
    const name = store.baseline.value.snapshot.className(4).split(",")[0];
    store.set({
      class_index: 4,
      block: 1,
      sublayer: "attention",
      tokens: [1, 3, 4, 5],
      head: [1, 0],
      reading: "source",
    });
    vi.runAllTimers();
    const said = new URLSearchParams(location.hash.slice(1));
    expect(Object.fromEntries(said)).toEqual({
      class: name,
      block: "1",
      sublayer: "attention",
      tokens: "1,3-5",
      head: "1,0",
      reading: "source",
    });
    const other = open("all", { class_index: 2 });
    new Fragment(other, 0).take();
    for (const key of ["class_index", "block", "sublayer", "tokens", "head", "reading"] as const) {
      expect(other.state[key].value).toEqual(store.state[key].value);
    }
    store.set({ class_index: 2, ...store.baseline.value.snapshot.points.place(99), tokens: [], head: null });
    store.set({ reading: "identifiability" });
    vi.runAllTimers();
    expect(location.hash).toBe("");
  });

  it("is followed by the view that it names, from how the page opened", () => {
    const [first, second] = [open(), open()];
    new Fragment(first, 0).follow(abort.signal);
    new Fragment(second, 1).follow(abort.signal);
    first.set({ reading: "logit" });
    go("#1.block=1&1.sublayer=mlp");
    expect([second.state.block.value, second.state.sublayer.value]).toEqual([1, "mlp"]);
    expect(first.state.reading.value).toBe("logit");
    go("#block=1");
    expect([first.state.block.value, first.state.reading.value]).toEqual([1, "identifiability"]);
    expect(second.state.block.value).toBe(1);
    go("#");
    expect(second.state.block.value).toBe(second.baseline.value.snapshot.L);
    second.set({ tokens: [2] });
    vi.runAllTimers();
    expect(location.hash).toBe("#1.tokens=2");
  });

  it("takes a box over all tokens, and none that is larger", () => {
    const { V } = open().baseline.value.snapshot;
    const taken = (tokens: string) => {
      const store = open("all", { tokens: [1] });
      location.hash = `#tokens=${tokens}`;
      new Fragment(store, 0).take();
      return store.state.tokens.value;
    };
    expect(taken(`0-${V - 1}`)).toEqual(Array.from({ length: V }, (_, token) => token));
    expect(taken("2-2")).toEqual([2]);
    for (const tokens of [`0-${V}`, "3-2", "0-99999999999"]) expect(taken(tokens), tokens).toEqual([1]);
  });

  it("sets nothing that makes no sense here", () => {
    const store = open();
    const before = JSON.stringify(Object.values(store.state).map((s) => s.peek()));
    location.hash =
      "#class=nobody&compare=9999&block=-1&sublayer=x&tokens=1.5,999,3-1&reading=<b>&head=77,1&shown=&side_by_side=1&no=1";
    new Fragment(store, 0).take();
    expect(JSON.stringify(Object.values(store.state).map((s) => s.peek()))).toBe(before);
  });
});
