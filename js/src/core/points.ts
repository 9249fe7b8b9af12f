/**
 * The numbering of stream points, increments and slider positions: the twin of `classspace_widgets/points.py`, held to it
 * by a shared fixture. Nothing else in the front end counts them by hand.
 *
 * Increments are what is added to the residual stream: the embedding, then attention and MLP of every block (one increment
 * of a block where they act in parallel). Stream points are what can be read: the embedding, then for every increment what
 * it adds, and the residual stream after it. The slider's positions are the increments: at each one, either what it adds or
 * the residual stream after it is read.
 */

import type { State } from "./state";

export type Layout = "sequential" | "parallel";
type Sublayer = State["sublayer"];
type Stream = State["stream"];

/** What an increment is. */
export type Kind = Sublayer | "block";

/** A slider position by name. */
export interface Place {
  readonly block: number;
  readonly sublayer: Sublayer;
}

export class Points {
  /** Increments of a block: 2, or 1 where attention and MLP act in parallel. */
  readonly perBlock: number;
  /** Number of increments, and of slider positions. */
  readonly N: number;
  /** Number of stream points. */
  readonly S: number;

  /** Of a model with `L` blocks. */
  constructor(
    readonly L: number,
    readonly layout: Layout = "sequential",
  ) {
    this.perBlock = layout === "parallel" ? 1 : 2;
    this.N = 1 + this.perBlock * L;
    this.S = 2 * this.N - 1;
  }

  /** The stream point read at a position: the residual stream after the increment, or the increment itself. */
  at(position: number, stream: Stream): number {
    return 2 * position - (stream === "output" && position > 0 ? 1 : 0);
  }

  /** The stream points read at all positions, in order. */
  along(stream: Stream): number[] {
    return Array.from({ length: this.N }, (_, position) => this.at(position, stream));
  }

  /** The increment that a stream point is, or the last one that it is the sum of. */
  increment(point: number): number {
    return Math.ceil(point / 2);
  }

  /** Whether a stream point is the residual stream: a sum of increments. */
  isSum(point: number): boolean {
    return point % 2 === 0;
  }

  /** The position of a block's sublayer; beyond the last block, that of the last one. */
  position(block: number, sublayer: Sublayer): number {
    if (block <= 0) return 0;
    const first = this.perBlock === 2 && sublayer === "attention";
    return this.perBlock * Math.min(block, this.L) - (first ? 1 : 0);
  }

  /** Block and sublayer of a position (of parallel blocks "mlp": with it, the block is done). */
  place(position: number): Place {
    const p = Math.max(0, Math.min(this.N - 1, Math.round(position)));
    if (p === 0) return { block: 0, sublayer: "embedding" };
    const block = Math.ceil(p / this.perBlock);
    return { block, sublayer: p < this.perBlock * block ? "attention" : "mlp" };
  }

  /** What the increment at a position is. */
  kind(position: number): Kind {
    const { sublayer } = this.place(position);
    return position > 0 && this.perBlock === 1 ? "block" : sublayer;
  }

  /** The position after which the block of a position has read the residual stream. */
  blockInput(position: number): number {
    return Math.max(0, position - 1 - ((position - 1) % this.perBlock));
  }

  /** The middle of a block's positions, where its number stands: between the two of its attention and its MLP. */
  middle(block: number): number {
    return (this.position(block, "attention") + this.position(block, "mlp")) / 2;
  }

  /** "embedding", "block 3 attention", "block 3 MLP" (or "block 3" where attention and MLP are parallel). */
  name(position: number): string {
    const { block } = this.place(position);
    const kind = this.kind(position);
    if (kind === "embedding") return kind;
    return `block ${block}${kind === "block" ? "" : kind === "mlp" ? " MLP" : " attention"}`;
  }
}
