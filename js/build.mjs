// Bundles the front end into classspace_widgets/static; with --dev also the development page into js/dist.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";
import { minify } from "terser";
import "./state.mjs";
import "./tables.mjs";
import "./tour.mjs";

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
 * Files in the order in which they stand in the first script, like beside like, since gzip finds repeats within 32 kB only: the
 * styles, then folder by folder, and in each of them the parts of views before the views.
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
function note({ inputs }) {
  for (const input of Object.keys(inputs)) {
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(input)?.[1];
    if (name) used.add(name);
  }
}

async function write(name, code, module) {
  // What terser shortens beyond esbuild is 2 kB of the gzipped bundle.
  const { code: text } = await minify(code, {
    module,
    ecma: 2022,
    compress: { passes: 2 },
    format: { comments: false },
  });
  // An inline script would end here.
  if (/<\/script|<!--/i.test(text)) throw new Error(`${name} holds "</script" or "<!--"`);
  writeFileSync(join(out, name), text);
}

// Scripts that stand for themselves. The engine is no module: it reads its own text, which its worker runs, too.
for (const [entry, format] of [
  ["view", "esm"],
  ["memories", "esm"],
  ["engine", "iife"],
]) {
  const { metafile, outputFiles } = await build({
    ...shared,
    entryPoints: [`src/${entry}.ts`],
    format,
    write: false,
  });
  note(metafile);
  await write(`${entry}.js`, outputFiles[0].text, format === "esm");
}

/** Scripts that `widget.js` loads when it needs them (`src/core/scripts.ts`). */
const LATER = ["page", "actions", "tour"];

/**
 * `widget.js` and the scripts that it loads later. What both sides import stands in `widget.js` alone: each of the others is
 * first built with these imports left open, and then takes what they name from `__SHARED__`, which `widget.js` hands on.
 */
async function split() {
  const esm = { ...shared, format: "esm", write: false };
  const { metafile } = await build({ ...esm, entryPoints: ["src/widget.ts"] });
  const own = new Set(Object.keys(metafile.inputs).map((file) => join(here, file)));
  const given = new Map();
  for (const name of LATER) {
    const made = await build({ ...esm, entryPoints: [`src/${name}.ts`], plugins: [css, leaveOpen(own)] });
    note(made.metafile);
    const code = made.outputFiles[0].text
      .replace(/import\s*\{([^}]*)\}\s*from\s*"([^"]+)";/g, (_, names, file) => {
        const taken = names.split(",").map((pair) => {
          const [there, here = there] = pair.trim().split(" as ");
          const key = `${file} ${there}`;
          if (!given.has(key)) given.set(key, { file, there, short: `_${given.size}` });
          return `${given.get(key).short}: ${here}`;
        });
        return `const { ${taken} } = __SHARED__;`;
      })
      .replace(/export\s*\{\s*([\w$]+) as default\s*\};/, "return $1;");
    if (/\b(import|export)\b *[{"*]/.test(code)) throw new Error(`${name}.js: an import was not understood`);
    const register = `(globalThis.classspaceScripts ??= {})[${JSON.stringify(`${name} ${version()}`)}]`;
    await write(`${name}.js`, `${register} = (__SHARED__) => { ${code} };`, false);
  }
  // A function: where it stands, not all that it hands on has been made.
  const all = [...given.values()];
  const imports = all.map(({ file, there, short }) => `import { ${there} as ${short} } from "${file}";`);
  const handOn = `${imports.join("\n")}\nexport const __SHARED__ = () => ({ ${all.map(({ short }) => short)} });`;
  // What is injected sees no other injected file's names, so the file that reads `__SHARED__` is not.
  const inOrder = order().filter((file) => file in metafile.inputs && file !== "src/core/scripts.ts");
  const { metafile: facts, outputFiles } = await build({
    ...esm,
    inject: [...inOrder, "shared.js"],
    entryPoints: ["src/widget.ts"],
    plugins: [css, virtual("shared.js", handOn)],
  });
  note(facts);
  if (outputFiles[0].text.includes("__SHARED__")) throw new Error("widget.js: __SHARED__ was not put in");
  await write("widget.js", outputFiles[0].text, true);
}

/** Imports of these files are left open. */
function leaveOpen(files) {
  return {
    name: "leave-open",
    setup(plugins) {
      plugins.onResolve({ filter: /./ }, async ({ path, pluginData, ...options }) => {
        if (pluginData === files || options.kind === "entry-point") return null;
        const found = await plugins.resolve(path, { ...options, pluginData: files });
        return files.has(found.path) ? { path: found.path, external: true } : found;
      });
    },
  };
}

/** A file that is made here. */
function virtual(name, contents) {
  return {
    name: "virtual",
    setup(plugins) {
      plugins.onResolve({ filter: new RegExp(`^${name}$`) }, () => ({ path: name, namespace: "virtual" }));
      plugins.onLoad({ filter: /./, namespace: "virtual" }, () => ({ contents, resolveDir: here }));
    },
  };
}

await split();

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
    define: { ...shared.define, __SHARED__: "Object" },
    entryPoints: ["dev/dev.ts"],
    format: "iife",
    outfile: join(here, "dist/dev.js"),
  });
}
