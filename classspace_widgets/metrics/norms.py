"""The length of tokens: which are so long that the model may use them as scratch paper, who reads them, what they say.

Large vision transformers keep global notes in a few image tokens of dull places, which are then several times as long as the
others (Darcet et al. 2024).  Their place in the picture says nothing about what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.metrics.describe import norms_html
from classspace_widgets.metrics.tables import norms_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from torch import Tensor

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.trace import Trace

THRESHOLD = 3.0
"""How many times the median a token must be long to be an outlier.  In DINOv2 most tokens have lengths below 100, and the
artefacts of Darcet et al. 150 to 500; in the bundled models that answer from [CLS] the longest image token of the gallery has 1.9
medians."""


@dataclass(frozen=True)
class TokenNorms:
    """How long every token is after every block, and what is known of the long ones.

    Made by `token_norms`.

    Attributes
    ----------
    norms : Tensor [L + 1, B, T], float32
        Length of the residual stream, in units of the median of the picture's image tokens after that block.
    medians : Tensor [L + 1, B], float32
        Those medians.
    threshold : float
        An image token is an outlier if its norm is larger.
    received : Tensor [L, B, T], float32, or None
        Share of each block's attention that the token receives, averaged over heads and reading tokens: the shares of a
        picture sum to 1. None where the trace holds no attention.
    classes : dict of str to Tensor [L + 1, B, T], int64
        The class that each token carries, under the lens of this kind; -1 where the lens has no map.
    prefix : int
        Number of prefix tokens.
    grid : tuple of int
        Rows and columns of image tokens.
    class_names : tuple of str
    """

    __repr__ = short_repr
    _repr_html_ = norms_html

    norms: Tensor
    medians: Tensor
    threshold: float
    received: Tensor | None
    classes: dict[str, Tensor]
    prefix: int
    grid: tuple[int, int]
    class_names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def outliers(self) -> Tensor:
        """Image tokens that are longer than the threshold, ``[L + 1, B, T]`` bool."""
        found = self.norms > self.threshold
        found[..., : self.prefix] = False
        return found

    def longer_than(self, factor: float, *, block: int | None = None, image: int = 0) -> tuple[int, ...]:
        """Image tokens longer than ``factor`` medians after a block, or after any (None).

        Examples
        --------
        >>> from classspace_widgets.scenes import gallery
        >>> found = token_norms(ClassSpace.bundled().trace(gallery()[0].picture))
        >>> found.longer_than(3.0)
        ()
        """
        chosen = self.norms[:, image] if block is None else self.norms[block, image].unsqueeze(0)
        above = (chosen > factor).any(dim=0)
        return tuple(t for t in above.nonzero()[:, 0].tolist() if t >= self.prefix)

    def text(self) -> str:
        """Whether there are outliers, in a sentence."""
        found = self.outliers
        longest = self.norms[..., self.prefix :].nan_to_num(0.0).amax()
        if not bool(found.any()):
            return (
                f"No image token is longer than {self.threshold:g} times the median of its block; the longest is "
                f"{longest.item():.2f} times as long."
            )
        blocks = found.any(dim=(1, 2)).nonzero()[:, 0].tolist()
        per_picture = found.any(dim=0).sum(dim=1).float().mean()
        return (
            f"{per_picture.item():.1f} image tokens a picture are longer than {self.threshold:g} times the median of their block, "
            f"after block {blocks[0]} at first; the longest is {longest.item():.1f} times as long."
        )

    def table(self) -> pd.DataFrame:
        """One row for each outlier of each block, the longest first.

        Returns
        -------
        DataFrame
            ``image``, ``block``, ``token``, ``row``, ``column``, ``norm`` (in medians), ``received`` (NaN without attention; of
            the block that follows, which reads it), and ``class (logit)`` with the like of other lenses. Empty where there is
            none.
        """
        return norms_table(self)


def token_norms(trace: Trace, *, threshold: float = THRESHOLD, lenses: Sequence[FittedLens] = ()) -> TokenNorms:
    """Length, attention received and carried class of every token after every block.

    Parameters
    ----------
    trace : Trace
        With ``attention=True`` for the attention that tokens receive.
    threshold : float
        How many medians long an outlier is, above 0.
    lenses : sequence of FittedLens
        Read the classes through these, too; the logit lens is always read.

    Returns
    -------
    TokenNorms

    Raises
    ------
    ValueError
        For a threshold that is not above 0, or a lens of another model.

    Notes
    -----
    Darcet et al. 2024, "Vision transformers need registers".

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture, attention=True)
    >>> found = token_norms(trace)
    >>> found.norms.shape, found.received.shape, len(found.table())  # blocks, B, T
    (torch.Size([9, 1, 145]), torch.Size([8, 1, 145]), 0)
    """
    if not threshold > 0:
        raise ValueError(f"threshold must be above 0 (in medians of the block), got {threshold}")
    prefix = len(trace.prefix)
    with torch.no_grad():
        streams = trace.vectors_at(((b, "residual") for b in range(trace.n_blocks + 1)), torch.float32)
        lengths = torch.stack([stream.norm(dim=-1) for stream in streams])
        medians = lengths[..., prefix:].nanmedian(dim=-1).values
        received = attention_received(trace)
        classes = {"logit": trace.top_k(1, "residual", None).classes[..., 0]}
        for lens in lenses:
            scores, best = trace.top_k(1, "residual", None, lens=lens)
            classes[lens.kind] = best[..., 0].masked_fill(scores[..., 0].isnan(), -1)
    units = lengths / medians.clamp_min(1e-12).unsqueeze(-1)
    about = (prefix, trace.grid, tuple(trace.class_names))
    return TokenNorms(units, medians, float(threshold), received, classes, *about)


def attention_received(trace: Trace) -> Tensor | None:
    """Share of each block's attention that every token receives, ``[L, B, T]``; None where the trace does not hold all of it.

    Removed tokens read nothing.
    """
    weights = [trace.attention_weights.get(block) for block in trace.points.blocks]
    whole = [w for w in weights if w is not None and w.shape[1] == trace.heads]
    if len(whole) < len(weights):
        return None
    totals = torch.stack([w.float().sum(dim=(1, 2)) for w in whole])
    return totals / totals.sum(dim=-1, keepdim=True)
