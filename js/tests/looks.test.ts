import { describe, expect, it } from "vitest";
import { classColor, DIVERGING, oklch, SEQUENTIAL, table, tableFor } from "../src/core/color";
import { approximateNote, count, number, percent, shortCount, shortName, signed } from "../src/core/format";
import type { Meta } from "../src/core/meta";
import { isDark } from "../src/core/theme";

/** CIE lightness of an sRGB colour. */
function lightness(r: number, g: number, b: number): number {
  const linear = [r, g, b].map((v) => (v <= 10.31 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  const y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return y > 0.008856 ? 116 * Math.cbrt(y) - 16 : 903.3 * y;
}

describe("colour maps", () => {
  it("grow evenly in lightness", () => {
    for (const name of SEQUENTIAL) {
      const entries = table(name);
      const list = Array.from({ length: 256 }, (_, i) =>
        lightness(entries[3 * i], entries[3 * i + 1], entries[3 * i + 2]),
      );
      for (let i = 8; i < 256; i += 8) expect(list[i]).toBeGreaterThan(list[i - 8]);
      expect(list[255] - list[0]).toBeGreaterThan(60);
    }
  });

  it("diverge from the lightest colour, at zero, to ends that are as dark", () => {
    for (const name of DIVERGING) {
      const entries = table(name);
      const at = (i: number) => lightness(entries[3 * i], entries[3 * i + 1], entries[3 * i + 2]);
      expect(at(127)).toBeGreaterThan(90);
      expect(Math.abs(at(0) - at(255))).toBeLessThan(12);
    }
  });

  it("are taken only for readings of their kind", () => {
    expect(tableFor("sequential", "magma")).toBe("magma");
    expect(tableFor("diverging", "magma")).toBe("redblue");
    expect(tableFor("sequential", "auto")).toBe("viridis");
  });

  it("give a class one colour, whatever else is there", () => {
    expect(classColor(7, [3, 7])).toEqual([86, 180, 233]);
    expect(classColor(7, [])).toEqual(classColor(7, [1, 2]));
    expect(oklch(1, 0, 0).map(Math.round)).toEqual([255, 255, 255]);
    expect(oklch(0.628, 0.2577, 29.23).map(Math.round)[0]).toBeGreaterThan(250);
  });
});

describe("words", () => {
  it("has numbers with true minus signs and no false zeros", () => {
    expect(number(-1.5)).toBe("\u22121.50");
    expect(number(-0.001)).toBe("\u22121e\u22123");
    expect(number(0)).toBe("0.00");
    expect(number(12345.6)).toBe("12346");
    expect(number(Number.NaN)).toBe("–");
    expect(signed(2)).toBe("+2.00");
    expect(signed(0)).toBe("0.00");
    expect(percent(0.5)).toBe("50.0 %");
    expect(percent(1e-6)).toBe("< 0.01 %");
    expect(count(21843)).toBe("21\u202f843");
    expect([9999, 10_000, 19_654].map(shortCount)).toEqual(["9\u202f999", "10k", "20k"]);
    expect(shortName("tench, Tinca tinca")).toBe("tench");
  });

  it("say how far readings are off, in a sentence, where they are", () => {
    const note = "read from float16";
    const said = (logits: "exact" | "approximate") =>
      approximateNote({ exactness: { logits, ranks: logits, note } } as unknown as Meta);
    expect([said("approximate"), said("exact")]).toEqual(["Approximate: read from float16.", ""]);
  });

  it("tells dark backgrounds from light ones", () => {
    expect(isDark("#111")).toBe(true);
    expect(isDark("#ffffff")).toBe(false);
    expect(isDark("rgb(20, 20, 20)")).toBe(true);
    expect(isDark("white")).toBe(false);
    expect(isDark("var(--x)")).toBeNull();
    expect(isDark("")).toBeNull();
  });
});
