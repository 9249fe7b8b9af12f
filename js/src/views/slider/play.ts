/** Playing through the layers. */

import { type Signal, signal } from "@preact/signals-core";
import { assign, button, icon, listen } from "../../core/dom";
import { onAbort, watch } from "../../core/frame";
import type { Store } from "../../core/store";

/** Milliseconds a layer is shown: long enough to see what it changes. */
const BEAT_MS = 420;
const PLAY = "M3 1.5v11l9-5.5z";
const PAUSE = "M3 1.5h3v11H3zm5 0h3v11H8z";

/** The button, and whether it plays. */
export function playButton(store: Store, abort: AbortSignal): readonly [HTMLElement, Signal<boolean>] {
  const playing = signal(false);
  const picture = icon(PLAY);
  const node = button({ class: "csw-button csw-icon" }, picture);
  const last = () => store.baseline.peek().snapshot.N - 1;
  let timer: ReturnType<typeof setInterval> | undefined;
  const stop = () => clearInterval(timer);
  onAbort(abort, stop);
  listen(node, abort, {
    click: () => {
      playing.value = !playing.value;
      if (playing.value && store.position.peek() === last()) store.setPosition(0);
    },
  });
  watch(abort, () => {
    stop();
    if (!playing.value) return;
    timer = setInterval(() => {
      const next = store.position.peek() + 1;
      if (next <= last()) store.setPosition(next);
      if (next >= last()) playing.value = false;
    }, BEAT_MS);
  });
  watch(abort, () => {
    const name = playing.value ? "Pause" : "Play through the layers";
    assign(node, { "aria-label": name, title: name });
    assign(picture.children[0], { d: playing.value ? PAUSE : PLAY });
  });
  return [node, playing];
}
