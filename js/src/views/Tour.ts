/**
 * A guided tour through an explorer: a card beside the control that a step is about, which says what to do and waits for it.
 *
 * Which tour is open, and at which step, is part of the shared state, and so of the page's address. The card stands in the
 * document before its control, so that one Tab leads there and nothing is covered.
 */

import { attach, button, entitle, h, listen, say, unique } from "../core/dom";
import { onAbort, watch } from "../core/frame";
import type { Store } from "../core/store";
import { TARGETS } from "../generated/tour";
import { begin, holds } from "./tour/facts";
import type { Run, Step, Tour } from "./tour/tour";

/** Where a card may stand: before all else in the part of the explorer that holds the control. */
const PLACES = ".csw-whatif, .csw-sweep, .csw-area";
const FOCUSABLE = "button, input, select, [tabindex='0']";
const MARK = "csw-tour-target";

/** `el` is the explorer. */
export function mount(el: HTMLElement, store: Store, abort: AbortSignal, tours: readonly Tour[]): void {
  const { state } = store;
  const offer = offered(tours, abort, (name) => {
    if (store.live && store.intervened.peek()) store.removeInterventions();
    go(name, 1);
  });
  const card = cardOf(abort);
  attach(el, offer, abort);
  el.prepend(offer);
  /** The step that is shown. */
  let step: Step | undefined;
  let picture = store.baseline.peek().snapshot;
  let target: HTMLElement | null = null;
  let met = false;
  /** Whether this view's own buttons asked for the step: then the focus goes along. */
  let asked = false;

  const tourNow = () => tours.find(({ name }) => name === state.open_tour.value);
  const go = (tour: string, at: number) => {
    asked = true;
    store.set({ open_tour: tour, tour_step: at });
  };
  const end = () => go("", 1);

  /** Put the card beside its control; that one may come later, or never where it is not part of the page. */
  const place = () => {
    const found = step ? el.querySelector<HTMLElement>(TARGETS[step.target]) : null;
    if (found === target && (card.node.isConnected || !step)) return;
    mark(target, false, card.words.id);
    target = found;
    mark(target, true, card.words.id);
    card.to.hidden = !target;
    if (!step) return card.node.remove();
    const at = target?.closest(PLACES);
    if (at) at.prepend(card.node);
    // After the header, whose heading is above that of the card.
    else (el.querySelector(".csw-head") ?? offer).after(card.node);
    target?.scrollIntoView({ block: "nearest" });
    card.node.scrollIntoView({ block: "nearest" });
  };
  const late = new MutationObserver(() => {
    if (step && !target?.isConnected) place();
  });
  late.observe(el, { childList: true, subtree: true, attributes: true, attributeFilter: ["hidden"] });
  onAbort(abort, () => {
    late.disconnect();
    step = undefined;
    place();
  });

  const show = (tour: Tour | undefined, at: number) => {
    const before = step;
    step = tour?.steps[at];
    if (step === before) return;
    met = false;
    picture = store.baseline.peek().snapshot;
    offer.hidden = step !== undefined;
    if (tour && step) {
      card.show(tour, step, at);
      if (asked || linked()) begin(store, step);
    }
    place();
    if (asked) (step ? card.title : offer.querySelector("button"))?.focus({ preventScroll: true });
    asked = false;
  };

  watch(abort, () => {
    const tour = tourNow();
    const at = tour ? Math.min(Math.max(state.tour_step.value, 1), tour.steps.length) - 1 : -1;
    show(tour, at);
    if (!step) return;
    // What was done stays done, whatever else is tried before going on.
    const all = step.until.map((condition) => holds(store, condition, picture));
    met ||= all.every(Boolean);
    card.tell(step, met);
  });

  listen(card.node, abort, {
    keydown: (event) => {
      if (event.key === "Escape") end();
    },
  });
  listen(card.back, abort, { click: () => go(state.open_tour.peek(), state.tour_step.peek() - 1) });
  listen(card.next, abort, {
    click: () => {
      if (step === tourNow()?.steps.at(-1)) end();
      else go(state.open_tour.peek(), state.tour_step.peek() + 1);
    },
  });
  listen(card.close, abort, { click: end });
  listen(card.to, abort, {
    click: () => {
      target?.scrollIntoView({ block: "nearest" });
      (target?.matches(FOCUSABLE) ? target : target?.querySelector<HTMLElement>(FOCUSABLE))?.focus();
    },
  });
}

/** Whether the address names a step and no more: then the step begins as it would after the one before it. */
function linked(): boolean {
  const names = [...new URLSearchParams(location.hash.slice(1)).keys()].map((key) =>
    key.replace(/^\d+\./, ""),
  );
  return names.includes("tour") && names.every((name) => name === "tour" || name === "step");
}

/** Frame a control, and let it be described by the sentence of its step. */
function mark(target: HTMLElement | null, on: boolean, id: string): void {
  if (!target) return;
  target.classList.toggle(MARK, on);
  const others = (target.getAttribute("aria-describedby") ?? "")
    .split(" ")
    .filter((one) => one && one !== id);
  const ids = on ? [...others, id] : others;
  if (ids.length > 0) target.setAttribute("aria-describedby", ids.join(" "));
  else target.removeAttribute("aria-describedby");
}

/** The invitation to the tours, where none is open. */
function offered(tours: readonly Tour[], abort: AbortSignal, start: (name: string) => void): HTMLElement {
  const buttons = tours.map(({ name, title, steps, intro }) => {
    const node = button(
      { class: "csw-button", title: plain(intro) || null },
      `${title} · ${steps.length} steps`,
    );
    listen(node, abort, { click: () => start(name) });
    return node;
  });
  const words = tours.length > 1 ? "Guided tours" : "Guided tour";
  return h(
    "div",
    { class: "csw-tour-offer", role: "group", "aria-label": words },
    h("span", { class: "csw-label" }, words),
    ...buttons,
  );
}

interface Card {
  readonly node: HTMLElement;
  readonly title: HTMLElement;
  readonly words: HTMLElement;
  readonly back: HTMLButtonElement;
  readonly to: HTMLButtonElement;
  readonly next: HTMLButtonElement;
  readonly close: HTMLButtonElement;
  show(tour: Tour, step: Step, at: number): void;
  /** Say whether it was done. */
  tell(step: Step, met: boolean): void;
}

function cardOf(abort: AbortSignal): Card {
  const count = h("p", { class: "csw-label" });
  const title = h("h3", { tabindex: -1, id: unique("tour") });
  const words = h("p", { id: unique("tour") });
  const outcome = h("p", { class: "csw-tour-outcome", role: "status" });
  const back = button({ class: "csw-button" }, "Back");
  const to = button({ class: "csw-button" });
  const next = button({ class: "csw-button csw-primary" });
  const close = button({ class: "csw-clear", "aria-label": "End the tour", title: "End the tour" }, "×");
  const foot = h("div", { class: "csw-bar-row" }, back, next, to);
  const node = h(
    "section",
    { class: "csw-tour", "aria-labelledby": title.id },
    h("header", {}, count, close),
    title,
    words,
    outcome,
    foot,
  );
  onAbort(abort, () => node.remove());
  let last = false;
  return {
    node,
    title,
    words,
    back,
    to,
    next,
    close,
    show(tour, step, at) {
      last = at === tour.steps.length - 1;
      entitle(count, `Step ${at + 1} of ${tour.steps.length} · ${tour.title}`);
      say(title, step.title);
      words.replaceChildren(...step.text.map(drawn));
      outcome.replaceChildren();
      back.disabled = at === 0;
      say(to, `Go to: ${step.target}`);
    },
    tell(step, met) {
      node.classList.toggle("csw-met", met);
      const waits = step.until.length > 0;
      say(next, last ? "Finish" : met || !waits ? "Next" : "Skip");
      next.classList.toggle("csw-primary", met);
      if (!met || !waits) outcome.replaceChildren();
      else if (!outcome.hasChildNodes()) {
        const own = step.done.length > 0 ? step.done : ([["", "Done."]] as const);
        outcome.replaceChildren(h("span", { "aria-hidden": "true" }, "✓ "), ...own.map(drawn));
      }
    },
  };
}

const plain = (runs: readonly Run[]) => runs.map(([, text]) => text).join("");

/** A piece of text, as text. */
function drawn([style, text]: Run): Node | string {
  return style === "" ? text : h(style, {}, text);
}
