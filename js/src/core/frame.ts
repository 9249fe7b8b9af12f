/**
 * Drawing once a frame, however often the signals change, and lifetimes.
 *
 * Everything in the front end lives as long as an AbortSignal: what is begun with one ends with it. A view draws inside
 * `onFrame`, which runs at once, remembers the signals that were read, and runs again in the next frame after any of them
 * has changed.
 */

import { effect, signal } from "@preact/signals-core";

/** Run when the signal aborts; at once where it has aborted already. */
export function onAbort(abort: AbortSignal, stop: () => void): void {
  if (abort.aborted) stop();
  else abort.addEventListener("abort", stop);
}

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
 * A plain effect would draw on every write: a fast drag writes many times a frame and leaves a backlog. So the effect has
 * two states. Armed, it draws, and is subscribed to all that was read. The first change runs it disarmed: it then reads
 * nothing but its own tick, so that further changes of this frame do not even get here, and the next frame arms it again.
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
    } else inFrame(job);
  });
  // Also where drawing for the first time was the end.
  onAbort(abort, () => {
    stop();
    queue.delete(job);
  });
}

/** An effect that ends with the signal. */
export function watch(abort: AbortSignal, run: () => void): void {
  if (abort.aborted) return;
  onAbort(
    abort,
    effect(() => guarded(abort, run)),
  );
}
