"""Scores of image tokens from probes and from the lens, as scorers of `studies.ExplanationStudy`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.probing.ridge import RidgeProbes
    from classspace_widgets.studies.readings import Readings


@dataclass(frozen=True)
class ProbeScores:
    """A linear probe's score of the picture's label in every image token, ``[B, P]`` (the paper's comparison).

    Attributes
    ----------
    probes : RidgeProbes
        Fitted for all tokens, or shared by them.
    block : int
    stream : str

    Examples
    --------
    >>> from classspace_widgets.probing import fit_probes
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> from classspace_widgets.studies import ExplanationStudy
    >>> data = ScenesDataset(4, seed=2)
    >>> probes = fit_probes(ClassSpace.bundled(), data, per_position=False, progress=False)
    >>> ExplanationStudy(methods=["gradient"], scorers={"probe": ProbeScores(probes, block=8)}).name
    'explanation'
    """

    probes: RidgeProbes
    block: int
    stream: str = "residual"

    def __call__(self, batch: Readings) -> Tensor:
        """Scores of the image tokens."""
        vectors, prefix = batch.trace.stream(self.stream, self.block), len(batch.trace.prefix)
        shared = self.probes.weights.shape[1] == 1
        if not shared and self.probes.weights.shape[1] != vectors.shape[1]:
            raise ValueError(
                "these probes were fitted for some tokens only; fit them for all, or with per_position=False"
            )
        scores = self.probes.scores(vectors[:, prefix:] if shared else vectors, self.block, self.stream)
        own = scores.gather(2, batch.labels.view(-1, 1, 1).expand(-1, scores.shape[1], 1)).squeeze(2)
        return own if shared else own[:, prefix:]


@dataclass(frozen=True)
class LensScores:
    """The lens's class logit of the picture's label in every image token, ``[B, P]``.

    Attributes
    ----------
    block : int
    stream : str

    Examples
    --------
    >>> from classspace_widgets.studies import ExplanationStudy
    >>> ExplanationStudy(methods=["gradient"], scorers={"lens": LensScores(block=7)}).name
    'explanation'
    """

    block: int
    stream: str = "residual"

    def __call__(self, batch: Readings) -> Tensor:
        """Scores of the image tokens."""
        trace = batch.trace
        vectors = trace.stream(self.stream, self.block)[:, len(trace.prefix) :].to(trace.lens.folded.dtype)
        with torch.inference_mode():
            read = [trace.lens.logits(v, c.view(1))[:, 0] for v, c in zip(vectors, batch.labels, strict=True)]
            return torch.stack(read)
