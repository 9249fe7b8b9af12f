/** The static page: the same views on inline data, with no kernel and no network; the bundle is an inline module. */

import { fromPlanes, SnapshotError } from "./core/codec";
import { h, say } from "./core/dom";
import { Fragment } from "./core/fragment";
import { Snapshot } from "./core/snapshot";
import { STATE_NAMES, type State } from "./core/state";
import { Store } from "./core/store";
import { themeAround } from "./core/theme";
import { mountView, showProblem } from "./runtime";

const TYPE = "application/x-classspace";

/** The container in a data block of the page. */
async function read(id: string): Promise<Uint8Array<ArrayBuffer>> {
  const block = document.getElementById(id);
  if (!(block instanceof HTMLScriptElement) || block.type !== TYPE) {
    throw new SnapshotError(`the page has no data block "${id}"`);
  }
  if (typeof DecompressionStream === "undefined") {
    throw new SnapshotError(
      "this browser is too old for it: Chrome 111, Firefox 113 or Safari 16.4 is needed",
    );
  }
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = decode((block.textContent ?? "").trim());
  } catch {
    throw new SnapshotError(`the page's data block "${id}" is damaged: it is not base64`);
  }
  // The text is three times as large as what it holds; it is not needed again.
  block.textContent = "";
  try {
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  } catch {
    throw new SnapshotError(
      `the page's data block "${id}" is damaged or cut short: it cannot be decompressed`,
    );
  }
  return block.dataset.encoding?.includes("planes") ? fromPlanes(bytes) : bytes;
}

function decode(text: string): Uint8Array<ArrayBuffer> {
  const { fromBase64 } = Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> };
  if (fromBase64) return fromBase64.call(Uint8Array, text);
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}

const decoded = new Map<string, Promise<Uint8Array>>();

function bytesOf(id: string): Promise<Uint8Array> {
  let known = decoded.get(id);
  if (!known) {
    known = read(id);
    decoded.set(id, known);
  }
  return known;
}

/** A JSON attribute; an empty object where there is none. */
function json(el: HTMLElement, name: string): Record<string, unknown> {
  const text = el.dataset[name];
  return text ? (JSON.parse(text) as Record<string, unknown>) : {};
}

async function mountPoint(el: HTMLElement, place: number): Promise<void> {
  const forever = new AbortController().signal;
  try {
    const given = json(el, "state");
    const state = Object.fromEntries(STATE_NAMES.filter((n) => n in given).map((n) => [n, given[n]]));
    const bytes = await bytesOf(el.dataset.snapshot ?? "");
    const store = new Store(Snapshot.parse(bytes), null, state as Partial<State>);
    const fragment = new Fragment(store, place);
    fragment.take();
    el.classList.add("csw-mounted");
    mountView(el.dataset.view || "Explorer", el, store, forever, json(el, "options"));
    for (const id of (el.dataset.pinned ?? "").split(" ").filter(Boolean)) {
      store.addVariant(await bytesOf(id));
    }
    if (el.dataset.pinned) fragment.take();
    fragment.follow(forever);
  } catch (error) {
    showProblem(el, forever, "This part of the page cannot be shown", error);
  }
}

/** Mount every view of the page: those in sight first, the others when they come near. */
export function mountPage(): void {
  const points = [...document.querySelectorAll<HTMLElement>(".csw-mount:not(.csw-mounted)")];
  const near = new IntersectionObserver(
    (entries) => {
      for (const { isIntersecting, target } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        void mountPoint(target as HTMLElement, points.indexOf(target as HTMLElement));
      }
    },
    { rootMargin: "800px" },
  );
  for (const point of points) near.observe(point);
  if (points.length > 0) addThemeButton();
}

function addThemeButton(): void {
  const root = document.documentElement;
  const button = h("button", { type: "button" });
  button.style.cssText =
    "position:absolute;top:12px;right:12px;z-index:20;padding:3px 11px;border:1px solid color-mix(in srgb,currentColor 25%,transparent);" +
    "border-radius:14px;background:Canvas;color:inherit;font:12px/18px system-ui,sans-serif;cursor:pointer";
  const update = () => say(button, themeAround(document.body) === "dark" ? "Light" : "Dark");
  button.addEventListener("click", () => {
    root.dataset.theme = themeAround(document.body) === "dark" ? "light" : "dark";
    update();
  });
  button.setAttribute("aria-label", "Switch between light and dark");
  const style = h("style", {}, "@media print{body>button{display:none}}");
  document.body.append(button, style);
  update();
}
