/**
 * An editable combobox with a listbox (ARIA 1.2): focus stays in the input, the active option is pointed to.
 *
 * The list opens in the browser's top layer, so a notebook's scrolling output area does not cut it off.
 */

import { claim, h, listen, unique } from "../../core/dom";
import { onAbort } from "../../core/frame";

/** Pixels: the list is as wide as the field, but not narrower than this; it is no higher than this, and no lower. */
const [NARROWEST, HIGHEST, LOWEST] = [320, 340, 90];
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

export interface Combobox {
  readonly field: HTMLElement;
  readonly input: HTMLInputElement;
  /** Show another value (unless somebody is typing). */
  show(text: string, title: string): void;
}

export function combobox(
  abort: AbortSignal,
  label: string,
  placeholder: string,
  search: (query: string) => { groups: readonly Group[]; note: string },
  pick: (id: number) => void,
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
  const list = h("div", { id: own, role: "listbox", "aria-label": label });
  const note = h("p", { role: "status" });
  const popup = h("div", { class: "csw-popup", popover: "manual" }, list, note);
  popup.hidden = true;
  const field = h("div", { class: "csw-combobox" }, input, popup);
  let options: { node: HTMLElement; id: number }[] = [];
  let active = -1;
  let open = false;
  let typed = false;
  let value = "";
  /** Ends with the popup. */
  let opened = new AbortController();

  const point = (index: number) => {
    options[active]?.node.setAttribute("aria-selected", "false");
    active = index;
    const node = options[index]?.node;
    if (!node) return input.removeAttribute("aria-activedescendant");
    node.setAttribute("aria-selected", "true");
    input.setAttribute("aria-activedescendant", node.id);
    // Not scrollIntoView: that would scroll the notebook, too.
    const top = node.offsetTop;
    if (top < list.scrollTop) list.scrollTop = top;
    else if (top + node.offsetHeight > list.scrollTop + list.clientHeight)
      list.scrollTop = top + node.offsetHeight - list.clientHeight;
  };

  const fill = () => {
    const found = search(typed ? input.value : "");
    options = [];
    list.replaceChildren(
      ...found.groups.map((group) => {
        const nodes = group.options.map(({ id, text, hint }) => {
          const node = h(
            "div",
            { role: "option", id: `${own}-${options.length}`, "aria-selected": "false", title: text },
            h("span", {}, text),
            h("small", {}, hint),
          );
          options.push({ node, id });
          return node;
        });
        const title = h("div", { class: "csw-group", "aria-hidden": "true" }, group.label);
        return h("div", { role: "group", "aria-label": group.label }, title, ...nodes);
      }),
    );
    note.textContent = found.note;
    note.hidden = found.note === "";
    list.scrollTop = 0;
    active = -1;
    point(typed && options.length > 0 ? 0 : -1);
  };

  const place = () => {
    const box = field.getBoundingClientRect();
    const wide = Math.min(Math.max(box.width, NARROWEST), innerWidth - 2 * EDGE);
    const below = innerHeight - box.bottom;
    const up = below < ENOUGH && box.top > below;
    const room = Math.min(HIGHEST, (up ? box.top : below) - 12);
    // In the top layer no transform of the page reaches the list, but `zoom` does.
    const zoom = popup.offsetWidth > 0 ? popup.getBoundingClientRect().width / popup.offsetWidth : 1;
    const px = (screen: number) => `${screen / (zoom || 1)}px`;
    Object.assign(popup.style, {
      width: px(wide),
      left: px(Math.max(EDGE, Math.min(box.left, innerWidth - wide - EDGE))),
      top: up ? "auto" : px(box.bottom + GAP),
      bottom: up ? px(innerHeight - box.top + GAP) : "auto",
    });
    list.style.maxHeight = px(Math.max(LOWEST, room - 24));
  };

  const show = () => {
    if (open) return;
    open = true;
    popup.hidden = false;
    popup.showPopover?.();
    input.setAttribute("aria-expanded", "true");
    opened = new AbortController();
    addEventListener("scroll", place, { capture: true, passive: true, signal: opened.signal });
    addEventListener("resize", place, { signal: opened.signal });
    fill();
    place();
  };

  const hide = () => {
    if (open) {
      open = false;
      opened.abort();
      popup.hidePopover?.();
      popup.hidden = true;
      input.setAttribute("aria-expanded", "false");
      input.removeAttribute("aria-activedescendant");
    }
    typed = false;
    input.value = value;
  };
  onAbort(abort, hide);

  const choose = (index: number) => {
    const option = options[index];
    if (!option) return;
    hide();
    pick(option.id);
    input.select();
  };

  // WebKit puts the caret where the mouse is let go, also when that is the press that gave focus.
  let focuses = false;
  /** Whether a key was one of the list's; letters are text here, never a shortcut of the views around or of the notebook. */
  const key = (event: KeyboardEvent): boolean => {
    const last = () => options.length - 1;
    switch (event.key) {
      case "ArrowDown":
        show();
        point(event.altKey ? active : active >= last() ? 0 : active + 1);
        return true;
      case "ArrowUp":
        show();
        if (event.altKey) hide();
        else point(active <= 0 ? last() : active - 1);
        return true;
      case "PageDown":
        if (open) point(Math.min(last(), active + PAGE));
        return true;
      case "PageUp":
        if (open) point(Math.max(0, active - PAGE));
        return true;
      case "Enter":
        if (open) choose(active);
        else show();
        return true;
      case "Escape":
        if (open || input.value !== value) {
          hide();
          input.select();
          return true;
        }
        return false;
      default:
        return false;
    }
  };
  listen(input, abort, {
    focus: () => input.select(),
    mousedown: () => {
      focuses = !input.matches(":focus");
    },
    mouseup: (event) => focuses && event.preventDefault(),
    click: show,
    input: () => {
      typed = input.value.trim() !== "";
      if (open) fill();
      else show();
    },
    blur: hide,
    keydown: (event) => {
      if (event.isComposing) return;
      if (key(event)) claim(event);
      else if (event.key !== "Escape") event.stopPropagation();
      if (event.key === "Tab") hide();
    },
  });
  // Focus must stay in the input.
  const keep = (event: Event) => event.preventDefault();
  listen(popup, abort, {
    pointerdown: keep,
    mousedown: keep,
    click: (event) => choose(options.findIndex(({ node }) => node.contains(event.target as Node))),
  });

  return {
    field,
    input,
    show(text, title) {
      value = text;
      input.title = title;
      if (!open && !typed) input.value = text;
    },
  };
}
