/** Choosing a state to put at the selected tokens: of which picture and token, taken and put after which blocks. */

import { computed, type ReadonlySignal, signal } from "@preact/signals-core";
import { blocksOf, type Carried } from "../../core/carried";
import { range } from "../../core/collections";
import { button, h, listen } from "../../core/dom";
import { onFrame, watch } from "../../core/frame";
import type { Store } from "../../core/store";
import { options, select } from "../controls";

export interface CarriedFields {
  readonly node: HTMLElement;
  readonly value: ReadonlySignal<Carried>;
  set(value: Carried): void;
}

export function carriedFields(store: Store, abort: AbortSignal): CarriedFields {
  const { state, baseline, other } = store;
  /** Null: the second picture where there is one, and the token that is selected there. */
  const second = signal<boolean | null>(null);
  const token = signal<number | null | undefined>(undefined);
  const value = computed((): Carried => {
    const ofSecond = second.value ?? other.value !== null;
    const there = ofSecond ? other.value?.state.tokens.value[0] : undefined;
    return {
      second: ofSecond,
      token: token.value === undefined ? (there ?? null) : token.value,
      ...blocksOf(store),
    };
  });
  const picture = select("Picture that the state is of", [
    ["", "this picture"],
    ["other", "second picture"],
  ]);
  const number = h("input", {
    class: "csw-number",
    type: "number",
    min: 0,
    placeholder: "same",
    "aria-label": "Token whose state is taken",
    title:
      "Number of the token; without one, every token takes the state of its own number in the second picture",
  });
  const ends = [select("Taken after block"), select("Put after block")];
  listen(picture, abort, {
    change: () => {
      second.value = picture.value !== "";
      token.value = undefined;
    },
  });
  listen(number, abort, {
    input: () => {
      token.value = number.value === "" ? null : number.valueAsNumber;
    },
  });
  (["source_block", "target_block"] as const).forEach((name, i) => {
    listen(ends[i], abort, {
      change: () => store.set({ [name]: ends[i].value === "" ? null : Number(ends[i].value) }),
    });
    onFrame(abort, () => {
      const { L } = baseline.value.snapshot;
      const slider = `slider: ${state.block.value}`;
      if (ends[i].options.length !== L + 2)
        ends[i].replaceChildren(...options([["", ""], ...range(L + 1, (l) => [l, String(l)] as const)]));
      ends[i].options[0].text = slider;
      ends[i].value = String(state[name].value ?? "");
    });
  });
  watch(abort, () => {
    const { second: ofSecond, token: taken } = value.value;
    picture.value = ofSecond ? "other" : "";
    const text = taken === null || Number.isNaN(taken) ? "" : String(taken);
    // What is being typed is left alone.
    if (number.value !== text && !Number.isNaN(taken)) number.value = text;
  });
  const words = (text: string) => h("span", { class: "csw-label" }, text);
  const row = (...parts: Node[]) => h("span", { class: "csw-bar-row" }, ...parts);
  return {
    node: row(
      row(words("of"), picture, ...choosePicture(store, abort)),
      row(words("token"), number),
      row(words("after block"), ends[0], words("put after"), ends[1]),
    ),
    value,
    set(given) {
      second.value = given.second;
      token.value = given.token;
      store.set({ source_block: given.from, target_block: given.to });
    },
  };
}

/** A button that takes a file as second picture; where a notebook's kernel is. */
function choosePicture(store: Store, abort: AbortSignal): Node[] {
  const file = h("input", { type: "file", accept: "image/*", hidden: true });
  const node = button(
    { class: "csw-button", title: "A picture whose states are put into this one's pass" },
    "Second picture…",
  );
  watch(abort, () => {
    node.hidden = store.runsHere;
  });
  listen(node, abort, { click: () => file.click() });
  listen(file, abort, {
    change: async () => {
      const chosen = file.files?.[0];
      file.value = "";
      if (!chosen) return;
      const bytes = await chosen.arrayBuffer();
      await store.request("other", { name: chosen.name }, [bytes], `reading ${chosen.name}`);
    },
  });
  return [node, file];
}
