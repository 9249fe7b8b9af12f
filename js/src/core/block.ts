/** Data blocks of a page: a container in base64, gzipped, its bytes in planes. */

import { fromPlanes, SnapshotError } from "./codec";

/** A block's text, and how it is encoded, as its element says. */
export interface Block {
  readonly id: string;
  readonly text: string;
  readonly encoding: string;
}

/** The container in a block. */
export async function unpackBlock({ id, text, encoding }: Block): Promise<Uint8Array<ArrayBuffer>> {
  if (typeof DecompressionStream === "undefined") {
    throw new SnapshotError(
      "this browser is too old for it: Chrome 111, Firefox 113 or Safari 16.4 is needed",
    );
  }
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    const stream = new Blob([decode(text.trim())]).stream();
    bytes = new Uint8Array(
      await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer(),
    );
  } catch {
    throw new SnapshotError(`the page's data block "${id}" is damaged or cut short`);
  }
  return encoding.includes("planes") ? fromPlanes(bytes) : bytes;
}

function decode(text: string): Uint8Array<ArrayBuffer> {
  const { fromBase64 } = Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> };
  if (fromBase64) return fromBase64.call(Uint8Array, text);
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < out.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}
