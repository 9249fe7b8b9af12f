/** The script of static pages: the same views on inline data, with no kernel and no network. */

import { type Block, unpackBlock } from "./core/block";
import { message, SnapshotError } from "./core/codec";
import { kept } from "./core/collections";
import { button, listen, say } from "./core/dom";
import { Fragment } from "./core/fragment";
import { link } from "./core/link";
import { tellHeight } from "./core/saved";
import { Snapshot } from "./core/snapshot";
import { STATE_NAMES, type State } from "./core/state";
import { Store } from "./core/store";
import { themeAround } from "./core/theme";
import type { Engine, PageModel } from "./engine/client";
import { showProblem } from "./mounting";
import { mountView } from "./runtime";
import { STYLES } from "./views/styles";

const TYPE = "application/x-classspace";

/** A data block of the page. */
function blockOf(id: string): Block {
  const block = document.getElementById(id);
  if (!(block instanceof HTMLScriptElement) || block.type !== TYPE) {
    throw new SnapshotError(`the page has no data block "${id}"`);
  }
  const text = block.textContent ?? "";
  // The text is three times as large as what it holds; it is not needed again.
  block.textContent = "";
  return { id, text, encoding: block.dataset.encoding ?? "" };
}

const decoded = new Map<string, Promise<Uint8Array>>();

async function bytesOf(id: string): Promise<Uint8Array> {
  return kept(decoded, id, () => unpackBlock(blockOf(id)));
}

const engines = new Map<string, Engine>();

/** A session's line to the model that runs in the page; null where the page has none. */
function lineOf({ engine }: DOMStringMap, snapshot: Snapshot): PageModel | null {
  const open = globalThis.classspaceEngine;
  const embedding = snapshot.floats("start");
  if (!open || !engine || !embedding) return null;
  return kept(engines, engine, () => open(blockOf(engine))).session(snapshot.meta, embedding);
}

/** A JSON attribute; an empty object where there is none. */
function json(el: HTMLElement, name: string): Record<string, unknown> {
  const text = el.dataset[name];
  return text ? (JSON.parse(text) as Record<string, unknown>) : {};
}

const forever = new AbortController().signal;

/** The session of a view, by its number in the page; a view without one has its own. */
function sessionOf(el: HTMLElement): string {
  return el.dataset.session ?? `view ${places().indexOf(el)}`;
}

const places = () => [...document.querySelectorAll<HTMLElement>(".csw-mount")];
const stores = new Map<string, Promise<Store>>();

/** The store that the views of a session share; made when the first of them, or of a linked session, comes near. */
function storeOf(session: string): Promise<Store> {
  return kept(stores, session, () => {
    const made = makeStore(session);
    made.then(
      () => linkTo(session),
      () => {},
    );
    return made;
  });
}

async function makeStore(session: string): Promise<Store> {
  const all = places();
  const el = all.find((place) => sessionOf(place) === session);
  if (!el) throw new SnapshotError(`the page has no session ${session}`);
  const given = json(el, "state");
  const state = Object.fromEntries(STATE_NAMES.filter((n) => n in given).map((n) => [n, given[n]]));
  const snapshot = Snapshot.parse(await bytesOf(el.dataset.snapshot ?? ""));
  const store = new Store(snapshot, lineOf(el.dataset, snapshot), state as Partial<State>);
  const fragment = new Fragment(store, all.indexOf(el));
  fragment.take();
  void addPinned(store, (el.dataset.pinned ?? "").split(" ").filter(Boolean)).then((some) => {
    if (some) fragment.take();
    fragment.follow(forever);
  });
  return store;
}

/** Intervened passes; one that is damaged costs a message. Whether there are any. */
async function addPinned(store: Store, ids: readonly string[]): Promise<boolean> {
  const problems: string[] = [];
  for (const [i, id] of ids.entries()) {
    try {
      store.addPinnedPass(await bytesOf(id));
    } catch (error) {
      store.addPinnedPass(null);
      problems.push(`Pinned state ${i + 1} of ${ids.length} cannot be shown: ${message(error)}.`);
    }
  }
  if (problems.length > 0) store.fail(new Error(problems.join(" ")));
  return ids.length > 0;
}

/** A link of two sessions, as the page lists it with the first. */
interface Linked {
  readonly other: string;
  readonly names: readonly (keyof State)[];
}

const linked = new Set<string>();

/** Make the links that a session has a part in. */
function linkTo(session: string): void {
  for (const el of places()) {
    const own = sessionOf(el);
    for (const { other, names } of (json(el, "links").links ?? []) as readonly Linked[]) {
      const key = `${own} ${other} ${names}`;
      if ((own !== session && other !== session) || linked.has(key)) continue;
      linked.add(key);
      Promise.all([storeOf(own), storeOf(other)]).then(
        ([a, b]) => link(a, b, forever, names),
        // The view of the session that cannot be shown says so itself.
        () => {},
      );
    }
  }
}

async function mountPoint(el: HTMLElement): Promise<void> {
  try {
    const store = await storeOf(sessionOf(el));
    el.classList.add("csw-mounted");
    mountView(el.dataset.view || "Explorer", el, store, forever, { ...json(el, "options"), paced: true });
  } catch (error) {
    showProblem(el, forever, STYLES, "This part of the page cannot be shown", error);
  }
}

/** Mount every view of the page: those in sight first, the others when they come near. */
function mountPage(): void {
  const points = places();
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        void mountPoint(target as HTMLElement);
      }
    },
    { rootMargin: "800px" },
  );
  for (const point of points) near.observe(point);
  if (points.length > 0) addThemeButton();
  tellHeight();
}

function addThemeButton(): void {
  const root = document.documentElement;
  const node = button({ "aria-label": "Switch between light and dark" });
  const dark = () => themeAround(document.body) === "dark";
  const update = () => say(node, dark() ? "Light" : "Dark");
  listen(node, forever, {
    click: () => {
      root.dataset.theme = dark() ? "light" : "dark";
      update();
    },
  });
  document.body.append(node);
  update();
}

export default { mountPage };
