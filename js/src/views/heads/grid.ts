/** The cells of the head grid: a row for every head, a column for every block. */

import { thin } from "../../charts/scale";
import { range } from "../../core/collections";
import { h } from "../../core/dom";

/** Pixels: the column of head numbers, and a row with its gap. */
const [SIDE, ROW] = [22, 13];
/** Pixels that a number needs: beside the next one, and above it. */
const [WIDE, HIGH] = [17, 12];

/** Build the cells of `L` blocks and `H` heads into a grid of some width, and give them back row by row. */
export function cellsOf(grid: HTMLElement, L: number, H: number, width: number): HTMLElement[] {
  const keepBlock = thin(L + 1, (width - SIDE) / L, WIDE);
  const keepHead = thin(H, ROW, HIGH);
  const cells: HTMLElement[] = [];
  const rows = range(H, (head) => {
    const own = range(L, () => h("div", { role: "gridcell", tabindex: -1 }));
    cells.push(...own);
    const name = h(
      "span",
      { role: "rowheader", "aria-label": `head ${head}` },
      keepHead(head) ? String(head) : "",
    );
    return h("div", { role: "row" }, name, ...own);
  });
  const corner = h("span", { role: "columnheader" }, h("span", { class: "csw-sr" }, "head"));
  const blocks = range(L, (i) =>
    h(
      "span",
      { role: "columnheader", "aria-label": `block ${i + 1}` },
      keepBlock(i + 1) ? String(i + 1) : "",
    ),
  );
  grid.style.setProperty("--columns", String(L));
  grid.style.setProperty("--rows", String(H));
  grid.replaceChildren(...rows, h("div", { role: "row" }, corner, ...blocks));
  return cells;
}
