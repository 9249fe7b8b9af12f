/**
 * The snapshot container: the same bytes in messages of the kernel, in files and in pages.
 *
 * "CSNAP\0", the version (2 bytes) and the header's length (4 bytes); then the header, which is JSON: the meta data, and for
 * every array its name, type, shape and place; then the arrays, each from a multiple of 8 bytes on. Nothing is copied: arrays
 * are views of the given bytes wherever their alignment allows it. Half-precision numbers stay bits until they are asked for.
 * docs/snapshot_format.md describes the format; `classspace_widgets/snapshot/container.py` is the other side.
 */

export type DType = "u1" | "u2" | "u4" | "i4" | "f2" | "f4";
export type Numbers = Uint8Array | Uint16Array | Uint32Array | Int32Array | Float32Array;

/** `data` of an "f2" array holds the bits of the halves: read it through `floats`. */
export interface NdArray {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly data: Numbers;
}

export interface Container {
  readonly meta: Readonly<Record<string, unknown>>;
  readonly arrays: ReadonlyMap<string, NdArray>;
}

/** The bytes are not a snapshot that this version reads; the message names what is wrong. */
export class SnapshotError extends Error {}

export const damaged = (what: string) => new SnapshotError(`damaged snapshot: ${what}`);

export const FORMAT_VERSION = 1;
const MAGIC = "CSNAP\0";
/** Bytes before the header: the magic word, the version, the header's length. */
const PREFIX = 12;
const SIZES: Readonly<Record<DType, number>> = { u1: 1, u2: 2, u4: 4, i4: 4, f2: 2, f4: 4 };

export function unpack(source: ArrayBuffer | ArrayBufferView): Container {
  const bytes = asBytes(source);
  if (bytes.byteLength < PREFIX) {
    throw new SnapshotError(`not a snapshot: expected at least ${PREFIX} bytes, got ${bytes.byteLength}`);
  }
  const magic = String.fromCharCode(...bytes.subarray(0, 6));
  if (magic !== MAGIC) {
    throw new SnapshotError(
      `not a snapshot: expected it to start with "CSNAP", got ${JSON.stringify(magic)}`,
    );
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint16(6, true);
  if (version > FORMAT_VERSION || version < 1) {
    throw new SnapshotError(
      `the snapshot has format version ${version}, this viewer reads up to ${FORMAT_VERSION}; update classspace-widgets`,
    );
  }
  const length = view.getUint32(8, true);
  if (PREFIX + length > bytes.byteLength) {
    throw damaged(`its header of ${length} bytes reaches past the end (${bytes.byteLength} bytes)`);
  }
  let header: unknown;
  try {
    header = JSON.parse(
      new TextDecoder("utf-8", { fatal: true }).decode(bytes.subarray(PREFIX, PREFIX + length)),
    );
  } catch (error) {
    throw damaged(`its header cannot be read (${message(error)})`);
  }
  if (!isRecord(header) || !isRecord(header.meta) || !Array.isArray(header.arrays)) {
    throw damaged("its header lacks meta data or the list of arrays");
  }
  const arrays = new Map<string, NdArray>();
  for (const entry of header.arrays) {
    const array = readArray(bytes, entry);
    arrays.set(array.name, array);
  }
  return { meta: header.meta, arrays };
}

/**
 * Arrays whose bytes lie in planes (first bytes of all values, then the second ones, ...), as pages store them because
 * they compress better, put back in place.
 */
export function fromPlanes(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  for (const { dtype, data } of unpack(bytes).arrays.values()) {
    const size = SIZES[dtype];
    if (size === 1) continue;
    const { buffer, byteOffset, byteLength, length } = data;
    const planes = new Uint8Array(buffer, byteOffset, byteLength).slice();
    // Bytes are joined to numbers of half their count: writing them one by one takes three times as long.
    const words = new Uint16Array(buffer, byteOffset, byteLength / 2);
    for (let b = 0; b < size; b += 2) {
      const [low, high] = [b * length, (b + 1) * length];
      for (let i = 0, at = b / 2; i < length; i++, at += size / 2)
        words[at] = planes[low + i] | (planes[high + i] << 8);
    }
  }
  return bytes;
}

/** The inverse of `unpack`, for tests and the development page. */
export function pack(meta: object, arrays: readonly NdArray[]): Uint8Array<ArrayBuffer> {
  const encoder = new TextEncoder();
  const entries = arrays.map((a) => ({
    name: a.name,
    dtype: a.dtype,
    shape: a.shape,
    offset: 0,
    nbytes: a.data.byteLength,
  }));
  // Offsets stand in the header whose length they decide, so room for the widest is reserved first.
  const room = encoder.encode(JSON.stringify({ meta, arrays: entries })).length + 20 * entries.length;
  const start = align(PREFIX + room);
  let end = start;
  for (const entry of entries) {
    entry.offset = end;
    end = align(end + entry.nbytes);
  }
  const out = new Uint8Array(end);
  out.set(encoder.encode(MAGIC));
  const view = new DataView(out.buffer);
  view.setUint16(6, FORMAT_VERSION, true);
  view.setUint32(8, start - PREFIX, true);
  out.fill(0x20, PREFIX, start);
  out.set(encoder.encode(JSON.stringify({ meta, arrays: entries })), PREFIX);
  for (let i = 0; i < arrays.length; i++) {
    const { data } = arrays[i];
    out.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), entries[i].offset);
  }
  return out;
}

/** Values of an array as float32 (a view where it is float32 already). */
export function floats(array: NdArray): Float32Array {
  if (array.dtype === "f2") return halvesToFloats(array.data as Uint16Array);
  return array.data instanceof Float32Array ? array.data : Float32Array.from(array.data);
}

let table: Float32Array | null = null;

export function halvesToFloats(bits: Uint16Array): Float32Array {
  const out = new Float32Array(bits.length);
  // Quicker than the browser's own Float16Array, where there is one.
  table ??= halfTable();
  for (let i = 0; i < bits.length; i++) out[i] = table[bits[i]];
  return out;
}

/** Every float16 value by its bits. */
export function halfTable(): Float32Array {
  const out = new Float32Array(65536);
  for (let bits = 0; bits < 65536; bits++) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) out[bits] = sign * fraction * 2 ** -24;
    else if (exponent === 31) out[bits] = fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    else out[bits] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return out;
}

/** The `index`-th of equally large parts. */
export function slice(values: Float32Array, index: number, size: number): Float32Array {
  return values.subarray(index * size, (index + 1) * size);
}

/** Throw unless an array has this shape. */
export function checkShape(array: NdArray, shape: readonly number[]): void {
  if (array.shape.length !== shape.length || array.shape.some((n, i) => n !== shape[i])) {
    throw damaged(
      `array "${array.name}" must have shape [${shape.join(", ")}], got [${array.shape.join(", ")}]`,
    );
  }
}

function readArray(bytes: Uint8Array, entry: unknown): NdArray {
  if (!isRecord(entry) || typeof entry.name !== "string") {
    throw damaged("an array has no name");
  }
  const { name, dtype, shape, offset, nbytes } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(SIZES, dtype)) {
    throw damaged(`array "${name}" has unknown dtype ${JSON.stringify(dtype)}`);
  }
  if (!Array.isArray(shape) || !shape.every(isCount) || !isCount(offset) || !isCount(nbytes)) {
    throw damaged(`array "${name}" has no valid shape, offset or size`);
  }
  const kind = dtype as DType;
  const count = shape.reduce((product, n) => product * n, 1);
  if (count * SIZES[kind] !== nbytes) {
    throw damaged(`array "${name}" of shape [${shape}] does not fill ${nbytes} bytes`);
  }
  if (offset + nbytes > bytes.byteLength) {
    throw damaged(`array "${name}" ends at byte ${offset + nbytes}, the data at byte ${bytes.byteLength}`);
  }
  return { name, dtype: kind, shape, data: viewOf(bytes, kind, offset, count) };
}

function viewOf(bytes: Uint8Array, dtype: DType, offset: number, count: number): Numbers {
  let { buffer } = bytes;
  let start = bytes.byteOffset + offset;
  const size = SIZES[dtype];
  if (start % size !== 0) {
    // Typed arrays need aligned starts; a message's buffer may sit anywhere.
    buffer = bytes.slice(offset, offset + count * size).buffer;
    start = 0;
  }
  switch (dtype) {
    case "u1":
      return new Uint8Array(buffer, start, count);
    case "u2":
    case "f2":
      return new Uint16Array(buffer, start, count);
    case "u4":
      return new Uint32Array(buffer, start, count);
    case "i4":
      return new Int32Array(buffer, start, count);
    case "f4":
      return new Float32Array(buffer, start, count);
  }
}

function asBytes(source: ArrayBuffer | ArrayBufferView): Uint8Array {
  return ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    : new Uint8Array(source);
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

export function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}

function align(n: number): number {
  return Math.ceil(n / 8) * 8;
}
