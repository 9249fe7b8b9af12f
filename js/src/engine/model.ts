/** The model that travels with a page: its sizes and its weights, as `classspace_widgets/capture/model.py` writes them. */

import { type Container, floats, SnapshotError, unpack } from "../core/codec";
import { kept } from "../core/collections";
import { matrix, product } from "./math";

/** How pictures become the model's input; as timm has it. */
export interface Preprocessing {
  readonly size: readonly [number, number];
  readonly mean: readonly number[];
  readonly std: readonly number[];
  /** Share of the resized picture that the centre crop keeps. */
  readonly crop: number;
  readonly crop_mode: "center" | "squash";
  readonly interpolation: "bicubic" | "bilinear";
}

export interface Architecture {
  readonly kind: "model";
  readonly blocks: number;
  readonly heads: number;
  readonly width: number;
  readonly patch: readonly [number, number];
  readonly grid: readonly [number, number];
  readonly prefix: readonly string[];
  readonly pooling: "token" | "mean_norm" | "norm_mean";
  readonly pool_prefix: boolean;
  /** Epsilons of the norms in the blocks, and of the one in front of the classifier. */
  readonly eps: readonly [number, number];
  readonly preprocessing: Preprocessing;
}

/** The weights of a linear map. */
export interface Linear {
  readonly weight: Float32Array;
  readonly bias: Float32Array | undefined;
}

export interface Block {
  readonly norm1: Linear;
  readonly qkv: Linear;
  readonly proj: Linear;
  readonly ls1: Float32Array | undefined;
  readonly norm2: Linear;
  readonly fc1: Linear;
  readonly fc2: Linear;
  readonly ls2: Float32Array | undefined;
}

export class Model {
  readonly about: Architecture;
  /** Blocks. */ readonly L: number;
  /** Attention heads. */ readonly H: number;
  /** Width. */ readonly D: number;
  /** Tokens. */ readonly T: number;
  /** Classes. */ readonly C: number;
  /** Prefix tokens. */ readonly P: number;
  readonly blocks: readonly Block[];
  /** Class embedding with the final norm folded in, [C, D]; and what is added to its readings, [C]. */
  readonly folded: Float32Array;
  readonly offset: Float32Array;
  readonly #arrays: Container["arrays"];
  readonly #floats = new Map<string, Float32Array>();

  static parse(bytes: Uint8Array): Model {
    return new Model(unpack(bytes));
  }

  constructor(container: Container) {
    const about = container.meta as unknown as Architecture;
    if (about.kind !== "model") throw new SnapshotError("the page's model is not one");
    this.#arrays = container.arrays;
    this.about = about;
    this.L = about.blocks;
    this.H = about.heads;
    this.D = about.width;
    this.C = this.need("classes.weight").length / this.D;
    this.P = about.prefix.length;
    this.T = this.P + about.grid[0] * about.grid[1];
    this.blocks = Array.from({ length: this.L }, (_, i) => {
      const at = (name: string) => `blocks.${i}.${name}`;
      return {
        norm1: this.linear(at("norm1")),
        qkv: this.linear(at("qkv")),
        proj: this.linear(at("proj")),
        ls1: this.find(at("ls1")),
        norm2: this.linear(at("norm2")),
        fc1: this.linear(at("fc1")),
        fc2: this.linear(at("fc2")),
        ls2: this.find(at("ls2")),
      };
    });
    [this.folded, this.offset] = this.#fold();
  }

  /** Whether the answer is read from the mean of tokens. */
  get pools(): boolean {
    return this.about.pooling !== "token";
  }

  /** Tokens of the views: with the mean as the last, if there is one. */
  get V(): number {
    return this.T + (this.pools ? 1 : 0);
  }

  /** Where the answer is read. */
  get output(): number {
    return this.pools ? this.T : 0;
  }

  /** The first of the tokens that are pooled. */
  get firstPooled(): number {
    return this.about.pool_prefix ? 0 : this.P;
  }

  find(name: string): Float32Array | undefined {
    const array = this.#arrays.get(name);
    return array && kept(this.#floats, name, () => floats(array));
  }

  need(name: string): Float32Array {
    const found = this.find(name);
    if (!found) throw new SnapshotError(`the page's model lacks "${name}"`);
    return found;
  }

  linear(name: string): Linear {
    return { weight: this.need(`${name}.weight`), bias: this.find(`${name}.bias`) };
  }

  /** What takes heads' outputs to what attention adds, LayerScale included: [D, D] and [D]. */
  outProjection(block: number): Linear {
    const { proj, ls1 } = this.blocks[block];
    if (!ls1) return proj;
    const weight = proj.weight.map((w, i) => w * ls1[Math.floor(i / this.D)]);
    return { weight, bias: proj.bias?.map((b, d) => b * ls1[d]) };
  }

  /** The final norm and the classifier as one map. */
  #fold(): [Float32Array, Float32Array] {
    const { C, D } = this;
    const embedding = this.need("classes.weight");
    const offset = new Float32Array(C);
    const bias = this.find("classes.bias");
    const shift = this.find("norm.bias");
    if (shift) product(matrix(embedding, D), matrix(shift, D), matrix(offset, 1), C, 1, D);
    if (bias) for (let c = 0; c < C; c++) offset[c] += bias[c];
    const scale = this.need("norm.weight");
    const folded = embedding.map((e, i) => e * scale[i % D]);
    for (let at = 0; at < folded.length; at += D) {
      let sum = 0;
      for (let d = 0; d < D; d++) sum += folded[at + d];
      for (let d = 0; d < D; d++) folded[at + d] -= sum / D;
    }
    return [folded, offset];
  }
}
