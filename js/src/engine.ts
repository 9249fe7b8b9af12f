/**
 * The entry of the engine: a page's script that lets it run the model. The same text runs in the page, where it leaves what
 * opens a model, and in the worker, where it answers.
 */

import type { Block } from "./core/block";
import { Engine } from "./engine/client";
import { browserFiles } from "./engine/files";
import { serve, type ToWorker } from "./engine/worker";

declare global {
  /** Opens the model of a page; absent where the page has none. */
  var classspaceEngine: ((block: Block) => Engine) | undefined;
}

interface WorkerScope {
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
  postMessage(message: unknown, transfer: Transferable[]): void;
}

if (typeof document === "undefined") {
  const scope = globalThis as unknown as WorkerScope;
  const take = serve((message, transfer) => scope.postMessage(message, transfer), browserFiles);
  scope.onmessage = ({ data }) => void take(data);
} else {
  const script = document.currentScript?.textContent ?? "";
  const start = () => {
    try {
      return new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
    } catch {
      return null;
    }
  };
  // It starts while the rest of the page is read.
  let early: Worker | null | undefined = start();
  globalThis.classspaceEngine = (block) => {
    const worker = early === undefined ? start() : early;
    early = undefined;
    return new Engine(worker, block);
  };
}
