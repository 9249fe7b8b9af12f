import { describe, expect, it } from "vitest";
import { cropAt, placeOf } from "../src/core/crop";

const photo = (width: number, height: number, crop: [number, number, number, number] = [0, 0, 1, 1]) =>
  ({ width, height, mime: "image/webp", crop }) as const;

describe("a part of a photograph", () => {
  it("shows as much as there is at zoom 0, in the input's shape", () => {
    expect(cropAt(photo(300, 200), 1, 0, [0.5, 0.5])).toEqual(
      [1 / 6, 0, 5 / 6, 1].map((v) => expect.closeTo(v)),
    );
    expect(cropAt(photo(200, 300), 2, 0, [0.5, 0.5])).toEqual(
      [0, 1 / 3, 1, 2 / 3].map((v) => expect.closeTo(v)),
    );
  });

  it("stays inside the photograph", () => {
    const [left, top, right, bottom] = cropAt(photo(300, 200), 1, 0.5, [2, -1]);
    expect([right, top]).toEqual([1, 0]);
    // Square in pixels.
    expect((right - left) * 300).toBeCloseTo((bottom - top) * 200);
    expect((bottom - top) * 200).toBeCloseTo(200 * Math.sqrt(0.1));
  });

  it("starts where the model looked", () => {
    const own = photo(300, 200, [0.5, 0.25, 0.75, 0.625]);
    const { zoom, centre } = placeOf(own, 1);
    expect(cropAt(own, 1, zoom, centre)).toEqual(own.crop.map((v) => expect.closeTo(v)));
  });

  it("brings a padded input back inside", () => {
    const own = photo(300, 200, [0, -0.25, 1, 1.25]);
    const { zoom, centre } = placeOf(own, 1);
    expect(zoom).toBe(0);
    expect(cropAt(own, 1, zoom, centre)).toEqual([1 / 6, 0, 5 / 6, 1].map((v) => expect.closeTo(v)));
  });
});
