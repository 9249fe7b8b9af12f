/** What arrives later goes to its place: maps by name, classes and attention rows each with their own values. */
import { describe, expect, it } from "vitest";
import { type NdArray, pack, unpack } from "../src/core/codec";
import { Readings } from "../src/core/readings";
import { Snapshot } from "../src/core/snapshot";
import { fixture } from "./model";
import { C, H, L, S, T, tinySnapshot } from "./tiny";

const array = (name: string, shape: number[], data: NdArray["data"], dtype: NdArray["dtype"] = "f4") => ({
  name,
  shape,
  data,
  dtype,
});
const part = (meta: object, arrays: NdArray[]) =>
  unpack(pack({ kind: "part", classes: { kept: [] }, ...meta }, arrays));

describe("places", () => {
  it.each([
    ["all", 2],
    ["all_parallel", 1],
  ] as const)("end at the first and the last there are (%s)", (name, perBlock) => {
    const snapshot = Snapshot.parse(fixture(name));
    const last = { block: snapshot.L, sublayer: "mlp" };
    expect(snapshot.N).toBe(perBlock * snapshot.L + 1);
    for (const beyond of [0, 1, 5]) {
      expect(snapshot.points.position(snapshot.L + beyond, "mlp")).toBe(snapshot.N - 1);
      expect(snapshot.points.place(snapshot.N - 1 + beyond)).toEqual(last);
      expect(snapshot.points.place(-beyond)).toEqual({ block: 0, sublayer: "embedding" });
    }
    expect(snapshot.points.position(snapshot.L + 1, "attention")).toBe(
      snapshot.points.position(snapshot.L, "attention"),
    );
  });

  it("of tokens are told by row and column", () => {
    const snapshot = Snapshot.parse(fixture("all_pooled"));
    expect([snapshot.rows, snapshot.columns]).toEqual([2, 3]);
    expect(Array.from({ length: snapshot.V }, (_, t) => snapshot.tokenName(t))).toEqual([
      "[CLS]",
      "patch 1, 1",
      "patch 1, 2",
      "patch 1, 3",
      "patch 2, 1",
      "patch 2, 2",
      "patch 2, 3",
      "mean of patches",
    ]);
    const images = Array.from({ length: snapshot.V }, (_, t) => snapshot.isImageToken(t));
    expect(images).toEqual([false, true, true, true, true, true, true, false]);
  });
});

describe("what the model answers", () => {
  it("is five classes, most likely first, with their share among all classes", () => {
    const snapshot = tinySnapshot();
    const logits = [...snapshot.outputLogits];
    const sum = logits.reduce((all, z) => all + Math.exp(z), 0);
    const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
    expect(snapshot.predicted().map((p) => p.id)).toEqual(order.slice(0, 5));
    expect(snapshot.predicted(2).map((p) => p.id)).toEqual(order.slice(0, 2));
    for (const { id, logit, probability } of snapshot.predicted(C)) {
      expect(logit).toBe(logits[id]);
      expect(probability).toBeCloseTo(Math.exp(logits[id]) / sum, 6);
    }
  });
});

describe("maps that arrive", () => {
  const maps = (...named: [string, number][]) =>
    part({ maps: named.map(([name]) => ({ name, label: `${name} map`, signed: false })) }, [
      array(
        "maps",
        [named.length, T],
        Float32Array.from({ length: named.length * T }, (_, i) => named[Math.floor(i / T)][1] + (i % T)),
      ),
    ]);

  it("are found by their names, each with its own values", () => {
    const snapshot = tinySnapshot();
    snapshot.merge(maps(["first", 10], ["second", 20]));
    snapshot.merge(maps(["third", 30]));
    expect(snapshot.maps.infos.map((m) => m.name)).toEqual(["first", "second", "third"]);
    for (const [name, value] of [
      ["first", 10],
      ["second", 20],
      ["third", 30],
    ] as const) {
      expect(snapshot.maps.get(name)?.info.label).toBe(`${name} map`);
      expect([...(snapshot.maps.get(name)?.values ?? [])]).toEqual([0, 1, 2, 3, 4].map((t) => value + t));
    }
    expect(snapshot.maps.get("fourth")).toBeNull();
  });

  it("replace the one of their name, and no other", () => {
    const snapshot = tinySnapshot();
    snapshot.merge(maps(["first", 10], ["second", 20]));
    snapshot.merge(maps(["second", 50], ["third", 60]));
    expect(snapshot.maps.infos.map((m) => m.name)).toEqual(["first", "second", "third"]);
    const starts = ["first", "second", "third"].map((name) => snapshot.maps.get(name)?.values[0]);
    expect(starts).toEqual([10, 50, 60]);
  });
});

describe("attention that arrives", () => {
  // Weight of head h of block b, read by row r at source s: the square of (1 + 50 b + 20 h + 5 r + s) / 255.
  const weight = (b: number, h: number, r: number, s: number) => 1 + 50 * b + 20 * h + 5 * r + s;
  const value = (id: number, b: number, h: number, s: number) => 1000 * id + 100 * b + 10 * h + s;
  const whole = (id: number, b: number, h: number, r: number) => 1000 * id + 100 * b + 10 * h + r + 0.5;

  function answered() {
    const snapshot = tinySnapshot();
    for (const rows of [[3, 1], [4]]) {
      const attention: number[] = [];
      const values: number[] = [];
      const heads: number[] = [];
      for (let b = 1; b <= L; b++)
        for (let h = 0; h < H; h++)
          for (const r of rows) for (let s = 0; s < T; s++) attention.push(weight(b, h, r, s));
      for (const id of [2, 5])
        for (let b = 1; b <= L; b++)
          for (let h = 0; h < H; h++) {
            for (let s = 0; s < T; s++) values.push(value(id, b, h, s));
            for (const r of rows) heads.push(whole(id, b, h, r));
          }
      snapshot.merge(
        part({ classes: { kept: [2, 5] }, attention: { rows } }, [
          array("attention", [L, H, rows.length, T], Uint8Array.from(attention), "u1"),
          array("value_raw", [2, L, H, T], Float32Array.from(values)),
          array("head_raw", [2, L, H, rows.length], Float32Array.from(heads)),
        ]),
      );
    }
    return snapshot;
  }

  it("is read by block, head and row", () => {
    const snapshot = answered();
    expect(snapshot.attentionRows).toEqual([3, 1, 4]);
    for (const [b, h, r] of [
      [1, 0, 3],
      [1, 1, 1],
      [2, 0, 4],
      [2, 1, 1],
    ]) {
      const weights = snapshot.attention(b, h, r) as Float32Array;
      for (let s = 0; s < T; s++) expect(weights[s]).toBeCloseTo((weight(b, h, r, s) / 255) ** 2, 6);
    }
    expect(snapshot.attention(1, 0, 0)).toBeNull();
  });

  it("gives what each head adds to a token, and from where, at that token's own scale", () => {
    const snapshot = answered();
    const readings = new Readings(snapshot);
    for (const id of [2, 5])
      for (const r of [1, 3, 4]) {
        const scale = snapshot.sigma[(S - 1) * T + r];
        const direct = readings.headDirect(id, r) as Float32Array;
        for (let b = 1; b <= L; b++)
          for (let h = 0; h < H; h++) {
            expect(direct[(b - 1) * H + h]).toBeCloseTo(whole(id, b, h, r) / scale, 2);
            const from = readings.source(id, b, h, r) as Float32Array;
            for (let s = 0; s < T; s++)
              expect(from[s]).toBeCloseTo(((weight(b, h, r, s) / 255) ** 2 * value(id, b, h, s)) / scale, 2);
          }
      }
    expect(readings.source(1, 1, 0, 1)).toBeNull();
    expect(readings.headDirect(2, 2)).toBeNull();
  });

  it("leaves classes that do not exist unread", () => {
    const readings = new Readings(tinySnapshot());
    expect([readings.has(0), readings.has(C - 1), readings.has(C), readings.has(-1)]).toEqual([
      true,
      true,
      false,
      false,
    ]);
  });
});
