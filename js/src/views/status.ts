/** What the kernel does and why it failed, in words. */

import { assign, button, h, listen, say } from "../core/dom";
import { onAbort, watch } from "../core/frame";
import type { Store } from "../core/store";

/** Milliseconds: what is done sooner shows no progress, which would only flicker. */
const QUICK = 150;

/** What is said of a kernel that is gone. */
const GONE: Readonly<Record<string, string>> = {
  gone: "The kernel is gone. What is here keeps working; run the cell again for more.",
  instead: "The kernel is gone: the model runs in this page.",
};

/** One line; beside a single view `only` what failed. */
export function statusLine(store: Store, abort: AbortSignal, only?: "error"): HTMLElement {
  const text = h("span");
  const bar = h("progress", { max: 1, "aria-label": "Progress" });
  const dismiss = button({ class: "csw-link" }, "dismiss");
  const status = h("div", { class: "csw-status", role: "status" }, bar, text, dismiss);
  let later: ReturnType<typeof setTimeout> | undefined;
  const show = (shown: boolean) => {
    clearTimeout(later);
    later = undefined;
    status.hidden = !shown;
  };
  onAbort(abort, () => clearTimeout(later));
  watch(abort, () => {
    const { kind, text: words, progress } = store.notice.value;
    const idle = GONE[store.kernel.value] ?? "";
    say(text, kind === "idle" ? idle : words + (kind === "busy" ? " …" : ""));
    status.dataset.kind = kind;
    if (text.textContent === "" || (only ?? kind) !== kind) show(false);
    else if (kind !== "busy") show(true);
    else if (status.hidden) later ??= setTimeout(show, QUICK, true);
    bar.hidden = kind !== "busy";
    // What a person waits for is announced; its steps are not, one by one.
    assign(status, { "aria-live": bar.hidden || progress === null ? null : "off" });
    if (progress === null) bar.removeAttribute("value");
    else bar.value = progress;
    dismiss.hidden = kind !== "error";
  });
  listen(dismiss, abort, { click: () => store.dismiss() });
  return status;
}
