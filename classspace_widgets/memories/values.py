"""Value vectors projected onto classes: the key-value memories of attention and MLP, and pictures that activate them.

A sublayer's output projection ``W_out [D, M]`` adds ``sum_j k_j w_j`` to the residual stream: its input holds the key
coefficients ``k [M]``, its columns are the value vectors ``w_j`` (Vilas et al. 2023; Geva et al. 2021).
M = H * D_head for attention, the hidden width for the MLP.
"""

from __future__ import annotations

import heapq
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lookup import class_index, whole_number
from classspace_widgets.memories.describe import values_html
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.models.attention import is_linear
from classspace_widgets.points import SUBLAYERS
from classspace_widgets.progress import over
from classspace_widgets.space.space import ClassSpace
from classspace_widgets.trace.hooks import evaluating

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from torch import Tensor, nn


__all__ = [
    "ValueVectors",
    "most_activating",
    "output_projection",
    "recording_active",
    "recording_coefficients",
    "value_vectors",
]


def output_projection(space: ClassSpace, block: int, sublayer: str) -> nn.Module:
    """The linear map whose input holds a sublayer's key coefficients; blocks are numbered from 1.

    Parameters
    ----------
    space : ClassSpace
    block : int
        1..L.
    sublayer : str
        ``"attention"`` or ``"mlp"``.

    Returns
    -------
    nn.Linear

    Raises
    ------
    ValueError
        For an unknown sublayer or block.
    UnsupportedModelError
        If the sublayer has no linear output projection.

    Examples
    --------
    >>> output_projection(ClassSpace.bundled(), 8, "attention").in_features
    128
    """
    if not isinstance(space, ClassSpace):
        raise TypeError(
            f"memories belong to a model: pass its ClassSpace (for a trace: trace.space), got {type(space).__name__}"
        )
    blocks = space.adapter.blocks
    if sublayer not in SUBLAYERS:
        raise ValueError(f"sublayer must be one of {SUBLAYERS}, got {sublayer!r}")
    block = whole_number(block, "block", 1, len(blocks))
    part: Any = getattr(blocks[block - 1], "attn" if sublayer == "attention" else "mlp", None)
    linear = getattr(part, "proj" if sublayer == "attention" else "fc2", None)
    if not isinstance(linear, torch.nn.Linear) or not is_linear(linear):
        raise UnsupportedModelError(
            f"block {block} of {type(space.model).__name__} has no output projection for its {sublayer} that is a plain "
            "linear map, so its memories are not defined (merge adapters such as LoRA first)"
        )
    return linear


@dataclass(frozen=True)
class ValueVectors:
    """The value vectors of one sublayer, with their projections onto classes.

    Made by `value_vectors`.

    Attributes
    ----------
    vectors : Tensor [M, D]
        What one unit of each key coefficient adds to the residual stream. LayerScale is included; a norm after the
        projection, which some families have, is not linear and is not included.
    class_embedding : Tensor [C, D]
        The classifier's weight, as in the paper.
    block : int
    sublayer : str
    class_names : tuple of str
    """

    __repr__ = short_repr
    _repr_html_ = values_html

    vectors: Tensor
    class_embedding: Tensor
    block: int
    sublayer: str
    class_names: tuple[str, ...]

    @cached_property
    def scores(self) -> Tensor:
        """Projections ``E w_j``, ``[C, M]``."""
        return self.class_embedding @ self.vectors.T

    @cached_property
    def cosines(self) -> Tensor:
        """``cos(E_c, w_j)``, ``[C, M]``, -1 to 1; 0 for a vector of zeros."""
        unit = torch.nn.functional.normalize
        return unit(self.class_embedding, dim=1) @ unit(self.vectors, dim=1).T

    def agreement(self) -> Tensor:
        """Class-value agreement: for every class the largest cosine with a value vector, ``[C]``."""
        return self.cosines.max(dim=1).values

    def top_values(self, k: int = 5) -> Tensor:
        """For every class its ``k`` value vectors of highest projection, ``[C, k]`` int64, best first."""
        return self.scores.topk(min(k, self.scores.shape[1]), dim=1).indices

    def top_class_ids(self, k: int = 1) -> Tensor:
        """For every value vector its ``k`` classes of highest projection, ``[M, k]`` int64, best first."""
        return self.scores.topk(min(k, self.scores.shape[0]), dim=0).indices.T

    def top_classes(self, k: int = 5, *, values: Sequence[int] | None = None) -> pd.DataFrame:
        """The classes with the highest projection onto each value vector.

        Parameters
        ----------
        k : int
            Classes of each value vector, best first.
        values : sequence of int, optional
            Only these value vectors.

        Returns
        -------
        DataFrame
            Columns ``value``, ``place`` (0 is best), ``class``, ``class_name``, ``score``, ``cosine``.
        """
        import pandas as pd

        k = whole_number(k, "k (of the classes)", 1, self.scores.shape[0])
        everything = range(self.scores.shape[1])
        chosen = torch.as_tensor(list(everything if values is None else values), device="cpu")
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < self.scores.shape[1]:
            raise ValueError(f"values must be in 0..{self.scores.shape[1] - 1}, got {chosen.tolist()[:5]}")
        best = self.top_class_ids(k).cpu()[chosen]
        classes, owner = best.flatten(), chosen.repeat_interleave(k)
        return pd.DataFrame(
            {
                "value": owner.numpy(),
                "place": torch.arange(k, device="cpu").repeat(len(chosen)).numpy(),
                "class": classes.numpy(),
                "class_name": [self.class_names[i] for i in classes.tolist()],
                "score": self.scores.cpu()[classes, owner].numpy(),
                "cosine": self.cosines.cpu()[classes, owner].numpy(),
            }
        )

    def for_class(self, wanted: int | str, k: int = 5) -> pd.DataFrame:
        """The value vectors with the highest projection onto a class (index or name): ``value``, ``score``, ``cosine``, best first."""
        import pandas as pd

        class_id = class_index(self.class_names, wanted)
        best = self.scores[class_id].topk(min(k, self.scores.shape[1]))
        cosine = self.cosines[class_id][best.indices]
        return pd.DataFrame(
            {"value": best.indices.cpu().numpy(), "score": best.values.cpu().numpy(), "cosine": cosine.cpu().numpy()}
        )


def value_vectors(space: ClassSpace, block: int, sublayer: str = "mlp") -> ValueVectors:
    """The value vectors of a block's attention or MLP.

    Parameters
    ----------
    space : ClassSpace
    block : int
        1..L.
    sublayer : str
        ``"attention"`` or ``"mlp"``.

    Returns
    -------
    ValueVectors

    Raises
    ------
    ValueError
        For an unknown sublayer or block.
    UnsupportedModelError
        If the sublayer has no linear output projection, or the model's head is not linear in a token.

    Examples
    --------
    >>> values = value_vectors(ClassSpace.bundled(), 8, "attention")
    >>> values.cosines.shape  # C classes, M value vectors
    torch.Size([24, 128])
    >>> list(values.for_class(0, k=2).columns)
    ['value', 'score', 'cosine']
    """
    linear: Any = output_projection(space, block, sublayer)
    if not space.adapter.linear:
        raise space.adapter.not_linear()
    vectors = linear.weight.detach().float().T
    gamma = _layer_scale(space.adapter.blocks[block - 1], sublayer)
    if gamma is not None:
        vectors = vectors * gamma.detach().float()
    embedding = space.adapter.embedding.detach().float()
    return ValueVectors(vectors.contiguous(), embedding, block, sublayer, space.class_names)


def _layer_scale(block: Any, sublayer: str) -> Tensor | None:
    number = 1 if sublayer == "attention" else 2
    gamma = getattr(getattr(block, f"ls{number}", None), "gamma", None)
    gamma = getattr(block, f"gamma_{number}", None) if gamma is None else gamma
    return gamma if isinstance(gamma, torch.Tensor) and gamma.ndim == 1 else None


@contextmanager
def recording_active(space: ClassSpace, *, k: int = 5) -> Iterator[dict[tuple[int, str], Tensor]]:
    """Record the most active memories of every pass run inside the context.

    Parameters
    ----------
    space : ClassSpace
    k : int
        Number of memories for every token.

    Yields
    ------
    dict of (block, sublayer) to Tensor [B, T, k], int64
        The ``k`` value vectors with the highest key coefficients, best first. The coefficients are not kept,
        so memory stays small.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> with recording_active(space, k=5) as active:
    ...     _ = space.model(torch.zeros(1, 3, 96, 96))
    >>> active[8, "mlp"].shape  # B, T, k
    torch.Size([1, 145, 5])
    """
    active: dict[tuple[int, str], Tensor] = {}
    handles = []

    def hook(key: tuple[int, str]) -> Any:
        def collect(_module: nn.Module, args: tuple[Any, ...]) -> None:
            coefficients = args[0].detach()
            active[key] = coefficients.topk(min(k, coefficients.shape[-1]), dim=-1).indices

        return collect

    try:
        for block in space.points.blocks:
            for sublayer in SUBLAYERS:
                module = output_projection(space, block, sublayer)
                handles.append(module.register_forward_pre_hook(hook((block, sublayer))))
        yield active
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def recording_coefficients(space: ClassSpace, block: int, sublayer: str) -> Iterator[list[Tensor]]:
    """Record one sublayer's key coefficients, a Tensor ``[B, T, M]`` for every pass run inside the context.

    Parameters
    ----------
    space : ClassSpace
    block : int
        1..L.
    sublayer : str
        ``"attention"`` or ``"mlp"``.

    Yields
    ------
    list of Tensor [B, T, M]
        One for every pass, in order.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> with recording_coefficients(space, 8, "attention") as collected:
    ...     _ = space.model(torch.zeros(1, 3, 96, 96))
    >>> collected[0].shape
    torch.Size([1, 145, 128])
    """
    collected: list[Tensor] = []

    def collect(_module: nn.Module, args: tuple[Any, ...]) -> None:
        collected.append(args[0].detach())

    handle = output_projection(space, block, sublayer).register_forward_pre_hook(collect)
    try:
        yield collected
    finally:
        handle.remove()


def most_activating(
    space: ClassSpace,
    dataset: Any,
    block: int,
    sublayer: str,
    values: Sequence[int],
    *,
    k: int = 10,
    batch_size: int = 8,
    by: str = "patch",
    workers: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """The pictures, or patches, that activate value vectors most.

    Parameters
    ----------
    space : ClassSpace
    dataset : Any
        As in `studies.run_study`; labels are returned as they are.
    block, sublayer : int, str
    values : sequence of int
        Indices of value vectors.
    k : int
        Number of rows for each value vector.
    batch_size : int
    by : str
        ``"patch"`` ranks all image tokens; ``"picture"`` ranks pictures by their most active image token.
    workers, progress
        As in `studies.run_study`.

    Returns
    -------
    DataFrame
        Columns ``value``, ``place``, ``picture``, ``label``, ``row``, ``column``, ``coefficient``; best first. Takes one
        pass; memory grows with ``k`` and the value vectors, not with the pictures.

    Raises
    ------
    ValueError
        For an unknown block, sublayer, value vector or ``by``.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> found = most_activating(ClassSpace.bundled(), ScenesDataset(4, seed=2), 8, "mlp", [0], k=3, progress=False)
    >>> list(found.columns)
    ['value', 'place', 'picture', 'label', 'row', 'column', 'coefficient']
    """
    from classspace_widgets.data.prepare import Item, Preparer, prepared_batches
    from classspace_widgets.data.sets import as_dataset
    from classspace_widgets.images.placing import PixelTransform

    if by not in ("patch", "picture"):
        raise ValueError(f"by must be 'patch' or 'picture', got {by!r}")
    width = int(getattr(output_projection(space, block, sublayer), "in_features"))  # noqa: B009
    chosen = [int(v) for v in values]
    if not chosen or not all(0 <= v < width for v in chosen):
        raise ValueError(f"values must be in 0..{width - 1}, at least one, got {chosen[:5]}")
    data = as_dataset(dataset)
    rows, columns = space.adapter.grid
    prefix = len(space.adapter.prefix)
    prepare = Preparer(data, PixelTransform.of(space.preprocessing), (rows, columns), n_classes=1 << 62)
    best: dict[int, list[tuple[float, int, int, int]]] = {v: [] for v in chosen}
    batches = [range(i, min(i + batch_size, len(data))) for i in range(0, len(data), batch_size)]
    for items in over(
        prepared_batches(prepare, batches, workers=workers), len(batches), "memories", "batch", show=progress
    ):
        good = [item for item in items if isinstance(item, Item)]
        if not good:
            continue
        pixels = torch.stack([item.pixels for item in good]).to(space.device, space.dtype)
        with (
            evaluating(space.model),
            torch.inference_mode(),
            recording_coefficients(space, block, sublayer) as collected,
        ):
            space.model(pixels)
        patches = collected[0][:, prefix:, chosen].float()
        per_picture = min(k if by == "patch" else 1, patches.shape[1])
        top = patches.topk(per_picture, dim=1)
        coefficients, tokens = top.values.cpu().numpy(), top.indices.cpu().numpy()
        for b, item in enumerate(good):
            for column, value in enumerate(chosen):
                for n in range(per_picture):
                    # Picture and token are negated, so that of equal coefficients the heap keeps the earliest.
                    entry = (float(coefficients[b, n, column]), -item.index, -int(tokens[b, n, column]), item.label)
                    (heapq.heappush if len(best[value]) < k else heapq.heappushpop)(best[value], entry)
    return _ranked(best, chosen, columns)


def _ranked(best: dict[int, list[tuple[float, int, int, int]]], values: Sequence[int], columns: int) -> pd.DataFrame:
    """The table of `most_activating` from the heap of every value vector."""
    import pandas as pd

    ranked = []
    for value in values:
        for place, (coefficient, picture, token, label) in enumerate(sorted(best[value], reverse=True)):
            row, column = divmod(-token, columns)
            ranked.append((value, place, -picture, label, row, column, coefficient))
    names = ["value", "place", "picture", "label", "row", "column", "coefficient"]
    return pd.DataFrame(ranked, columns=names)
