/** Choosing the part of the photograph that the model sees: a button, and the dialog that it opens. */

import { message } from "../../core/codec";
import { button, h, listen, say } from "../../core/dom";
import { watch } from "../../core/frame";
import { load } from "../../core/scripts";
import type { Store } from "../../core/store";
import { addStyles } from "../../core/styles";
import type { Actions } from "../later";

const CROP = "Crop…";

/** The button and the dialog that it opens. */
export function crop(store: Store, abort: AbortSignal): Node[] {
  const open = button(
    { class: "csw-button", title: "Choose the part of the photograph that the model sees" },
    CROP,
  );
  const node = h("dialog", { class: "csw-crop", "aria-label": "Part of the photograph that the model sees" });
  watch(abort, () => {
    open.hidden = store.kernel.value !== "live" || !store.baseline.value.snapshot.meta.image?.photo;
    open.disabled = store.notice.value.kind === "busy";
  });
  listen(open, abort, {
    click: async () => {
      say(open, "Loading …");
      const actions = await load<Actions>("actions", store.transport).catch((error) => {
        store.fail(new Error(`The dialog cannot be loaded: ${message(error)}`));
      });
      say(open, CROP);
      if (!actions || abort.aborted || node.open) return;
      addStyles(node, actions.STYLES);
      const done = new AbortController();
      const close = () => done.abort();
      node.replaceChildren(...actions.cropEditor(store, done.signal, close));
      node.addEventListener("close", close, { signal: done.signal });
      done.signal.addEventListener("abort", () => {
        node.close();
        node.replaceChildren();
      });
      node.showModal();
    },
  });
  return [open, node];
}
