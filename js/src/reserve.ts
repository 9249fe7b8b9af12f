/**
 * The model in reserve: a session that is live brings its model and the engine from the kernel while that is there. Once the
 * kernel is gone, the model runs in this page.
 */

import { message } from "./core/codec";
import { kept } from "./core/collections";
import { hear, type WidgetModel } from "./core/mirror";
import { runScript } from "./core/scripts";
import type { Store } from "./core/store";
import { NoKernel, type Transport } from "./core/transport";
import type { Engine } from "./engine/client";

/** By the models' names: sessions of one model share it. */
const models = new Map<string, Promise<() => Engine>>();

/** Bring the model that the session names, and whenever it names another. */
export function followReserve(model: WidgetModel, store: Store): void {
  const bring = () => {
    const name = model.get("_live");
    if (typeof name !== "string" || name === "") return;
    kept(models, name, () => fetched(store.transport)).then(
      (open) =>
        store.keepReserve((snapshot) => {
          const start = model.get("_live") === name ? snapshot.floats("start") : undefined;
          return start ? open().session(snapshot.meta, start) : null;
        }),
      (error) => {
        models.delete(name);
        if (!(error instanceof NoKernel))
          store.fail(new Error(`The model cannot be kept for when the kernel is gone: ${message(error)}`));
      },
    );
  };
  hear(model, "change:_live", bring, store.signal);
  bring();
}

/** Opens the model that the kernel sent; once for all. */
async function fetched(transport: Transport): Promise<() => Engine> {
  const [script, { buffers }] = await Promise.all([
    runScript("engine", transport),
    transport.request("model", {}),
  ]);
  const [sent] = buffers;
  const open = globalThis.classspaceEngine;
  if (!open || !sent) throw new Error("the kernel sent no model");
  const bytes = ArrayBuffer.isView(sent)
    ? new Uint8Array(sent.buffer, sent.byteOffset, sent.byteLength).slice()
    : new Uint8Array(sent);
  let engine: Engine | undefined;
  return () => {
    engine ??= open(bytes as Uint8Array<ArrayBuffer>, script);
    return engine;
  };
}
