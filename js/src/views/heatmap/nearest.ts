/** Patches of other pictures in the same state as the one that is selected, as small pictures. */

import { signal } from "@preact/signals-core";
import { floats, message, unpack } from "../../core/codec";
import { h, say } from "../../core/dom";
import { number } from "../../core/format";
import { onAbort, onFrame, watch } from "../../core/frame";
import type { Store } from "../../core/store";
import { type Answer, Superseded } from "../../core/transport";

/** A patch of another picture, as the kernel describes it. */
interface Patch {
  readonly cosine: number;
  readonly name: string;
  readonly row: number;
  readonly column: number;
  readonly label: string;
  readonly answer: string;
}

/** Hidden where no kernel has a bank of states. */
export function nearest(store: Store, abort: AbortSignal): HTMLElement {
  const title = h("p", { class: "csw-readout" });
  const list = h("div", { class: "csw-nearest-list" });
  const node = h("section", { class: "csw-nearest", "aria-label": "Nearest states" }, title, list);
  const found = signal<readonly HTMLElement[]>([]);
  const words = signal("");
  const shown: string[] = [];
  const forget = () => {
    for (const url of shown.splice(0)) URL.revokeObjectURL(url);
  };
  onAbort(abort, forget);

  /** One patch, with a frame around it in its picture. */
  const figure = (
    [rows, columns]: readonly number[],
    patch: Patch,
    file: Uint8Array<ArrayBuffer>,
  ): HTMLElement => {
    const src = URL.createObjectURL(new Blob([file], { type: "image/webp" }));
    shown.push(src);
    const frame = h("i");
    Object.assign(frame.style, {
      left: `${(100 * patch.column) / columns}%`,
      top: `${(100 * patch.row) / rows}%`,
      width: `${100 / columns}%`,
      height: `${100 / rows}%`,
    });
    const name = patch.label || patch.answer;
    const alt = `${patch.name || "picture"}, patch ${patch.row + 1}, ${patch.column + 1}: answer ${patch.answer}`;
    return h(
      "figure",
      { title: alt },
      h("div", {}, h("img", { src, alt }), frame),
      h("figcaption", {}, `${number(patch.cosine)} ${name}`),
    );
  };
  const show = ({ result, buffers }: Answer) => {
    const { arrays } = unpack(buffers[0]);
    const [bytes, ends] = ["picture_bytes", "picture_ends"].map((name) => arrays.get(name));
    if (!bytes || !ends) throw new Error("the kernel's answer holds no pictures");
    forget();
    const to = floats(ends);
    found.value = (result.neighbours as readonly Patch[]).map((patch, i) =>
      figure(result.grid as number[], patch, (bytes.data as Uint8Array).slice(to[i - 1] ?? 0, to[i])),
    );
  };

  let asked = 0;
  watch(abort, () => {
    const { snapshot } = store.baseline.value;
    const [token, more] = store.state.tokens.value;
    const block = store.state.block.value;
    const own = ++asked;
    const wanted = token !== undefined && more === undefined && snapshot.isImageToken(token);
    node.hidden = !store.offers("neighbours");
    if (!wanted || node.hidden) {
      words.value = "Select one patch: its nearest states in other pictures stand here.";
      found.value = [];
      return;
    }
    words.value = `Nearest states to ${snapshot.tokenName(token)} ${block > 0 ? `after block ${block}` : "at the embedding"}`;
    // Not through the store: a line that says so at every step of the slider would flicker.
    store.transport.request("neighbours", { token, block, k: 6 }).then(
      (answer) => own === asked && show(answer),
      (error) => {
        if (own !== asked || error instanceof Superseded) return;
        found.value = [];
        words.value = message(error);
      },
    );
  });
  onFrame(abort, () => {
    say(title, words.value);
    list.replaceChildren(...found.value);
  });
  return node;
}
