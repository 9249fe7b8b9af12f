/** Typed access to a memory atlas: neurons read as classes, and the patches that activate them. */

import { type Container, floats, isRecord, type NdArray, SnapshotError } from "./codec";
import { kept, range } from "./collections";
import { onAbort } from "./frame";

export interface Hit {
  readonly id: number;
  readonly cosine: number;
}

/** A patch that activates a neuron: picture, row and column on the grid, key coefficient. */
export interface Patch {
  readonly picture: number;
  readonly row: number;
  readonly column: number;
  readonly coefficient: number;
}

export type Place = readonly [block: number, which: number, value: number];

/** Stands where a class has fewer neurons than there is room for. */
const NO_NEURON = 0xffffffff;
const SUBLAYERS = ["attention", "MLP"] as const;

export class Atlas {
  readonly blocks: number;
  readonly names: readonly string[];
  readonly widths: readonly number[];
  readonly rows: number;
  readonly columns: number;
  readonly pictures: number;
  readonly labels: readonly number[];
  readonly #arrays: ReadonlyMap<string, NdArray>;
  readonly #floats = new Map<string, Float32Array>();
  readonly #urls = new Map<number, string>();

  constructor({ meta, arrays }: Container, abort: AbortSignal) {
    const { model, classes, widths, grid, pictures } = meta;
    if (meta.kind !== "memories" || !isRecord(model) || !isRecord(classes) || !isRecord(pictures)) {
      throw new SnapshotError("these bytes are not a memory atlas");
    }
    this.blocks = Number(model.blocks);
    this.names = classes.names as string[];
    this.widths = widths as number[];
    [this.rows, this.columns] = grid as [number, number];
    this.pictures = Number(pictures.count);
    this.labels = pictures.labels as number[];
    this.#arrays = arrays;
    for (const name of ["top", "top_cosine", "values", "values_cosine"]) this.#need(name);
    onAbort(abort, () => {
      for (const url of this.#urls.values()) URL.revokeObjectURL(url);
    });
  }

  placeOf(neuron: number): Place {
    const [first, second] = this.widths;
    const rest = neuron % (first + second);
    const which = rest < first ? 0 : 1;
    return [Math.floor(neuron / (first + second)) + 1, which, rest - which * first];
  }

  /** The neuron at a place; values beyond the last one are clamped. */
  neuronAt([block, which, value]: Place): number {
    const [first, second] = this.widths;
    const b = Math.max(1, Math.min(this.blocks, block));
    const v = Math.max(0, Math.min(this.widths[which] - 1, value));
    return (b - 1) * (first + second) + which * first + v;
  }

  neuronName(neuron: number): string {
    const [block, which, value] = this.placeOf(neuron);
    return `block ${block} ${SUBLAYERS[which]} ${value}`;
  }

  /** Classes that a neuron's value vector points towards, best first. */
  classesOf(neuron: number): Hit[] {
    const { shape, data } = this.#need("top");
    const cosines = this.#values("top_cosine");
    const base = neuron * shape[1];
    return range(shape[1], (i) => ({ id: data[base + i], cosine: cosines[base + i] }));
  }

  /** Neurons that point most towards a class, best first; of attention (0), of the MLPs (1), or of both (null). */
  neuronsOf(id: number, which: number | null): Hit[] {
    const { shape, data } = this.#need("values");
    const cosines = this.#values("values_cosine");
    const found: Hit[] = [];
    for (const w of which === null ? [0, 1] : [which]) {
      const base = (id * 2 + w) * shape[2];
      for (let i = base; i < base + shape[2]; i++) {
        if (data[i] !== NO_NEURON) found.push({ id: data[i], cosine: cosines[i] });
      }
    }
    return found.sort((a, b) => b.cosine - a.cosine).slice(0, shape[2]);
  }

  patchesOf(neuron: number): Patch[] {
    const patch = this.#arrays.get("patch");
    if (!patch) return [];
    const coefficients = this.#values("coefficient");
    const per = this.rows * this.columns;
    const base = neuron * patch.shape[1];
    return range(patch.shape[1], (i) => {
      const at = patch.data[base + i];
      const token = at % per;
      return {
        picture: Math.floor(at / per),
        row: Math.floor(token / this.columns),
        column: token % this.columns,
        coefficient: coefficients[base + i],
      };
    });
  }

  /** Address of a picture, made when it is first shown. */
  url(picture: number): string {
    return kept(this.#urls, picture, () => {
      const ends = this.#need("picture_ends").data;
      const bytes = this.#need("picture_bytes").data as Uint8Array;
      const file = bytes.slice(picture === 0 ? 0 : ends[picture - 1], ends[picture]);
      return URL.createObjectURL(new Blob([file as Uint8Array<ArrayBuffer>], { type: "image/webp" }));
    });
  }

  #need(name: string): NdArray {
    const array = this.#arrays.get(name);
    if (!array) throw new SnapshotError(`damaged memory atlas: array "${name}" is missing`);
    return array;
  }

  #values(name: string): Float32Array {
    return kept(this.#floats, name, () => floats(this.#need(name)));
  }
}
