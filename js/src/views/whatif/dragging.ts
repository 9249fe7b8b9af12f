/**
 * Dragging a state: from a patch of the second picture, or from the one patch that is selected, onto a patch of the picture.
 *
 * Pointers take hold of a handle over the patch (over all of the second picture), which has the pointer until the end. Keys:
 * P picks up the focused patch, arrows move over the picture as ever, Enter puts the state there, Escape cancels.
 */

import { computed, signal, untracked } from "@preact/signals-core";
import { blocksOf, type Carried, carriedObstacle, carriedSpec, carriedWords } from "../../core/carried";
import { claim, h, listen, pointIn, say, unique } from "../../core/dom";
import { percent } from "../../core/format";
import { onAbort, onFrame, watch } from "../../core/frame";
import type { Snapshot } from "../../core/snapshot";
import type { Store } from "../../core/store";
import { FIELDS, fieldOf } from "../../fields";
import { pane } from "../heatmap/pane";
import { MaskOutline, Picture } from "../heatmap/picture";
import { patchAt, SLACK } from "../heatmap/pointing";
import { chooses } from "../roving";
import { stepsOf } from "./steps";

/** A state that is on its way. */
interface Held {
  readonly store: Store;
  readonly token: number;
  /** Where it was picked up. */
  readonly picture: HTMLElement;
  readonly byKey: boolean;
}

/** Pixels of what is seen of a state on its way, and how far beside the pointer it is: the patch under it stays in sight. */
const [GHOST, BESIDE] = [36, 10];

/** In the patch map of an explorer. */
export function dragging(explorer: Element, store: Store, abort: AbortSignal): void {
  const panes = explorer.querySelector<HTMLElement>(".csw-panes");
  if (!panes) return;
  const steps = stepsOf(store);
  const held = signal<Held | null>(null);
  const target = signal<number | null>(null);
  const live = h("p", { class: "csw-sr", "aria-live": "polite" });
  const ghost = h("canvas", {
    class: "csw-ghost",
    width: GHOST,
    height: GHOST,
    hidden: true,
    "aria-hidden": "true",
  });
  const pictures = [...panes.querySelectorAll<HTMLElement>(".csw-picture")];
  const snapshot = () => store.baseline.peek().snapshot;
  panes.append(ghost, live);
  onAbort(abort, () => {
    ghost.remove();
    live.remove();
  });

  const carriedFrom = ({ store: of, token }: Held): Carried => ({
    second: of !== store,
    token,
    ...blocksOf(store),
  });
  const pick = (next: Held) => {
    steps.chosen.value = "carry";
    steps.problem.value = "";
    copyPatch(ghost, next);
    held.value = next;
  };
  const cancel = () => {
    if (!held.peek()) return;
    held.value = target.value = null;
    say(live, "Cancelled: nothing was put.");
  };
  const put = async (token: number) => {
    const from = held.peek();
    held.value = target.value = null;
    if (!from) return;
    const carried = carriedFrom(from);
    const words = carriedWords(carried, [token], snapshot());
    const why = carriedObstacle(carried, true, snapshot());
    if (why) steps.problem.value = why;
    say(live, why || `Put ${words}.`);
    if (why || !(await steps.add({ spec: carriedSpec(carried, [token]), label: words }))) return;
    const [before, after] = [snapshot(), store.intervened.peek()?.snapshot].map((s) => s?.predicted(1)[0]);
    if (before && after)
      say(
        live,
        `${words}: ${snapshot().shortName(after.id)} ${percent(after.probability)}, before ${snapshot().shortName(before.id)} ${percent(before.probability)}`,
      );
  };

  /** The picture's patch that a pointer is on; null beside the picture. */
  const under = (event: PointerEvent): number | null => {
    for (const picture of pictures) {
      const { left, right, top, bottom } = picture.getBoundingClientRect();
      const inside =
        event.clientX >= left && event.clientX < right && event.clientY >= top && event.clientY < bottom;
      if (inside) return patchAt(picture, snapshot(), within(picture, event));
    }
    return null;
  };
  const moveGhost = (at: { readonly clientX: number; readonly clientY: number }) => {
    const { x, y } = pointIn(panes, at, panes.clientWidth, panes.clientHeight);
    ghost.style.transform = `translate(${Math.round(x + BESIDE)}px, ${Math.round(y + BESIDE)}px)`;
  };

  /** Let pointers take hold of the patches under a handle. */
  const takesHold = (handle: HTMLElement, of: Store, picture: HTMLElement, own: AbortSignal) => {
    let start: PointerEvent | null = null;
    const at = (event: PointerEvent) => patchAt(picture, of.baseline.peek().snapshot, within(picture, event));
    const end = () => {
      start = null;
      cancel();
    };
    listen(handle, own, {
      pointerdown: (event) => {
        if (event.button !== 0 || event.shiftKey || event.ctrlKey || event.metaKey) return;
        // No box is begun.
        event.stopPropagation();
        start = event;
        handle.setPointerCapture(event.pointerId);
      },
      pointermove: (event) => {
        if (!start) return;
        event.stopPropagation();
        const moved = Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > SLACK;
        if (!held.peek()) {
          if (!moved) return;
          of.hovered.value = null;
          pick({ store: of, token: at(start), picture, byKey: false });
        }
        moveGhost(event);
        target.value = under(event);
      },
      pointerup: (event) => {
        if (!start) return;
        event.stopPropagation();
        const began = start;
        start = null;
        const onto = target.peek();
        if (!held.peek()) of.selectToken(at(began));
        else if (onto === null) cancel();
        else void put(onto);
      },
      pointercancel: end,
    });
    // Escape lets go.
    const key = (event: KeyboardEvent) => {
      if (event.key !== "Escape" || !start) return;
      claim(event);
      end();
    };
    document.addEventListener("keydown", key, { capture: true, signal: own });
  };

  for (const picture of pictures) {
    const grab = h("div", { class: "csw-grab", hidden: true, title: "Drag its state onto another patch" });
    const mark = h("div", { class: "csw-target", hidden: true });
    picture.append(grab, mark);
    takesHold(grab, store, picture, abort);
    onAbort(abort, () => {
      grab.remove();
      mark.remove();
    });
    watch(abort, () => {
      const { snapshot: now } = store.baseline.value;
      const [token, ...more] = store.state.tokens.value;
      const alone = token !== undefined && more.length === 0 && now.isImageToken(token);
      // While it is held it stays, since it has the pointer.
      if (held.value?.store === store) return;
      grab.hidden = !store.live || !alone;
      if (alone) lieOver(grab, now, token);
    });
    watch(abort, () => {
      const at = target.value;
      mark.hidden = at === null;
      if (at !== null) lieOver(mark, snapshot(), at);
    });
  }
  watch(abort, () => {
    ghost.hidden = held.value === null;
    panes.classList.toggle("csw-holds", held.value !== null);
  });

  const byKey = computed(() => held.value?.byKey === true);
  // Keys move over the picture as ever; what they stand on is where the state would go.
  watch(abort, () => {
    const at = store.hovered.value;
    if (!byKey.value || at === null || !snapshot().isImageToken(at)) return;
    target.value = at;
    const shown = pictures.find((picture) => !picture.hidden);
    if (shown) moveGhost(middleOf(shown, snapshot(), at));
    say(live, `onto ${snapshot().tokenName(at)}`);
  });
  const keys = (event: KeyboardEvent) => {
    const picture = (event.target as Element).closest<HTMLElement>(".csw-picture");
    if (!picture || !store.live || event.ctrlKey || event.metaKey || event.altKey) return;
    const now = held.peek();
    if (now?.byKey && event.key === "Escape") {
      cancel();
      now.picture.focus();
    } else if (now?.byKey && chooses(event)) {
      const onto = target.peek();
      if (onto !== null) void put(onto);
    } else if (!now && event.key.toLowerCase() === "p") {
      const of = pictures.includes(picture) ? store : store.other.peek();
      const token = of?.hovered.peek() ?? null;
      if (!of || token === null || !of.baseline.peek().snapshot.isImageToken(token)) return;
      const { from, to } = blocksOf(store);
      pick({ store: of, token, picture, byKey: true });
      if (of !== store) pictures.find((one) => !one.hidden)?.focus();
      const name = snapshot().tokenName(token);
      say(
        live,
        `Picked up the state of ${name} after block ${from}. Arrow keys choose a patch of the picture, Enter puts it there after block ${to}, Escape cancels.`,
      );
    } else return;
    claim(event);
  };
  panes.addEventListener("keydown", keys, { capture: true, signal: abort });
  listen(panes, abort, {
    focusout: ({ relatedTarget }) => {
      if (held.peek()?.byKey && !panes.contains(relatedTarget as Node | null)) cancel();
    },
  });

  let shown: AbortController | null = null;
  watch(abort, () => {
    shown?.abort();
    const other = store.live ? store.other.value : null;
    if (!other) return;
    shown = new AbortController();
    const own = shown.signal;
    untracked(() => {
      const figure = secondPane(other, own);
      const picture = figure.querySelector(".csw-picture") as HTMLElement;
      const grab = h("div", { class: "csw-grab csw-whole" });
      picture.append(grab);
      takesHold(grab, other, picture, own);
      panes.append(figure);
      onAbort(own, () => figure.remove());
    });
  });
  onAbort(abort, () => shown?.abort());
}

/** The second picture under the map of the same reading. */
function secondPane(other: Store, abort: AbortSignal): HTMLElement {
  const help = unique("second");
  const live = h("p", { class: "csw-sr", "aria-live": "polite" });
  const leading = computed(() => [other.state.class_index.value]);
  const pixels = new Picture(other, abort);
  const field = computed(() => fieldOf(other));
  const shared = { leading, pixels, outline: new MaskOutline(), help, live };
  const caption = h("figcaption");
  onFrame(abort, () => {
    const { meta } = other.baseline.value.snapshot;
    say(caption, `second picture${meta.image?.name ? `: ${meta.image.name}` : ""}`);
  });
  watch(abort, () => FIELDS[other.state.reading.value].fetch?.(other));
  return h(
    "figure",
    { class: "csw-second" },
    pane(other, abort, field, other.state.class_index, shared),
    caption,
    h(
      "p",
      { class: "csw-sr", id: help },
      "The second picture. Arrow keys move over the patches, P picks up the state of one.",
    ),
    live,
  );
}

const within = (picture: HTMLElement, event: PointerEvent) =>
  pointIn(picture, event, picture.clientWidth, picture.clientHeight);

/** Row and column of an image token. */
function cellOf({ prefix, columns }: Snapshot, token: number): readonly [row: number, column: number] {
  return [Math.floor((token - prefix) / columns), (token - prefix) % columns];
}

/** Lie over a patch. */
function lieOver(node: HTMLElement, snapshot: Snapshot, token: number): void {
  const { rows, columns } = snapshot;
  const [row, column] = cellOf(snapshot, token);
  Object.assign(node.style, {
    left: `${(100 * column) / columns}%`,
    top: `${(100 * row) / rows}%`,
    width: `${100 / columns}%`,
    height: `${100 / rows}%`,
  });
}

/** The middle of a patch on the screen. */
function middleOf(picture: HTMLElement, snapshot: Snapshot, token: number) {
  const { left, top, width, height } = picture.getBoundingClientRect();
  const [row, column] = cellOf(snapshot, token);
  return {
    clientX: left + ((column + 0.5) / snapshot.columns) * width,
    clientY: top + ((row + 0.5) / snapshot.rows) * height,
  };
}

/** What is seen of a patch, as it is shown. */
function copyPatch(ghost: HTMLCanvasElement, { store, token, picture }: Held): void {
  const { snapshot } = store.baseline.peek();
  const canvas = picture.querySelector("canvas");
  const context = ghost.getContext("2d");
  if (!canvas || !context) return;
  const [row, column] = cellOf(snapshot, token);
  const [w, tall] = [canvas.width / snapshot.columns, canvas.height / snapshot.rows];
  context.clearRect(0, 0, GHOST, GHOST);
  context.drawImage(canvas, column * w, row * tall, w, tall, 0, 0, GHOST, GHOST);
}
