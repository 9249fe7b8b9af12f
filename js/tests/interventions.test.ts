import { describe, expect, it } from "vitest";
import { ACTIONS, type Choice, describe as say } from "../src/core/interventions";

const choice: Choice = { tokens: [5], from: 2, to: 3, renormalise: false, head: [2, 0] };

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
