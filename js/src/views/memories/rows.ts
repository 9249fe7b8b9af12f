/** Lists of neurons and of classes: a button for every hit, with a bar as long as its cosine. */

import type { Hit } from "../../core/atlas";
import { button, dataAt, h, listen, say, setPressed } from "../../core/dom";
import { number } from "../../core/format";
import { OWN_KEYS, walk } from "../roving";

/** The names of the columns. */
export function columns(...names: string[]): HTMLElement {
  const cells = names.map((name) => h("span", {}, name));
  return h("div", { class: "csw-columns", "aria-hidden": "true" }, ...cells);
}

/** An empty list; `pick` is told the id of what is clicked. */
export function hitList(abort: AbortSignal, label: string, pick: (id: number) => void): HTMLElement {
  const list = h("ol", { class: "csw-list", "aria-label": label, ...OWN_KEYS });
  listen(list, abort, {
    click: (event) => {
      const id = dataAt(event, "id");
      if (id !== undefined) pick(Number(id));
    },
    keydown: walk,
  });
  return list;
}

/** Show hits: name, more words, and whether it is chosen; buttons stay in place, so that the keyboard's focus stays. */
export function showHits(
  list: HTMLElement,
  hits: readonly Hit[],
  words: (hit: Hit) => readonly [name: string, more: string, own: boolean],
): void {
  while (list.childElementCount > hits.length) list.lastElementChild?.remove();
  while (list.childElementCount < hits.length) {
    const name = () => h("span", { class: "csw-name" });
    list.append(h("li", {}, button({}, name(), h("span"), name())));
  }
  hits.forEach((hit, i) => {
    const row = list.children[i].firstElementChild as HTMLButtonElement;
    const [name, more, own] = words(hit);
    row.dataset.id = String(hit.id);
    row.classList.toggle("csw-main", own);
    setPressed(row, own);
    row.style.setProperty("--p", `${(100 * Math.max(0, hit.cosine)).toFixed(1)}%`);
    row.title = name;
    [name, number(hit.cosine), more].forEach((text, cell) => {
      say(row.children[cell], text);
    });
  });
}
