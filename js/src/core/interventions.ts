/** The interventions that the what-if panel offers, as the plain dicts that the kernel builds them from. */

import { type Carried, carriedObstacle, carriedSpec } from "./carried";
import { range } from "./collections";
import type { Snapshot } from "./snapshot";
import type { Spec } from "./spec";

/** What the panel has chosen when an action is applied. */
export interface Choice {
  readonly tokens: readonly number[];
  readonly from: number;
  readonly to: number;
  readonly renormalise: boolean;
  readonly head: readonly number[] | null;
  /** Rather than those selected: the patches that are longer, in medians of a block. */
  readonly longer: number | null;
  readonly carried: Carried;
  /** Whether there is a second picture. */
  readonly second: boolean;
}

export interface Action {
  readonly name: string;
  readonly title: string;
  readonly needs: readonly (
    | "patches"
    | "tokens"
    | "blocks"
    | "renormalise"
    | "head"
    | "longer"
    | "carried"
  )[];
  readonly build: (choice: Choice) => Spec;
}

/** Those selected, or the long ones. */
const chosenOf = ({ tokens, longer }: Choice): object =>
  longer === null ? { tokens } : { norm_above: longer };

const cut = (kind: string, own: (choice: Choice) => object = () => ({})): Action["build"] => {
  return (choice) => ({ type: "KnockOutAttention", kind, ...own(choice), ...depth(choice), ...norm(choice) });
};

const ablate =
  (sublayer: string): Action["build"] =>
  (choice) => ({ type: "Ablate", sublayer, ...depth(choice) });

export const ACTIONS: Readonly<Record<string, Action>> = {
  remove: {
    name: "Remove the selected patches",
    title: "Take them out of the sequence before block 1",
    needs: ["patches", "longer"],
    build: (choice) => ({ type: "RemoveTokens", ...chosenOf(choice) }),
  },
  keep: {
    name: "Keep only the selected patches",
    title: "Take all other patches out of the sequence before block 1",
    needs: ["patches", "longer"],
    build: (choice) => ({ type: "RemoveTokens", ...chosenOf(choice), outside: true }),
  },
  blank: {
    name: "Blank the selected tokens",
    title: "Overwrite them with the mean of the patches before block 1",
    needs: ["tokens", "longer"],
    build: (choice) => ({ type: "MaskTokens", ...chosenOf(choice), mode: "mean" }),
  },
  carry: {
    name: "Put a state at the selected tokens",
    title:
      "Drag a patch of the second picture onto a patch; or select one patch and drag it (keys: P, arrows, Enter). Its state goes there, and the model runs on",
    needs: ["tokens", "carried"],
    build: ({ tokens, carried }) => carriedSpec(carried, tokens),
  },
  cut_sources: {
    name: "No token may read the selected",
    title: "Attention to the selected tokens is cut",
    needs: ["tokens", "blocks", "renormalise"],
    build: cut("edges", ({ tokens }) => ({ sources: tokens })),
  },
  cut_readers: {
    name: "The selected read no token",
    title: "Attention of the selected tokens is cut",
    needs: ["tokens", "blocks", "renormalise"],
    build: cut("edges", ({ tokens }) => ({ readers: tokens })),
  },
  no_cls: {
    name: "Patches may not read [CLS]",
    title: "The paper's no_cls perturbation",
    needs: ["blocks", "renormalise"],
    build: cut("no_cls"),
  },
  self_only: {
    name: "Patches read only themselves",
    title: "The paper's self_only perturbation: the weight on itself is 1, all others are 0",
    needs: ["blocks"],
    build: ({ from, to }) => ({ type: "KnockOutAttention", kind: "self_only", ...depth({ from, to }) }),
  },
  no_others: {
    name: "Patches may not read one another",
    title: "They read themselves and [CLS]",
    needs: ["blocks", "renormalise"],
    build: cut("no_others"),
  },
  attention: {
    name: "Switch attention off",
    title: "Attention adds nothing to the residual stream",
    needs: ["blocks"],
    build: ablate("attention"),
  },
  mlp: {
    name: "Switch the MLP off",
    title: "The MLP adds nothing to the residual stream",
    needs: ["blocks"],
    build: ablate("mlp"),
  },
  head: {
    name: "Switch the chosen head off",
    title: "The attention head chosen in the head grid adds nothing",
    needs: ["head"],
    build: ({ head }) => ({
      type: "Ablate",
      sublayer: "head",
      blocks: [head?.[0] ?? 1],
      heads: [head?.[1] ?? 0],
    }),
  },
};

/** Why an action cannot be applied now; empty when it can. */
export function obstacle(action: Action, choice: Choice, snapshot: Snapshot): string {
  if (action.needs.includes("carried")) {
    const why = carriedObstacle(choice.carried, choice.second, snapshot);
    if (why) return why;
  }
  if (action.needs.includes("longer") && choice.longer !== null)
    return choice.longer > 0 ? "" : "Say how long a patch must be: a number of medians above 0.";
  const patches = choice.tokens.filter((t) => snapshot.isImageToken(t));
  if (action === ACTIONS.no_cls && snapshot.prefix === 0) return "This model has no [CLS] token.";
  if (action.needs.includes("patches")) {
    if (patches.length === 0) return "Select patches on the picture first: click, shift-click or drag a box.";
    if (patches.length === snapshot.rows * snapshot.columns && !action.name.startsWith("Keep")) {
      return "Every patch is selected: at least one must stay.";
    }
  }
  if (action.needs.includes("tokens") && choice.tokens.every((t) => t >= snapshot.T)) {
    return "Select tokens first: patches on the picture, or a chip under it.";
  }
  if (action.needs.includes("head") && !choice.head)
    return "Choose an attention head in the head grid first.";
  if (action.needs.includes("blocks") && choice.from > choice.to)
    return "The first block is after the last one.";
  return "";
}

/** One line about an intervention: "patches 3 removed", "blocks 2 to 5: ...". */
export function describe(spec: Spec, action: Action, blocks: number): string {
  const list = spec.blocks as readonly number[] | undefined;
  const size = (spec.tokens ?? spec.sources ?? spec.readers) as readonly number[] | undefined;
  const words = [
    action.name.replace("the selected patches", "patches").replace("the selected tokens", "tokens"),
  ];
  if (spec.norm_above) words.push(`longer than ${spec.norm_above} medians`);
  if (size) words.push(size.length === 1 ? "(1 token)" : `(${size.length} tokens)`);
  if (spec.type === "Ablate" && spec.heads) {
    return `Head ${(spec.heads as number[])[0]} of block ${list?.[0]} off`;
  }
  if (list && list.length < blocks) {
    words.push(list.length === 1 ? `in block ${list[0]}` : `in blocks ${list[0]}–${list[list.length - 1]}`);
  }
  return words.join(" ");
}

function depth({ from, to }: Pick<Choice, "from" | "to">): object {
  return { blocks: range(Math.max(0, to - from + 1), (i) => from + i) };
}

function norm({ renormalise }: Choice): object {
  return renormalise ? { renormalise } : {};
}
