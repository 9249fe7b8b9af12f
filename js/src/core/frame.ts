/** Drawing once a frame, however often the signals change. */

import { effect, signal } from "@preact/signals-core";

const guards = new WeakMap<AbortSignal, (error: unknown) => void>();

/** Whom to tell when drawing that ends with this signal throws; else the error is thrown on. */
export function guard(abort: AbortSignal, tell: (error: unknown) => void): void {
  guards.set(abort, tell);
}

function guarded(abort: AbortSignal, run: () => void): void {
  const tell = guards.get(abort);
  try {
    run();
  } catch (error) {
    if (!tell) throw error;
    tell(error);
  }
}

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
      guarded(abort, draw);
    } else {
      // Reads nothing but the tick: further writes of this frame do not even get here.
      inFrame(job);
    }
  });
  ending(abort, () => {
    stop();
    queue.delete(job);
  });
}

/** An effect that ends with the signal. */
export function watch(abort: AbortSignal, run: () => void): void {
  if (abort.aborted) return;
  ending(
    abort,
    effect(() => guarded(abort, run)),
  );
}

/** Also where drawing for the first time was the end. */
function ending(abort: AbortSignal, stop: () => void): void {
  if (abort.aborted) stop();
  else abort.addEventListener("abort", stop);
}
