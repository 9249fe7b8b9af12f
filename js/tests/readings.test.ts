/** Readings against counting by hand: removed tokens, points that are filled later, classes that are let go. */
import { describe, expect, it } from "vitest";
import { floats, pack, unpack } from "../src/core/codec";
import * as derive from "../src/core/derive";
import { Readings } from "../src/core/readings";
import { Snapshot } from "../src/core/snapshot";
import type { State } from "../src/core/state";
import { Store } from "../src/core/store";
import { fieldOf } from "../src/fields";
import { robustPeak } from "../src/fields/scale";
import { meanRank, topClasses } from "../src/views/classes/ranking";
import { fixture } from "./model";
import { C, T, tinySnapshot } from "./tiny";

/** A fixture whose meta data are changed. */
function changed(name: string, change: (meta: Record<string, unknown>) => Record<string, unknown>): Snapshot {
  const { meta, arrays } = unpack(fixture(name));
  return Snapshot.parse(pack(change(structuredClone(meta) as Record<string, unknown>), [...arrays.values()]));
}
const without = (name: string, removed: number[]) =>
  changed(name, (meta) => ({ ...meta, tokens: { ...(meta.tokens as object), removed } }));

describe.each([
  ["counted here", () => tinySnapshot(true, [2, 4]), [2, 4]],
  ["stored", () => without("classes", [2, 3]), [2, 3]],
  ["counted point by point", () => without("increments", [2]), [2]],
] as const)("a removed token, where readings are %s,", (_, open, removed) => {
  const snapshot = open();
  const readings = new Readings(snapshot);
  for (let s = 0; s < snapshot.S; s++) for (const _ of readings.fillPoint(s));
  const { V } = snapshot;
  const gone = (t: number) => (removed as readonly number[]).includes(t);

  it("has no rank and no identifiability, and others have theirs", () => {
    for (const id of snapshot.keptClasses) {
      const ranks = readings.ranks(id) as Float32Array;
      const share = readings.identifiability(id) as Float32Array;
      for (let i = 0; i < snapshot.S * V; i++) {
        expect(Number.isNaN(ranks[i])).toBe(gone(i % V));
        expect(Number.isNaN(share[i])).toBe(gone(i % V));
      }
    }
  });

  it("has no top classes", () => {
    for (let s = 0; s < snapshot.S; s++) {
      const best = readings.all.top1(s) as Int32Array;
      for (let t = 0; t < V; t++) {
        expect(best[t] === -1).toBe(gone(t));
        expect(readings.all.top(s, t) === null).toBe(gone(t));
      }
    }
  });
});

describe("points that are filled later", () => {
  it("bring ranks, probabilities and top classes that were not known before", () => {
    // Without what the fixture stores of every class.
    const { meta, arrays } = unpack(fixture("increments"));
    const kept = [...arrays.values()].filter(({ name }) => !["lse", "top", "top_logits"].includes(name));
    const snapshot = Snapshot.parse(pack({ ...meta }, kept));
    const readings = new Readings(snapshot);
    const { V } = snapshot;
    const ids = Array.from({ length: snapshot.C }, (_, c) => c);
    const id = ids.find((c) => !snapshot.classArrays(c)) as number;
    const part = (values: Float32Array | null, s: number) =>
      [...(values as Float32Array)].slice(s * V, (s + 1) * V);
    for (const read of ["ranks", "probabilities", "identifiability"] as const) {
      expect(part(readings[read](id), 3).every(Number.isNaN)).toBe(true);
    }
    expect(readings.all.top1(3)).toBeNull();
    for (const _ of readings.fillPoint(3));
    for (let t = 0; t < V; t++) {
      const own = ids.map((c) => part(readings.logits(c), 3)[t]);
      const sum = own.reduce((all, v) => all + Math.exp(v), 0);
      const rank = own.filter((v) => v > own[id]).length;
      expect(part(readings.probabilities(id), 3)[t]).toBeCloseTo(Math.exp(own[id]) / sum, 4);
      expect(part(readings.ranks(id), 3)[t]).toBe(rank);
      expect(part(readings.identifiability(id), 3)[t]).toBeCloseTo(1 - rank / snapshot.C, 6);
      expect(readings.all.top1(3)?.[t]).toBe(own.indexOf(Math.max(...own)));
    }
    expect(part(readings.ranks(id), 4).every(Number.isNaN)).toBe(true);
  });
});

describe("classes whose readings are kept", () => {
  it("are the last 96: an older one is read anew, with the same result", () => {
    const names = Array.from({ length: 100 }, (_, i) => `class ${i}`);
    const { meta, arrays } = unpack(fixture("increments"));
    const width = (meta.model as { width: number }).width;
    const wide = {
      ...meta,
      classes: { count: 100, names, kept: [] },
    };
    const row = (length: number) => Float32Array.from({ length }, (_, i) => Math.sin(i));
    const replaced = [...arrays.values()]
      .filter(({ name }) => ["image", "sigma", "increments", "increment_scale"].includes(name))
      .concat([
        { name: "embedding", dtype: "f4", shape: [100, width], data: row(100 * width) },
        { name: "offset", dtype: "f4", shape: [100], data: row(100) },
        { name: "output_logits", dtype: "f4", shape: [100], data: row(100) },
      ]);
    const readings = new Readings(Snapshot.parse(pack(wide, replaced)));
    const first = readings.logits(0) as Float32Array;
    for (let c = 1; c < 96; c++) readings.logits(c);
    expect(readings.logits(0)).toBe(first);
    readings.logits(96);
    const again = readings.logits(0) as Float32Array;
    expect(again).not.toBe(first);
    expect(again).toEqual(first);
    expect(readings.logits(99)).toBe(readings.logits(99));
  });
});

describe("what is at hand", () => {
  it("is every class that there is and no other, where increments travel", () => {
    const readings = new Readings(Snapshot.parse(fixture("increments")));
    const { C: count } = readings.snapshot;
    expect([-1, 0, count - 1, count].map((id) => readings.has(id))).toEqual([false, true, true, false]);
    expect(readings.logits(count)).toBeNull();
  });

  it("is forgotten for the class that is named, class 0 too", () => {
    const readings = new Readings(tinySnapshot());
    for (const id of [0, 3]) {
      const before = [0, 3].map((c) => readings.logits(c));
      readings.forget(id);
      expect([0, 3].map((c, i) => readings.logits(c) === before[i])).toEqual([id !== 0, id !== 3]);
    }
  });

  it("is as many top classes as are asked for, of those that are stored", () => {
    const readings = new Readings(Snapshot.parse(fixture("classes")));
    const stored = readings.snapshot.storedTop(3, 1);
    expect(stored?.length).toBe(5);
    for (const k of [1, 3, 5]) expect(readings.all.top(3, 1, k)).toEqual(stored?.slice(0, k));
  });

  it("is approximate where ranks are counted from rounded values, and exact where they came", () => {
    const ranks = (said: string) =>
      new Readings(changed("increments", (meta) => ({ ...meta, exactness: { logits: said, ranks: said } })));
    const [rough, exact] = [ranks("approximate"), ranks("exact")];
    const kept = rough.snapshot.keptClasses;
    for (let id = 0; id < rough.snapshot.C; id++) {
      expect(rough.ranksApproximate(id)).toBe(!kept.includes(id));
      expect(exact.ranksApproximate(id)).toBe(false);
    }
    expect(kept.length).toBeGreaterThan(0);
    expect(kept.length).toBeLessThan(rough.snapshot.C);
  });
});

describe("means over tokens", () => {
  const snapshot = tinySnapshot();
  const readings = new Readings(snapshot);
  const logit = (c: number, s: number, t: number) => (readings.logits(c) as Float32Array)[s * T + t];
  const share = (c: number, s: number, t: number) => {
    const sum = Array.from({ length: C }, (_, k) => Math.exp(logit(k, s, t))).reduce((a, b) => a + b);
    return Math.exp(logit(c, s, t)) / sum;
  };

  it("normalise every token by its own classes", () => {
    for (const tokens of [[0], [1, 3], [4, 0, 2]]) {
      for (const entry of topClasses({ snapshot, readings }, 3, tokens, C)) {
        const mean = (of: (t: number) => number) => tokens.reduce((sum, t) => sum + of(t), 0) / tokens.length;
        expect(entry.logit).toBeCloseTo(
          mean((t) => logit(entry.id, 3, t)),
          5,
        );
        expect(entry.probability).toBeCloseTo(
          mean((t) => share(entry.id, 3, t)),
          5,
        );
        const ranks = tokens.map(
          (t) =>
            Array.from({ length: C }, (_, k) => logit(k, 3, t)).filter((v) => v > logit(entry.id, 3, t))
              .length,
        );
        expect(meanRank({ snapshot, readings }, entry.id, 3, tokens)).toBeCloseTo(
          ranks.reduce((a, b) => a + b) / tokens.length,
          5,
        );
      }
    }
  });

  it("are right where only some streams travel", () => {
    const [some, whole] = ["residual_only", "classes"].map((name) => Snapshot.parse(fixture(name)));
    const at = (s: Snapshot, point: number, token: number) =>
      topClasses({ snapshot: s, readings: new Readings(s) }, point, [token], 5);
    let found = 0;
    for (let point = 4; point < whole.S; point += 4) {
      for (let token = 0; token < whole.V; token++) {
        const expected = at(whole, point, token).filter(({ id }) => whole.keptClasses.includes(id));
        const own = at(some, point, token);
        for (const { id, probability } of expected) {
          found++;
          expect(own.find((entry) => entry.id === id)?.probability).toBeCloseTo(probability, 5);
        }
      }
    }
    expect(at(some, 5, 1)).toEqual([]);
    expect(found).toBeGreaterThan(5);
  });
});

describe("equal logits", () => {
  // Four classes of one token: 2, 7, 7, 2.
  const all = Float32Array.of(2, 7, 7, 2);

  it("keep the order of the classes, also where the list is full", () => {
    const ids = (k: number) => derive.topOf(all, 4, 1, 0, k).map((c) => c.id);
    expect([1, 2, 3, 4].map(ids)).toEqual([[1], [1, 2], [1, 2, 0], [1, 2, 0, 3]]);
    expect(derive.topOf(Float32Array.of(7, 7, 7), 3, 1, 0, 2).map((c) => c.id)).toEqual([0, 1]);
  });

  it("share the better rank, counted or found among sorted ones", () => {
    const sorted = all.slice().sort();
    for (const [id, rank] of [2, 0, 0, 2].entries()) {
      const [counted, found] = [new Float32Array(1), new Float32Array(1)];
      derive.countRanks(all, id, 4, 1, counted);
      derive.findRanks(sorted, all.subarray(id, id + 1), 4, found);
      expect([counted[0], found[0]]).toEqual([rank, rank]);
    }
  });
});

describe("scales and differences", () => {
  const at = (store: Store) => fieldOf(store);
  const live = (state: Partial<State>) => new Store(Snapshot.parse(fixture("all")), null, state);
  /** The fixture with other readings: those of the next class, made larger. */
  const other = (times: number) => {
    const { meta, arrays } = unpack(fixture("all"));
    const list = [...arrays.values()].map((a) =>
      a.name === "raw" || a.name === "head_raw"
        ? { ...a, data: Float32Array.from(floats(a), (v) => times * v + 0.2), dtype: "f4" as const }
        : a,
    );
    return pack({ ...meta }, list);
  };

  it("of logits: one for all residual streams, another for what sublayers add", () => {
    const store = live({ reading: "logit", class_index: 1 });
    const { snapshot, readings } = store.data.value;
    const all = readings.logits(1) as Float32Array;
    for (const [stream, parity] of [
      ["residual", 0],
      ["output", 1],
    ] as const) {
      store.set({ stream, block: 1, sublayer: "mlp" });
      const seen: number[] = [];
      for (let s = 0; s < snapshot.S; s++) {
        if (s % 2 !== parity && s !== 0) continue;
        for (let t = snapshot.prefix; t < snapshot.T; t++) seen.push(all[s * snapshot.V + t]);
      }
      expect(at(store).low).toBe(Math.min(...seen));
      expect(at(store).high).toBe(Math.max(...seen));
    }
  });

  it("end at the value that 99.5 of 100 image tokens do not exceed", () => {
    const snapshot = tinySnapshot();
    const size = 1000 * T;
    const values = Float32Array.from({ length: size }, (_, i) => (i % T === 0 ? 1e6 : -i));
    const sizes = [...values]
      .filter((_, i) => i % T !== 0)
      .map(Math.abs)
      .sort((a, b) => a - b);
    expect(robustPeak(values, snapshot)).toBe(sizes[Math.floor((sizes.length - 1) * 0.995)]);
  });

  it.each([3, 0.3])("are the same before and after an intervention (%f times)", (times) => {
    const store = live({ reading: "logit", class_index: 1, tokens: [2] });
    store.addPinnedPass(other(times));
    for (const reading of ["logit", "direct", "step"] as const) {
      store.set({ reading, block: 1, sublayer: "mlp" });
      const [before, after] = (["baseline", "intervened"] as const).map((shown) => {
        store.set({ shown });
        return at(store);
      });
      expect([before.low, before.high]).toEqual([after.low, after.high]);
      expect(before.place(0.3)).toBe(after.place(0.3));
      for (const f of [before, after]) {
        for (let t = 1; t < 7; t++) expect(f.values[t] >= f.low - 1e-6 || f.clipped).toBe(true);
      }
    }
  });

  it("of a head: the mean over the selected tokens, the first class minus the second", () => {
    const store = live({ reading: "source", class_index: 1, compare_index: 4, head: [2, 1], tokens: [2, 5] });
    const { readings, snapshot } = store.data.value;
    const of = (id: number, token: number) => readings.source(id, 2, 1, token) as Float32Array;
    for (let s = 0; s < snapshot.T; s++) {
      const mean = (of(1, 2)[s] - of(4, 2)[s] + of(1, 5)[s] - of(4, 5)[s]) / 2;
      expect(at(store).values[s]).toBeCloseTo(mean, 5);
    }
    store.set({ reading: "attention", compare_index: null });
    for (let s = 0; s < snapshot.T; s++) {
      const mean = [2, 5].reduce((sum, t) => sum + (snapshot.attention(2, 1, t)?.[s] ?? 0), 0) / 2;
      expect(at(store).values[s]).toBeCloseTo(mean, 6);
    }
    // Weights of a token add up to 1, but for their eight bits.
    const weights = snapshot.attention(2, 1, 5) as Float32Array;
    expect(weights.reduce((a, b) => a + b)).toBeCloseTo(1, 1);
  });
});

describe("equal logits of all classes", () => {
  it("are read as the class that comes first, in every list", () => {
    const { meta, arrays } = unpack(fixture("all"));
    const C = (meta.classes as { count: number }).count;
    const same = [...arrays.values()].map((a) =>
      a.name === "raw"
        ? { ...a, data: Float32Array.from(a.data, (_, i) => a.data[i % (a.data.length / C)]) }
        : a.name === "offset"
          ? { ...a, data: new Float32Array(C) }
          : a,
    );
    const snapshot = Snapshot.parse(pack({ ...meta }, same));
    const readings = new Readings(snapshot);
    expect([...(readings.all.top1(3) as Int32Array)].every((id) => id === 0)).toBe(true);
    expect(topClasses({ snapshot, readings }, 3, [1, 2], 3).map((e) => e.id)).toEqual([0, 1, 2]);
    expect((readings.ranks(C - 1) as Float32Array).every((rank) => rank === 0)).toBe(true);
  });
});
