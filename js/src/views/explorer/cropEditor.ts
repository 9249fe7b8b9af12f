/** The part of the photograph that the model sees: drag or arrow keys move it, wheel, slider or + and - zoom. */

import { signal } from "@preact/signals-core";
import { type Crop, cropAt, placeOf } from "../../core/crop";
import { button, claim, h, listen } from "../../core/dom";
import { watch } from "../../core/frame";
import type { Store } from "../../core/store";

/** How far an arrow key moves, and how far a key or a notch of the wheel zooms, as shares of the whole. */
const [MOVE, ZOOM] = [0.02, 0.05];

const ARROWS: Readonly<Record<string, readonly [number, number]>> = {
  ArrowLeft: [-MOVE, 0],
  ArrowRight: [MOVE, 0],
  ArrowUp: [0, -MOVE],
  ArrowDown: [0, MOVE],
};

/** What stands in the dialog; `close` ends it. */
export function cropEditor(store: Store, abort: AbortSignal, close: () => void): Node[] {
  const { snapshot } = store.baseline.peek();
  const { image } = snapshot.meta;
  const photo = image?.photo;
  if (!photo) return [];
  const shape = image.width / image.height;
  const start = placeOf(photo, shape);
  const zoom = signal(start.zoom);
  const centre = signal(start.centre);
  const part = () => cropAt(photo, shape, zoom.value, centre.value);
  const put = (next: Partial<{ zoom: number; centre: readonly [number, number] }>) => {
    if (next.zoom !== undefined) zoom.value = Math.max(0, Math.min(1, next.zoom));
    if (next.centre) centre.value = next.centre;
    // What is beyond the edge is not remembered: the way back starts at once.
    const [x0, y0, x1, y1] = part();
    centre.value = [(x0 + x1) / 2, (y0 + y1) / 2];
  };
  const move = ([dx, dy]: readonly [number, number]) =>
    put({ centre: [centre.value[0] + dx, centre.value[1] + dy] });

  const url = URL.createObjectURL(
    new Blob([(snapshot.imageBytes("photo") ?? new Uint8Array()).slice()], { type: photo.mime }),
  );
  abort.addEventListener("abort", () => URL.revokeObjectURL(url));
  const frame = h("div", { class: "csw-frame" });
  const board = h(
    "div",
    {
      class: "csw-photo",
      tabindex: 0,
      role: "application",
      "aria-label": "The part: arrow keys move it, plus and minus zoom",
    },
    h("img", { src: url, alt: image.name ?? "", draggable: "false" }),
    frame,
  );
  const range = h("input", {
    class: "csw-range",
    type: "range",
    min: 0,
    max: 1,
    step: 0.01,
    "aria-label": "Zoom",
  });
  const apply = button({ class: "csw-button" }, "Show this part");
  const cancel = button({ class: "csw-button" }, "Cancel");
  watch(abort, () => {
    const [x0, y0, x1, y1] = part();
    Object.assign(frame.style, {
      left: `${100 * x0}%`,
      top: `${100 * y0}%`,
      width: `${100 * (x1 - x0)}%`,
      height: `${100 * (y1 - y0)}%`,
    });
    range.valueAsNumber = zoom.value;
    range.style.setProperty("--fill", `${100 * zoom.value}%`);
  });
  listen(board, abort, {
    pointerdown: (event) => {
      board.setPointerCapture(event.pointerId);
      const [x, y] = shareAt(board, event);
      const [x0, y0, x1, y1] = part();
      // Outside the frame, it comes to where one pressed.
      if (x < x0 || x > x1 || y < y0 || y > y1) put({ centre: [x, y] });
    },
    pointermove: (event) => {
      if (!board.hasPointerCapture(event.pointerId)) return;
      const { width, height } = board.getBoundingClientRect();
      move([event.movementX / width, event.movementY / height]);
    },
    wheel: (event) => {
      claim(event);
      put({ zoom: zoom.value - ZOOM * Math.sign(event.deltaY) });
    },
    keydown: (event) => {
      const { key } = event;
      if (key in ARROWS) move(ARROWS[key]);
      else if (key === "+" || key === "-") put({ zoom: zoom.value + (key === "+" ? ZOOM : -ZOOM) });
      else return;
      claim(event);
    },
  });
  listen(range, abort, { input: () => put({ zoom: range.valueAsNumber }) });
  listen(cancel, abort, { click: close });
  listen(apply, abort, {
    click: () => {
      const crop: Crop = part();
      close();
      void store.request(
        "image",
        { name: image.name ?? "", crop: [...crop] },
        [],
        "running the model on this part",
      );
    },
  });
  return [
    board,
    h("label", { class: "csw-grow" }, "zoom", range),
    h("div", { class: "csw-tools" }, apply, cancel),
  ];
}

/** Where on an element an event is, as shares of its width and height. */
function shareAt(node: Element, { clientX, clientY }: MouseEvent): readonly [number, number] {
  const { left, top, width, height } = node.getBoundingClientRect();
  return [(clientX - left) / width, (clientY - top) / height];
}
