/** Numbers and names as words. */

import type { Meta } from "./meta";

const MINUS = "\u2212";

/** Three significant digits at most, a true minus sign, an en dash for what is not known. */
export function number(value: number, digits = 2): string {
  if (Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size === Number.POSITIVE_INFINITY) return value > 0 ? "∞" : `${MINUS}∞`;
  let text: string;
  if (size !== 0 && size < 10 ** -digits / 2) text = size.toExponential(0).replace("-", MINUS);
  else text = size.toFixed(size >= 1000 ? 0 : size >= 100 ? Math.min(digits, 1) : digits);
  return value < 0 && Number(text.replace(MINUS, "-")) !== 0 ? MINUS + text : text;
}

/** A number in a column of others: "0.00" tells more beside them than "4e−3". */
export const hundredths = (value: number): number => Math.round(value * 100) / 100;

/** With a plus sign: for contributions and differences. */
export function signed(value: number, digits = 2): string {
  const text = number(value, digits);
  return value > 0 && text !== "–" && Number(text) !== 0 ? `+${text}` : text;
}

export function percent(value: number): string {
  if (Number.isNaN(value)) return "–";
  const p = value * 100;
  if (p > 0 && p < 0.01) return "< 0.01 %";
  return `${p.toFixed(p < 1 ? 2 : 1)} %`;
}

/** "3" of counts, with thin spaces between thousands; ranks are 0 for the best, as in the paper. */
export function count(value: number): string {
  if (Number.isNaN(value)) return "–";
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, "\u202f");
}

/** The same where there is little room: "20k". */
export function shortCount(value: number): string {
  return value >= 10_000 ? `${count(value / 1000)}k` : count(value);
}

/** "tench" of "tench, Tinca tinca". */
export function shortName(name: string): string {
  return name.split(",", 1)[0].trim() || name;
}

/** How far readings are off, as a sentence; nothing where they are exact. */
export function approximateNote({ exactness }: Meta): string {
  return exactness?.logits === "approximate" && exactness.note ? `Approximate: ${exactness.note}.` : "";
}
