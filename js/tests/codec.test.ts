import { describe, expect, it } from "vitest";
import { floats, halfTable, halvesToFloats, type NdArray, pack, unpack } from "../src/core/codec";

const arrays: NdArray[] = [
  { name: "bytes", dtype: "u1", shape: [3], data: Uint8Array.of(1, 2, 255) },
  { name: "ranks", dtype: "u2", shape: [2, 2], data: Uint16Array.of(0, 1, 65535, 7) },
  { name: "many", dtype: "u4", shape: [1], data: Uint32Array.of(4_000_000_000) },
  { name: "signed", dtype: "i4", shape: [2], data: Int32Array.of(-5, 5) },
  { name: "floats", dtype: "f4", shape: [3], data: Float32Array.of(0.5, -1e30, Number.NaN) },
  { name: "halves", dtype: "f2", shape: [3], data: Uint16Array.of(0x3c00, 0xc000, 0x0001) },
  { name: "empty", dtype: "f4", shape: [0, 4], data: new Float32Array() },
];
const meta = { kind: "part", text: 'clé « ü » </script> "\u2028' };

/** The message of what is thrown. */
function failure(bytes: Uint8Array): string {
  try {
    unpack(bytes);
  } catch (error) {
    return (error as Error).message;
  }
  return "nothing was thrown";
}

describe("container", () => {
  it("gives back what went in", () => {
    const out = unpack(pack(meta, arrays));
    expect(out.meta).toEqual(meta);
    expect([...out.arrays.values()]).toEqual(arrays);
  });

  it("starts every array at a multiple of 8", () => {
    const bytes = pack(meta, arrays);
    const header = JSON.parse(
      new TextDecoder().decode(bytes.subarray(12, 12 + new DataView(bytes.buffer).getUint32(8, true))),
    );
    for (const { offset } of header.arrays) expect(offset % 8).toBe(0);
  });

  it("reads from anywhere in a larger buffer, aligned or not", () => {
    const bytes = pack(meta, arrays);
    for (const shift of [0, 1, 2, 3, 4, 8]) {
      const larger = new Uint8Array(bytes.length + 32).fill(9);
      larger.set(bytes, shift);
      const view = new DataView(larger.buffer, shift, bytes.length);
      expect([...unpack(view).arrays.values()]).toEqual(arrays);
    }
  });

  it("does not copy what is aligned", () => {
    const bytes = pack(meta, arrays);
    expect(unpack(bytes).arrays.get("floats")?.data.buffer).toBe(bytes.buffer);
  });

  it("says what is wrong", () => {
    const good = pack(meta, arrays);
    const changed = (at: number, value: number) => {
      const bytes = good.slice();
      bytes[at] = value;
      return bytes;
    };
    expect(failure(good.subarray(0, 5))).toContain("at least 12 bytes, got 5");
    expect(failure(changed(0, 65))).toContain("not a snapshot");
    expect(failure(changed(6, 2))).toContain("format version 2, this viewer reads up to 1");
    expect(failure(changed(10, 255))).toContain("reaches past the end");
    expect(failure(changed(12, 0xff))).toContain("its header cannot be read");
    expect(failure(good.subarray(0, good.length - 24))).toMatch(
      /array ".*" ends at byte \d+, the data at byte/,
    );
  });

  it("refuses arrays whose sizes do not fit", () => {
    const broken = (change: Partial<NdArray>) => {
      const text = JSON.stringify({ ...arrays[0], ...change, data: undefined, offset: 0, nbytes: 3 });
      const header = `{"meta":{},"arrays":[${text}]}`.padEnd(196);
      const bytes = new Uint8Array(12 + 196 + 8);
      bytes.set(new TextEncoder().encode("CSNAP\0\u0001\0"));
      new DataView(bytes.buffer).setUint32(8, 196, true);
      bytes.set(new TextEncoder().encode(header), 12);
      return failure(bytes);
    };
    expect(broken({ shape: [4] })).toContain('array "bytes" of shape [4] does not fill 3 bytes');
    expect(broken({ shape: [-3] })).toContain("no valid shape");
    expect(broken({ dtype: "toString" as "u1" })).toContain('unknown dtype "toString"');
  });
});

describe("float16", () => {
  it("has the values of IEEE 754", () => {
    const table = halfTable();
    expect(table[0x3c00]).toBe(1);
    expect(table[0xc000]).toBe(-2);
    expect(table[0x7bff]).toBe(65504);
    expect(table[0x0001]).toBeCloseTo(5.960464e-8, 14);
    expect(table[0x0400]).toBeCloseTo(6.103515625e-5, 12);
    expect(table[0xfc00]).toBe(Number.NEGATIVE_INFINITY);
    expect(table[0x7e00]).toBeNaN();
    expect(Object.is(table[0x8000], -0)).toBe(true);
  });

  it("decodes the bits of an array", () => {
    expect([...halvesToFloats(Uint16Array.of(0x3800, 0x4248))]).toEqual([0.5, 3.140625]);
    expect([...floats(arrays[5])].slice(0, 2)).toEqual([1, -2]);
  });
});
