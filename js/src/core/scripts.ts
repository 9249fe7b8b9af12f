/**
 * Scripts beside the first one, loaded when they are first needed.
 *
 * Such a script registers a function under its name and version. Called with what it shares with the first script (the
 * modules that both use: one store, one set of signals), the function returns what the script exports. The text comes from
 * the page, where it stands as text that does not run, or from the kernel. The build (`build.mjs`) makes both sides.
 */

import { kept } from "./collections";
import type { Transport } from "./transport";

type Register = Record<string, ((shared: unknown) => unknown) | undefined>;

declare global {
  var classspaceScripts: Register | undefined;
}
/** What the first script shares; the build puts it here. */
declare const __SHARED__: () => unknown;

const TYPE = "application/x-classspace-script";
const made = new Map<string, unknown>();
const loading = new Map<string, Promise<unknown>>();

const registered = (name: string) => globalThis.classspaceScripts?.[`${name} ${__VERSION__}`];

/** What a script exports, if it is at hand without a kernel: it has been loaded, or stands in the page. */
export function atHand<Exports>(name: string): Exports | null {
  if (!registered(name)) {
    const text = document.querySelector(`script[type="${TYPE}"][data-name="${name}"]`)?.textContent;
    if (!text) return null;
    // The policy of the page knows this text: an element with it runs at once.
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    script.remove();
  }
  const make = registered(name);
  return make ? (kept(made, name, () => make(__SHARED__())) as Exports) : null;
}

/** What a script exports, asked of the kernel where it is not at hand; an error says why it does not come. */
export async function load<Exports>(name: string, transport: Transport): Promise<Exports> {
  if (!atHand(name)) {
    await kept(loading, name, () => runScript(name, transport)).finally(() => loading.delete(name));
  }
  const found = atHand<Exports>(name);
  if (!found) throw new Error("the kernel has another version of it: restart it and run the cell again");
  return found;
}

/** Run a script of the kernel; its text. */
export async function runScript(name: string, transport: Transport): Promise<string> {
  const { result } = await transport.request(`script ${name}`, {});
  const text = String(result.text);
  const url = URL.createObjectURL(new Blob([text], { type: "text/javascript" }));
  try {
    await import(/* @vite-ignore */ url);
  } finally {
    URL.revokeObjectURL(url);
  }
  return text;
}
