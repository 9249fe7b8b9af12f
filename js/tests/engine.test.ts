// The engine of a page against torch: every layer, every intervention, every array of a snapshot.
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { floats, type NdArray, unpack } from "../src/core/codec";
import { checkMeta } from "../src/core/meta";
import type { Spec } from "../src/core/spec";
import { Model } from "../src/engine/model";
import { embed, run } from "../src/engine/pass";
import { makePlan } from "../src/engine/plan";
import { Reader } from "../src/engine/reader";
import { capture, part } from "../src/engine/snapshot";

const folder = new URL("../../tests/fixtures/engine/", import.meta.url);
const bytesOf = (name: string) => new Uint8Array(readFileSync(new URL(`${name}.bin`, folder)));
const modelOf = (name: string) => Model.parse(bytesOf(`${name}_model`));
const NAMES = ["cls", "registers", "gap", "norm_mean"];

/** The largest difference; NaN must stand where NaN is wanted. */
function difference(own: ArrayLike<number>, wanted: ArrayLike<number>): number {
  expect(own.length).toBe(wanted.length);
  let largest = 0;
  for (let i = 0; i < wanted.length; i++) {
    if (Number.isNaN(wanted[i]) !== Number.isNaN(own[i])) return Number.POSITIVE_INFINITY;
    if (!Number.isNaN(wanted[i])) largest = Math.max(largest, Math.abs(own[i] - wanted[i]));
  }
  return largest;
}

const joined = (parts: readonly Float32Array[]) => parts.flatMap((values) => [...values]);

function passesOf(name: string): { specs: Spec[][]; get(what: string): Float32Array } {
  const { meta, arrays } = unpack(bytesOf(`${name}_passes`));
  return {
    specs: meta.specs as Spec[][],
    get: (what) => floats(arrays.get(what) as NdArray),
  };
}

describe.each(NAMES)("model %s", (name) => {
  const model = modelOf(name);
  const passes = passesOf(name);
  const embedding = embed(model, passes.get("pixels"));

  it.each(passes.specs.map((spec, i) => [JSON.stringify(spec), i] as const))(
    "runs like torch: %s",
    (_, i) => {
      const trace = run(model, embedding, makePlan(model, passes.specs[i]));
      expect(difference(joined(trace.increments), passes.get(`${i}.increments`))).toBeLessThan(1e-4);
      expect(difference(joined(trace.weights), passes.get(`${i}.weights`))).toBeLessThan(1e-5);
      expect(difference(joined(trace.heads), passes.get(`${i}.heads`))).toBeLessThan(1e-4);
      expect(difference(new Reader(model, trace).output(), passes.get(`${i}.output`))).toBeLessThan(1e-4);
    },
  );
});

describe.each(["registers", "gap", "norm_mean"])("snapshots of %s", (name) => {
  const model = modelOf(name);
  const passes = passesOf(name);
  const embedding = embed(model, passes.get("pixels"));
  const picture = { name: "", width: 24, height: 16, mime: "image/png" };

  it.each([
    ["plain", 0],
    ["removed", 1],
  ])("are what the kernel captures: %s", (which, i) => {
    const wanted = unpack(bytesOf(`${name}_${which}`));
    const trace = run(model, embedding, makePlan(model, passes.specs[i]));
    const own = unpack(capture(model, trace, checkMeta(wanted.meta), picture));
    const { classes } = wanted.meta as { classes: { kept: number[] } };
    const rows = new Reader(model, trace).attention(classes.kept);
    expect(rows.rows).toEqual((wanted.meta.attention as { rows: number[] }).rows);
    const all = new Map([...own.arrays, ...rows.arrays.map((array) => [array.name, array] as const)]);
    for (const [key, array] of wanted.arrays) {
      if (key === "image") continue;
      const mine = all.get(key) as NdArray;
      expect(mine?.shape, key).toEqual(array.shape);
      // Readings of heads are float16 there, attention is a square root in 8 bits.
      const limit = key === "attention" ? 1 : array.dtype === "f2" ? 4e-3 : 2e-4;
      expect(difference(floats(mine), floats(array)), key).toBeLessThanOrEqual(limit);
    }
    for (const key of ["model", "tokens", "classes", "caveats", "unreachable"]) {
      expect(own.meta[key], key).toEqual(wanted.meta[key]);
    }
  });

  it("have exact ranks and heads of single classes", () => {
    const wanted = unpack(bytesOf(`${name}_classes`));
    const trace = run(model, embedding);
    const rows = (wanted.meta.attention as { rows: number[] }).rows;
    const own = unpack(part(model, trace, [2, 5], rows, true, false)).arrays;
    for (const key of ["raw", "ranks", "head_raw", "value_raw", "attention_bias_raw"]) {
      const array = wanted.arrays.get(key) as NdArray;
      const mine = own.get(key) as NdArray;
      expect(mine.shape, key).toEqual(array.shape);
      const limit = key === "ranks" ? 0 : array.dtype === "f2" ? 4e-3 : 2e-4;
      expect(difference(floats(mine), floats(array)), key).toBeLessThanOrEqual(limit);
    }
    const { top } = new Reader(model, trace).ranks([]);
    for (const array of top) {
      const kernel = wanted.arrays.get(array.name) as NdArray;
      expect(array.shape).toEqual(kernel.shape);
      expect(difference(floats(array), floats(kernel)), array.name).toBeLessThan(4e-3);
    }
  });
});
