/** Whether the page around is light or dark, followed while it changes. */

import { type ReadonlySignal, signal } from "@preact/signals-core";
import { onAbort } from "./frame";

export type Theme = "light" | "dark";

/** What surrounds `el`: an explicit theme, the notebook's background colour, else the system's preference. */
export function themeAround(el: Element): Theme {
  const explicit = el.closest("[data-theme]")?.getAttribute("data-theme");
  if (explicit === "light" || explicit === "dark") return explicit;
  const { body } = document;
  const lab = body.getAttribute("data-jp-theme-light");
  if (lab) return lab === "false" ? "dark" : "light";
  if (body.classList.contains("vscode-dark") || body.classList.contains("vscode-high-contrast"))
    return "dark";
  if (body.classList.contains("vscode-light")) return "light";
  const style = getComputedStyle(el);
  for (const name of ["--jp-layout-color0", "--theme-background", "--vscode-editor-background"]) {
    const dark = isDark(style.getPropertyValue(name).trim());
    if (dark !== null) return dark ? "dark" : "light";
  }
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

/** Keep `root`'s data-csw-theme right; the signal says it to canvases. */
export function followTheme(root: HTMLElement, abort: AbortSignal): ReadonlySignal<Theme> {
  const around = root.parentElement ?? root;
  const theme = signal<Theme>("light");
  const update = () => {
    const now = themeAround(around);
    theme.value = now;
    root.dataset.cswTheme = now;
  };
  update();
  const observer = new MutationObserver(update);
  const attributes = ["data-theme", "data-jp-theme-light", "data-jp-theme-name", "class", "style"];
  for (const node of [document.documentElement, document.body]) {
    observer.observe(node, { attributes: true, attributeFilter: attributes });
  }
  onAbort(abort, () => observer.disconnect());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", update, { signal: abort });
  return theme;
}

/** Whether a CSS colour is dark; null when it is no colour this understands. */
export function isDark(color: string): boolean | null {
  let rgb: number[] | null = null;
  const hex = /^#([0-9a-f]{3,8})$/i.exec(color)?.[1];
  if (hex) {
    const wide = hex.length <= 4;
    const at = (i: number) => (wide ? hex[i] + hex[i] : hex.slice(2 * i, 2 * i + 2));
    rgb = [0, 1, 2].map((i) => Number.parseInt(at(i), 16));
  } else if (color.startsWith("rgb")) {
    rgb = (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);
  } else if (color === "white" || color === "black") {
    return color === "black";
  }
  if (rgb?.length !== 3) return null;
  return 0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2] < 128;
}
