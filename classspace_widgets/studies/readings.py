"""The input of a study for one batch: trace, labels and masks, with shared readings that are computed once on demand."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.data.sets import ONE_HOT
from classspace_widgets.lens.readout import pools
from classspace_widgets.models.device import to_device
from classspace_widgets.studies.hidden import HiddenReadings, read_hidden

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.trace import Trace

GROUPS = ("[CLS]", "image", "class", "context", "pooled")
OUTCOMES = ("correct", "misclassified")


@dataclass
class Readings:
    """A batch in the form that studies count.

    Made by `run_study`, and by `Study.update` from a trace.

    Attributes
    ----------
    trace : Trace
        B pictures in one pass.
    labels : Tensor [B], int64
        The class that each picture is read for.
    token_masks : Tensor [B, P], int8, or None
        1 inside the object, 0 context, -1 neither; -1 throughout where a picture has no mask.
    indices : ndarray [B], int64
        Positions in the data set. They seed everything random, so that results do not depend on batches or shards. If
        empty, a study numbers pictures in the order of updates.
    pixels : Tensor [B, 3, height, width] or None
        For studies that run further passes.
    active : dict of (block, sublayer) to Tensor [B, T, k], int64
        The most active memories of every token, if a study needs them; sublayer is ``"attention"`` or ``"mlp"``.
    mid : bool
        Whether the hidden readings contain the residual stream between attention and MLP.
    autocast : torch.dtype or None
        Autocast of the pass, for further passes that are compared with it.
    lens : FittedLens or None
        Read the hidden readings through this lens instead of the logit lens.
    checked : bool
        Whether labels and masks have been checked picture by picture; checking tensors again may wait for the device.
    """

    trace: Trace
    labels: Tensor
    token_masks: Tensor | None = None
    indices: np.ndarray[Any, np.dtype[np.int64]] = field(default_factory=lambda: np.zeros(0, np.int64))
    pixels: Tensor | None = None
    active: dict[tuple[int, str], Tensor] = field(default_factory=dict)
    mid: bool = False
    autocast: torch.dtype | None = None
    lens: FittedLens | None = None
    checked: bool = False

    def __post_init__(self) -> None:
        """Check shapes, and labels against the model's classes."""
        count = self.trace.output.shape[0]
        self.labels = to_device(torch.as_tensor(self.labels), self.trace.output.device)
        if self.labels.shape != (count,):
            raise ValueError(
                f"labels must have shape [B]=({count},), got {tuple(self.labels.shape)}"
                + _labels_hint(tuple(self.labels.shape))
            )
        if not self.checked:
            check_labels(self.labels.cpu().numpy(), self.trace.n_classes)
        self.labels = self.labels.long()
        self.indices = np.asarray(self.indices, dtype=np.int64)
        if self.indices.shape not in ((0,), (count,)) or (self.indices < 0).any():
            raise ValueError(
                f"indices must be the pictures' positions in the data, shape [B]=({count},) and at least 0, "
                f"got {self.indices.tolist()[:8]}"
            )
        if self.token_masks is not None:
            patches = self.trace.n_tokens - len(self.trace.prefix)
            if tuple(self.token_masks.shape) != (count, patches):
                raise ValueError(
                    f"token masks must have shape [B, P]=({count}, {patches}), got {tuple(self.token_masks.shape)}; "
                    "reduce picture masks to the patch grid with classspace_widgets.data.token_mask"
                )
            if not self.checked and not bool(_is_token_mask(self.token_masks)):
                raise ValueError(
                    "token masks must contain only 1 (object), 0 (context) and -1 (neither), got "
                    f"{sorted(set(self.token_masks.flatten().tolist()))[:6]}; for object numbers pass (masks == number).int()"
                )
            self.token_masks = to_device(self.token_masks, self.labels.device)

    def with_indices(self, indices: np.ndarray[Any, np.dtype[np.int64]]) -> Readings:
        """The same readings with other positions in the data, without computing anything again."""
        placed = copy.copy(self)
        placed.indices = indices
        return placed

    def same_precision(self) -> Any:
        """A context for further passes with the same autocast as this one."""
        return under_autocast(self.labels.device, self.autocast)

    @property
    def n_classes(self) -> int:
        """Number of classes C."""
        return self.trace.n_classes

    @cached_property
    def hidden(self) -> HiddenReadings:
        """Label logits, label ranks and top classes of all stream points."""
        return read_hidden(self.trace, self.labels, mid=self.mid, lens=self.lens)

    @cached_property
    def outcome(self) -> Tensor:
        """``[B]`` int64: 0 where the model's answer is correct, 1 where it is not."""
        return (self.trace.output.argmax(dim=-1) != self.labels).long()

    @cached_property
    def overflowed(self) -> Tensor:
        """``[B]`` bool: whether the pass gave NaN or infinity; no logit is larger than NaN, so NaN would count as the best rank."""
        with torch.inference_mode():
            last = self.trace.stream("residual", self.trace.n_blocks)
            return ~(torch.isfinite(last).flatten(1).all(dim=1) & torch.isfinite(self.trace.output).all(dim=1))

    @cached_property
    def membership(self) -> Tensor:
        """``[B, T', G]`` float64: 1 for tokens that belong to a group of `GROUPS`."""
        count, prefix, tokens = len(self.labels), len(self.trace.prefix), self.trace.n_tokens
        pooled = pools(self.trace.pooling)
        member = torch.zeros(count, tokens + int(pooled), len(GROUPS), dtype=torch.float64, device=self.labels.device)
        if self.trace.prefix[:1] == ("[CLS]",):  # the first token may be a register instead
            member[:, 0, 0] = 1
        member[:, prefix:tokens, 1] = 1
        if self.token_masks is not None:
            member[:, prefix:tokens, 2] = (self.token_masks == 1).double()
            member[:, prefix:tokens, 3] = (self.token_masks == 0).double()
        if pooled:
            member[:, tokens, 4] = 1
        return member

    def group_sums(self, values: Tensor) -> Tensor:
        """Sum per picture over every token group: ``[B, S, T'] -> [B, S, G]`` float64 (exact for integers).

        For values without the pooled token, ``[B, S, T]``, that group's sum is 0.
        """
        return torch.bmm(values.double(), self.membership[:, : values.shape[-1]])

    def group_sizes(self, *, pooled: bool = True) -> Tensor:
        """Tokens per picture in every group, ``[B, G]``; with ``pooled=False`` the pooled group is 0."""
        member = self.membership if pooled else self.membership[:, : self.trace.n_tokens]
        return member.sum(dim=1)


def _is_token_mask(masks: Tensor) -> Tensor:
    return ((masks == 1) | (masks == 0) | (masks == -1)).all()


def _labels_hint(shape: tuple[int, ...]) -> str:
    if len(shape) != 2:
        return ""
    return "; try labels.squeeze(1)" if shape[1] == 1 else "; " + ONE_HOT.format("labels", "(dim=1)")


def under_autocast(device: torch.device, dtype: torch.dtype | None) -> Any:
    """Autocast to ``dtype``; None for no autocast."""
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def check_labels(labels: np.ndarray[Any, Any], n_classes: int) -> None:
    """Raise if labels are not class numbers of the model."""
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers (class numbers), got dtype {labels.dtype}")
    bad = labels[(labels < 0) | (labels >= n_classes)]
    if len(bad):
        raise ValueError(
            f"labels must be in 0..{n_classes - 1} (the model has {n_classes} classes), got {sorted(set(bad.tolist()))[:5]}; "
            "if the data set numbers its classes differently, give both class names, or class_map={data set class: model class}"
        )
