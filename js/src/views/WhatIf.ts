/** What if: cut, remove and switch off parts of the model, and see what the class evidence becomes. */

import { computed, signal } from "@preact/signals-core";
import { button, dataAt, h, listen, say } from "../core/dom";
import { onFrame } from "../core/frame";
import type { PinnedStep } from "../core/pins";
import type { Store } from "../core/store";
import { passChoice } from "./controls";
import { keepPlace, root } from "./parts";
import type { PartOptions } from "./view";
import { form } from "./whatif/form";
import { outcome } from "./whatif/outcome";
import { pinnedNames, pinnedSelect, pinOf } from "./whatif/pinned";

const COPY = "Copy as Python";

const labelOf = (steps: readonly PinnedStep[]) => steps.map((step) => step.label).join("; ");

export function mount(el: HTMLElement, store: Store, abort: AbortSignal, options: PartOptions = {}): void {
  const section = root(el, abort, "whatif", "What if");
  /** What was done to the pass that is shown beside the baseline, whichever view or cell asked for it. */
  const done = computed(() => store.intervened.value?.snapshot.meta.intervention);
  const steps = computed((): readonly PinnedStep[] =>
    (done.value?.spec ?? []).map((spec, i) => ({
      spec,
      label: done.value?.labels?.[i] ?? String(spec.type),
    })),
  );
  const running = signal(false);
  /** Why the last one did not run. */
  const problem = signal("");

  /** Run the model with these steps; the old state stays until the answer is there. */
  const run = async (next: readonly PinnedStep[], label = labelOf(next)) => {
    problem.value = "";
    if (next.length === 0) return store.removeInterventions();
    const { mode } = store.baseline.peek().snapshot.meta.payload;
    const [spec, labels] = [next.map((step) => step.spec), next.map((step) => step.label)];
    const params = { spec, labels, label, payload: mode };
    running.value = true;
    const answer = await store.request("whatif", params, [], "running the model with the intervention");
    running.value = false;
    if (abort.aborted) return;
    if (!answer) problem.value = store.notice.peek().text;
    else if (store.state.shown.peek() === "baseline") store.set({ shown: "intervened" });
  };

  const undo = button({ class: "csw-button" }, "Undo");
  const pin = button({
    class: "csw-button",
    title: "Keep this state: to come back to, in Python as pins, and in exported pages",
  });
  const copy = button({ class: "csw-button" }, COPY);
  const choice = form(
    store,
    abort,
    () => {
      problem.value = "";
    },
    undo,
    pin,
  );
  const why = h("p", { class: "csw-note" });
  const list = h("ol", { class: "csw-steps" });
  const table = outcome(store, abort);
  const title = h("h3", {}, "What if");
  const pinned = pinnedSelect(store, abort, steps, (next, label) => void run(next, label));
  const head = h("header", { class: "csw-bar-row" }, title, h("span", { class: "csw-grow" }), pinned, copy);
  if (!options.composed) head.append(passChoice(store, abort));
  section.append(head, choice.node, why, table, list);

  listen(choice.apply, abort, { click: () => void run([...steps.peek(), choice.step()]) });
  listen(undo, abort, { click: () => void run(steps.peek().slice(0, -1)) });
  listen(list, abort, {
    click: (event) => {
      const at = dataAt(event, "step");
      if (at !== undefined) void run(steps.peek().filter((_, i) => i !== Number(at)));
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
      const known = pinOf(store, steps.peek());
      if (known) store.unpin(known.label);
      else store.pin(labelOf(steps.peek()), steps.peek());
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
    undo.disabled = pin.disabled = busy || steps.value.length === 0;
    say(pin, pinOf(store, steps.value) ? "Unpin" : "Pin");
    keepPlace(copy, Boolean(done.value?.code), live);
  });
  onFrame(abort, () => {
    const items = steps.value.map(({ label }, i) => {
      const props = { class: "csw-link", "data-step": i, "aria-label": `Take back: ${label}` };
      return h("li", {}, label, " ", button(props, "✕"));
    });
    list.replaceChildren(...items);
    copy.textContent = COPY;
  });
}
