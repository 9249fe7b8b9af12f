// Bundles the front end into classspace_widgets/static; with --dev also the development page into js/dist.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";
import { minify } from "terser";
import "./state.mjs";
import "./tables.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "../classspace_widgets/static");
const dev = process.argv.includes("--dev");
mkdirSync(out, { recursive: true });

/** The version by which a page tells two bundles apart: a hash of all that goes into them. */
function version() {
  const hash = createHash("sha256");
  for (const file of readdirSync(join(here, "src"), { recursive: true }).map(String).sort()) {
    const path = join(here, "src", file);
    if (/\.(ts|css)$/.test(file)) hash.update(file.replaceAll("\\", "/")).update(readFileSync(path));
  }
  hash.update(readFileSync(join(here, "package-lock.json")));
  return hash.digest("hex").slice(0, 12);
}

/** CSS as minified text. */
const css = {
  name: "css",
  setup(plugins) {
    plugins.onLoad({ filter: /\.css$/ }, async ({ path }) => {
      const { code } = await transform(readFileSync(path, "utf8"), { loader: "css", minify: true });
      return { contents: code.trim(), loader: "text" };
    });
  },
};

const shared = {
  bundle: true,
  minify: true,
  target: ["es2022", "chrome111", "firefox113", "safari16.4"],
  charset: "utf8",
  legalComments: "none",
  metafile: true,
  // The long names are for readers; all that is asked of them here are numbers.
  define: {
    __VERSION__: JSON.stringify(version()),
    "Number.NaN": "NaN",
    "Number.POSITIVE_INFINITY": "Infinity",
    "Number.NEGATIVE_INFINITY": "-1e999",
    "Number.isNaN": "isNaN",
    "Number.isFinite": "isFinite",
    "Number.parseInt": "parseInt",
  },
  plugins: [css],
  absWorkingDir: here,
};
/**
 * Files in the order in which they stand in the bundle, like beside like, since gzip finds repeats within 32 kB only: the styles,
 * then folder by folder, and in each of them the parts of views before the views.
 */
function order() {
  const depth = (file) => file.split("/").length;
  const folders = ["charts", "core", "fields", "views"].map((folder) =>
    readdirSync(join(here, "src", folder), { recursive: true })
      .map((file) => `src/${folder}/${file}`.replaceAll("\\", "/"))
      .filter((file) => file.endsWith(".ts"))
      .sort((a, b) => depth(b) - depth(a) || (a < b ? -1 : 1)),
  );
  return ["src/views/styles.ts", ...folders.flat()];
}

const used = new Set();
// The engine is a script and not a module: it reads its own text, which its worker runs, too.
for (const [entry, format] of [
  ["widget", "esm"],
  ["view", "esm"],
  ["memories", "esm"],
  ["engine", "iife"],
]) {
  const file = join(out, `${entry}.js`);
  const { metafile } = await build({
    ...shared,
    inject: entry === "widget" ? order() : [],
    entryPoints: [`src/${entry}.ts`],
    format,
    outfile: file,
  });
  for (const input of Object.keys(metafile.inputs)) {
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
    if (name) used.add(name);
  }
  // What terser shortens beyond esbuild is 2 kB of the gzipped bundle.
  const { code: text } = await minify(readFileSync(file, "utf8"), {
    module: format === "esm",
    ecma: 2022,
    compress: { passes: 2 },
    format: { comments: false },
  });
  writeFileSync(file, text);
  // An inline script would end here.
  if (/<\/script|<!--/i.test(text)) throw new Error(`${relative(here, file)} holds "</script" or "<!--"`);
}

// The colour tables come from d3-scale-chromatic, although its code is not bundled.
used.add("d3-scale-chromatic");
const licenses = [...used].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version: own, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((f) => /^licen[sc]e/i.test(f));
  const text = file ? readFileSync(join(folder, file), "utf8").trim() : `Licence: ${license}`;
  return `${name} ${own}\n${"-".repeat(60)}\n${text}\n`;
});
writeFileSync(
  join(out, "LICENSES.txt"),
  `Libraries bundled in the files beside this one.\n\n${licenses.join("\n\n")}`,
);

if (dev && existsSync(join(here, "dev"))) {
  await build({
    ...shared,
    minify: false,
    entryPoints: ["dev/dev.ts"],
    format: "iife",
    outfile: join(here, "dist/dev.js"),
  });
}
