/** The legend of the trajectories: a button for every line, which hides it, with its value. */

import { type Signal, signal } from "@preact/signals-core";
import { button, dataAt, h, listen, say, setPressed } from "../../core/dom";
import { keepPlace } from "../parts";
import type { Line } from "./lines";

export class Legend {
  readonly node = h("div", { class: "csw-keys", role: "group", "aria-label": "Lines" });
  /** Keys of the lines that are hidden. */
  readonly hidden: Signal<ReadonlySet<string>> = signal(new Set());
  readonly #keys: HTMLButtonElement[] = [];

  constructor(abort: AbortSignal) {
    listen(this.node, abort, {
      click: (event) => {
        const key = dataAt(event, "key");
        if (key === undefined) return;
        const next = new Set(this.hidden.peek());
        if (!next.delete(key)) next.add(key);
        this.hidden.value = next;
      },
    });
  }

  draw(lines: readonly Line[]): void {
    const keys = this.#keys;
    while (keys.length < lines.length) {
      const key = button({}, h("i"), h("span", { class: "csw-key-name" }), h("b"));
      keys.push(key);
      this.node.append(key);
    }
    for (const key of keys.splice(lines.length)) key.remove();
    lines.forEach((line, i) => {
      keys[i].className = `csw-look-${line.look}`;
      keys[i].dataset.key = line.key;
      setPressed(keys[i], !this.hidden.value.has(line.key));
      keepPlace(keys[i], line.values.length > 0, true);
      say(keys[i].children[1], line.name);
    });
  }

  /** Say every line's value. */
  mark(values: readonly string[]): void {
    this.#keys.forEach((key, i) => {
      say(key.children[2], values[i] ?? "");
    });
  }
}
