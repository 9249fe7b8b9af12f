/**
 * An editable combobox with a listbox (ARIA 1.2): focus stays in the input, the active option is pointed to.
 *
 * The list opens in the browser's top layer, so a notebook's scrolling output area does not cut it off.
 */

import { assign, claim, h, listen, unique } from "../../core/dom";
import { onAbort } from "../../core/frame";

/** Pixels: the list is as wide as the field, but not narrower than this; it is no higher than this, and no lower. */
const [NARROWEST, HIGHEST, LOWEST] = [320, 316, 90];
/** Pixels below the field from which on the list opens downwards; between it and the window; between it and the field. */
const [ENOUGH, EDGE, GAP] = [200, 8, 3];
/** Options that a page key goes over: about those that are in sight. */
const PAGE = 8;

export interface Option {
  readonly id: number;
  readonly text: string;
  /** Quiet words at the right: a probability, the id. */
  readonly hint: string;
}

export interface Group {
  readonly label: string;
  readonly options: readonly Option[];
}

/** What a search finds, and what is said below it. */
export interface Found {
  readonly groups: readonly Group[];
  readonly note: string;
}

export interface Combobox {
  readonly field: HTMLElement;
  readonly input: HTMLInputElement;
  /** Show another value (unless somebody is typing). */
  show(text: string, title: string): void;
}

/** The list of options below (or above) a field, in the browser's top layer. */
class Popup {
  readonly node: HTMLElement;
  open = false;
  options: { readonly node: HTMLElement; readonly id: number }[] = [];
  active = -1;
  readonly #list: HTMLElement;
  readonly #note = h("p", { role: "status" });
  readonly #input: HTMLInputElement;
  /** Ends when the list is closed. */
  #opened = new AbortController();

  constructor(input: HTMLInputElement, id: string, label: string) {
    this.#input = input;
    this.#list = h("div", { id, role: "listbox", "aria-label": label });
    this.node = h("div", { class: "csw-popup", popover: "manual", hidden: true }, this.#list, this.#note);
  }

  /** Point to an option; to none with -1. */
  point(index: number): void {
    const mark = (selected: boolean) => {
      const node = this.options[this.active]?.node;
      if (node) assign(node, { "aria-selected": String(selected) });
      return node;
    };
    mark(false);
    this.active = index;
    const node = mark(true);
    assign(this.#input, { "aria-activedescendant": node?.id });
    if (!node) return;
    // Not scrollIntoView: that would scroll the notebook, too.
    const list = this.#list;
    const top = node.offsetTop;
    const bottom = top + node.offsetHeight - list.clientHeight;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (bottom > list.scrollTop) list.scrollTop = bottom;
  }

  fill({ groups, note }: Found, first: boolean): void {
    this.options = [];
    this.#list.replaceChildren(
      ...groups.map(({ label, options }) => {
        const nodes = options.map(({ id, text, hint }) => {
          const node = h(
            "div",
            {
              role: "option",
              id: `${this.#list.id}-${this.options.length}`,
              "aria-selected": "false",
              title: text,
            },
            h("span", {}, text),
            h("small", {}, hint),
          );
          this.options.push({ node, id });
          return node;
        });
        const title = h("div", { class: "csw-group", "aria-hidden": "true" }, label);
        return h("div", { role: "group", "aria-label": label }, title, ...nodes);
      }),
    );
    this.#note.textContent = note;
    this.#note.hidden = note === "";
    this.#list.scrollTop = 0;
    this.active = -1;
    this.point(first && this.options.length > 0 ? 0 : -1);
  }

  show(): void {
    this.open = true;
    this.node.hidden = false;
    this.node.showPopover?.();
    assign(this.#input, { "aria-expanded": "true" });
    this.#opened = new AbortController();
    const { signal } = this.#opened;
    const place = () => this.place();
    addEventListener("scroll", place, { capture: true, passive: true, signal });
    addEventListener("resize", place, { signal });
  }

  hide(): void {
    if (!this.open) return;
    this.open = false;
    this.#opened.abort();
    this.node.hidePopover?.();
    this.node.hidden = true;
    assign(this.#input, { "aria-expanded": "false", "aria-activedescendant": null });
  }

  /** Below the field, or above it where there is more room. */
  place(): void {
    const { node } = this;
    const box = (this.#input.parentElement as HTMLElement).getBoundingClientRect();
    const wide = Math.min(Math.max(box.width, NARROWEST), innerWidth - 2 * EDGE);
    const below = innerHeight - box.bottom;
    const up = below < ENOUGH && box.top > below;
    const room = (up ? box.top : below) - 36;
    // In the top layer no transform of the page reaches the list, but `zoom` does.
    const zoom = node.offsetWidth > 0 ? node.getBoundingClientRect().width / node.offsetWidth : 1;
    const px = (screen: number) => `${screen / (zoom || 1)}px`;
    Object.assign(node.style, {
      width: px(wide),
      left: px(Math.max(EDGE, Math.min(box.left, innerWidth - wide - EDGE))),
      top: up ? "auto" : px(box.bottom + GAP),
      bottom: up ? px(innerHeight - box.top + GAP) : "auto",
    });
    this.#list.style.maxHeight = px(Math.max(LOWEST, Math.min(HIGHEST, room)));
  }
}

export function combobox(
  abort: AbortSignal,
  label: string,
  placeholder: string,
  search: (query: string) => Found,
  pick: (id: number, text: string) => void,
): Combobox {
  const own = unique("combobox");
  const input = h("input", {
    type: "text",
    role: "combobox",
    "aria-label": label,
    "aria-autocomplete": "list",
    "aria-expanded": "false",
    "aria-controls": own,
    autocomplete: "off",
    autocapitalize: "off",
    spellcheck: "false",
    placeholder,
  });
  const popup = new Popup(input, own, label);
  const field = h("div", { class: "csw-combobox" }, input, popup.node);
  let typed = false;
  let value = "";
  const fill = () => popup.fill(search(typed ? input.value : ""), typed);
  const show = () => {
    if (popup.open) return;
    popup.show();
    fill();
    popup.place();
  };
  const hide = () => {
    popup.hide();
    typed = false;
    input.value = value;
  };
  onAbort(abort, hide);
  const choose = (index: number) => {
    const option = popup.options[index];
    if (!option) return;
    hide();
    pick(option.id, option.node.title);
    input.select();
  };

  /** What the keys of the list do; null where one is not a key of the list now. */
  const keys: Readonly<Record<string, (event: KeyboardEvent) => unknown>> = {
    ArrowDown: (event) => {
      show();
      const { active, options } = popup;
      popup.point(event.altKey ? active : active >= options.length - 1 ? 0 : active + 1);
    },
    ArrowUp: (event) => {
      show();
      const { active, options } = popup;
      if (event.altKey) hide();
      else popup.point(active <= 0 ? options.length - 1 : active - 1);
    },
    PageDown: () => popup.open && popup.point(Math.min(popup.options.length - 1, popup.active + PAGE)),
    PageUp: () => popup.open && popup.point(Math.max(0, popup.active - PAGE)),
    Enter: () => (popup.open ? choose(popup.active) : show()),
    Escape: () => {
      if (!popup.open && input.value === value) return null;
      hide();
      input.select();
    },
  };
  // WebKit puts the caret where the mouse is let go, also when that is the press that gave focus.
  let focuses = false;
  listen(input, abort, {
    focus: () => input.select(),
    mousedown: () => {
      focuses = !input.matches(":focus");
    },
    mouseup: (event) => focuses && event.preventDefault(),
    click: show,
    input: () => {
      typed = input.value.trim() !== "";
      if (popup.open) fill();
      else show();
    },
    blur: hide,
    keydown: (event) => {
      if (event.isComposing) return;
      const act = keys[event.key];
      if (act) {
        if (act(event) !== null) claim(event);
        return;
      }
      if (event.key === "Tab") hide();
      // Letters are text here, never a shortcut of the views around or of the notebook.
      event.stopPropagation();
    },
  });
  // Focus must stay in the input.
  const keep = (event: Event) => event.preventDefault();
  listen(popup.node, abort, {
    pointerdown: keep,
    mousedown: keep,
    click: (event) => choose(popup.options.findIndex(({ node }) => node.contains(event.target as Node))),
  });

  return {
    field,
    input,
    show(text, title) {
      value = text;
      input.title = title;
      if (!popup.open && !typed) input.value = text;
    },
  };
}
