import { describe, expect, it } from "vitest";
import { barPath, heightOf, linePath } from "../src/charts/marks";
import { extentWithZero, linear, log1, niceStep, rankTicks, thin, ticks } from "../src/charts/scale";

describe("scales", () => {
  it("maps the ends of the domain to the ends of the range", () => {
    const x = linear(2, 4, 100, 0);
    expect([x(2), x(3), x(4)]).toEqual([100, 50, 0]);
    expect(linear(3, 3, 0, 10)(3)).toBe(5);
  });

  it("gives rank 0 a place on the logarithmic axis", () => {
    const y = log1(0, 999, 0, 300);
    expect([y(0), y(9), y(99), y(999)].map(Math.round)).toEqual([0, 100, 200, 300]);
  });

  it("cuts with round steps", () => {
    expect([niceStep(10, 5), niceStep(7, 4), niceStep(0.03, 3), niceStep(0, 3)]).toEqual([2, 2, 0.01, 1]);
    expect(ticks(-1.2, 2.9, 4)).toEqual([0, 2]);
    expect(ticks(-1.2, 2.9, 5)).toEqual([-1, 0, 1, 2]);
    expect(ticks(0, 0.3, 3)).toEqual([0, 0.1, 0.2, 0.3]);
    expect(rankTicks(999)).toEqual([0, 10, 100]);
    expect(rankTicks(23)).toEqual([0, 2, 6, 18]);
    expect(rankTicks(1)).toEqual([0, 1]);
  });

  it("keeps zero inside and skips what is not finite", () => {
    expect(extentWithZero([3, Number.NaN, 1])).toEqual([0, 3]);
    expect(extentWithZero([-2, 5])).toEqual([-2, 5]);
    expect(extentWithZero([])).toEqual([-1, 1]);
  });

  it("thins labels to the room there is", () => {
    const keep = thin(13, 10, 18);
    expect(Array.from({ length: 13 }, (_, i) => i).filter(keep)).toEqual([0, 2, 4, 6, 8, 10, 12]);
  });
});

describe("paths", () => {
  it("breaks a line where a value is missing", () => {
    expect(
      linePath([
        [0, 0],
        [1, Number.NaN],
        [2, 4],
        [3, 5],
      ]),
    ).toBe("M0.0,0.0M2.0,4.0L3.0,5.0");
  });

  it("draws a bar from its base to its tip, either way", () => {
    expect(barPath(0, 10, 50, 20)).toMatch(/^M0\.00,50\.00V22\.00Q0\.00,20\.00/);
    expect(barPath(0, 10, 50, 80)).toMatch(/^M0\.00,50\.00V78\.00Q0\.00,80\.00/);
    expect(barPath(0, 10, 50, 50)).not.toContain("NaN");
  });
});

describe("heights", () => {
  it("follow the width between two ends, with room for the block numbers", () => {
    expect([200, 500, 2000].map(heightOf)).toEqual([
      { height: 156, bottom: 138 },
      { height: 200, bottom: 182 },
      { height: 240, bottom: 222 },
    ]);
  });
});
