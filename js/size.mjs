// Fails when all JavaScript and CSS together, gzipped, is larger than it may be.
import { readdirSync, readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const LIMIT = 60_000;
const folder = new URL("../classspace_widgets/static/", import.meta.url);
let total = 0;
for (const file of readdirSync(folder).filter((f) => /\.(js|css)$/.test(f))) {
  const bytes = readFileSync(new URL(file, folder));
  const size = gzipSync(bytes, { level: 9 }).length;
  total += size;
  console.log(
    `${file.padEnd(12)} ${String(bytes.length).padStart(8)} bytes, ${String(size).padStart(6)} gzipped`,
  );
}
console.log(`all together ${total} of ${LIMIT} bytes gzipped`);
if (total === 0) throw new Error("nothing has been built; run: npm run build");
if (total > LIMIT) process.exit(1);
