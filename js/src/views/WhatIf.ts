/** What if: cut, remove and switch off parts of the model, and see what the class evidence becomes. */

import { computed, signal } from "@preact/signals-core";
import { attach, h, say } from "../core/dom";
import { percent, shortName } from "../core/format";
import { onFrame, watch } from "../core/frame";
import { ACTIONS, type Choice, describe, obstacle } from "../core/interventions";
import type { PinnedStep, Store } from "../core/store";
import { choosesClass, keepPlace, passes } from "./parts";

/** Classes of the output before and after. */
const TOP = 5;

export interface WhatIfOptions {
  /** Somebody else offers the choice of the pass. */
  readonly composed?: boolean;
}

export function mount(el: HTMLElement, store: Store, abort: AbortSignal, options: WhatIfOptions = {}): void {
  const on = { signal: abort };
  /** What was done to the pass that is shown beside the baseline, whoever asked for it. */
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
  const chosen = signal("remove");
  const span = signal<readonly [number, number]>([1, store.baseline.peek().snapshot.L]);
  const renormalise = signal(false);

  const action = h("select", { class: "csw-select", "aria-label": "Intervention" });
  action.append(...Object.entries(ACTIONS).map(([key, { name }]) => h("option", { value: key }, name)));
  const from = h("select", { class: "csw-select", "aria-label": "First block" });
  const to = h("select", { class: "csw-select", "aria-label": "Last block" });
  const blocks = h(
    "span",
    { class: "csw-bar-row" },
    h("span", { class: "csw-label" }, "blocks"),
    from,
    "–",
    to,
  );
  const norm = h("input", { type: "checkbox" });
  const normLabel = h("label", { class: "csw-check csw-label" }, norm, "renormalise");
  normLabel.title =
    "Mask before the softmax, so that the other weights grow; else set weights to zero after it";
  const apply = h("button", { class: "csw-button csw-primary", type: "button" }, "Apply");
  const undo = h("button", { class: "csw-button", type: "button" }, "Undo");
  const copy = h("button", { class: "csw-button", type: "button" }, "Copy as Python");
  const pin = h("button", { class: "csw-button", type: "button" }, "Pin");
  pin.title = "Keep this state: to come back to, in Python as pins, and in exported pages";
  const why = h("p", { class: "csw-note" });
  const list = h("ol", { class: "csw-steps" });
  const table = h("div", { class: "csw-outcome" });
  const pinned = h("select", { class: "csw-select", "aria-label": "Pinned interventions" });
  const title = h("h3", {}, "What if");
  const head = h("header", { class: "csw-bar-row" }, title, h("span", { class: "csw-grow" }), pinned, copy);
  if (!options.composed) head.append(passes(store, abort));
  const doing = h("span", { class: "csw-tools" }, apply, undo, pin);
  const tools = h("div", { class: "csw-bar-row" }, action, blocks, normLabel, doing);
  const root = h(
    "section",
    { class: "csw-view csw-whatif", "aria-label": "What if" },
    head,
    tools,
    why,
    table,
    list,
  );
  attach(el, root, abort);

  const choice = computed((): Choice => {
    const { snapshot } = store.baseline.value;
    const wanted = ACTIONS[chosen.value].needs.includes("patches");
    const tokens = store.state.tokens.value.filter((t) =>
      wanted ? snapshot.isImageToken(t) : t < snapshot.T,
    );
    return {
      tokens: [...tokens].sort((a, b) => a - b),
      from: span.value[0],
      to: span.value[1],
      renormalise: renormalise.value,
      head: store.state.head.value,
    };
  });

  const labelOf = (list: readonly PinnedStep[]) => list.map((step) => step.label).join("; ");

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

  action.addEventListener(
    "change",
    () => {
      chosen.value = action.value;
      problem.value = "";
    },
    on,
  );
  const spanned = () => {
    span.value = [Number(from.value), Number(to.value)];
  };
  for (const end of [from, to]) end.addEventListener("change", spanned, on);
  norm.addEventListener(
    "change",
    () => {
      renormalise.value = norm.checked;
    },
    on,
  );
  apply.addEventListener(
    "click",
    () => {
      const own = ACTIONS[chosen.peek()];
      const spec = own.build(choice.peek());
      const label = describe(spec, own, store.baseline.peek().snapshot.L);
      void run([...steps.peek(), { spec, label }]);
    },
    on,
  );
  undo.addEventListener("click", () => void run(steps.peek().slice(0, -1)), on);
  list.addEventListener(
    "click",
    (event) => {
      const at = (event.target as Element).closest<HTMLElement>("[data-step]")?.dataset.step;
      if (at !== undefined) void run(steps.peek().filter((_, i) => i !== Number(at)));
    },
    on,
  );
  copy.addEventListener(
    "click",
    async () => {
      const code = done.peek()?.code ?? "";
      try {
        await navigator.clipboard.writeText(code);
        copy.textContent = "Copied";
      } catch {
        // No clipboard in an insecure or framed page: show the code, to be copied by hand.
        table.append(h("pre", { tabindex: 0 }, code));
      }
    },
    on,
  );
  const specs = (list: readonly PinnedStep[]) => JSON.stringify(list.map((step) => step.spec));
  const kept = () => store.pins.value.find((p) => specs(p.steps) === specs(steps.value));
  pin.addEventListener(
    "click",
    () => {
      const known = kept();
      if (known) store.unpin(known.label);
      else store.pin(labelOf(steps.peek()), steps.peek());
    },
    on,
  );
  pinned.addEventListener(
    "change",
    () => {
      const at = Number(pinned.value);
      const pin = store.pins.peek()[at];
      if (store.kernel.peek() !== "live") store.showPinned(at);
      else void run(pin?.steps ?? [], pin?.label);
    },
    on,
  );

  watch(abort, () => {
    const { snapshot } = store.baseline.value;
    const numbers = Array.from({ length: snapshot.L }, (_, i) => String(i + 1));
    for (const select of [from, to]) {
      if (select.options.length !== numbers.length) {
        select.replaceChildren(...numbers.map((n) => h("option", { value: n }, n)));
      }
    }
    if (span.peek()[1] > snapshot.L) span.value = [1, snapshot.L];
  });
  onFrame(abort, () => {
    const live = store.kernel.value === "live";
    const own = ACTIONS[chosen.value];
    const has = store.intervened.value !== null;
    const names = live
      ? ["pinned …", ...store.pins.value.map((p) => p.label)]
      : store.pinned.value.map((d, i) =>
          d ? d.snapshot.meta.intervention?.label || `pass ${i + 1}` : `pass ${i + 1} (damaged)`,
        );
    root.hidden = !live && !has;
    tools.hidden = !live;
    for (const node of [action, apply, undo, pin]) node.hidden = !live;
    blocks.hidden = !live || !own.needs.includes("blocks");
    normLabel.hidden = !live || !own.needs.includes("renormalise");
    from.value = String(span.value[0]);
    to.value = String(span.value[1]);
    action.title = own.title;
    const missing = live ? obstacle(own, choice.value, store.baseline.value.snapshot) : "";
    const failed = live ? problem.value : "";
    const busy = running.value;
    say(
      why,
      busy
        ? "Running the model …"
        : failed || missing || (live ? `${own.title}.` : names.length > 1 ? "" : (done.value?.label ?? "")),
    );
    why.classList.toggle("csw-failed", failed !== "");
    why.hidden = why.textContent === "";
    apply.disabled = busy || missing !== "";
    undo.disabled = busy || steps.value.length === 0;
    pin.disabled = undo.disabled;
    say(pin, kept() ? "Unpin" : "Pin");
    keepPlace(copy, Boolean(done.value?.code), live);
    pinned.hidden = names.length < 2;
    if ([...pinned.options].map((o) => o.text).join("\n") !== names.join("\n")) {
      pinned.replaceChildren(
        ...names.map((name, i) => {
          const disabled = !live && !store.pinned.value[i];
          return h("option", { value: live ? i - 1 : i, disabled }, name);
        }),
      );
    }
    const held = kept();
    if (live) pinned.value = String(held ? store.pins.value.indexOf(held) : -1);
    else if (store.intervened.value)
      pinned.value = String(store.pinned.value.indexOf(store.intervened.value));
  });
  onFrame(abort, () => {
    list.replaceChildren(
      ...steps.value.map((step, i) => {
        const remove = h(
          "button",
          { class: "csw-link", type: "button", "data-step": i, "aria-label": `Take back: ${step.label}` },
          "✕",
        );
        return h("li", {}, step.label, " ", remove);
      }),
    );
    const live = store.kernel.value === "live";
    list.hidden = !live;
    copy.textContent = "Copy as Python";
    const intervened = store.intervened.value?.snapshot;
    table.hidden = !intervened && !live;
    const { snapshot } = store.baseline.value;
    const column = (
      name: string,
      own: typeof snapshot,
      other: typeof snapshot | undefined,
      tag: string,
      away: string,
    ) => {
      const known = other?.predicted(TOP).map(({ id }) => id);
      return h(
        "div",
        {},
        h("p", { class: "csw-label" }, name),
        ...own.predicted(TOP).map(({ id, probability }) => {
          const row = h("button", { class: "csw-outcome-row", type: "button", "data-class": id });
          row.style.setProperty("--p", `${100 * probability}%`);
          row.append(h("span", {}, shortName(snapshot.className(id))));
          if (known && !known.includes(id))
            row.append(h("small", { class: "csw-tag", title: `Not among the first ${TOP} ${away}` }, tag));
          row.append(h("output", {}, percent(probability)));
          return row;
        }),
      );
    };
    table.replaceChildren(
      column("before", snapshot, intervened, "gone", "after"),
      // Without an intervention there is its place.
      ...(intervened ? [column("after", intervened, snapshot, "new", "before")] : []),
    );
  });
  choosesClass(table, store, abort);
}
