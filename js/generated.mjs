// Writes a generated file of src/generated, unless it is there already: nothing that watches it is told of no change.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";

/** Write `src/generated/NAME.ts`. */
export function writeGenerated(name, text) {
  const folder = new URL("./src/generated/", import.meta.url);
  mkdirSync(folder, { recursive: true });
  const path = new URL(`${name}.ts`, folder);
  let before = "";
  try {
    before = readFileSync(path, "utf8");
  } catch {}
  if (before !== text) writeFileSync(path, text);
}
