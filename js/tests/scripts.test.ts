// @vitest-environment happy-dom
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import actions from "../src/actions";
import { atHand, load } from "../src/core/scripts";
import { Snapshot } from "../src/core/snapshot";
import { Store } from "../src/core/store";
import { Transport } from "../src/core/transport";
import { mountView } from "../src/runtime";
import { FakeModel, fixture } from "./model";

const register = globalThis.classspaceScripts;
/** What the kernel answers: a script that registers itself. */
const scriptOf = (name: string, version = "test") =>
  `(globalThis.classspaceScripts ??= {})["${name} ${version}"] = () => ({ loaded: "${name}" });`;

beforeEach(() => {
  globalThis.classspaceScripts = {};
  // Node imports no blob.
  vi.spyOn(URL, "createObjectURL").mockImplementation(
    (blob) => `data:text/javascript,${encodeURIComponent(texts.get(blob as Blob) ?? "")}`,
  );
  vi.stubGlobal(
    "Blob",
    class extends Blob {
      constructor(parts: BlobPart[], options?: BlobPropertyBag) {
        super(parts, options);
        texts.set(this, String(parts[0]));
      }
    },
  );
});
const texts = new Map<Blob, string>();

afterEach(() => {
  globalThis.classspaceScripts = register;
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

/** A kernel that answers what is asked for, and what it was asked for. */
function kernel(answer: (kind: string) => object) {
  const asked: string[] = [];
  const transport: Transport = new Transport((content) => {
    const { id, kind } = content as { id: number; kind: string };
    asked.push(kind);
    queueMicrotask(() => transport.receive({ type: "response", id, ...answer(kind) }, []));
  });
  return { transport, asked };
}
const gives = (kind: string) => ({ ok: true, result: { text: scriptOf(kind.replace("script ", "")) } });

describe("a script that is loaded later", () => {
  it("is asked of the kernel once, and is at hand from then on", async () => {
    const { transport, asked } = kernel(gives);
    expect(atHand("one")).toBeNull();
    const both = await Promise.all([load("one", transport), load("one", transport)]);
    expect(both[0]).toEqual({ loaded: "one" });
    expect(both[1]).toBe(both[0]);
    expect(await load("one", transport)).toBe(both[0]);
    expect(atHand("one")).toBe(both[0]);
    expect(asked).toEqual(["script one"]);
  });

  it("does not stand in another's way", async () => {
    const { transport, asked } = kernel(gives);
    const names = ["two", "three", "four"];
    expect(await Promise.all(names.map((name) => load(name, transport)))).toEqual(
      names.map((loaded) => ({ loaded })),
    );
    expect(asked).toHaveLength(3);
  });

  it("gets what the first script shares, and what it does stays its own", async () => {
    const { transport } = kernel(gives);
    await load("five", transport);
    const make = vi.fn(() => ({}));
    globalThis.classspaceScripts = { "six test": make };
    atHand("six");
    atHand("six");
    expect(make).toHaveBeenCalledTimes(1);
    expect(make).toHaveBeenCalledWith(null);
  });

  it("that does not come says why, and can be asked for again", async () => {
    let broken = true;
    const { transport, asked } = kernel((kind) =>
      broken ? { ok: false, error: { title: "ValueError", message: "unknown script" } } : gives(kind),
    );
    await expect(load("seven", transport)).rejects.toThrow("unknown script");
    broken = false;
    expect(await load("seven", transport)).toEqual({ loaded: "seven" });
    expect(asked).toHaveLength(2);
    await expect(load("eight", new Transport(null))).rejects.toThrow("no kernel is connected");
  });

  it("of another version is refused in words", async () => {
    const { transport } = kernel(() => ({ ok: true, result: { text: scriptOf("nine", "older") } }));
    await expect(load("nine", transport)).rejects.toThrow(
      "another version of it: restart it and run the cell",
    );
  });
});

describe("the what-if panel of a notebook", () => {
  it("says that it is loaded, that it could not be, and stands there once it has come", async () => {
    const el = document.body.appendChild(document.createElement("div"));
    const abort = new AbortController();
    const bytes = fixture("all");
    const model = new FakeModel({ _snapshot: bytes, class_index: 1, block: 2, sublayer: "mlp", tokens: [] });
    const store = new Store(Snapshot.parse(bytes), model);
    const settle = () => new Promise((resolve) => setTimeout(resolve, 30));
    mountView("WhatIf", el, store, abort.signal);
    const words = () => el.querySelector(".csw-later")?.textContent;
    expect(words()).toBe("Loading the what-if panel … ");
    expect(model.sent.map(({ kind }) => kind)).toEqual(["script actions"]);
    const refuse = (id: number) =>
      model.message({
        type: "response",
        id,
        ok: false,
        error: { title: "OSError", message: "it is not built" },
      });
    refuse(model.sent[0].id);
    await settle();
    expect(words()).toBe("Cannot load the what-if panel: it is not built. Try again");
    (el.querySelector(".csw-later button") as HTMLElement).click();
    expect(words()).toBe("Loading the what-if panel … ");
    globalThis.classspaceScripts = { "actions test": () => actions };
    model.message({ type: "response", id: model.sent[1].id, ok: true, result: { text: "" } });
    await settle();
    expect(el.querySelector(".csw-whatif select")).not.toBeNull();
    expect(el.querySelector(".csw-later [role=status]")).toBeNull();
    abort.abort();
    expect(el.childElementCount).toBe(0);
    store.dispose();
    el.remove();
  });
});
