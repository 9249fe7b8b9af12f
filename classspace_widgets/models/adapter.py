"""What the rest of the package needs to know about a model, read from the model itself and never from its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.images.preprocessing import input_channels
from classspace_widgets.lens.lens import LiveLens
from classspace_widgets.lens.pooled import PooledLens
from classspace_widgets.lens.readout import pools
from classspace_widgets.models.head import classifier_of, final_norm, given_embedding, has_pool, linear_head, pooling_of
from classspace_widgets.models.refusals import (
    REMEDY,
    UnsupportedModelError,
    expression,
    refuse_by_form,
    refuse_by_name,
)
from classspace_widgets.models.sublayers import layout_of
from classspace_widgets.points import Points

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


@dataclass(frozen=True)
class Adapter:
    """Where a model keeps what is read.

    Made by `adapt`; a space's own is ``space.adapter``.

    Attributes
    ----------
    model : nn.Module
    blocks : tuple of nn.Module
        The L transformer blocks, in order.
    layout : str
        ``"sequential"`` (attention, then MLP: two increments a block) or ``"parallel"`` (one increment a block).
    prefix : tuple of str
        Names of the prefix tokens ([CLS], registers, distillation).
    grid : tuple of int
        Rows and columns of image tokens at the default input size.
    width, heads : int
        Width D of the residual stream, attention heads H of a block.
    norm : nn.Module or None
        The norm in front of the classifier.
    pooling : str
        How the model's own output comes about: ``"token"`` (lens of the first token), ``"mean_norm"`` (lens of
        the mean image token), ``"norm_mean"`` (mean of the image tokens' lenses), ``"distilled"`` (mean of the lens of
        the first token and the second classifier's lens of the second), ``"pool"`` (a module of the model's own,
        such as attention pooling, makes one vector of all tokens; a token is read as if it were the only one).
    pool_prefix : bool
        Whether the mean runs over the prefix tokens too.
    foreign : tuple of Tensor, or None
        A class embedding ``[C, D]`` and bias (``[C]`` or None) that take the place of the model's classifier.
    """

    __repr__ = short_repr

    model: nn.Module
    blocks: tuple[nn.Module, ...]
    layout: str
    prefix: tuple[str, ...]
    grid: tuple[int, int]
    width: int
    heads: int
    norm: nn.Module | None
    pooling: str
    pool_prefix: bool = False
    foreign: tuple[Tensor, Tensor | None] | None = field(default=None, repr=False)

    @property
    def points(self) -> Points:
        """The numbering of the model's stream points and increments."""
        return Points(len(self.blocks), self.layout)

    @property
    def own_output(self) -> bool:
        """Whether the model's own output is a reading of its tokens; False with a foreign class embedding."""
        return self.foreign is None

    @property
    def classifier(self) -> nn.Linear:
        """The model's linear classifier, as it is now."""
        return classifier_of(self.model)

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Class embedding ``[C, D]`` and bias, ``[C]`` or None, as they are now."""
        return self.foreign or (self.classifier.weight, self.classifier.bias)

    def second_weights(self) -> tuple[Tensor, Tensor | None]:
        """The same of a distilled model's second classifier."""
        second = linear_head(getattr(self.model, "head_dist", None))
        assert second is not None
        return second.weight, second.bias

    @property
    def embedding(self) -> Tensor:
        """The class embedding, ``[C, D]``."""
        return self.weights()[0]

    @property
    def bias(self) -> Tensor | None:
        """Its bias, ``[C]``."""
        return self.weights()[1]

    @property
    def linear(self) -> bool:
        """Whether a token's class logits are a linear reading of it, up to the norm's scale."""
        return self.pooling != "pool"

    def make_lens(self, weights: Callable[[], tuple[Tensor, Tensor | None]] | None = None) -> LiveLens:
        """The lens that tokens are read through, kept up to date; of other ``weights`` than the classifier's, if given."""
        weights = weights or self.weights
        if self.linear:
            return LiveLens(self.norm, weights)
        stages = [getattr(self.model, part, None) for part in ("norm", "attn_pool", "fc_norm")]
        found = [stage for stage in stages if isinstance(stage, torch.nn.Module)]
        return LiveLens(None, weights, pooled=lambda e, b: PooledLens(found, e, b, self.not_linear), parts=found)

    def not_linear(self) -> UnsupportedModelError:
        """The error for what needs a linear head, of a model that has none."""
        return UnsupportedModelError(
            f"{type(self.model).__name__} pools its tokens by {type(self.model.attn_pool).__name__}, which is not linear in "
            "them, and this needs a linear head: direct contributions, heads, sources, importance, memories, views and files of "
            "traces do; logits, ranks, identifiability and its studies, stream readings and interventions do not"
        )

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of image tokens for an input of some size, in pixels."""
        embed: Any = getattr(self.model, "patch_embed", None)
        if hasattr(embed, "dynamic_feat_size"):
            rows, columns = embed.dynamic_feat_size((height, width))
            return int(rows), int(columns)
        return self.grid

    def blank_pixels(self, count: int, grid: tuple[int, int]) -> Tensor:
        """Empty pictures ``[B, 3, height, width]`` with this grid of patches, for passes that overwrite the embedding."""
        embed: Any = self.model.patch_embed
        # From the picture's size: after a convolutional stem the patch size counts features, not pixels.
        size = [side * n // own for side, n, own in zip(embed.img_size, grid, self.grid, strict=True)]
        return self.embedding.new_zeros(count, input_channels(embed), *size)


def adapt(
    model: nn.Module,
    *,
    class_embedding: Tensor | None = None,
    class_bias: Tensor | None = None,
    class_norm: str = "final",
) -> Adapter:
    """Find the parts of a timm ViT.

    Parameters
    ----------
    model : nn.Module
    class_embedding : Tensor [C, D], optional
        Read through this matrix instead of the model's classifier.  Where the model's head is a projection
        ``[D', D]`` (a CLIP tower), an embedding ``[C, D']`` of the joint space is taken through it.
    class_bias : Tensor [C], optional
    class_norm : str
        ``"final"``: the model's final norm comes before the class embedding; ``"none"``: nothing does; ``"pool"``: the
        norm and the module by which the model pools its tokens (SigLIP), for an embedding of pooled features.

    Returns
    -------
    Adapter

    Raises
    ------
    UnsupportedModelError
        Where the class embedding space is not well defined, with the reason and what to do.

    Examples
    --------
    >>> import timm
    >>> adapter = adapt(timm.create_model("test_vit"))
    >>> len(adapter.blocks), adapter.pooling, adapter.grid
    (6, 'token', (10, 10))
    """
    model = unwrapped(model)
    name = type(model).__name__
    refuse_by_name(name)
    refuse_by_form(model)
    blocks = _blocks(model, name)
    width = _width(model, name)
    layout = layout_of(blocks[0], name, width)
    prefix = _prefix(model)
    features = getattr(model.attn_pool, "out_features", width) if class_norm == "pool" and has_pool(model) else width
    foreign = None if class_embedding is None else given_embedding(model, class_embedding, class_bias, features)
    weight = classifier_of(model).weight if foreign is None else foreign[0]
    pooling = pooling_of(model, name, len(prefix), foreign is None, class_norm)
    if weight.shape[1] != width and pooling != "pool":
        raise UnsupportedModelError(
            f"the classifier of {name} reads vectors of width {weight.shape[1]}, its residual stream has {width}; {REMEDY}"
        )
    return Adapter(
        model=model,
        blocks=blocks,
        layout=layout,
        prefix=prefix,
        grid=_grid(model, name),
        width=width,
        heads=_heads(blocks[0]),
        norm=final_norm(model, name) if class_norm == "final" and pooling != "pool" else None,
        pooling=pooling,
        pool_prefix=bool(getattr(model, "pool_include_prefix", pooling == "pool")) and pools(pooling),
        foreign=foreign,
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it is compiled or replicated: hooks belong only to passes of the model.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    nn.Module
        What ``torch.compile``, ``DataParallel`` or ``DistributedDataParallel`` wrap; any other model itself.

    Examples
    --------
    >>> model = torch.nn.Linear(2, 2)
    >>> unwrapped(torch.nn.DataParallel(model)) is model
    True
    """
    while hasattr(model, "_orig_mod") or type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
        model = getattr(model, "_orig_mod", None) or model.module  # type: ignore[assignment]
    return model


def _blocks(model: nn.Module, name: str) -> tuple[nn.Module, ...]:
    blocks: Any = getattr(model, "blocks", None)
    try:
        found = tuple(blocks) if blocks is not None else ()
    except TypeError:
        found = ()
    if not found or not hasattr(model, "patch_embed"):
        inner = [
            n for n, part in model.named_modules() if n and hasattr(part, "patch_embed") and hasattr(part, "blocks")
        ]
        remedy = _inner_remedy(model, inner) if inner else REMEDY
        raise UnsupportedModelError(
            f"{name} is not supported: expected a vision transformer with patch_embed and blocks; {remedy}"
        )
    kinds = {type(block).__name__ for block in found}
    if len(kinds) > 1:
        raise UnsupportedModelError(f"{name} mixes blocks of different kinds ({', '.join(sorted(kinds))}); {REMEDY}")
    _refuse_shared(found, name)
    return found


def _inner_remedy(model: nn.Module, inner: list[str]) -> str:
    """How to name the modules inside another one that would do, in Python."""
    if hasattr(model, "merge_and_unload"):
        return "it holds one beside adapters (LoRA): pass model.merge_and_unload()"
    return (
        f"it holds {'one' if len(inner) == 1 else len(inner)}: pass {' or '.join(expression(model, name) for name in inner[:3])} "
        "(what stands around it is then left out; give mean= and std= where that normalises the pictures)"
    )


def _refuse_shared(blocks: tuple[nn.Module, ...], name: str) -> None:
    """Refuse blocks that share weights: hooks and changes of one block would act in the others too."""
    seen: dict[int, int] = {}
    for number, block in enumerate(blocks, start=1):
        parts = [block, *(part for n in ("attn", "mlp") if (part := getattr(block, n, None)) is not None)]
        inside = {
            id(m) for part in parts for m in part.modules() if next(m.parameters(recurse=False), None) is not None
        }
        for one in inside | {id(block)}:
            if seen.setdefault(one, number) != number:
                raise UnsupportedModelError(
                    f"{name} is not supported: blocks {seen[one]} and {number} share modules, so what belongs to one block "
                    "cannot be told from the other; give each block its own: model.blocks = "
                    "torch.nn.Sequential(*[copy.deepcopy(block) for block in model.blocks])"
                )


def _width(model: nn.Module, name: str) -> int:
    width = getattr(model, "embed_dim", None) or getattr(model, "num_features", None)
    if not isinstance(width, int):
        raise UnsupportedModelError(f"{name} does not have one width (embed_dim is {width!r}); {REMEDY}")
    return width


def _prefix(model: nn.Module) -> tuple[str, ...]:
    count = int(getattr(model, "num_prefix_tokens", 1 if getattr(model, "cls_token", None) is not None else 0))
    names = ["[CLS]"] if getattr(model, "cls_token", None) is not None else []
    if getattr(model, "dist_token", None) is not None:
        names.append("[DIST]")
    registers = count - len(names)
    return tuple(names[:count] + [f"register {i}" for i in range(1, registers + 1)])


def _grid(model: nn.Module, name: str) -> tuple[int, int]:
    grid = getattr(model.patch_embed, "grid_size", None)
    if grid is None:
        raise UnsupportedModelError(f"{name} has no fixed grid of patches (patch_embed.grid_size); {REMEDY}")
    return int(grid[0]), int(grid[1])


def _heads(block: Any) -> int:
    attention = block.attns[0].attn if hasattr(block, "attns") else getattr(block, "attn", block)
    return int(getattr(attention, "num_heads", 1))
