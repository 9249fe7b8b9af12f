/** Development page: mounts a view on synthetic data; `#view=Explorer&size=b16&theme=dark` chooses. */

import actions from "../src/actions";
import { pack } from "../src/core/codec";
import type { WidgetModel } from "../src/core/mirror";
import { Snapshot } from "../src/core/snapshot";
import type { State } from "../src/core/state";
import { Store } from "../src/core/store";
import { mountView } from "../src/runtime";
import { array, drawPicture, type Size, SMALL, synthetic, VIT_B16 } from "./synthetic";

const SIZES: Readonly<Record<string, Size>> = {
  small: SMALL,
  b16: VIT_B16,
  l16: { ...VIT_B16, blocks: 24, heads: 16, width: 64, mode: "classes" },
  classes: { ...VIT_B16, width: 96, mode: "classes" },
  pooled: { ...SMALL, prefix: ["[CLS]", "reg 1", "reg 2", "reg 3", "reg 4"], pooled: true, grid: 16 },
  parallel: { ...SMALL, layout: "parallel", blocks: 24, grid: 10 },
};

/** A pretended kernel: answers after a while, with another made-up pass. */
class Kernel implements WidgetModel {
  readonly #values = new Map<string, unknown>();
  readonly #listeners = new Map<string, (...args: never[]) => void>();
  readonly #intervened: Uint8Array;

  constructor(snapshot: Uint8Array, intervened: Uint8Array) {
    this.#values.set("_snapshot", snapshot);
    this.#intervened = intervened;
  }
  get(name: string): unknown {
    return this.#values.get(name);
  }
  set(name: string, value: unknown): void {
    this.#values.set(name, value);
  }
  save_changes(): void {}
  on(event: string, callback: (...args: never[]) => void): void {
    this.#listeners.set(event, callback);
  }
  off(event: string): void {
    this.#listeners.delete(event);
  }
  send(content: unknown): void {
    const { id, kind, params } = content as { id: number; kind: string; params: Record<string, unknown> };
    setTimeout(() => {
      const buffers: Uint8Array[] = [];
      let result: object = {};
      if (kind === "whatif") {
        this.set("_intervened", this.#intervened);
        this.#tell("change:_intervened");
        const list = (p: number) => [0, 4, 2, 7, 1].map((c, i) => [c, p / (i + 1) ** 2]);
        result = {
          before: list(0.9),
          after: list(0.5).slice(1),
          code: "trace = trace_with(space, image, [])",
        };
      } else if (kind === "sweep") {
        const columns = params.kind === "heads" ? [0, 1, 2, 3] : [...Array(197).keys()];
        const rows = [1, 2, 3, 4, 5, 6];
        const data = Float32Array.from(
          { length: rows.length * columns.length },
          (_, i) => Math.sin(i * 1.7) / 3,
        );
        buffers.push(pack({ kind: "part" }, [array("grid", "f4", [rows.length, columns.length], data)]));
        result = { rows, columns };
      }
      const error = { title: "RuntimeError", message: "CUDA out of memory. Try a smaller picture." };
      const ok = kind === "whatif" || kind === "sweep";
      this.#tell("msg:custom", { type: "response", id, ok, result, error }, buffers);
    }, 150);
  }
  #tell(event: string, ...args: unknown[]): void {
    this.#listeners.get(event)?.(...(args as never[]));
  }
}

globalThis.classspaceScripts = { [`actions ${__VERSION__}`]: () => actions };

async function start(): Promise<void> {
  const asked = new URLSearchParams(location.hash.slice(1));
  document.documentElement.dataset.theme = asked.get("theme") ?? "light";
  const picture = await drawPicture();
  const bytes = await synthetic(SIZES[asked.get("size") ?? "small"], picture);
  const state = JSON.parse(asked.get("state") ?? "{}") as Partial<State>;
  const size = SIZES[asked.get("size") ?? "small"];
  const kernel = asked.has("kernel")
    ? new Kernel(bytes, await synthetic({ ...size, seed: 9 }, picture))
    : null;
  if (kernel) for (const [name, value] of Object.entries(state)) kernel.set(name, value);
  const store = new Store(Snapshot.parse(bytes), kernel, state);
  const own = new AbortController();
  const place = document.getElementById("place") as HTMLElement;
  const begin = performance.now();
  for (const view of (asked.get("view") ?? "Explorer").split(",")) mountView(view, place, store, own.signal);
  Object.assign(globalThis, {
    store,
    stop: () => own.abort(),
    mounted: performance.now() - begin,
    bytes: bytes.length,
  });
  requestAnimationFrame(() => requestAnimationFrame(() => document.body.setAttribute("data-ready", "")));
}

void start();
