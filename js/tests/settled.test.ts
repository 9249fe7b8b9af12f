// @vitest-environment happy-dom
import { afterEach, describe, expect, it } from "vitest";
import { type NdArray, pack, unpack } from "../src/core/codec";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { FIELDS, fieldOf } from "../src/fields";
import { decidedAt } from "../src/fields/decided";
import { mountView } from "../src/runtime";
import { fixture } from "./model";
import { lensStore } from "./tiny";

const stores: Store[] = [];
const keep = (store: Store) => {
  stores.push(store);
  return store;
};
const open = (name: string) => keep(new Store(Snapshot.parse(fixture(name)), null));
afterEach(() => {
  for (const store of stores.splice(0)) store.dispose();
});

describe("where tokens settle", () => {
  it.each(["all", "all_pooled", "all_parallel", "classes", "lenses"])(
    "is the first point of the last run of the final class: %s",
    (name) => {
      const { readings, snapshot } = open(name).data.value;
      const points = snapshot.points.along("residual");
      const values = decidedAt(readings) as Float32Array;
      for (let token = 0; token < snapshot.V; token++) {
        const classes = points.map((point) => readings.all.top(point, token)?.[0].id);
        let from = snapshot.N - 1;
        while (from > 0 && classes[from - 1] === classes[snapshot.N - 1]) from--;
        expect(values[token]).toBe(from);
      }
    },
  );

  it("is a field, also through a lens, and a tick of the slider", () => {
    const store = keep(lensStore());
    store.set({ reading: "decided" });
    const values = decidedAt(store.data.value.readings) as Float32Array;
    const field = fieldOf(store);
    expect(field.values).toEqual(values);
    expect(field.format(3)).toBe("block 2 attention");
    const el = document.createElement("div");
    document.body.append(el);
    const abort = new AbortController();
    mountView("LayerSlider", el, store, abort.signal);
    const marks = [...el.querySelectorAll(".csw-tick-mark")];
    expect(marks.map((mark) => mark.classList.contains("csw-settled")).indexOf(true)).toBe(values[0]);
    abort.abort();
    el.remove();
    store.set({ lens: "jacobian" });
    const through = fieldOf(store);
    expect([...through.values].map(Number.isNaN)).toEqual([false, true, true, true, true]);
    expect(through.blank).toContain("no map for image tokens");
    store.set({ lens: "probe" });
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
  });

  it("is not told where some streams do not travel", () => {
    const store = open("ranks_only");
    expect(decidedAt(store.data.value.readings)).toBeNull();
    store.set({ reading: "decided" });
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
    expect(fieldOf(store).note).toContain("not at hand");
  });
});

describe("lengths of tokens", () => {
  it("are in medians of the image tokens, and only offered where they travel", () => {
    const { meta, arrays } = unpack(fixture("all"));
    const norms = Float32Array.from({ length: 5 * 7 }, (_, i) => 1 + ((i * 5) % 11));
    const bytes = pack(meta, [
      ...arrays.values(),
      { name: "norms", dtype: "f4", shape: [5, 7], data: norms },
    ]);
    const store = keep(new Store(Snapshot.parse(bytes), null));
    store.set({ reading: "norm", block: 1, sublayer: "attention" });
    const own = [...norms.slice(7, 14)];
    const median = own.slice(1).sort((a, b) => a - b)[2];
    expect([...fieldOf(store).values]).toEqual(own.map((v) => Math.fround(v / median)));
    // Whether any stands out is said.
    const longest = Math.max(...own.slice(1)) / median;
    expect(longest).toBeLessThan(3);
    expect(fieldOf(store).note).toBe(
      `No patch is longer than 3 medians here; the longest has ${longest.toFixed(2)}.`,
    );
    const planted = norms.slice();
    planted[7 + 4] = 5 * median;
    const long = keep(
      new Store(
        Snapshot.parse(
          pack(meta, [...arrays.values(), { name: "norms", dtype: "f4", shape: [5, 7], data: planted }]),
        ),
        null,
      ),
    );
    long.set({ reading: "norm", block: 1, sublayer: "attention" });
    expect(fieldOf(long).note).toMatch(/^1 patch is longer than 3 medians here; the longest has /);
    const without = open("all");
    without.set({ reading: "norm" });
    expect(fieldOf(without)).toMatchObject({
      state: "nothing",
      note: "The lengths of tokens were not saved.",
    });
  });

  it("are told beside the attention that tokens receive, by block", () => {
    const { meta, arrays } = unpack(fixture("all"));
    const shares = Float32Array.from({ length: 2 * 7 }, (_, i) => (i % 7) / 21);
    const received: NdArray = { name: "received", dtype: "f4", shape: [2, 7], data: shares };
    const store = keep(new Store(Snapshot.parse(pack(meta, [...arrays.values(), received])), null));
    store.set({ reading: "received", block: 2, sublayer: "mlp" });
    const field = fieldOf(store);
    expect([...field.values]).toEqual([...shares.slice(7)]);
    expect(field.title).toBe("share of block 2's attention received");
    expect(field.format(field.values[6])).toBe("28.6 %");
    store.set({ block: 0, sublayer: "embedding" });
    expect(fieldOf(store)).toMatchObject({ state: "nothing" });
    expect(FIELDS.received.offered?.(store)).toBe(true);
    expect(FIELDS.received.offered?.(open("all"))).toBe(false);
  });
});
