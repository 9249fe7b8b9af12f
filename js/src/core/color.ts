/** Colours of readings: 256-entry tables, and one colour per class that stays with it. */

import { KNOTS, TABLES, ZERO } from "../generated/tables";
import { kept, range } from "./collections";

export type MapName = keyof typeof TABLES;
export type Rgb = readonly [number, number, number];

export const SEQUENTIAL: readonly MapName[] = ["viridis", "magma", "cividis", "blues"];
export const DIVERGING: readonly MapName[] = ["redblue", "brownteal"];

const made = new Map<MapName, Uint8ClampedArray>();

/** 256 RGB entries. */
export function table(name: MapName): Uint8ClampedArray {
  return kept(made, name, () => {
    const text = TABLES[name];
    const out = new Uint8ClampedArray(256 * 3);
    for (let k = 0; k < 3; k++) {
      // The first knot in hexadecimal digits, then the steps of each colour from knot to knot.
      const step = (i: number) => text.charCodeAt(6 + k * (KNOTS - 1) + i) - ZERO;
      let value = Number.parseInt(text.slice(2 * k, 2 * k + 2), 16);
      for (let i = 0, low = 0; i < 256; i++) {
        const at = (i / 255) * (KNOTS - 1);
        for (; low < Math.min(KNOTS - 2, Math.floor(at)); low++) value += step(low);
        out[i * 3 + k] = value + step(low) * (at - low);
      }
    }
    return out;
  });
}

/** The table for a kind of reading: the one asked for if it is of that kind, else the usual one. */
export function tableFor(kind: "sequential" | "diverging", wanted: string): MapName {
  const own = kind === "sequential" ? SEQUENTIAL : DIVERGING;
  return own.find((name) => name === wanted) ?? own[0];
}

export function css([r, g, b]: Rgb): string {
  return `rgb(${Math.round(r)} ${Math.round(g)} ${Math.round(b)})`;
}

export function gradient(name: MapName, direction = "to right"): string {
  const entries = table(name);
  const stops = range(18, (i) => {
    const at = i * 15 * 3;
    return css([entries[at], entries[at + 1], entries[at + 2]]);
  });
  return `linear-gradient(${direction}, ${stops.join(", ")})`;
}

/** A colour from OKLCH (lightness 0..1, chroma, hue in degrees), clipped into sRGB. */
export function oklch(lightness: number, chroma: number, hue: number): Rgb {
  const h = (hue * Math.PI) / 180;
  const a = chroma * Math.cos(h);
  const b = chroma * Math.sin(h);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    gamma(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    gamma(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    gamma(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

function gamma(linear: number): number {
  const x = Math.min(1, Math.max(0, linear));
  return 255 * (x <= 0.0031308 ? 12.92 * x : 1.055 * x ** (1 / 2.4) - 0.055);
}

/** Okabe and Ito's colours, told apart with any colour vision; for the classes that matter most. */
const FIRST: readonly Rgb[] = [
  [230, 159, 0],
  [86, 180, 233],
  [0, 158, 115],
  [240, 228, 66],
  [0, 114, 178],
  [213, 94, 0],
  [204, 121, 167],
];

/**
 * Colour of a class in the top-1 map. `leading` are the classes that get the first, best separated colours; every
 * other one gets a muted colour of its own, by golden angle, at one of three lightnesses.
 */
export function classColor(id: number, leading: readonly number[]): Rgb {
  const place = leading.indexOf(id);
  if (place >= 0 && place < FIRST.length) return FIRST[place];
  const spread = (id * 137.50776405) % 360;
  return oklch(0.5 + 0.14 * (id % 3), 0.075, spread);
}
