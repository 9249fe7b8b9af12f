import { signal } from "@preact/signals-core";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { onFrame } from "../src/core/frame";

let frames: FrameRequestCallback[] = [];
const nextFrame = () => {
  const due = frames;
  frames = [];
  for (const callback of due) callback(0);
};

beforeEach(() => {
  frames = [];
  vi.stubGlobal("requestAnimationFrame", (callback: FrameRequestCallback) => frames.push(callback));
});
afterEach(() => vi.unstubAllGlobals());

describe("onFrame", () => {
  it("draws at once, then once a frame however often a signal changes", () => {
    const value = signal(0);
    const drawn: number[] = [];
    onFrame(new AbortController().signal, () => drawn.push(value.value));
    for (let i = 1; i <= 100; i++) value.value = i;
    expect(drawn).toEqual([0]);
    expect(frames).toHaveLength(1);
    nextFrame();
    expect(drawn).toEqual([0, 100]);
    nextFrame();
    expect(frames).toHaveLength(0);
  });

  it("follows what it reads now", () => {
    const which = signal(true);
    const [a, b] = [signal("a"), signal("b")];
    const drawn: string[] = [];
    onFrame(new AbortController().signal, () => drawn.push(which.value ? a.value : b.value));
    which.value = false;
    nextFrame();
    a.value = "a2";
    nextFrame();
    b.value = "b2";
    nextFrame();
    expect(drawn).toEqual(["a", "b", "b2"]);
  });

  it("ends with the signal, also between a change and its frame", () => {
    const value = signal(0);
    let drawn = 0;
    const abort = new AbortController();
    onFrame(abort.signal, () => {
      value.value;
      drawn++;
    });
    value.value = 1;
    abort.abort();
    nextFrame();
    value.value = 2;
    nextFrame();
    expect(drawn).toBe(1);
  });
});
