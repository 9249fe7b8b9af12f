// Runs the built engine as its worker would: `node worker.mjs engine.js folder`, with jobs.json in the folder.
// Pictures are raw here: width and height as uint32, then RGBA; a browser's decoder and canvas are stood in for.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createContext, runInContext } from "node:vm";

const [engine, folder] = process.argv.slice(2);
const file = (name) => join(folder, name);
const { block, base, start, requests } = JSON.parse(readFileSync(file("jobs.json"), "utf8"));

class Canvas {
  constructor(width, height) {
    Object.assign(this, { width, height });
  }
  getContext() {
    return {
      fillRect: () => {},
      drawImage: (picture) => {
        this.image = picture;
      },
      getImageData: () => this.image,
      putImageData: (image) => {
        this.image = image;
      },
    };
  }
  convertToBlob() {
    return new Blob([this.image.data]);
  }
}

const scope = {
  Blob,
  Response,
  DecompressionStream,
  TextDecoder,
  TextEncoder,
  atob,
  setTimeout,
  crypto,
  OffscreenCanvas: Canvas,
  ImageData: class {
    constructor(width, height) {
      Object.assign(this, { width, height, data: new Uint8ClampedArray(4 * width * height) });
    }
  },
  async createImageBitmap(blob) {
    const bytes = await blob.arrayBuffer();
    if (bytes.byteLength < 8) throw new Error("no picture");
    const [width, height] = new Uint32Array(bytes, 0, 2);
    return { width, height, data: new Uint8Array(bytes, 8), close() {} };
  },
};
const waiting = new Map();
let sets = [];
scope.postMessage = (sent) => {
  // A real worker's messages are copied as this one is.
  const message = structuredClone(sent);
  if (message.type === "failed") throw new Error(message.text);
  if (message.type === "set") sets.push(message);
  else if (message.content.type === "response") waiting.get(message.content.id)(message);
};
const context = createContext(scope);
runInContext(readFileSync(engine, "utf8"), context);
const post = (data) => scope.onmessage({ data });

post({ type: "model", block: { id: "model", text: readFileSync(file(block), "utf8"), encoding: "planes" } });
const embedding = new Float32Array(new Uint8Array(readFileSync(file(start))).buffer);
post({ type: "session", session: 0, base, embedding });
const answers = [];
for (const [id, { kind, params, picture }] of requests.entries()) {
  const buffers = picture ? [new Uint8Array(readFileSync(file(picture))).buffer] : [];
  sets = [];
  const began = process.cpuUsage();
  const answer = await new Promise((resolve) => {
    waiting.set(id, resolve);
    const content = { type: "request", client: "test", id, kind, params };
    post({ type: "message", session: 0, content, buffers });
  });
  const { user } = process.cpuUsage(began);
  answer.buffers.forEach((buffer, i) => {
    writeFileSync(file(`${id}.${i}.bin`), new Uint8Array(buffer));
  });
  for (const { name, value } of sets) writeFileSync(file(`${id}.${name}.bin`), value);
  answers.push({ ...answer.content, seconds: user / 1e6 });
}
writeFileSync(file("answers.json"), JSON.stringify(answers));
