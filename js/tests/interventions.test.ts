import { describe, expect, it } from "vitest";
import { ACTIONS, type Choice, describe as say } from "../src/core/interventions";

const choice: Choice = { tokens: [5], from: 2, to: 3, renormalise: false, head: [2, 0] };

describe("an intervention in words", () => {
  it("names blocks and heads by the numbers that Python takes", () => {
    const spec = ACTIONS.head.build(choice);
    expect(spec).toMatchObject({ type: "Ablate", blocks: [2], heads: [0] });
    expect(say(spec, ACTIONS.head, 4)).toBe("Head 0 of block 2 off");
  });
});
