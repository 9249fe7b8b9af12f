/** The list of shared state is the one that Python reads. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { ADDRESS, CHOICES, DEFAULTS, LINKED, STATE_NAMES } from "../src/core/state";
import { TABLES } from "../src/generated/tables";

interface Entry {
  readonly kind: string;
  readonly default: unknown;
  readonly choices?: readonly string[];
  readonly address?: string;
  readonly linked?: boolean;
}
const path = new URL("../../classspace_widgets/state.json", import.meta.url);
const list = Object.entries(JSON.parse(readFileSync(path, "utf8")) as Record<string, Entry>);

describe("the shared state", () => {
  it("has the names, defaults and choices that Python has", () => {
    expect(STATE_NAMES).toEqual(list.map(([name]) => name));
    for (const [name, { kind, default: start, choices }] of list) {
      expect(DEFAULTS[name as keyof typeof DEFAULTS]).toEqual(start);
      const own = (CHOICES as Record<string, readonly unknown[]>)[name];
      expect(own).toEqual(kind === "bool" ? [true, false] : choices);
    }
  });

  it("is told by the address, but for looks and the blocks of a state that is dragged", () => {
    const told = list.filter(([, { address }]) => address);
    expect(ADDRESS).toEqual(Object.fromEntries(told.map(([name, { address }]) => [address, name])));
    const looks = list.filter(([, { address }]) => !address).map(([name]) => name);
    expect(looks).toEqual([
      "colormap",
      "opacity",
      "smooth",
      "model_input",
      "outline",
      "source_block",
      "target_block",
    ]);
    expect(LINKED).toEqual(list.filter(([, { linked }]) => linked).map(([name]) => name));
  });

  it("offers the colours that there are", () => {
    expect(new Set(CHOICES.colormap)).toEqual(new Set(["auto", ...Object.keys(TABLES)]));
  });
});
