"""Accuracy and identifiability under attention perturbation and token removal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from classspace_widgets.images import Prepared
from classspace_widgets.lens import count_above
from classspace_widgets.space.space import space_of
from classspace_widgets.studies.contrasts import Cell, Contrast
from classspace_widgets.studies.readings import GROUPS
from classspace_widgets.studies.shares import ShareStudy

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.studies.readings import Readings


class _PassStudy(ShareStudy):
    """Accuracy and identifiability of the residual stream at the end, under conditions that need further passes."""

    needs = frozenset({"pixels"})

    def rows(self, space: ClassSpace) -> list[dict[str, Any]]:
        """Accuracy and last-block identifiability of each condition."""
        return [{"condition": c, "measure": m} for c in self.conditions() for m in ("accuracy", "identifiability")]

    def conditions(self) -> tuple[str, ...]:
        """Names of the conditions, the unchanged model first."""
        raise NotImplementedError

    @staticmethod
    def _space(batch: Readings) -> tuple[ClassSpace, Tensor]:
        if batch.trace.space is None or batch.pixels is None:
            raise ValueError("this study runs further passes: use run_study")
        return space_of(batch.trace), batch.pixels

    @staticmethod
    def _loss(name: str, more: str, less: str, measure: str) -> Contrast:
        tokens = "image" if measure == "identifiability" else GROUPS[0]
        first, second = (Cell({"condition": c, "measure": measure}, tokens) for c in (more, less))
        return Contrast(name, first, second)

    def _row(self, trace: Any, labels: Tensor, member: Tensor) -> tuple[Tensor, Tensor]:
        """Accuracy in the first group, then summed ``C - rank`` of the last block: ``[B, 2, G]`` each."""
        c = trace.n_classes
        hits = (trace.output.argmax(dim=-1) == labels).double()
        with torch.inference_mode():
            logits = trace.lens.logits(_last(trace))
            own = logits.gather(-1, labels.view(-1, 1, 1).expand(*logits.shape[:2], 1))
            rank = count_above(logits, own)[..., 0]
        member = member[:, : logits.shape[1]]
        points = torch.einsum("bt,btg->bg", (c - rank).double(), member)
        over = torch.stack([torch.zeros_like(points), points], dim=1)
        under = torch.stack([torch.zeros_like(points), member.sum(dim=1) * c], dim=1)
        over[:, 0, 0], under[:, 0, 0] = hits, 1
        return over, under

    def tables(self) -> dict[str, pd.DataFrame]:
        """See `Study.tables`; ``tokens`` is ``output`` for accuracy, ``count`` is in pictures or tokens."""
        tables = super().tables()
        for table in tables.values():
            table["tokens"] = np.where(table["measure"] == "accuracy", "output", table["tokens"])
            table["count"] = np.where(table["measure"] == "accuracy", table["count"], table["count"] // self.n_classes)
        return tables


class AttentionPerturbation(_PassStudy):
    """Accuracy and identifiability when image tokens may not read some tokens, in all blocks.

    Parameters
    ----------
    renormalise : bool
        For ``no_cls`` and ``no_others``. False: weights are set to 0 after the softmax, as in the paper; True: masked before
        it, so that rows sum to 1.
    """

    name = "attention_perturbation"
    title = "Attention perturbation"
    quantity = "Accuracy: share of pictures; identifiability: mean 1 - rank/C in the last block; 0 to 1"

    def __init__(self, *, renormalise: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.renormalise = renormalise
        how = "masked before the softmax" if renormalise else "set to 0 after the softmax (as in the paper)"
        self.method = (
            "In every block image tokens may not read some tokens; [CLS] reads all tokens. 'no_cls': image tokens do not read [CLS]; "
            "'self_only': they only read themselves, with weight 1 (both Vilas et al. 2023); 'no_others': they only read "
            f"themselves and [CLS] (not in the paper). For 'no_cls' and 'no_others' weights are {how}."
        )

    def options(self) -> dict[str, Any]:
        """See `Study.options`."""
        return {**super().options(), "renormalise": self.renormalise}

    def conditions(self) -> tuple[str, ...]:
        """See `_PassStudy.conditions`."""
        return ("none", "no_cls", "no_others", "self_only")

    def contrasts(self) -> list[Contrast]:
        """Losses of image tokens and of the answer under a condition, and which of two cuts image tokens lose more by."""
        read, answer = "identifiability", "accuracy"
        return [
            self._loss("image tokens: none against self_only", "none", "self_only", read),
            self._loss("image tokens: no_cls against no_others", "no_cls", "no_others", read),
            self._loss("answer: none against self_only", "none", "self_only", answer),
        ]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """One pass for each condition."""
        from classspace_widgets.interventions import KnockOutAttention, trace_with

        space, pixels = self._space(batch)
        member = batch.membership
        parts = [self._row(batch.trace, batch.labels, member)]
        for kind in self.conditions()[1:]:
            if kind == "no_cls" and space.adapter.prefix[:1] != ("[CLS]",):
                parts.append((torch.zeros_like(parts[0][0]), torch.zeros_like(parts[0][1])))
                continue
            intervention = KnockOutAttention(kind, renormalise=self.renormalise)
            with batch.same_precision():
                trace = trace_with(space, Prepared(pixels), [intervention])
            parts.append(self._row(trace, batch.labels, member))
        return torch.cat([p[0] for p in parts], dim=1), torch.cat([p[1] for p in parts], dim=1)


class TokenRemoval(_PassStudy):
    """Accuracy, and identifiability of the remaining tokens, when class or context tokens are removed."""

    name = "token_removal"
    title = "Token removal"
    quantity = "Accuracy: share of pictures; identifiability: mean 1 - rank/C in the last block; 0 to 1"
    method = (
        "Tokens inside ('class') or outside ('context') the object are removed after the position embedding; [CLS] stays "
        "(Vilas et al. 2023). Only pictures that have both kinds of tokens are counted."
    )

    def conditions(self) -> tuple[str, ...]:
        """See `_PassStudy.conditions`."""
        return ("none", "class removed", "context removed")

    def contrasts(self) -> list[Contrast]:
        """How much more accuracy falls without the object than without its context."""
        name = "answer: context removed against class removed"
        return [self._loss(name, "context removed", "class removed", "accuracy")]

    def count(self, batch: Readings) -> tuple[Tensor, Tensor]:
        """One short pass for each picture and condition, because masks differ between pictures."""
        from classspace_widgets.interventions import RemoveTokens, trace_with

        space, pixels = self._space(batch)
        member, prefix = batch.membership, len(batch.trace.prefix)
        whole, sizes = self._row(batch.trace, batch.labels, member)
        over = whole.new_zeros(len(whole), 6, whole.shape[-1])
        under = torch.zeros_like(over)
        over[:, :2], under[:, :2] = whole, sizes
        masks = None if batch.token_masks is None else batch.token_masks.cpu().numpy()
        usable = np.zeros(len(whole), bool) if masks is None else (masks == 1).any(axis=1) & (masks == 0).any(axis=1)
        for b in np.flatnonzero(~usable):
            over[b], under[b] = 0, 0
        for b in np.flatnonzero(usable):
            assert masks is not None
            for row, value in ((2, 1), (4, 0)):
                removed = np.flatnonzero(masks[b] == value) + prefix
                removal = RemoveTokens(tokens=tuple(removed.tolist()))
                with batch.same_precision():
                    trace = trace_with(space, Prepared(pixels[b : b + 1]), [removal], full_grid=False)
                kept = np.setdiff1d(np.arange(batch.trace.n_tokens), removed)
                part = self._row(trace, batch.labels[b : b + 1], member[b : b + 1, kept])
                over[b, row : row + 2], under[b, row : row + 2] = part[0][0], part[1][0]
        return over, under

    def notes(self) -> tuple[str, ...]:
        """See `Study.notes`."""
        if not self.tally.under_by_unit.any():
            return ("The data set has no object masks, so no token was removed.",)
        return super().notes()


def _last(trace: Any) -> Tensor:
    total: Tensor = next(trace.vectors_at([(trace.n_blocks, "residual")], torch.float32))
    return total
