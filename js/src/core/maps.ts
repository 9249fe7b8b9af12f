/** Extra values per token that a snapshot carries by name; one that comes again replaces the older one. */

import { floats, type NdArray } from "./codec";
import type { MapInfo } from "./meta";

export class TokenMaps {
  readonly infos: MapInfo[] = [];
  readonly #values: Float32Array[] = [];

  /** Values [T'] (NaN where there is none), by name. */
  get(name: string): { info: MapInfo; values: Float32Array } | null {
    const i = this.#indexOf(name);
    return i < 0 ? null : { info: this.infos[i], values: this.#values[i] };
  }

  /** Take maps [M, T or T'] for `V` tokens. */
  take(array: NdArray | undefined, infos: readonly MapInfo[], V: number): void {
    if (!array || infos.length === 0) return;
    const all = floats(array);
    const width = array.shape[1];
    infos.forEach((info, m) => {
      const own = new Float32Array(V).fill(Number.NaN);
      own.set(all.subarray(m * width, (m + 1) * width).subarray(0, V));
      const known = this.#indexOf(info.name);
      const at = known < 0 ? this.infos.length : known;
      this.infos[at] = info;
      this.#values[at] = own;
    });
  }

  #indexOf(name: string): number {
    return this.infos.findIndex((info) => info.name === name);
  }
}
