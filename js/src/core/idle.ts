/** Long work in slices between which the page stays responsive. */

interface Deadline {
  timeRemaining(): number;
}

type Idle = (callback: (deadline: Deadline) => void, options?: { timeout: number }) => number;

function whenIdle(run: (budget: number) => void): void {
  const native = (globalThis as { requestIdleCallback?: Idle }).requestIdleCallback;
  if (native) native((deadline) => run(Math.max(4, Math.min(12, deadline.timeRemaining()))), { timeout: 60 });
  else setTimeout(() => run(6), 4);
}

/** Run a generator to its end in idle slices; ends early when the signal aborts. */
export function runIdle(work: Iterator<void>, abort: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const slice = (budget: number) => {
      if (abort.aborted) return resolve();
      const end = performance.now() + budget;
      try {
        do {
          if (work.next().done) return resolve();
        } while (performance.now() < end);
      } catch (error) {
        return reject(error);
      }
      whenIdle(slice);
    };
    whenIdle(slice);
  });
}
