/** Giving the model another picture: by a button, or by dropping a file on the explorer. */

import { button, claim, h, listen } from "../../core/dom";
import { watch } from "../../core/frame";
import type { Store } from "../../core/store";

/** The button and its (hidden) file input; files are taken where they are dropped on `target`. */
export function upload(store: Store, abort: AbortSignal, target: HTMLElement): Node[] {
  const file = h("input", { type: "file", accept: "image/*", hidden: true });
  const node = button({ class: "csw-button", title: "Or drop or paste a picture here" }, "New picture…");
  const send = async (picture: File) => {
    if (!store.live) return;
    const bytes = await picture.arrayBuffer();
    await store.request("image", { name: picture.name }, [bytes], `reading ${picture.name}`);
  };
  watch(abort, () => {
    node.hidden = !store.live;
    node.disabled = store.notice.value.kind === "busy";
  });
  listen(node, abort, { click: () => file.click() });
  listen(file, abort, {
    change: () => {
      const chosen = file.files?.[0];
      if (chosen) void send(chosen);
      file.value = "";
    },
  });
  // A picture that was copied: where the focus is in this explorer, or nowhere.
  listen(document.body, abort, {
    paste: (event) => {
      const at = event.target as Node;
      const pasted = [...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
      if (!pasted || event.defaultPrevented || (at !== document.body && !target.contains(at))) return;
      claim(event);
      void send(pasted);
    },
  });
  const carriesFile = (event: DragEvent) =>
    store.live && (event.dataTransfer?.types.includes("Files") ?? false);
  const mark = (over: boolean) => target.classList.toggle("csw-drop", over);
  listen(target, abort, {
    dragover: (event) => {
      if (!carriesFile(event)) return;
      event.preventDefault();
      mark(true);
    },
    dragleave: (event) => {
      if (!target.contains(event.relatedTarget as Node | null)) mark(false);
    },
    drop: (event) => {
      mark(false);
      if (!carriesFile(event)) return;
      claim(event);
      const dropped = [...(event.dataTransfer?.files ?? [])].find((f) => f.type.startsWith("image/"));
      if (dropped) void send(dropped);
      else store.fail(new Error("the dropped file is not a picture"));
    },
  });
  return [node, file];
}
