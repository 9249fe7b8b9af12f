/** The packed colour tables are those of d3-scale-chromatic. */
import { rgb } from "d3-color";
import * as chromatic from "d3-scale-chromatic";
import { describe, expect, it } from "vitest";
import { type MapName, table } from "../src/core/color";

const MAPS: Readonly<Record<MapName, (t: number) => string>> = {
  viridis: chromatic.interpolateViridis,
  magma: chromatic.interpolateMagma,
  cividis: chromatic.interpolateCividis,
  blues: (t) => chromatic.interpolateBlues(1 - t),
  redblue: (t) => chromatic.interpolateRdBu(1 - t),
  brownteal: (t) => chromatic.interpolateBrBG(1 - t),
};

describe("colour tables", () => {
  it.each(Object.entries(MAPS))("%s is right to within 1.5 of 255 in every entry", (name, interpolate) => {
    const entries = table(name as MapName);
    for (let i = 0; i < 256; i++) {
      const { r, g, b } = rgb(interpolate(i / 255));
      for (const [k, value] of [r, g, b].entries()) {
        expect(Math.abs(entries[3 * i + k] - value)).toBeLessThanOrEqual(1.5);
      }
    }
  });
});
