"""`Trace`: the streams, readings and parts of one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from classspace_widgets.lens import class_ranks
from classspace_widgets.lookup import chosen_classes, items_of, whole_number
from classspace_widgets.models import UnsupportedModelError, attention_parts
from classspace_widgets.points import STREAMS, SUBLAYERS, Point, Points
from classspace_widgets.trace.describe import trace_html, trace_text
from classspace_widgets.trace.hooks import KEPT_BY_BLOCK, recording
from classspace_widgets.trace.reading import read_answer, read_at
from classspace_widgets.trace.top_k import TopK

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from os import PathLike

    import pandas as pd
    from torch import Tensor, nn

    from classspace_widgets.images.crop import Photograph
    from classspace_widgets.lens import ClassLens, FittedLens
    from classspace_widgets.lens.fitted import PointLens
    from classspace_widgets.models import Adapter, AttentionParts
    from classspace_widgets.snapshot.snapshot import Snapshot

    Blocks = int | Sequence[int] | None
    Labels = int | str | Sequence[int | str] | Tensor | None
    Classes = Labels | Sequence[Sequence[int | str]]

__all__ = ["TopK", "Trace", "recording"]


class Space(Protocol):
    """What a trace needs of the `ClassSpace` that it came from: the model, and where it keeps its parts."""

    model: nn.Module
    adapter: Adapter


@dataclass(frozen=True, eq=False)
class Trace:
    """The increments of one batch of images, from which every reading is derived.

    Made by `ClassSpace.trace`, `interventions.trace_with` and `Trace.load`.

    Attributes
    ----------
    increments : tuple of Tensor [B, T, D]
        ``x_0, a_1, m_1, ..., a_L, m_L``: what the embedding, each attention and each MLP adds (parallel blocks:
        ``x_0`` and what each block adds).
    output : Tensor [B, C]
        The model's own logits (with a foreign class embedding: the pooled lens).
    lens : ClassLens
        Every token is read through it; of the two classifiers of a distilled DeiT it is the first.
    prefix : tuple of str
        Names of the prefix tokens; the image tokens follow them row by row.
    grid : tuple of int
        Rows and columns of image tokens.
    pooling, layout : str
        As in `Adapter`.
    class_names : tuple of str
    pictures : ndarray [B, height, width, 3], uint8, or None
        What the model saw, for display.
    photographs : tuple of Photograph or None
        The B pictures as they were given, and which part of each the model saw; empty, or None for a picture, where that is
        not known. They are not written to files.
    attention_weights : dict of int to Tensor [B, H, T, T]
        On request, by block (numbered from 1): rows read, columns are read from; rows sum to 1.
    head_inputs : dict of int to Tensor [B, T, H * D_head]
        On request: the heads' outputs side by side, which is the input of the attention's output projection.
    attention_inputs : dict of int to Tensor [B, T, D]
        With ``head_inputs``: the attention's input, from which values follow.
    mlp_keys : dict of int to Tensor [B, T, M]
        On request: key coefficients of the MLP, which are the input of its output projection.
    kept_tokens : tuple of int or None
        Which tokens were left, where some were removed and the trace was put back on the full sequence.
    space : ClassSpace or None
        The model that was traced; None where the trace was loaded from a file without it.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> trace.n_blocks, trace.n_tokens, trace.grid, len(trace.increments)
    (8, 145, (12, 12), 17)
    >>> trace.ranks("residual", None, "fish", tokens=[0]).flatten().tolist()  # [CLS], from the embedding to block 8
    [1, 8, 5, 1, 1, 0, 0, 0, 0]
    """

    increments: tuple[Tensor, ...]
    output: Tensor
    lens: ClassLens
    prefix: tuple[str, ...]
    grid: tuple[int, int]
    pooling: str
    layout: str
    class_names: tuple[str, ...]
    pictures: np.ndarray[Any, Any] | None = None
    image_names: tuple[str, ...] = ()
    photographs: tuple[Photograph | None, ...] = ()
    model_name: str = ""
    heads: int = 1
    attention_weights: dict[int, Tensor] = field(default_factory=dict)
    head_inputs: dict[int, Tensor] = field(default_factory=dict)
    attention_inputs: dict[int, Tensor] = field(default_factory=dict)
    mlp_keys: dict[int, Tensor] = field(default_factory=dict)
    pool_prefix: bool = False
    second_lens: ClassLens | None = None
    kept_tokens: tuple[int, ...] | None = None
    space: Space | None = None

    def __repr__(self) -> str:
        return trace_text(self)

    def _repr_html_(self) -> str:
        return trace_html(self)

    @property
    def n_images(self) -> int:
        """Number of images B."""
        return self.increments[0].shape[0]

    @cached_property
    def points(self) -> Points:
        """The numbering of stream points and increments."""
        return Points.of_increments(len(self.increments), self.layout)

    @property
    def n_blocks(self) -> int:
        """Number of blocks L."""
        return self.points.n_blocks

    @property
    def n_tokens(self) -> int:
        """Number of tokens T, prefix tokens included."""
        return self.increments[0].shape[1]

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return self.lens.offset.shape[0]

    def image(self, number: int) -> Trace:
        """The trace of one picture of the batch: views of the same tensors, with B = 1.

        Parameters
        ----------
        number : int
            0..B-1.

        Returns
        -------
        Trace

        Raises
        ------
        ValueError
            For a picture that is not in the batch.

        Examples
        --------
        >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(3, 3, 160, 160))
        >>> trace.image(2).logits(classes=[7]).shape  # B, T, K
        torch.Size([1, 101, 1])
        """
        number = whole_number(number, "image", 0, self.n_images - 1)
        one = slice(number, number + 1)
        by_block: dict[str, Any] = {
            name: {block: kept[one] for block, kept in getattr(self, name).items()} for name in KEPT_BY_BLOCK
        }
        return replace(
            self,
            increments=tuple(increment[one] for increment in self.increments),
            output=self.output[one],
            pictures=None if self.pictures is None else self.pictures[one],
            image_names=self.image_names[one],
            photographs=self.photographs[one],
            **by_block,
        )

    def stream(self, stream: str, block: int) -> Tensor:
        """Vectors ``[B, T, D]`` of a stream at a block.

        Parameters
        ----------
        stream : str
            ``"attention"`` (what attention adds), ``"mid"`` (the residual stream after it), ``"mlp"`` (what the MLP
            adds) or ``"residual"`` (the block's output); ``"block"`` or ``"residual"`` for parallel blocks.
        block : int
            1..L; block 0 has only a residual stream: the embedding ``x_0``.

        Returns
        -------
        Tensor [B, T, D]
            In the dtype of the forward pass.

        Raises
        ------
        ValueError
            For a stream or block that the model does not have.
        """
        return next(self.vectors_at([(block, stream)]))

    def vectors_at(self, points: Iterable[tuple[int, str]], dtype: torch.dtype | None = None) -> Iterator[Tensor]:
        """Vectors ``[B, T, D]`` of several stream points, ``(block, stream)``, each sum taken up where the last one ended.

        Sums share one buffer, so use each before taking the next; ``dtype`` is that of the forward pass, or the one given.
        """
        total, summed = None, -1
        for block, stream in points:
            last = self._increment(stream, block)
            if not self.points.is_sum(stream):
                yield self.increments[last].to(dtype or self.increments[last].dtype)
                continue
            if total is None or last < summed:
                total, summed = self.increments[0].to(dtype or self.increments[0].dtype, copy=True), 0
            for increment in self.increments[summed + 1 : last + 1]:
                total += increment
            summed = last
            yield total

    def logits(
        self,
        stream: str = "residual",
        block: Blocks = -1,
        classes: Classes = None,
        tokens: Sequence[int] | slice | None = None,
        *,
        labels: Labels = None,
        lens: FittedLens | None = None,
    ) -> Tensor:
        """Class logits of a stream: ``lens(v) = E LN(v) + b``, or its scores through a fitted lens.

        Parameters
        ----------
        stream : str
            As in `stream`.
        block : int, sequence of int, or None
            -1: the last block; several (None: all) give a leading axis.
        classes : class, sequence of K, or [B, K], optional
            Only these classes, by index or name: K of all images, or (in two dimensions) K of each image.  By default all
            that the lens reads.
        tokens : sequence of int or slice, optional
            Only these tokens.
        labels : sequence of B classes, optional
            Instead of ``classes``: each image's own class, as the one class ``[B, T, 1]``.
        lens : FittedLens, optional
            Read through this lens instead of the logit lens; NaN where it has no map.

        Returns
        -------
        Tensor [B, T, C], float32
            Or ``[n, B, T, C]`` for several blocks; T and C as chosen.

        Raises
        ------
        TypeError, ValueError
            For a stream, block, class or token that the model does not have, or a lens of another model.

        Examples
        --------
        >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(1, 3, 160, 160))
        >>> trace.logits("residual", 2, classes=["hen", 3]).shape  # B, T, K
        torch.Size([1, 101, 2])
        >>> trace.logits("mlp", [1, 2], tokens=[0]).shape  # blocks, B, T, C
        torch.Size([2, 1, 1, 1000])
        >>> trace.logits(labels=["hen"]).shape  # each image's own class
        torch.Size([1, 101, 1])
        """
        wanted = self._wanted(classes, labels)
        if wanted is None or wanted.ndim == 1:
            return read_at(self, stream, block, tokens, lambda vectors, here: here.logits(vectors, wanted), lens)

        def own(vectors: Tensor, here: ClassLens | PointLens) -> Tensor:
            return torch.stack([here.logits(one, row) for one, row in zip(vectors, wanted, strict=True)])

        return read_at(self, stream, block, tokens, own, lens)

    def ranks(
        self,
        stream: str = "residual",
        block: Blocks = -1,
        classes: Classes = None,
        tokens: Sequence[int] | slice | None = None,
        *,
        labels: Labels = None,
        lens: FittedLens | None = None,
    ) -> Tensor:
        """Class ranks, int64: the number of classes with a strictly larger logit; 0 is best, ties share the better one.

        Parameters and shapes as in `logits`; -1 at tokens that were removed.  One image at a time is held at full width,
        so memory stays flat.

        Parameters
        ----------
        stream, block, classes, tokens, labels, lens
            As in `logits`; a fitted lens must read all classes.

        Returns
        -------
        Tensor [B, T, C], int64
            0..C-1; or ``[n, B, T, C]`` for several blocks; T and C as chosen.

        Examples
        --------
        >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(1, 3, 160, 160))
        >>> trace.ranks("residual", 2, classes=[7], tokens=[0]).shape
        torch.Size([1, 1, 1])
        """
        wanted = self._wanted(classes, labels)
        rows = wanted if wanted is not None and wanted.ndim == 2 else [wanted] * self.n_images

        def rank(vectors: Tensor, here: ClassLens | PointLens) -> Tensor:
            found = (class_ranks(here.logits(one), row) for one, row in zip(vectors, rows, strict=True))
            return torch.stack(list(found))

        if lens is not None:
            lens.require_complete("ranks")
        return read_at(self, stream, block, tokens, rank, lens)

    def top_k(
        self,
        k: int = 5,
        stream: str = "residual",
        block: Blocks = -1,
        tokens: Sequence[int] | slice | None = None,
        *,
        lens: FittedLens | None = None,
    ) -> TopK:
        """The ``k`` classes with the largest logits: ``(logits, classes)``, each ``[B, T, k]``, best first, and names.

        Parameters
        ----------
        k : int
        stream, block, tokens, lens
            As in `logits`; a fitted lens must read all classes.

        Returns
        -------
        TopK
            A pair of Tensor [B, T, k], float32 (logits) and Tensor [B, T, k], int64 (class indices), with ``names``.

        Examples
        --------
        >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(1, 3, 160, 160))
        >>> logits, classes = trace.top_k(3, "attention", 1)
        >>> classes.shape
        torch.Size([1, 101, 3])
        >>> trace.top_k(3, "attention", 1).names.shape
        (1, 101, 3)
        """
        k = whole_number(k, "k", 1, self.n_classes)
        classes: list[Tensor] = []

        def top(vectors: Tensor, here: ClassLens | PointLens) -> Tensor:
            found = [here.logits(one).topk(k, dim=-1) for one in vectors]
            classes.append(torch.stack([f.indices for f in found]))
            return torch.stack([f.values for f in found])

        if lens is not None:
            lens.require_complete("top classes")
        logits = read_at(self, stream, block, tokens, top, lens)
        return TopK(logits, torch.stack(classes) if logits.ndim == 4 else classes[0]).named(self.class_names)

    def predictions(self, k: int = 5) -> pd.DataFrame:
        """The model's answers as a table: the ``k`` best classes of every picture by name, with their probabilities.

        Parameters
        ----------
        k : int
            1..C.

        Returns
        -------
        DataFrame
            A row for each answer, best first, with the columns ``image`` (0..B-1), ``name`` (the picture's file name,
            where it has one), ``rank`` (0 is best; ties share the better one), ``class_index``, ``class_name``,
            ``logit`` and ``probability`` (softmax over all C classes, 0 to 1).

        Examples
        --------
        >>> from classspace_widgets.scenes import gallery
        >>> trace = ClassSpace.bundled().trace([scene.picture for scene in gallery()[:2]])
        >>> trace.predictions(k=1)[["image", "class_name"]].values.tolist()
        [[0, 'fish'], [1, 'rocket']]
        """
        from classspace_widgets.trace.reading import answers_table

        return answers_table(self, k)

    def answers(self, k: int = 1) -> tuple[Tensor, Tensor]:
        """The ``k`` best classes of every picture: probabilities ``[B, k]`` float32, and classes ``[B, k]`` int64."""
        k = whole_number(k, "k", 1, self.n_classes)
        best = self.output.float().softmax(dim=-1).topk(k, dim=-1)
        return best.values, best.indices

    def readout(self, stream: str = "residual", block: int = -1, *, lens: FittedLens | None = None) -> Tensor:
        """The class logits ``[B, C]`` that the model would give if this stream were its last residual stream.

        For the residual stream of the last block this is the model's own output: the lens of the first token, of the
        mean image token, or the mean of the image tokens' lenses, as the model pools.

        Parameters
        ----------
        stream, block
            As in `stream`; -1 is the last block.
        lens : FittedLens, optional
            Read the pooled vector through this lens instead; NaN where it has no map.

        Returns
        -------
        Tensor [B, C], float32

        Raises
        ------
        LensMismatchError
            For a lens of another model.
        """
        block = self.n_blocks if block == -1 else block
        return read_answer(self, self.stream(stream, block), Point(block, stream), lens)

    def attention_parts(self, block: int) -> AttentionParts:
        """The attention of a block taken apart; needs the model behind the trace."""
        block = whole_number(block, "block", 1, self.n_blocks)
        return attention_parts(self.require_space().adapter.blocks[block - 1])

    def require_space(self) -> Space:
        """The model that was traced; `RuntimeError` where the trace was loaded from a file without it."""
        if self.space is None:
            raise RuntimeError(
                "this trace has no model behind it (it was loaded from a file): "
                "load it with Trace.load(path, space=space), or trace the image again"
            )
        return self.space

    def values(self, block: int) -> Tensor:
        """Values ``[B, H, T, D_head]`` of a block: ``attention_weights @ values`` are the heads' outputs."""
        parts = self.attention_parts(block)
        parts.require_values()
        if block not in self.attention_inputs:
            raise ValueError(f"values of block {block} were not kept; trace with heads=True (or heads=[{block}])")
        with torch.no_grad():
            values = parts.values(self.attention_inputs[block])
            if self.kept_tokens is not None and values.shape[2] < self.n_tokens:
                full = values.new_zeros(*values.shape[:2], self.n_tokens, values.shape[3])
                full[:, :, list(self.kept_tokens)] = values
                return full
            return values

    def key_coefficients(self, block: int, sublayer: str = "mlp") -> Tensor:
        """Key coefficients ``[B, T, M]``: how far every value vector of a sublayer is added.

        Needs a trace with ``keys=True`` (MLP) or ``heads=True`` (attention).
        """
        if sublayer not in SUBLAYERS:
            raise ValueError(f"sublayer must be one of {SUBLAYERS}, got {sublayer!r}")
        block = whole_number(block, "block", 1, self.n_blocks)
        kept = self.mlp_keys if sublayer == "mlp" else self.head_inputs
        if block not in kept:
            option = "keys" if sublayer == "mlp" else "heads"
            raise ValueError(
                f"key coefficients of the {sublayer} of block {block} were not kept; "
                f"trace with {option}=True (or {option}=[{block}])"
            )
        return kept[block]

    def out_projection(self, block: int) -> tuple[Tensor, Tensor]:
        """Weight ``[D, H * D_head]`` and bias ``[D]`` that take ``head_inputs`` to what attention adds, exactly.

        LayerScale is folded in: ``head_inputs[l] @ weight.T + bias == stream("attention", l)``.
        """
        return self.attention_parts(block).out_projection()

    def snapshot(self, **options: Any) -> Snapshot:
        """The compact arrays that views need, with a live line to this trace; options as in `capture.capture`.

        Parameters
        ----------
        **options
            ``image``, ``classes``, ``payload``, ``mask``, ``objects``, ``label``, ``title``, ``lenses``, ``flow``; and ``bank``, a
            `StateBank`: live views can then show the patches of other pictures that are in the same state as a token.

        Returns
        -------
        Snapshot
        """
        from classspace_widgets.capture import capture
        from classspace_widgets.capture.live import LiveSource

        bank = options.pop("bank", None)
        made = capture(self, **options)
        kept: dict[str, Any] = {
            name: options[name] for name in ("classes", "payload", "lenses", "flow") if name in options
        }
        return LiveSource(self.image(options.get("image", 0)), options=kept, bank=bank).shows(made)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the trace to a safetensors file; see `trace.file`.

        Parameters
        ----------
        path : path
            By habit ``.safetensors``.
        """
        from classspace_widgets.trace.file import save_trace

        save_trace(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: str = "cpu", space: Space | None = None) -> Trace:
        """Read a trace that `save` wrote; ``space`` gives it its model back.

        Parameters
        ----------
        path : path
        device : str
        space : ClassSpace, optional
            The model that the trace came from, for what needs it (values, output projections, live views).

        Returns
        -------
        Trace

        Raises
        ------
        FileNotFoundError, ValueError
            For a file that is not there, is damaged, is not a trace, or is of a newer version.
        """
        from classspace_widgets.trace.file import load_trace

        return load_trace(path, device=device, space=space)

    def class_indices(self, classes: Classes) -> Tensor | None:
        """Class indices ``[K]`` on the trace's device from indices or names; None stays None."""
        return self._indices(chosen_classes(self.class_names, classes))

    def _wanted(self, classes: Classes, labels: Labels) -> Tensor | None:
        """Class indices ``[K]`` for all images or ``[B, K]`` for each; None where none were chosen."""
        return self._indices(chosen_classes(self.class_names, classes, labels=labels, images=self.n_images))

    def _indices(self, found: list[int] | list[list[int]] | None) -> Tensor | None:
        return None if found is None else torch.tensor(found, dtype=torch.long, device=self.output.device)

    def blocks_of(self, block: Blocks, first: int = 1) -> tuple[list[int], bool]:
        """The blocks asked for, -1 being the last and None all from ``first`` on; and whether it is a single one."""
        asked, single = items_of(range(first, self.n_blocks + 1) if block is None else block)
        if not asked:
            raise ValueError("block is empty: choose at least one, or None for all")
        return [self.n_blocks if b == -1 else b for b in asked], single

    def _increment(self, stream: str, block: int) -> int:
        """Number of the last increment of a stream at a block, if the model has it."""
        points = self.points
        if stream not in points.streams and stream in STREAMS:
            raise UnsupportedModelError(
                f"{self.model_name or 'this model'} adds attention and MLP in parallel, so it has no {stream!r} "
                f"stream; use one of {points.streams}"
            )
        return points.increment(stream, block)
