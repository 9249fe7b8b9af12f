/** Sweeps: one intervention at every (block, head) or (block, token), and its effect on the class logit, as a grid. */

import { signal } from "@preact/signals-core";
import { button, h, listen, say } from "../core/dom";
import { percent } from "../core/format";
import { onFrame } from "../core/frame";
import type { Store } from "../core/store";
import { segmented } from "./controls";
import { root } from "./parts";
import { heatGrid } from "./sweep/board";
import { type Kind, type Sweep, sweepOf } from "./sweep/result";

const KINDS: readonly (readonly [Kind, string])[] = [
  ["heads", "Heads"],
  ["tokens", "Tokens"],
];

export function mount(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const section = root(el, abort, "sweep", "Sweep over blocks");
  const kind = signal<Kind>("heads");
  const result = signal<Sweep | null>(null);
  const running = signal<"" | "running" | "cancelled">("");
  /** Why the last one did not run. */
  const problem = signal("");
  const start = button({ class: "csw-button" });
  const kinds = segmented(abort, "What is swept", KINDS, kind);
  const title = h("h3", {}, "Sweep");
  const about = h("p", { class: "csw-note" });
  section.append(
    h("header", { class: "csw-bar-row" }, title, h("span", { class: "csw-grow" }), kinds, start),
    about,
  );
  heatGrid(
    section,
    abort,
    () => result.value,
    () => store.state.colormap.value,
    (row, column) => result.peek()?.pick(row, column),
  );

  const run = async () => {
    const id = store.state.class_index.peek();
    const what = kind.peek();
    running.value = "running";
    problem.value = "";
    const answer = await store.request("sweep", { kind: what, class: id }, [], `sweeping ${what}`);
    running.value = "";
    if (!answer) problem.value = store.notice.peek().text;
    if (!answer?.buffers[0] || abort.aborted) return;
    try {
      result.value = sweepOf(store, what, id, answer);
    } catch (error) {
      store.fail(error);
    }
  };
  listen(start, abort, {
    click: () => {
      if (!running.peek()) return void run();
      // It stops at its next step.
      running.value = "cancelled";
      store.transport.cancel("sweep");
    },
  });

  let picture = store.baseline.peek().snapshot;
  onFrame(abort, () => {
    const { snapshot } = store.baseline.value;
    const live = store.live;
    if (snapshot !== picture) {
      picture = snapshot;
      result.value = null;
    }
    section.hidden = !live && result.value === null;
    start.hidden = !live;
    say(start, { "": "Run", running: "Cancel", cancelled: "Cancelling …" }[running.value]);
    start.disabled = running.value === "cancelled";
    const name = snapshot.shortName(store.state.class_index.value);
    const { text, progress } = store.notice.value;
    about.classList.toggle("csw-failed", problem.value !== "");
    const question =
      kind.value === "heads"
        ? `Switch off every attention head in turn: what does ${name} lose?`
        : `Hide every token from the others, block by block: what does ${name} lose?`;
    const busy = `${text} … ${progress ? percent(progress) : ""}`;
    say(about, running.value ? busy : problem.value || question);
  });
}
