import { describe, expect, it } from "vitest";
import { Points } from "../src/core/points";
import { difference, exceeding } from "../src/views/bars/breakdown";
import { breakdownOf } from "./tiny";

/** Two blocks, two tokens; sigma differs at every point so that a wrong index shows. */
const V = 2;
const S = 9;
const sigma = Float32Array.from({ length: S * V }, (_, i) => 1 + i * 0.25);
const raw = Float32Array.from([1, 2, -3, 4, 5, -6, 7, 8, -9, 10]);
const stats = { points: new Points(2), V, sigma };
const at = (s: number, t: number) => sigma[s * V + t];
const close = (a: number, b: number) => expect(a).toBeCloseTo(b, 5);

describe("contributions", () => {
  it("direct sums exactly to the logit", () => {
    const b = breakdownOf(stats, raw, 0.5, [1], "direct");
    close(b.logit, 18 / at(8, 1) + 0.5);
    close(
      b.parts.reduce((sum, p) => sum + p.value, 0),
      b.logit,
    );
    close(b.embedding + b.attention + b.mlp + b.bias, b.logit);
    expect(b.parts.map((p) => p.kind)).toEqual(["embedding", "attention", "mlp", "attention", "mlp", "bias"]);
    expect(b.parts.map((p) => p.block)).toEqual([0, 1, 1, 2, 2, -1]);
    close(b.parts[3].value, 8 / at(8, 1));
  });

  it("steps telescope from the embedding's reading to the logit", () => {
    const b = breakdownOf(stats, raw, 0.5, [0], "step");
    close(b.embedding, 1 / at(0, 0) + 0.5);
    close(b.parts[1].value, -2 / at(2, 0) - 1 / at(0, 0));
    close(b.parts[2].value, 3 / at(4, 0) - -2 / at(2, 0));
    close(b.embedding + b.attention + b.mlp, b.logit);
    expect(b.bias).toBe(0);
  });

  it("the paper's reading holds both sublayers against the block's input", () => {
    const b = breakdownOf(stats, raw, 0.5, [0], "paper");
    close(b.parts[1].value, -3 / at(1, 0) + 0.5);
    close(b.parts[4].value, -9 / at(7, 0) + 0.5);
    close(b.parts[1].reference!, 1 / at(0, 0) + 0.5);
    close(b.parts[2].reference!, 1 / at(0, 0) + 0.5);
    close(b.parts[4].reference!, 3 / at(4, 0) + 0.5);
    expect(exceeding(b.parts, "attention")).toEqual([1, 2]);
    expect(exceeding(b.parts, "mlp")).toEqual([1, 2]);
    const part = (value: number) => ({ kind: "mlp" as const, position: 2, block: 1, value, reference: 1 });
    // As much as the block's input is not more.
    expect(exceeding([2, 3, 0, 1].map(part), "mlp")).toEqual([2, 4]);
  });

  it("means over tokens, differences over classes", () => {
    const both = breakdownOf(stats, raw, 0.5, [0, 1], "step");
    const [a, b] = [0, 1].map((t) => breakdownOf(stats, raw, 0.5, [t], "step"));
    for (let i = 0; i < stats.points.N; i++)
      close(both.parts[i].value, (a.parts[i].value + b.parts[i].value) / 2);
    const d = difference(a, b);
    close(d.logit, a.logit - b.logit);
    close(d.parts[2].value, a.parts[2].value - b.parts[2].value);
  });

  it("knows parallel blocks", () => {
    const sigma = Float32Array.from([1, 2, 3, 4, 5]);
    const parallel = { points: new Points(2, "parallel"), V: 1, sigma };
    const b = breakdownOf(parallel, Float32Array.from([1, 2, 3]), 0, [0], "paper");
    expect(b.parts.map((p) => [p.kind, p.block])).toEqual([
      ["embedding", 0],
      ["block", 1],
      ["block", 2],
    ]);
    close(b.parts[2].value, 3 / 4);
    close(b.parts[2].reference!, 3 / 3);
    close(breakdownOf(parallel, Float32Array.from([1, 2, 3]), 0, [0], "direct").logit, 6 / 5);
  });
});
