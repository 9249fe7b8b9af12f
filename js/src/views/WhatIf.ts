/** What if: cut, remove and switch off parts of the model, and see what the class evidence becomes. */

import { computed, signal } from "@preact/signals-core";
import { button, dataAt, h, listen, say } from "../core/dom";
import { onFrame } from "../core/frame";
import type { PinnedStep } from "../core/pins";
import type { Store } from "../core/store";
import { passChoice } from "./controls";
import { keepPlace, root } from "./parts";
import type { PartOptions } from "./view";
import { dragging } from "./whatif/dragging";
import { form, isEditable } from "./whatif/form";
import { outcome } from "./whatif/outcome";
import { pinnedNames, pinnedSelect, pinOf } from "./whatif/pinned";
import { labelOf, stepsOf } from "./whatif/steps";

const COPY = "Copy as Python";

export function mount(el: HTMLElement, store: Store, abort: AbortSignal, options: PartOptions = {}): void {
  const section = root(el, abort, "whatif", "What if");
  const steps = stepsOf(store);
  const { all, running, problem } = steps;
  const done = computed(() => store.intervened.value?.snapshot.meta.intervention);
  /** The step that is being changed. */
  const editing = signal<number | null>(null);
  const run = (next: readonly PinnedStep[], label?: string) => {
    editing.value = null;
    return steps.run(next, label);
  };

  const undo = button({ class: "csw-button" }, "Undo");
  const pin = button({
    class: "csw-button",
    title: "Keep this state: to come back to, in Python as pins, and in exported pages",
  });
  const copy = button({ class: "csw-button" }, COPY);
  const choice = form(store, abort, steps, undo, pin);
  const why = h("p", { class: "csw-note" });
  const list = h("ol", { class: "csw-steps" });
  const table = outcome(store, abort);
  const title = h("h3", {}, "What if");
  const pinned = pinnedSelect(store, abort, all, (next, label) => void run(next, label));
  const head = h("header", { class: "csw-bar-row" }, title, h("span", { class: "csw-grow" }), pinned, copy);
  if (!options.composed) head.append(passChoice(store, abort));
  section.append(head, choice.node, why, table, list);

  if (options.composed) dragging(el.closest(".csw-explorer") ?? el, store, abort);

  listen(choice.apply, abort, {
    click: () => {
      const next = [...all.peek()];
      next[editing.peek() ?? next.length] = choice.step();
      void run(next);
    },
  });
  listen(undo, abort, { click: () => void run(all.peek().slice(0, -1)) });
  listen(list, abort, {
    click: (event) => {
      const [at, changed] = [dataAt(event, "step"), dataAt(event, "edit")];
      if (at !== undefined) void run(all.peek().filter((_, i) => i !== Number(at)));
      if (changed === undefined) return;
      choice.show(all.peek()[Number(changed)]);
      editing.value = Number(changed);
      choice.apply.focus();
    },
  });
  listen(copy, abort, {
    click: async () => {
      const code = done.peek()?.code ?? "";
      try {
        await navigator.clipboard.writeText(code);
        copy.textContent = "Copied";
      } catch {
        // No clipboard in an insecure or framed page: show the code, to be copied by hand.
        table.append(h("pre", { tabindex: 0 }, code));
      }
    },
  });
  listen(pin, abort, {
    click: () => {
      const known = pinOf(store, all.peek());
      if (known) store.unpin(known.label);
      else store.pin(labelOf(all.peek()), all.peek());
    },
  });

  onFrame(abort, () => {
    const live = store.live;
    const busy = running.value;
    section.hidden = !live && store.intervened.value === null;
    choice.node.hidden = list.hidden = !live;
    const missing = live ? choice.obstacle.value : "";
    const failed = live ? problem.value : "";
    const here = pinnedNames(store).length > 1 ? "" : (done.value?.label ?? "");
    const words = failed || missing || (live ? `${choice.action.value.title}.` : here);
    say(why, busy ? "Running the model …" : words);
    why.classList.toggle("csw-failed", failed !== "");
    why.hidden = why.textContent === "";
    choice.apply.disabled = busy || missing !== "";
    if ((editing.value ?? 0) >= all.value.length) editing.value = null;
    say(choice.apply, editing.value === null ? "Apply" : "Replace");
    undo.disabled = pin.disabled = busy || all.value.length === 0;
    say(pin, pinOf(store, all.value) ? "Unpin" : "Pin");
    keepPlace(copy, Boolean(done.value?.code), live);
  });
  onFrame(abort, () => {
    const items = all.value.map((step, i) => {
      const { label } = step;
      const edit = { class: "csw-link", "data-edit": i, "aria-label": `Change: ${label}` };
      const take = { class: "csw-link", "data-step": i, "aria-label": `Take back: ${label}` };
      return h(
        "li",
        {},
        label,
        " ",
        ...(isEditable(step) ? [button(edit, "change"), " "] : []),
        button(take, "✕"),
      );
    });
    list.replaceChildren(...items);
    copy.textContent = COPY;
  });
}
