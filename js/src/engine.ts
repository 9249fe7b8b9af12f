/**
 * The entry of the engine: a page's script that lets it run the model. The same text runs in the page, where it leaves what
 * opens a model, and in the worker, where it answers.
 */

import type { Block } from "./core/block";
import { Engine } from "./engine/client";
import { browserFiles } from "./engine/files";
import { serve, type ToWorker } from "./engine/worker";

declare global {
  /** Opens a model that runs in the page; absent where none travels. `script` is the engine's own text. */
  var classspaceEngine: ((block: Block | Uint8Array<ArrayBuffer>, script?: string) => Engine) | undefined;
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
  const start = (script: string) => {
    try {
      return new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" })));
    } catch {
      return null;
    }
  };
  // Inline in a page it knows its text; the worker starts while the rest of the page is read.
  const inline = document.currentScript?.textContent ?? "";
  let early = inline ? start(inline) : undefined;
  globalThis.classspaceEngine = (block, script = inline) => {
    const worker = early === undefined ? start(script) : early;
    early = undefined;
    return new Engine(worker, block);
  };
}
