/**
 * An editable combobox with a listbox (ARIA 1.2): focus stays in the input, the active option is pointed to.
 *
 * The list opens in the browser's top layer, so a notebook's scrolling output area does not cut it off.
 */

import { claim, h, unique } from "../core/dom";

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
    const wide = Math.min(Math.max(box.width, 320), innerWidth - 16);
    const below = innerHeight - box.bottom;
    const up = below < 200 && box.top > below;
    const room = Math.min(340, (up ? box.top : below) - 12);
    // In the top layer no transform of the page reaches the list, but `zoom` does.
    const zoom = popup.offsetWidth > 0 ? popup.getBoundingClientRect().width / popup.offsetWidth : 1;
    const px = (screen: number) => `${screen / (zoom || 1)}px`;
    Object.assign(popup.style, {
      width: px(wide),
      left: px(Math.max(8, Math.min(box.left, innerWidth - wide - 8))),
      top: up ? "auto" : px(box.bottom + 3),
      bottom: up ? px(innerHeight - box.top + 3) : "auto",
    });
    list.style.maxHeight = px(Math.max(90, room - 24));
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
  abort.addEventListener("abort", hide);

  const choose = (index: number) => {
    const option = options[index];
    if (!option) return;
    hide();
    pick(option.id);
    input.select();
  };

  const listen = { signal: abort };
  input.addEventListener("focus", () => input.select(), listen);
  // WebKit puts the caret where the mouse is let go, also when that is the press that gave focus.
  let focuses = false;
  input.addEventListener(
    "mousedown",
    () => {
      focuses = !input.matches(":focus");
    },
    listen,
  );
  input.addEventListener("mouseup", (event) => focuses && event.preventDefault(), listen);
  input.addEventListener("click", show, listen);
  input.addEventListener(
    "input",
    () => {
      typed = input.value.trim() !== "";
      if (open) fill();
      else show();
    },
    listen,
  );
  input.addEventListener("blur", hide, listen);
  input.addEventListener(
    "keydown",
    (event) => {
      if (event.isComposing) return;
      const last = options.length - 1;
      const page = 8;
      switch (event.key) {
        case "ArrowDown":
          if (!open) show();
          point(event.altKey ? active : active >= options.length - 1 ? 0 : active + 1);
          break;
        case "ArrowUp":
          if (!open) show();
          if (event.altKey) hide();
          else point(active <= 0 ? options.length - 1 : active - 1);
          break;
        case "PageDown":
          if (open) point(Math.min(last, active + page));
          break;
        case "PageUp":
          if (open) point(Math.max(0, active - page));
          break;
        case "Enter":
          if (!open) show();
          else choose(active);
          break;
        case "Escape":
          if (!open && input.value === value) return;
          hide();
          input.select();
          break;
        case "Tab":
          hide();
          return event.stopPropagation();
        default:
          // Letters are text here, never a shortcut of the views around or of the notebook.
          return event.stopPropagation();
      }
      claim(event);
    },
    listen,
  );
  // Focus must stay in the input.
  popup.addEventListener("pointerdown", (event) => event.preventDefault(), listen);
  popup.addEventListener("mousedown", (event) => event.preventDefault(), listen);
  popup.addEventListener(
    "click",
    (event) => {
      choose(options.findIndex(({ node }) => node.contains(event.target as Node)));
    },
    listen,
  );

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
