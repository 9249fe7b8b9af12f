"""Interventions, checked against a model and sorted by where they act.

A plan is made before anything runs, so that every error is found first; `engine` then only looks up what to change at each
block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.interventions.attention import AfterSoftmax, attention_module
from classspace_widgets.interventions.base import Intervention
from classspace_widgets.interventions.spec import (
    PICTURE,
    Ablate,
    AddVector,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    ReplaceClassEmbedding,
)
from classspace_widgets.interventions.tokens import Sizes, select_blocks, select_heads
from classspace_widgets.metrics import token_norms
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

    from classspace_widgets.models import Adapter

    Cuts = tuple[Tensor | None, AfterSoftmax | None]


@dataclass
class Plan:
    """Interventions, checked against a model and sorted by where they act.

    Made by `intervene`.

    Attributes
    ----------
    kept : Tensor [T'] or None
        Indices of the tokens that are kept; None for all.
    kept_numbers : list of int
        The same as plain numbers, which can be read without waiting for a device; empty for all.
    states : dict of int to Tensor
        Residual streams ``[B, T', D]`` after blocks of the present pass that later ones are patched with.
    """

    adapter: Adapter
    sizes: Sizes
    sources: Mapping[str, Trace]
    kept: Tensor | None = None
    kept_numbers: list[int] = field(default_factory=list)
    embedding: list[MaskTokens | PatchResidual | AddVector] = field(default_factory=list)
    edges: dict[int, list[KnockOutAttention]] = field(default_factory=dict)
    heads: dict[int, list[Ablate]] = field(default_factory=dict)
    sublayers: dict[tuple[int, str], list[Ablate]] = field(default_factory=dict)
    residuals: dict[int, list[PatchResidual | AddVector]] = field(default_factory=dict)
    classifier: list[ReplaceClassEmbedding] = field(default_factory=list)
    states: dict[int, Tensor | None] = field(default_factory=dict, repr=False)
    prepared: dict[tuple[KnockOutAttention, ...], Cuts] = field(default_factory=dict, repr=False)

    @classmethod
    def build(cls, adapter: Adapter, interventions: Sequence[Intervention], sources: Mapping[str, Trace]) -> Plan:
        """Check every intervention against the model and sort them."""
        plan = cls(adapter, Sizes.of(adapter), sources)
        removed: set[int] = set()
        for one in interventions:
            if not isinstance(one, Intervention):
                raise TypeError(f"interventions must be Intervention objects, got {one!r}; from_spec reads plain dicts")
            one.check(plan.sizes)
            if isinstance(one, (RemoveTokens, MaskTokens)) and one.norm_above is not None:
                one = plan._by_index(one)
                one.check(plan.sizes)
            if isinstance(one, RemoveTokens):
                removed |= set(one.select(plan.sizes))
            else:
                plan._sort(one)
        if removed:
            if removed >= set(plan.sizes.image_tokens):
                raise ValueError("RemoveTokens: together they would remove every image token; keep at least one")
            plan.kept_numbers = [t for t in range(plan.sizes.tokens) if t not in removed]
            plan.kept = torch.tensor(plan.kept_numbers, device=adapter.embedding.device)
        for block in plan.edges:
            plan.cuts(block)
        return plan

    def _sort(self, one: Intervention) -> None:
        """Add an intervention to the list of the place where it acts."""
        if isinstance(one, KnockOutAttention):
            for block in select_blocks(one.blocks, self.sizes, "KnockOutAttention"):
                self.edges.setdefault(block, []).append(one)
        elif isinstance(one, Ablate):
            self._sort_ablation(one)
        elif isinstance(one, (PatchResidual, AddVector)):
            if isinstance(one, PatchResidual):
                self._check_patch(one)
                if one.same_pass and one.from_block < one.target_block:
                    self.states.setdefault(one.from_block, None)
            block = one.target_block if isinstance(one, PatchResidual) else one.block
            if block:
                self.residuals.setdefault(block, []).append(one)
            else:
                self.embedding.append(one)
        elif isinstance(one, MaskTokens):
            self.embedding.append(one)
        elif isinstance(one, ReplaceClassEmbedding):
            self.classifier.append(one)
        else:
            raise TypeError(f"unknown intervention {one!r}")

    def _by_index(self, one: RemoveTokens | MaskTokens) -> RemoveTokens | MaskTokens:
        """A choice of long tokens as one by index."""
        if one.measures_the_picture and PICTURE not in self.sources:
            raise ValueError(
                f"{type(one).__name__}: norm_above measures the tokens of a trace: pass source=trace of the picture, or use "
                "trace_with or run_with, which trace the picture first"
            )
        source = self.source(one.source)
        assert source is not None
        return one.by_index(token_norms(source))

    def _check_patch(self, one: PatchResidual) -> None:
        source = self.source(one.source)
        if source is None or source.kept_tokens is None:
            return
        read = range(self.sizes.tokens) if one.tokens is None else one.tokens
        missing = {one.from_token} if one.from_token is not None else set(read)
        if missing - set(source.kept_tokens):
            raise ValueError(
                "PatchResidual: tokens of the source were removed, so they have no state; take the trace of the whole picture"
            )

    def _sort_ablation(self, one: Ablate) -> None:
        source = self.source(one.source)
        for block in select_blocks(one.blocks, self.sizes, "Ablate"):
            if one.sublayer == "head":
                module: Any = attention_module(self.adapter.blocks[block - 1])
                if source is not None:
                    if block not in source.head_inputs:
                        raise ValueError("Ablate: a source for heads must be traced with heads=True")
                    if getattr(module, "gate", None) is not None or _has_scale_norm(module):
                        raise UnsupportedModelError(
                            f"{type(module).__name__} has a gate or norm after its heads: their outputs cannot be "
                            "resampled from a trace; use mode='zero' or mode='mean' without a source"
                        )
                self.heads.setdefault(block, []).append(one)
            else:
                if not self.adapter.points.sequential:
                    raise UnsupportedModelError(
                        f"blocks of type {type(self.adapter.blocks[0]).__name__} compute attention and MLP in parallel "
                        "and add one increment: ablate heads instead"
                    )
                self.sublayers.setdefault((block, one.sublayer), []).append(one)

    def source(self, source: Any) -> Trace | None:
        """The trace that a source names, checked."""
        if source is None or isinstance(source, tuple):
            return None
        if isinstance(source, str):
            if source not in self.sources:
                raise ValueError(f"there is no source {source!r}; pass sources={{{source!r}: trace}}")
            source = self.sources[source]
        if not isinstance(source, Trace):
            raise TypeError(f"a source must be a Trace, the name of one or (image, token), got {type(source).__name__}")
        sizes = self.sizes
        check_source(source, (sizes.blocks, sizes.tokens, self.adapter.width), sizes.grid)
        return source

    def cuts(self, block: int) -> Cuts:
        """The cut edges of a block: those kept before the softmax ``[1 or H, T', T']``, and a product that cuts after it."""
        edges = tuple(self.edges.get(block, ()))
        if edges not in self.prepared:
            before = self._kept_edges([e for e in edges if e.before_softmax])
            after = self._kept_edges([e for e in edges if not e.before_softmax])
            if before is not None and not bool(before.any(dim=-1).all()):
                raise ValueError(
                    f"KnockOutAttention: at block {block} a token would have nothing left to read, which cannot be "
                    "renormalised; keep one source, or use renormalise=False"
                )
            # Usually all blocks have the same cuts, so masks are computed once, and on the CPU: to look at them on a GPU
            # is to wait for it.
            device = self.adapter.embedding.device
            self.prepared[edges] = (
                None if before is None else before.to(device),
                None if after is None else AfterSoftmax(after, device),
            )
        return self.prepared[edges]

    def _kept_edges(self, edges: Sequence[KnockOutAttention]) -> Tensor | None:
        """Edges that all of the knock-outs keep, ``[1 or H, T', T']``, on the CPU; None for all."""
        kept: Tensor | None = None
        for one in edges:
            keep = torch.from_numpy(one.kept(self.sizes))
            if self.kept is not None:
                keep = keep[self.kept_numbers][:, self.kept_numbers]
            keep = keep.unsqueeze(0)
            heads = list(select_heads(one.heads, self.sizes, "KnockOutAttention"))
            if len(heads) < self.sizes.heads:
                per_head = torch.ones(self.sizes.heads, *keep.shape[1:], dtype=torch.bool, device=keep.device)
                per_head[heads] = keep
                keep = per_head
            kept = keep if kept is None else kept & keep
        return kept

    def local(self, tokens: Sequence[int] | None, what: str) -> list[int]:
        """Positions of tokens in the sequence of kept tokens."""
        if self.kept is None:
            return list(range(self.sizes.tokens) if tokens is None else tokens)
        position = {t: i for i, t in enumerate(self.kept_numbers)}
        if tokens is None:
            return list(position.values())
        if removed := [t for t in tokens if t not in position]:
            raise ValueError(f"{what}: tokens {removed[:5]} are removed by another intervention")
        return [position[t] for t in tokens]

    def at_kept(self, vectors: Tensor) -> Tensor:
        """Rows of ``[B, T, ...]`` for the kept tokens."""
        return vectors if self.kept is None else vectors.index_select(1, self.kept.to(vectors.device))


def check_source(source: Trace, expected: tuple[int, int, int], grid: tuple[int, int]) -> None:
    """Raise ``ValueError`` where states of a trace do not fit a model of ``(blocks, tokens, width)`` and a grid of patches."""
    shape = (source.n_blocks, source.n_tokens, int(source.increments[0].shape[-1]))
    if shape != expected:
        raise ValueError(
            f"a source must have (blocks, tokens, width) = {expected} like the model, got {shape}; trace it with the same "
            "model, at the same size"
        )
    if tuple(source.grid) != tuple(grid):
        raise ValueError(
            f"a source must have the model's grid of {grid[0]} x {grid[1]} patches, got {source.grid[0]} x {source.grid[1]}; "
            "trace it with the same model, at the same size"
        )


def _has_scale_norm(module: nn.Module) -> bool:
    return not isinstance(getattr(module, "norm", torch.nn.Identity()), torch.nn.Identity)
