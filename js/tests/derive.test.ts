import { describe, expect, it } from "vitest";
import * as derive from "../src/core/derive";
import { Points } from "../src/core/points";

// Two increments after the embedding (one block), one token: x0 = 1, a = 2, m = 5.
const increments = Float32Array.of(1, 2, 5);
const sigma = Float32Array.of(1, 2, 3, 4, 2);
const points = new Points(1);
const V = 1;

describe("readings by hand", () => {
  const raw = derive.streamRaw(increments, points, V);
  const logit = derive.logits(raw, sigma, 10);

  it("adds increments to streams: x0, a, mid, m, x", () => {
    expect([...raw]).toEqual([1, 2, 3, 5, 8]);
  });

  it("divides by the norm's scale and adds the offset", () => {
    expect([...logit]).toEqual([11, 11, 11, 11.25, 14]);
  });

  it("steps from stream to stream", () => {
    expect([...derive.step(logit, points, V)]).toEqual([Number.NaN, 0, 3]);
  });

  it("splits the final logit exactly", () => {
    const parts = derive.direct(increments, sigma, points, V);
    expect([...parts]).toEqual([0.5, 1, 2.5]);
    expect(parts.reduce((a, b) => a + b, 10)).toBe(14);
  });
});

describe("all classes at a point", () => {
  // Three classes, two tokens; the second token has a tie.
  const all = Float32Array.of(3, 1, 2, 5, 9, 5);

  it("counts strictly larger logits", () => {
    const out = new Float32Array(2);
    const ranks = [0, 1, 2].map((c) => {
      derive.countRanks(all, c, 3, 2, out);
      return [...out];
    });
    expect(ranks).toEqual([
      [1, 2],
      [2, 0],
      [0, 0],
    ]);
  });

  it("finds the best classes, the earlier one first in a tie", () => {
    expect(derive.topOf(all, 3, 2, 0, 2).map((c) => c.id)).toEqual([2, 0]);
    expect(derive.topOf(all, 3, 2, 1, 5).map((c) => c.id)).toEqual([1, 2, 0]);
  });

  it("normalises probabilities, also of huge logits", () => {
    const huge = all.map((v) => v + 1000);
    const lse = derive.logSumExp(huge, 3, 2);
    const p = [0, 1, 2].map((c) => derive.probabilities(huge.subarray(2 * c, 2 * c + 2), lse)[0]);
    expect(p.reduce((a, b) => a + b)).toBeCloseTo(1, 3);
    expect(p[2] / p[0]).toBeCloseTo(Math.exp(6), 1);
  });

  it("makes identifiability 1 for the best and 1/C for the last", () => {
    const [best, last] = derive.identifiability(Float32Array.of(0, 2), 3);
    expect(best).toBe(1);
    expect(last).toBeCloseTo(1 / 3);
  });
});

describe("projection", () => {
  it("is a matrix product for any number of tokens", () => {
    for (const V of [1, 3, 4, 6]) {
      const [C, D] = [3, 2];
      const embedding = Float32Array.from({ length: C * D }, (_, i) => i - 2);
      const vectors = Float32Array.from({ length: V * D }, (_, i) => i + 1);
      const out = new Float32Array(C * V);
      derive.project(embedding, vectors, out, D, V, 0, C);
      for (let c = 0; c < C; c++) {
        for (let t = 0; t < V; t++) {
          const wanted = embedding[c * D] * vectors[t * D] + embedding[c * D + 1] * vectors[t * D + 1];
          expect(out[c * V + t]).toBe(wanted);
        }
      }
    }
  });
});
