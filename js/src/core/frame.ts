/** Drawing once a frame, however often the signals change. */

import { effect, signal } from "@preact/signals-core";

const queue = new Set<() => void>();
let handle = 0;

function flush(): void {
  handle = 0;
  const jobs = [...queue];
  queue.clear();
  for (const job of jobs) job();
}

/** Run `job` in the next frame, once; all jobs of a frame share one callback. */
export function inFrame(job: () => void): void {
  queue.add(job);
  if (handle === 0) handle = requestAnimationFrame(flush);
}

/**
 * Run `draw` now and, whenever a signal that it read has changed, once in the next frame.
 *
 * A plain effect would draw on every write: a fast drag writes many times a frame and leaves a backlog.
 */
export function onFrame(abort: AbortSignal, draw: () => void): void {
  if (abort.aborted) return;
  const tick = signal(0);
  let armed = true;
  const job = () => {
    armed = true;
    tick.value++;
  };
  const stop = effect(() => {
    tick.value;
    if (armed) {
      armed = false;
      draw();
    } else {
      // Reads nothing but the tick: further writes of this frame do not even get here.
      inFrame(job);
    }
  });
  abort.addEventListener("abort", () => {
    stop();
    queue.delete(job);
  });
}

/** An effect that ends with the signal. */
export function watch(abort: AbortSignal, run: () => void): void {
  if (abort.aborted) return;
  const stop = effect(run);
  abort.addEventListener("abort", stop);
}
