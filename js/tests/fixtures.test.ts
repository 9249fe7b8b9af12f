/** What Python wrote, read here: the same logits, ranks and contributions. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { fromPlanes } from "../src/core/codec";
import { Readings } from "../src/core/readings";
import { Snapshot } from "../src/core/snapshot";

interface Expected {
  readonly logits: number[][];
  readonly ranks: number[][];
  readonly direct: number[][];
  /** Through every fitted lens; null where there is no reading. */
  readonly lenses?: readonly Readonly<Record<"logits" | "ranks", (number | null)[][] | null>>[];
}

const folder = new URL("../../tests/fixtures/", import.meta.url);
const load = (name: string) => Snapshot.parse(readFileSync(new URL(`${name}.bin`, folder)));
const bytesOf = (name: string) => new Uint8Array(readFileSync(new URL(`${name}.bin`, folder)));
const wanted = (name: string) =>
  JSON.parse(readFileSync(new URL(`${name}.json`, folder), "utf8")) as Record<string, Expected>;

function close(own: ArrayLike<number>, flat: readonly number[], digits: number): void {
  expect(own.length).toBe(flat.length);
  for (let i = 0; i < flat.length; i++) expect(own[i]).toBeCloseTo(flat[i], digits);
}

describe.each(["all", "all_pooled", "all_parallel", "classes", "increments"])("fixture %s", (name) => {
  const snapshot = load(name);
  const readings = new Readings(snapshot);
  const truth = wanted(name);

  it("has logits, exact ranks and direct contributions", () => {
    for (const [key, expected] of Object.entries(truth)) {
      const id = Number(key);
      if (!readings.has(id)) continue;
      close(readings.logits(id) as Float32Array, expected.logits.flat(), 3);
      close(readings.direct(id) as Float32Array, expected.direct.flat(), 3);
      const kept = snapshot.meta.payload.mode !== "increments" || snapshot.classArrays(id)?.ranks;
      if (kept) expect([...(readings.ranks(id) as Float32Array)]).toEqual(expected.ranks.flat());
    }
  });

  it("splits the output's logit completely, and steps telescope", () => {
    const { N, V, S, output, offset } = snapshot;
    for (const id of snapshot.keptClasses) {
      const parts = readings.direct(id) as Float32Array;
      const steps = readings.step(id) as Float32Array;
      const logits = readings.logits(id) as Float32Array;
      let direct = offset[id];
      let walk = logits[output];
      for (let n = 0; n < N; n++) {
        direct += parts[n * V + output];
        if (n > 0) walk += steps[n * V + output];
      }
      expect(direct).toBeCloseTo(logits[(S - 1) * V + output], 4);
      expect(walk).toBeCloseTo(logits[(S - 1) * V + output], 4);
      expect(logits[(S - 1) * V + output]).toBeCloseTo(snapshot.outputLogits[id], 3);
    }
  });

  it("has top classes with rank 0", () => {
    const { S, V } = snapshot;
    for (let s = 0; s < S; s++) {
      const top = readings.all.top1(s);
      for (let t = 0; top && t < V; t++) {
        expect(truth[String(top[t])]?.ranks[s][t] ?? 0).toBe(0);
        expect(readings.all.top(s, t)?.[0].id).toBe(top[t]);
      }
    }
  });

  it("splits heads by source token", () => {
    const { L, H, T } = snapshot;
    const [id] = snapshot.keptClasses;
    for (const token of snapshot.attentionRows) {
      const heads = readings.headDirect(id, token) as Float32Array;
      for (let i = 0; i < L * H; i++) {
        const from = readings.source(id, Math.floor(i / H) + 1, i % H, token) as Float32Array;
        expect(from.length).toBe(T);
        // Attention weights travel in 8 bits.
        expect(from.reduce((a, b) => a + b)).toBeCloseTo(heads[i], 1);
      }
    }
  });

  it("names places both ways", () => {
    for (let p = 0; p < snapshot.N; p++) {
      const { block, sublayer } = snapshot.points.place(p);
      expect(snapshot.points.position(block, sublayer)).toBe(p);
      // Only the block was set (linked with a number elsewhere): it decides.
      expect(snapshot.points.position(block, "embedding")).toBe(snapshot.points.position(block, "mlp"));
    }
    expect(snapshot.points.at(snapshot.N - 1, "residual")).toBe(snapshot.S - 1);
  });
});

describe("mode increments", () => {
  it("counts the ranks of classes that came without, point by point", () => {
    const snapshot = load("increments");
    const readings = new Readings(snapshot);
    const truth = wanted("increments");
    const id = [...Array(snapshot.C).keys()].find((c) => !snapshot.classArrays(c)) as number;
    expect(readings.ranks(id)?.every(Number.isNaN)).toBe(true);
    expect(readings.ranksApproximate(id)).toBe(snapshot.meta.exactness?.ranks === "approximate");
    for (let s = 0; s < snapshot.S; s++) for (const _ of readings.fillPoint(s, 2));
    expect([...(readings.ranks(id) as Float32Array)]).toEqual(truth[String(id)].ranks.flat());
    for (let t = 0; t < snapshot.V; t++) {
      const stored = snapshot.storedTop(0, t)?.map((c) => c.id);
      expect(readings.all.top(0, t)?.map((c) => c.id)).toEqual(stored);
    }
  });

  it("gives probabilities that add up", () => {
    const readings = new Readings(load("increments"));
    let sum = 0;
    for (let c = 0; c < readings.snapshot.C; c++) sum += readings.probabilities(c)?.[0] ?? 0;
    expect(sum).toBeCloseTo(1, 3);
  });
});

describe("mode classes", () => {
  it("says which classes are not at hand", () => {
    const readings = new Readings(load("classes"));
    const missing = [...Array(readings.snapshot.C).keys()].filter((c) => !readings.has(c));
    expect(missing.length).toBeGreaterThan(0);
    expect(readings.logits(missing[0])).toBeNull();
    expect(readings.has(-1)).toBe(false);
  });
});

describe.each(["lenses", "lenses_classes"])("fixture %s", (name) => {
  it("has logits, ranks and top classes through every lens, and none where a lens has no map", () => {
    const snapshot = load(name);
    const { S, V } = snapshot;
    const known = (all: readonly (readonly (number | null)[])[]) => all.flat().map((v) => v ?? Number.NaN);
    const rounded = (all: Iterable<number>) => [...all].map((v) => Math.round(1e4 * v));
    const truth = wanted(name);
    expect(snapshot.lenses.length).toBe(3);
    snapshot.lenses.forEach(({ label }, n) => {
      expect(snapshot.lensNumber(label)).toBe(n);
      const readings = new Readings(snapshot).through(n);
      for (const [key, { lenses }] of Object.entries(truth)) {
        const { logits, ranks } = lenses?.[n] ?? { logits: null, ranks: null };
        const own = readings.logits(Number(key));
        expect(own && rounded(own)).toEqual(logits && rounded(known(logits)));
        const counted = readings.ranks(Number(key));
        expect(counted && [...counted]).toEqual(ranks && known(ranks));
        for (let i = 0; ranks && i < S * V; i++) {
          const [s, t] = [Math.floor(i / V), i % V];
          const best = readings.all.top1(s)?.[t];
          expect(readings.all.top(s, t)?.[0]?.id ?? -1).toBe(best);
          if (best === Number(key)) expect(known(ranks)[i]).toBe(0);
        }
      }
    });
  });
});

describe("smaller snapshots", () => {
  const whole = new Readings(load("classes"));

  it("carry the ranks of some streams, and all logits", () => {
    const readings = new Readings(load("residual_only"));
    const { S, V, keptClasses } = readings.snapshot;
    for (const id of keptClasses) {
      const own = readings.ranks(id) as Float32Array;
      const truth = whole.ranks(id) as Float32Array;
      for (let s = 0; s < S; s++) {
        const carried = s % 4 === 0;
        for (let t = 0; t < V; t++) {
          const i = s * V + t;
          if (carried) expect(own[i]).toBe(truth[i]);
          else expect(own[i]).toBeNaN();
          const p = readings.probabilities(id) as Float32Array;
          if (carried) expect(p[i]).toBeCloseTo((whole.probabilities(id) as Float32Array)[i], 5);
          else expect(p[i]).toBeNaN();
        }
      }
      expect(readings.logits(id)).toEqual(whole.logits(id));
    }
    expect(readings.all.top1(4)).toEqual(whole.all.top1(4));
    expect(readings.all.top(4, 2)).toEqual(whole.all.top(4, 2));
    expect(readings.all.top1(5)).toBeNull();
  });

  it("carry ranks alone", () => {
    const readings = new Readings(load("ranks_only"));
    const [id] = readings.snapshot.keptClasses;
    expect(readings.has(id)).toBe(false);
    expect(readings.ranked(id)).toBe(true);
    expect(readings.logits(id)).toBeNull();
    expect(readings.direct(id)).toBeNull();
    const { V, S } = readings.snapshot;
    expect(readings.ranks(id)?.slice((S - 1) * V)).toEqual(whole.ranks(id)?.slice((S - 1) * V));
    expect(readings.all.top(S - 1, 0)).toEqual(whole.all.top(S - 1, 0));
  });

  it("come out of planes as they were", () => {
    expect(fromPlanes(bytesOf("planes"))).toEqual(bytesOf("classes"));
  });
});
