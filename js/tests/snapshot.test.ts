/** What arrives later goes to its place: maps by name, classes and attention rows each with their own values. */
import { describe, expect, it } from "vitest";
import { type NdArray, pack, unpack } from "../src/core/codec";
import { Readings } from "../src/core/readings";
import { C, H, L, S, T, tinySnapshot } from "./tiny";

const array = (name: string, shape: number[], data: NdArray["data"], dtype: NdArray["dtype"] = "f4") => ({
  name,
  shape,
  data,
  dtype,
});
const part = (meta: object, arrays: NdArray[]) =>
  unpack(pack({ kind: "part", classes: { kept: [] }, ...meta }, arrays));

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
    expect(snapshot.maps.map((m) => m.name)).toEqual(["first", "second", "third"]);
    for (const [name, value] of [
      ["first", 10],
      ["second", 20],
      ["third", 30],
    ] as const) {
      expect(snapshot.map(name)?.info.label).toBe(`${name} map`);
      expect([...(snapshot.map(name)?.values ?? [])]).toEqual([0, 1, 2, 3, 4].map((t) => value + t));
    }
    expect(snapshot.map("fourth")).toBeNull();
  });

  it("replace the one of their name, and no other", () => {
    const snapshot = tinySnapshot();
    snapshot.merge(maps(["first", 10], ["second", 20]));
    snapshot.merge(maps(["second", 50], ["third", 60]));
    expect(snapshot.maps.map((m) => m.name)).toEqual(["first", "second", "third"]);
    const starts = ["first", "second", "third"].map((name) => snapshot.map(name)?.values[0]);
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
