/** The numbering is the one that Python has: every point and every increment of several models. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { type Layout, Points } from "../src/core/points";

interface Numbering {
  readonly n_blocks: number;
  readonly layout: Layout;
  readonly per_block: number;
  readonly points: readonly { number: number; block: number; increment: number; is_sum: boolean }[];
  readonly increments: readonly {
    number: number;
    block: number;
    stream: string;
    added: number;
    after: number;
    block_input: number;
    name: string;
  }[];
}

const path = new URL("../../tests/fixtures/points.json", import.meta.url);
const models = JSON.parse(readFileSync(path, "utf8")) as Numbering[];

describe.each(models)("$n_blocks blocks, $layout", (model) => {
  const points = new Points(model.n_blocks, model.layout);

  it("has as many points and increments, and as many of a block", () => {
    expect([points.S, points.N, points.perBlock]).toEqual([
      model.points.length,
      model.increments.length,
      model.per_block,
    ]);
  });

  it("has the same increment at every stream point", () => {
    for (const { number, block, increment, is_sum } of model.points) {
      expect([points.increment(number), points.isSum(number)]).toEqual([increment, is_sum]);
      expect(points.place(points.increment(number)).block).toBe(block);
    }
  });

  it("reads the same points at every position, and names it the same", () => {
    for (const { number, block, stream, added, after, block_input, name } of model.increments) {
      expect([points.at(number, "output"), points.at(number, "residual")]).toEqual([added, after]);
      expect([points.blockInput(number), points.name(number)]).toEqual([block_input, name]);
      expect(points.kind(number)).toBe(number === 0 ? "embedding" : stream);
      const place = points.place(number);
      expect(place.block).toBe(block);
      expect(points.position(place.block, place.sublayer)).toBe(number);
      const same = model.increments.filter((one) => one.block === block).map((one) => one.number);
      expect(points.middle(block)).toBe((same[0] + same[same.length - 1]) / 2);
    }
    expect(points.along("output")).toEqual(model.increments.map(({ added }) => added));
    expect(points.along("residual")).toEqual(model.increments.map(({ after }) => after));
  });
});
