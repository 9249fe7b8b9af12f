// Fails when a script, gzipped, is larger than it may be.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

/** What is loaded together, and its limit: the views of a session (also in a page), what they load later, and what stands for itself. */
const LIMITS = [
  [["widget.js", "view.js"], 60_000],
  [["page.js"], 4_000],
  [["actions.js"], 15_000],
  [["tour.js"], 5_000],
  [["memories.js"], 20_000],
  [["engine.js"], 15_000],
];
const folder = new URL("../classspace_widgets/static/", import.meta.url);
let failed = false;
for (const [files, limit] of LIMITS) {
  let total = 0;
  for (const file of files) {
    const bytes = readFileSync(new URL(file, folder));
    const size = gzipSync(bytes, { level: 9 }).length;
    total += size;
    console.log(
      `${file.padEnd(12)} ${String(bytes.length).padStart(8)} bytes, ${String(size).padStart(6)} gzipped`,
    );
  }
  console.log(`${files.join(" and ")}: ${total} of ${limit} bytes gzipped`);
  failed ||= total > limit;
}
if (failed) process.exit(1);
