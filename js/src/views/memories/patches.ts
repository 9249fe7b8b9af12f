/** The patches that activate a neuron most, each in its picture. */

import type { Atlas } from "../../core/atlas";
import { h } from "../../core/dom";
import { number, shortName } from "../../core/format";

/** A figure for every patch; `className` names the class that a picture is labelled with. */
export function patchFigures(atlas: Atlas, neuron: number, className: (id: number) => string): HTMLElement[] {
  return atlas.patchesOf(neuron).map(({ picture, row, column, coefficient }, i) => {
    const label = atlas.labels[picture];
    const name = label === undefined ? `picture ${picture}` : shortName(className(label));
    const words = `${name}, patch ${row + 1}, ${column + 1}, coefficient ${number(coefficient)}`;
    const image = h("img", { src: atlas.url(picture), alt: words, draggable: "false" });
    const ring = h("i");
    Object.assign(ring.style, {
      left: `${(100 * column) / atlas.columns}%`,
      top: `${(100 * row) / atlas.rows}%`,
      width: `${100 / atlas.columns}%`,
      height: `${100 / atlas.rows}%`,
    });
    const caption = h("figcaption", {}, h("span", {}, name), h("data", {}, number(coefficient)));
    const title = `${i + 1}. ${words} (picture ${picture})`;
    return h("figure", { title }, h("div", {}, image, ring), caption);
  });
}
