"""One image of a trace, read at every stream point (torch, on the device) into compact arrays (numpy)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from classspace_widgets.lens import Readout, count_above
from classspace_widgets.lens.ranking import Ranker, found_classes, padded_classes
from classspace_widgets.metrics.norms import attention_received

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import ExtraMeta, RefusalsMeta
    from classspace_widgets.trace import Trace

ATTENTION_LIMIT = 2_500_000
"""Bytes of attention weights up to which a snapshot carries the rows of every token."""
SCAN_LIMIT = 500_000_000
"""Bytes of class readings of all increments that are held at once. Where they fit, as those of ViT-B/16 with 21,843 classes
do (430 MB), every product is computed once, however many passes there are over them."""
CACHED = 1_000_000
"""Bytes of class logits that are looked at together on a CPU: they stay in its cache from one step to the next."""
HALF_LIMIT = 3e4
"""Largest number that is stored in float16, which ends at 65,504: half of that."""
HALF_PEAK = 1024.0
"""What the largest number of an array is scaled to in float16: far below its end, and numbers down to a millionth of it keep
some of their digits (float16 begins at 6e-8)."""
TOP = 5
"""Best classes that a snapshot carries of every stream point and token, as the views list them."""
SAMPLED = 20
"""Classes whose ranks are compared to tell what float16 does to ranks."""


@dataclass
class Reader:
    """Reads the one image of a trace at every stream point, with the pooled token where the model has one."""

    trace: Trace
    passed: Callable[[float], None] = lambda _share: None
    """Told what share of a pass over all points was just done."""

    def __post_init__(self) -> None:
        self.held: list[Tensor] = []
        self.lens = self.trace.lens
        self.scale: Tensor | None = None
        self.vectors = [increment[0].to(self.lens.folded.dtype) for increment in self.trace.increments]
        self.n_classes = int(self.lens.offset.shape[0])
        self.readout = Readout.of_pass(self.trace)
        self.pooled = self.readout.pools
        self.weights: Tensor | None = None
        if self.pooled:
            self.weights = self.readout.token_weights(self.lens, torch.stack(self.vectors).sum(dim=0))
            self.vectors = [torch.cat([v, self._pool(v).unsqueeze(0)]) for v in self.vectors]
        self.n_tokens = self.vectors[0].shape[0]
        self.output_token = self.readout.place

    def _pool(self, vectors: Tensor) -> Tensor:
        """Weighted sum over tokens; removed tokens are NaN and weigh nothing."""
        assert self.weights is not None
        return self.weights @ torch.where(self.weights.unsqueeze(1) == 0, 0.0, vectors)

    def vectors_at_points(self) -> Iterator[Tensor]:
        """Vectors ``[T', D]`` of every stream point, in order."""
        residual = self.vectors[0]
        yield residual
        for increment in self.vectors[1:]:
            yield increment
            residual = residual + increment
            yield residual

    def sigma(self) -> Tensor:
        """Scale of the final norm at every stream point, ``[S, T']``."""
        if self.scale is None:
            self.scale = torch.stack([self.lens.sigma(point) for point in self.vectors_at_points()])
            if self.readout.norm_first:
                self.scale[:, -1] = 1.0
        return self.scale

    def norms(self) -> Array:
        """Lengths of the residual stream after every increment, ``[N, T']``."""
        stream = list(self.vectors_at_points())[::2]
        return fitting(as_float(torch.stack([vectors.norm(dim=-1) for vectors in stream])))

    def received(self) -> dict[str, Array]:
        """Share of each block's attention that every token receives, ``[L, T']``, where the trace holds it; NaN at the pooled."""
        found = attention_received(self.trace)
        if found is None:
            return {}
        shares = found.new_full((len(found), self.n_tokens), float("nan"))
        shares[:, : found.shape[-1]] = found[:, 0]
        return {"received": as_float(shares)}

    def raw(self, classes: Sequence[int]) -> Array:
        """Folded readings ``[K, N, T']`` float32."""
        wanted = torch.as_tensor(list(classes), device=self.vectors[0].device, dtype=torch.long)
        return as_float(torch.stack([self.lens.raw(v, wanted) for v in self.vectors]).permute(2, 0, 1))

    def scan(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Class logits ``[t, C']`` of every stream point, for chunks of tokens: ``(point, tokens, logits)``; use them at once.

        They are padded with minus infinity to ``C' = padded_classes(C)`` columns, as `Ranker` needs them.
        """
        sigma, offset = self.sigma(), self.lens.offset
        points = [self.trace.points.of_increment(n) for n in range(1, len(self.vectors))]
        row = self.n_classes * self.lens.folded.element_size()
        block = max(1, min(self.n_tokens, SCAN_LIMIT // (row * len(self.vectors))))
        step = max(1, CACHED // row) if offset.device.type == "cpu" else block
        step = min(step, block)
        # What is read is written to the same memory again and again: fresh memory costs more than what is computed in it.
        shown = offset.new_full((step, padded_classes(self.n_classes)), -torch.inf)
        summed = offset.new_empty((step, self.n_classes))
        for start in range(0, self.n_tokens, block):
            size = min(block, self.n_tokens - start)
            readings = self._readings(slice(start, start + size))
            for first in range(0, size, step):
                here = slice(first, min(first + step, size))
                tokens = slice(start + here.start, start + here.stop)
                count = here.stop - here.start
                logits, residual = shown[:count], summed[:count]
                written = logits[:, : self.n_classes]
                residual.copy_(readings[0][here])
                torch.addcdiv(offset, residual, sigma[0, tokens, None], out=written)
                yield 0, tokens, logits
                for reading, (own, after) in zip(readings[1:], points, strict=True):
                    residual += reading[here]
                    for point, read in ((own, reading[here]), (after, residual)):
                        torch.addcdiv(offset, read, sigma[point, tokens, None], out=written)
                        yield point, tokens, logits
                self.passed(count / self.n_tokens / 2)

    def _readings(self, tokens: slice) -> list[Tensor]:
        """Folded readings ``[t, C]`` of every increment at some tokens; those of all tokens are kept for the next pass."""
        if self.held:
            self.passed(0.5)
            return self.held
        share = (tokens.stop - tokens.start) / self.n_tokens
        readings = []
        for vectors in self.vectors:
            readings.append(self.lens.raw(vectors[tokens]))
            self.passed(share / len(self.vectors) / 2)
        if share == 1:
            self.held = readings
        return readings

    def summary(self) -> tuple[Array, Array, Array]:
        """Top classes, their logits ``[S, T', 5]`` and the log-sum-exp over classes ``[S, T']``."""
        n_points = len(self.trace.points)
        small = np.uint16 if self.n_classes <= 65_535 else np.uint32
        k = min(TOP, self.n_classes)
        top = np.zeros((n_points, self.n_tokens, k), small)
        values = np.zeros((n_points, self.n_tokens, k), np.float32)
        lse = np.zeros((n_points, self.n_tokens), np.float32)
        ranker: Ranker | None = None
        for point, tokens, logits in self.scan():
            if ranker is None:  # the first chunk is the largest
                ranker = Ranker(len(logits), self.n_classes, k, dtype=logits.dtype, device=logits.device)
            best = ranker.best(logits)
            top[point, tokens] = found_classes(best, self.n_classes).cpu().numpy()
            values[point, tokens] = as_float(best.values)
            lse[point, tokens] = as_float(logits.logsumexp(dim=-1))
        return top, values, lse

    def ranks(self, classes: Sequence[int]) -> Array:
        """Exact ranks ``[K, S, T']`` of some classes."""
        small = np.uint16 if self.n_classes <= 65_535 else np.uint32
        ranks = np.zeros((len(classes), len(self.trace.points), self.n_tokens), small)
        for point, tokens, logits in self.scan():
            ranks[:, point, tokens] = _counted(logits, classes).cpu().numpy()
        return ranks

    def increments(self) -> tuple[dict[str, Array], ExtraMeta]:
        """The increments and the class embedding in float16, each scaled to fit."""
        stacked = torch.stack(self.vectors)
        # Removed tokens are NaN, and must not decide about the others.
        scale = stacked.nan_to_num(nan=0.0).abs().amax(dim=(1, 2)).clamp_min(1e-12) / HALF_PEAK
        peak = float(self.lens.folded.abs().max().clamp_min(1e-12)) / HALF_PEAK
        arrays = {
            "increments": as_float(stacked / scale[:, None, None]).astype(np.float16),
            "increment_scale": as_float(scale),
            "embedding": as_float(self.lens.folded / peak).astype(np.float16),
        }
        return arrays, {"embedding_scale": peak}

    def attention(
        self, classes: Sequence[int], rows: Sequence[int] | None = None
    ) -> tuple[dict[str, Array], ExtraMeta]:
        """Attention weights, and every head's readings, at some rows (None: as many as the size rule allows)."""
        trace = self.trace
        blocks = trace.points.blocks
        kept = [trace.attention_weights[b] for b in blocks if b in trace.attention_weights]
        if len(kept) < len(blocks) or any(weights.shape[1] != trace.heads for weights in kept):
            return {}, {}
        weights = torch.stack([weights[0].to(self.lens.folded.dtype) for weights in kept])
        if self.weights is not None:
            pooling = self.weights / self.weights.sum()
            weights = torch.cat([weights, torch.einsum("t,lhts->lhs", pooling, weights).unsqueeze(2)], dim=2)
        if rows is None:
            rows = list(range(self.n_tokens)) if weights.numel() <= ATTENTION_LIMIT else [self.output_token]
        shown = weights[:, :, list(rows)].clamp(0, 1).sqrt() * 255
        arrays: dict[str, Array] = {"attention": shown.round().byte().cpu().numpy()}
        recorded = len(classes) > 0 and all(block in trace.head_inputs for block in blocks)
        if recorded and "heads_refused" not in self.refused():
            arrays |= self._heads(classes, rows)
        return arrays, {"attention": {"rows": list(rows), "encoding": "sqrt-u8"}}

    def refused(self) -> RefusalsMeta:
        """Why heads, or what they read from every token, have no reading; empty where they have."""
        trace = self.trace
        if trace.space is None:
            why = "the trace was loaded from a file without its model; try Trace.load(path, space=space)"
            return {"heads_refused": why, "sources_refused": why}
        parts = [trace.attention_parts(block) for block in trace.points.blocks]
        found: RefusalsMeta = {}
        if heads := next((p.split for p in parts if p.split), None):
            found["heads_refused"] = heads
        elif trace.attention_weights and not trace.head_inputs:
            found["heads_refused"] = "this trace was taken without them; take it with heads=True"
        if sources := next((p.sources for p in parts if p.sources), None):
            found["sources_refused"] = sources
        return found

    def _heads(self, classes: Sequence[int], rows: Sequence[int]) -> dict[str, Array]:
        """Folded readings of heads' outputs at some rows, of their values where defined, and of the projection's bias."""
        trace, chosen, dtype = self.trace, list(classes), self.lens.folded.dtype
        heads: list[Tensor] = []
        values: list[Tensor] = []
        biases: list[Tensor] = []
        for block in trace.points.blocks:
            weight, bias = trace.out_projection(block)
            read = (self.lens.folded[chosen] @ weight.to(dtype)).view(len(chosen), trace.heads, -1)
            inputs = trace.head_inputs[block][0].to(dtype)
            if self.weights is not None:
                inputs = torch.cat([inputs, self._pool(inputs).unsqueeze(0)])
            inputs = inputs[list(rows)].view(len(rows), trace.heads, -1)
            heads.append(torch.einsum("khd,rhd->khr", read, inputs))
            if trace.attention_parts(block).sources is None:
                values.append(torch.einsum("khd,hsd->khs", read, trace.values(block)[0].to(dtype)))
            biases.append(self.lens.folded[chosen] @ bias.to(dtype))
        found = {"head_raw": _half(torch.stack(heads, dim=1))}
        if len(values) == len(heads):
            found["value_raw"] = _half(torch.stack(values, dim=1))
        return found | {"attention_bias_raw": as_float(torch.stack(biases, dim=1))}


@dataclass(frozen=True)
class RoundingError:
    """What reading from float16 increments and a float16 class embedding changes, against float32.

    Attributes
    ----------
    largest, mean : float
        Absolute error of class logits, over every class, stream point and token.
    exact_ranks : float
        Share of ranks that stay what they are, over `SAMPLED` classes spread over all, every stream point and token.
    largest_rank : int
        The largest difference of a rank among them.
    """

    largest: float
    mean: float
    exact_ranks: float
    largest_rank: int

    def __str__(self) -> str:
        return (
            f"class logits differ from float32 by {self.mean:.2g} on average and {self.largest:.2g} at most; "
            f"{self.exact_ranks:.1%} of the ranks are exact, the others differ by {self.largest_rank} at most"
        )


def rounding_error(reader: Reader, arrays: dict[str, Array], embedding_scale: float) -> RoundingError:
    """Compare a reader with one that reads what `Reader.increments` sends."""
    stored, scale, folded = (
        torch.from_numpy(arrays[name].astype(np.float32)) for name in ("increments", "increment_scale", "embedding")
    )
    device = reader.vectors[0].device
    rough = replace(reader)
    rough.vectors = list((stored * scale[:, None, None]).to(device))
    rough.lens = replace(reader.lens, folded=(folded * embedding_scale).to(device))
    rough.scale = reader.sigma()
    sample = sorted({round(c) for c in np.linspace(0, reader.n_classes - 1, SAMPLED)})
    largest, total, count = 0.0, 0.0, 0
    same, compared, largest_rank = 0, 0, 0
    for (_, _, exact), (_, _, found) in zip(reader.scan(), rough.scan(), strict=True):
        kept = ~exact[:, 0].isnan()  # removed tokens
        if not kept.any():
            continue
        exact, found = exact[kept, : reader.n_classes], found[kept, : reader.n_classes]
        error = (exact - found).abs()
        largest = max(largest, float(error.max()))
        total, count = total + float(error.sum(dtype=torch.float64)), count + error.numel()
        apart = (_counted(exact, sample) - _counted(found, sample)).abs()
        same, compared = same + int((apart == 0).sum()), compared + apart.numel()
        largest_rank = max(largest_rank, int(apart.max()))
    return RoundingError(largest, total / max(count, 1), same / max(compared, 1), largest_rank)


def _counted(logits: Tensor, classes: Sequence[int]) -> Tensor:
    """Ranks ``[K, t]`` of some classes in ``[t, C]``; 0 at removed tokens, which views know by themselves."""
    return count_above(logits, logits[:, list(classes)]).T.clamp_min(0)


def as_float(tensor: Tensor) -> Array:
    """Float32 on the CPU."""
    return tensor.detach().float().cpu().numpy()


def _half(tensor: Tensor) -> Array:
    """Float16 where it fits, float32 otherwise."""
    return fitting(as_float(tensor))


def fitting(array: Array) -> Array:
    """Float16 where it fits, float32 otherwise."""
    return array if float(np.nanmax(np.abs(array), initial=0)) > HALF_LIMIT else array.astype(np.float16)
