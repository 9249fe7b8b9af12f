/**
 * The state of a page's views in the fragment of its address: "#class=fish&block=5&tokens=66,67". A reload keeps it, a
 * reader can share it, and a link in the page's text can set it.
 *
 * Only what differs from how the page opened is written. The second view's names have "1." before them, and so on.
 */

import { batch, effect } from "@preact/signals-core";
import { range } from "./collections";
import { shortName } from "./format";
import { onAbort } from "./frame";
import { fits } from "./link";
import type { Snapshot } from "./snapshot";
import { ADDRESS, CHOICES, type State } from "./state";
import type { Store } from "./store";

const NAMES: Readonly<Record<string, keyof State>> = ADDRESS;
/** Which pinned pass stands beside the baseline. */
const PASS = "pass";

/** Browsers refuse an address that changes too often: Safari more than 100 times in 30 seconds. */
const PAUSE_MS = 300;

/** A class by its number or its name; -1 where there is none. */
function classOf(snapshot: Snapshot, text: string): number {
  if (/^\d+$/.test(text)) return Number(text);
  for (let id = 0; id < snapshot.C; id++) {
    const name = snapshot.className(id);
    if (name === text || shortName(name) === text) return id;
  }
  return -1;
}

/** "3,7-9" of 3, 7, 8, 9: a box over the picture is many tokens. */
function runs(tokens: readonly number[]): string {
  const out: string[] = [];
  for (let i = 0; i < tokens.length; i++) {
    const first = tokens[i];
    while (tokens[i + 1] === tokens[i] + 1) i++;
    out.push(tokens[i] > first ? `${first}-${tokens[i]}` : String(first));
  }
  return out.join(",");
}

function tokensOf(text: string, most: number): number[] {
  const parts = text.split(",").filter(Boolean);
  return parts.flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    const length = last - first + 1;
    return length >= 1 && length <= most ? range(length, (i) => first + i) : Number.NaN;
  });
}

/** A value as text; a class by its name where that is its own. */
function written(snapshot: Snapshot, name: keyof State, value: State[keyof State]): string {
  if (value === null) return "";
  if (name === "tokens") return runs(value as readonly number[]);
  if (name !== "class_index" && name !== "compare_index") return String(value);
  const text = snapshot.shortName(value as number);
  return classOf(snapshot, text) === value ? text : String(value);
}

/** The value that a text means; undefined where it makes no sense here. */
function read(store: Store, name: keyof State, text: string): unknown {
  const choices = (CHOICES as { readonly [K in keyof State]?: readonly unknown[] })[name];
  if (choices) return choices.find((choice) => String(choice) === text);
  if (name === "map_name" || name === "lens" || name === "open_tour")
    return fits(store, name, text) ? text : undefined;
  const { snapshot } = store.baseline.peek();
  let value: number | readonly number[] | null;
  if (text === "" && (name === "compare_index" || name === "head")) value = null;
  else if (name === "tokens") value = tokensOf(text, snapshot.V);
  else if (name === "head") value = text.split(",").map(Number);
  else if (name === "block" || name === "tour_step") value = Number(text || Number.NaN);
  else value = classOf(snapshot, text);
  const sound = [value].flat().every((v) => v === null || (Number.isInteger(v) && v >= 0));
  return sound && fits(store, name, value) ? value : undefined;
}

const params = () => new URLSearchParams(location.hash.slice(1));

/** Ties the store of the page's view with this number to the address. */
export class Fragment {
  readonly #store: Store;
  readonly #prefix: string;
  readonly #opening: Partial<State>;

  constructor(store: Store, view: number) {
    this.#store = store;
    this.#prefix = view > 0 ? `${view}.` : "";
    this.#opening = Object.fromEntries(
      Object.values(NAMES).map((name) => [name, store.state[name].peek()]),
    ) as Partial<State>;
  }

  /** Take the state that the address tells: all of it, or nothing where it is of other views alone. */
  take(): void {
    const given = params();
    const of = (key: string) => given.get(this.#prefix + key);
    const keys = [...Object.keys(NAMES), PASS];
    if (given.size > 0 && keys.every((key) => of(key) === null)) return;
    const state: Record<string, unknown> = { ...this.#opening };
    for (const [key, name] of Object.entries(NAMES)) {
      const text = of(key);
      const value = text === null ? undefined : read(this.#store, name, text);
      if (value !== undefined) state[name] = value;
    }
    // "#block=5" alone, of a page that opened at the embedding.
    if (of("block") && !of("sublayer") && state.sublayer === "embedding") state.sublayer = "mlp";
    batch(() => {
      const pass = of(PASS);
      if (pass) this.#store.showPinned(Number(pass));
      this.#store.set(state);
    });
  }

  /** Take every address that is gone to, and write what the hand does. */
  follow(abort: AbortSignal): void {
    // A page in a frame of a notebook has no address of its own.
    if (location.protocol === "about:") return;
    addEventListener("hashchange", () => this.take(), { signal: abort });
    let timer: ReturnType<typeof setTimeout> | undefined;
    const stop = effect(() => {
      const text = this.#text();
      clearTimeout(timer);
      timer = setTimeout(() => this.#write(text), PAUSE_MS);
    });
    onAbort(abort, () => {
      stop();
      clearTimeout(timer);
    });
  }

  /** What differs from how the page opened. */
  #text(): Map<string, string> {
    const { snapshot } = this.#store.baseline.value;
    const out = new Map<string, string>();
    for (const [key, name] of Object.entries(NAMES)) {
      const text = written(snapshot, name, this.#store.state[name].value);
      if (text !== written(snapshot, name, this.#opening[name] as State[keyof State])) out.set(key, text);
    }
    const { pinnedShown } = this.#store;
    if (pinnedShown > 0) out.set(PASS, String(pinnedShown));
    return out;
  }

  #write(own: ReadonlyMap<string, string>): void {
    const all = params();
    for (const key of [...Object.keys(NAMES), PASS]) all.delete(this.#prefix + key);
    for (const [key, text] of own) all.set(this.#prefix + key, text);
    // Commas are no danger in a fragment, and easier to read.
    const text = String(all).replaceAll("%2C", ",");
    if (text === location.hash.slice(1)) return;
    try {
      history.replaceState(history.state, "", `#${text}`);
    } catch {
      // Some frames may not have their address changed: the state is not told then, and all else works.
    }
  }
}
