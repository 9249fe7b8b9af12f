/** Scales, ticks and number formats of the small charts. Pure. */

export type Scale = (value: number) => number;

/** A straight line through (d0, r0) and (d1, r1); the middle of the range when the domain is a point. */
export function linear(d0: number, d1: number, r0: number, r1: number): Scale {
  const k = d1 === d0 ? 0 : (r1 - r0) / (d1 - d0);
  const at = d1 === d0 ? (r0 + r1) / 2 : r0;
  return (value) => at + (value - d0) * k;
}

/** The same on log(1 + value): rank 0, the best one, has its place. */
export function log1(d0: number, d1: number, r0: number, r1: number): Scale {
  const line = linear(Math.log1p(d0), Math.log1p(d1), r0, r1);
  return (value) => line(Math.log1p(Math.max(value, 0)));
}

/** Round step (1, 2 or 5 times a power of ten) that cuts `span` into about `count` parts. */
export function niceStep(span: number, count: number): number {
  const raw = span / Math.max(count, 1);
  if (!(raw > 0) || !Number.isFinite(raw)) return 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const unit = raw / power;
  return (unit <= 1 ? 1 : unit <= 2 ? 2 : unit <= 5 ? 5 : 10) * power;
}

/** Round numbers inside [low, high]. */
export function ticks(low: number, high: number, count: number): number[] {
  const step = niceStep(high - low, count);
  const out: number[] = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) {
    out.push(Number((i * step).toPrecision(12)));
  }
  return out;
}

/** Ranks worth a line on a log(1 + rank) axis: 0, 10, 100, ... below `high`. */
export function rankTicks(high: number): number[] {
  if (high < 4) return ticks(0, high, 4).filter(Number.isInteger);
  const out = [0];
  for (let t = high < 40 ? 2 : 10; t <= high; t *= high < 40 ? 3 : 10) out.push(t);
  return out;
}

/** Smallest and largest finite value, with 0 inside and never an empty span. */
export function extentWithZero(values: Iterable<number>): [number, number] {
  let low = 0;
  let high = 0;
  for (const v of values) {
    if (!Number.isFinite(v)) continue;
    if (v < low) low = v;
    if (v > high) high = v;
  }
  return low === high ? [-1, 1] : [low, high];
}

/** Labels at most every `gap` pixels: which of `count` evenly spaced places (pitch px apart) get one. */
export function thin(count: number, pitch: number, gap: number): (index: number) => boolean {
  const steps = [1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 50, 100];
  const step = steps.find((s) => s * pitch >= gap) ?? count;
  return (index) => index % step === 0 && index < count;
}
