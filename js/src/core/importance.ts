/** Token importance as the kernel answers it: by method and class. */

import { type Container, checkShape, floats, isRecord, slice } from "./codec";

/** Importance for a class by block and head, [blocks, heads, T']; 1 where the method does not split. */
export interface Shares {
  readonly signed: boolean;
  readonly blocks: number;
  readonly heads: number;
  readonly values: Float32Array;
}

export class Importance {
  readonly #shares = new Map<string, Shares>();

  /** Undefined when it is not at hand. */
  get(method: string, id: number): Shares | undefined {
    return this.#shares.get(`${method} ${id}`);
  }

  /** Take what an answer brought, if it is this; for `V` tokens. */
  take({ meta, arrays }: Container, V: number): void {
    const array = arrays.get("importance");
    if (!array || !isRecord(meta.importance)) return;
    const { method, classes, signed } = meta.importance as Record<string, unknown>;
    const [, blocks, heads] = array.shape;
    checkShape(array, [(classes as number[]).length, blocks, heads, V]);
    const all = floats(array);
    (classes as number[]).forEach((id, k) => {
      const values = slice(all, k, blocks * heads * V);
      this.#shares.set(`${method} ${id}`, { signed: signed === true, blocks, heads, values });
    });
  }
}
