"""The lens as one product over padded classes, its weight laid out once for the product that the machine does best."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import full_precision
from classspace_widgets.lens.ranking import padded_classes

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.lens import ClassLens

PADDING_OFFSET = -1e30
"""Offset of padding classes: below every score, and far from the end of float32 (3e38), so that a scale times it is finite."""

_projections: weakref.WeakKeyDictionary[ClassLens, dict[torch.dtype, Projection]] = weakref.WeakKeyDictionary()


class Projection:
    """Raw readings of rows of vectors over ``C'`` classes: the model's, and padding classes that never win.

    Attributes
    ----------
    weight : Tensor [D, C']
        The folded class embedding, transposed, in the precision of the product.
    offset : Tensor [C']
        The lens's offset, in its own precision.
    """

    def __init__(self, lens: ClassLens, dtype: torch.dtype) -> None:
        count = len(lens.offset)
        size = padded_classes(count)
        dtype = lens.folded.dtype if dtype == torch.float32 else dtype
        self.weight = lens.folded.new_zeros((lens.folded.shape[1], size), dtype=dtype)
        self.weight[:, :count] = lens.folded.T
        self.offset = lens.offset.new_full((size,), PADDING_OFFSET)
        self.offset[:count] = lens.offset
        self._packed = _pack(self.weight)

    @classmethod
    def of(cls, lens: ClassLens, dtype: torch.dtype) -> Projection:
        """The projection of a lens, made once."""
        made = _projections.setdefault(lens, {})
        if dtype not in made:
            made[dtype] = cls(lens, dtype)
        return made[dtype]

    def __call__(self, rows: Tensor) -> Tensor:
        """``[n, D] -> [n, C']`` in the offset's precision."""
        if self._packed is not None:
            return _packed_product(rows, self._packed)
        with full_precision(rows):
            return torch.mm(rows.to(self.weight.dtype), self.weight).to(self.offset.dtype)


def _pack(weight: Tensor) -> Tensor | None:
    """The weight as oneDNN lays it out, about a sixth quicker in a product; nothing where that is not to be had."""
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        operators: Any = torch.ops.mkldnn
        packed: Tensor = operators._reorder_linear_weight(weight.T.contiguous())
        probe = torch.eye(2, len(weight), device="cpu")
        same = torch.allclose(_packed_product(probe, packed), weight[:2], rtol=1e-5, atol=1e-6)
    except (AttributeError, RuntimeError, NotImplementedError, TypeError):
        return None
    return packed if same else None


def _packed_product(rows: Tensor, packed: Tensor) -> Tensor:
    operators: Any = torch.ops.mkldnn
    product: Tensor = operators._linear_pointwise(rows, packed, None, "none", [], "")
    return product
