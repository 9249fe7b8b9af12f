import { expect, it } from "vitest";
import type { Snapshot } from "../src/core/snapshot";
import type { Field } from "../src/fields/field";
import { summary } from "../src/views/heatmap/summary";

const grid = { prefix: 1, rows: 4, columns: 5 } as Snapshot;
const field = (rows: number[][], part: Partial<Field> = {}) =>
  ({
    reading: "logit",
    title: "logit of fish",
    kind: "sequential",
    state: "ready",
    values: new Float32Array([99, ...rows.flat()]),
    blank: "",
    note: "",
    ...part,
  }) as Field;
const N = Number.NaN;

it("tells where a map is highest, by the patches around its highest one", () => {
  const map = [
    [0, 0, 0, 0, 7.9],
    [0, 8, 9, 0, 0],
    [7, 0, 10, 0, 8],
    [0, 0, N, 0, 0],
  ];
  // 7 is below a quarter of the range; the two at the right edge are no neighbours, nor is 7 of the row above.
  expect(summary(field(map), grid)).toBe("logit of fish: highest on rows 2 to 3, columns 2 to 3");
  const low = map.map((row) => row.map((v) => -v));
  expect(summary(field(low, { reading: "rank", title: "rank of fish" }), grid)).toBe(
    "rank of fish: lowest on rows 2 to 3, columns 2 to 3",
  );
});

it("tells a single patch, and what is no map of numbers by its words", () => {
  const single = [
    [0, 0, 0, 0, 5],
    [4, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0],
  ];
  expect(summary(field(single), grid)).toBe("logit of fish: highest on row 1, column 5");
  expect(summary(field(single, { state: "nothing", note: "Not saved." }), grid)).toBe("Not saved.");
  expect(summary(field(single, { kind: "categorical", title: "best class" }), grid)).toBe("best class");
});
