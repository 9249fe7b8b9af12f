import { describe, expect, it } from "vitest";
import { type Carried, carriedObstacle, carriedOf, carriedSpec, carriedWords } from "../src/core/carried";
import { ACTIONS, type Choice, obstacle, describe as say } from "../src/core/interventions";
import { Snapshot } from "../src/core/snapshot";
import { fixture } from "./model";

const carried: Carried = { second: true, token: 3, from: 1, to: 2 };
const choice: Choice = {
  tokens: [5],
  from: 2,
  to: 3,
  renormalise: false,
  head: [2, 0],
  longer: null,
  carried,
  second: true,
};
const snapshot = Snapshot.parse(fixture("all"));

describe("an intervention in words", () => {
  it("names blocks and heads by the numbers that Python takes", () => {
    const spec = ACTIONS.head.build(choice);
    expect(spec).toMatchObject({ type: "Ablate", blocks: [2], heads: [0] });
    expect(say(spec, ACTIONS.head, 4)).toBe("Head 0 of block 2 off");
  });

  it("offers to renormalise only where that changes something", () => {
    const asked = { ...choice, renormalise: true };
    const own = { type: "KnockOutAttention", blocks: [2, 3] };
    expect(ACTIONS.self_only.needs).not.toContain("renormalise");
    expect(ACTIONS.self_only.build(asked)).toEqual({ ...own, kind: "self_only" });
    expect(ACTIONS.no_others.build(asked)).toEqual({ ...own, kind: "no_others", renormalise: true });
  });
});

describe("tokens by their length", () => {
  it("take the place of those selected", () => {
    const asked = { ...choice, tokens: [], longer: 2.5 };
    expect(ACTIONS.remove.build(asked)).toEqual({ type: "RemoveTokens", norm_above: 2.5 });
    expect(ACTIONS.keep.build(asked)).toEqual({ type: "RemoveTokens", norm_above: 2.5, outside: true });
    expect(ACTIONS.blank.build(asked)).toEqual({ type: "MaskTokens", norm_above: 2.5, mode: "mean" });
    expect(obstacle(ACTIONS.remove, asked, snapshot)).toBe("");
    expect(obstacle(ACTIONS.remove, { ...asked, longer: 0 }, snapshot)).toContain("above 0");
    expect(obstacle(ACTIONS.remove, { ...asked, longer: Number.NaN }, snapshot)).toContain("above 0");
    expect(say(ACTIONS.remove.build(asked), ACTIONS.remove, 2)).toBe(
      "Remove patches longer than 2.5 medians",
    );
  });
});

describe("a state that is put at other tokens", () => {
  it("is the intervention that Python knows, and is read back from it", () => {
    const spec = ACTIONS.carry.build(choice);
    expect(spec).toEqual({
      type: "PatchResidual",
      target_block: 2,
      tokens: [5],
      source: "other",
      source_block: 1,
      source_token: 3,
    });
    for (const one of [
      carried,
      { ...carried, second: false },
      { ...carried, token: null },
      { ...carried, from: 0, to: 0 },
      { ...carried, from: 2, to: 0 },
    ])
      expect(carriedOf(carriedSpec(one, [5]))).toEqual(one);
    expect(carriedOf({ type: "RemoveTokens", tokens: [5] })).toBeNull();
    expect(carriedOf({ type: "PatchResidual", target_block: 1, source: [1, 0] })).toBeNull();
  });

  it("says why it cannot be done", () => {
    const why = (part: Partial<Carried>, there = true) =>
      carriedObstacle({ ...carried, ...part }, there, snapshot);
    expect(why({})).toBe("");
    // A second picture's pass is complete: its states may go back.
    expect(why({ from: 2, to: 1 })).toBe("");
    expect(why({ from: 2, to: 1, second: false })).toContain("after block 2 is not there yet after block 1");
    expect(why({ from: 1, to: 1, second: false })).toBe("");
    expect(why({}, false)).toContain("no second picture");
    expect(why({ token: null })).toBe("");
    expect(why({ token: null, second: false })).toContain("which token");
    expect(why({ token: 99 })).toContain("numbered 0 to");
    expect(obstacle(ACTIONS.carry, { ...choice, tokens: [] }, snapshot)).toContain("Select tokens first");
    expect(obstacle(ACTIONS.carry, { ...choice, second: false }, snapshot)).toContain("no second picture");
  });

  it("is said in words", () => {
    const words = (part: Partial<Carried>, tokens = [5]) =>
      carriedWords({ ...carried, ...part }, tokens, snapshot);
    const [from, to] = [snapshot.tokenName(3), snapshot.tokenName(5)];
    expect(words({})).toBe(`${from} of the second picture, after block 1 → ${to}, after block 2`);
    expect(words({ second: false, from: 2 })).toBe(`${from} → ${to}, after block 2`);
    expect(words({ token: null, from: 0, to: 0 }, [1, 2])).toBe(
      "states of the second picture → 2 tokens, at the embedding",
    );
  });
});
