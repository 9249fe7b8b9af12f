"""Class identifiability in every token, class similarity change, and residual composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from classspace_widgets.lens import count_above
from classspace_widgets.lookup import at_least, own_classes
from classspace_widgets.points import SUBLAYERS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from classspace_widgets.lens import FittedLens
    from classspace_widgets.trace import Trace

    Labels = int | str | Sequence[int | str] | Tensor


def identifiability(ranks: Tensor, n_classes: int) -> Tensor:
    """Class identifiability ``1 - rank / C``, in [1/C, 1]: 1 if the class ranks first.

    NaN where the rank is -1, at removed tokens.

    Parameters
    ----------
    ranks : Tensor
        Class ranks, 0 is best.
    n_classes : int
        C.

    Returns
    -------
    Tensor
        Of the same shape, float32.

    Examples
    --------
    >>> identifiability(torch.tensor([0, 9]), 10)
    tensor([1.0000, 0.1000])
    """
    # Not 1 - ranks / n_classes, which rounds to less than 1 / C for the last rank of 1003 classes.
    return ((n_classes - ranks) / n_classes).masked_fill(ranks < 0, torch.nan)


def chance_identifiability(n_classes: int) -> float:
    """Mean class identifiability at chance: ``(C + 1) / (2 C)``.

    If all ranks 0..C-1 are equally likely, the mean rank is ``(C - 1) / 2``. Chance is 0.6 for 5 classes and approaches 0.5
    for many classes. Ties share the better rank, so with many equal logits the mean is higher.

    Parameters
    ----------
    n_classes : int
        C, at least 1.

    Returns
    -------
    float
        In (0.5, 1].

    Examples
    --------
    >>> chance_identifiability(5), chance_identifiability(1000)
    (0.6, 0.5005)
    """
    count = at_least(n_classes, "n_classes", 1)
    return (count + 1) / (2 * count)


def class_identifiability(
    trace: Trace,
    labels: Labels,
    *,
    stream: str = "residual",
    blocks: Sequence[int] | None = None,
    lens: FittedLens | None = None,
) -> Tensor:
    """Identifiability of each image's class in every token, over blocks (the paper's first measurement).

    Parameters
    ----------
    trace : Trace
    labels : class, or B classes
        By index or name.
    stream : str
        As in `Trace.stream`.
    blocks : sequence of int, optional
        By default all, from the embedding (0) for the residual stream.
    lens : FittedLens, optional
        Read through this lens, of all classes, instead of the logit lens.

    Returns
    -------
    Tensor [n, B, T], float32
        In [1/C, 1], NaN at removed tokens and where a lens has no map; average over images and tokens for its evolution over blocks.

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> trace = ClassSpace.from_timm("test_vit", pretrained=False).trace(torch.zeros(2, 3, 160, 160))
    >>> class_identifiability(trace, ["goldfish", "hen"]).shape  # blocks 0..6
    torch.Size([7, 2, 101])
    """
    wanted = _labels(trace, labels)
    if lens is not None:
        chosen = range(trace.points.first_block(stream), trace.n_blocks + 1) if blocks is None else blocks
        ranks = trace.ranks(stream, list(chosen), labels=wanted[:, 0], lens=lens)
        return identifiability(ranks[..., 0], trace.n_classes)
    return identifiability(
        _over_blocks(trace, stream, blocks, lambda logits: _rank_of(logits, wanted)), trace.n_classes
    )


def class_similarity_change(
    trace: Trace, labels: Labels, *, sublayer: str = "attention", against: str = "block_input"
) -> Tensor:
    """True where the class logit of a sublayer's output exceeds that of the stream that it is compared with.

    The class similarity change rate is the mean of the result over tokens. False at removed tokens.

    Parameters
    ----------
    trace : Trace
    labels : class, or B classes
    sublayer : str
        ``"attention"`` or ``"mlp"``: whose output to read, ``a_l`` or ``m_l``.
    against : str
        The stream that it is compared with. ``"block_input"``: ``x_{l-1}`` for both sublayers, as in the paper's code;
        ``"sublayer_input"``: ``mid_l`` for the MLP. As in `studies.SimilarityChange`.

    Returns
    -------
    Tensor [L, B, T], bool

    Raises
    ------
    ValueError
        For an unknown sublayer or reference, or labels that are neither one nor B.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> trace = ClassSpace.bundled().trace(gallery()[0].picture)
    >>> rises = class_similarity_change(trace, "fish", sublayer="mlp")
    >>> rises.shape, rises.float().mean(dim=(1, 2)).shape  # the rate of every block
    (torch.Size([8, 1, 145]), torch.Size([8]))
    """
    if sublayer not in SUBLAYERS:
        raise ValueError(f"sublayer must be one of {SUBLAYERS}, got {sublayer!r}")
    if against not in ("block_input", "sublayer_input"):
        raise ValueError(f"against must be 'block_input' or 'sublayer_input', got {against!r}")
    wanted = _labels(trace, labels)
    blocks = trace.points.blocks
    added = _over_blocks(trace, sublayer, blocks, None, wanted)
    if against == "sublayer_input" and sublayer == "mlp":
        return added > _over_blocks(trace, "mid", blocks, None, wanted)
    return added > _over_blocks(trace, "residual", range(trace.n_blocks), None, wanted)


def residual_composition(trace: Trace) -> Tensor:
    """True where the top class of a block's output is new: not that of its input, its attention or its MLP.

    The share of True over tokens is the paper's measure of composition. The authors' code compares with the attention
    twice and never with the MLP; here the output is compared with all three. False at removed tokens.

    Parameters
    ----------
    trace : Trace
        Of a model whose blocks add attention and MLP one after the other.

    Returns
    -------
    Tensor [L, B, T], bool

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> residual_composition(ClassSpace.bundled().trace(gallery()[0].picture)).shape
    torch.Size([8, 1, 145])
    """

    def best(stream: str, blocks: Sequence[int]) -> Tensor:
        return _over_blocks(trace, stream, blocks, lambda logits: logits.argmax(dim=-1))

    blocks = trace.points.blocks
    residual = best("residual", range(trace.n_blocks + 1))
    after, before = residual[1:], residual[:-1]
    return (after != before) & (after != best("attention", blocks)) & (after != best("mlp", blocks))


def _over_blocks(
    trace: Trace,
    stream: str,
    blocks: Sequence[int] | None,
    reading: Callable[[Tensor], Tensor] | None,
    classes: Tensor | None = None,
) -> Tensor:
    """A reading of ``[B, T, C]`` logits at several blocks, ``[n, B, T]``; or the logit of each image's own class."""
    if blocks is None:
        blocks = range(trace.points.first_block(stream), trace.n_blocks + 1)
    out = []
    with torch.no_grad():
        for vectors in trace.vectors_at((block, stream) for block in blocks):
            exact = vectors.to(trace.lens.dtype)
            if reading is not None:
                out.append(reading(trace.lens.logits(exact)))
            elif classes is not None:
                own = [trace.lens.logits(v, c)[:, 0] for v, c in zip(exact, classes, strict=True)]
                out.append(torch.stack(own))
    return torch.stack(out)


def _rank_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Ranks ``[B, T]`` of each image's class in ``[B, T, C]``."""
    own = torch.stack([one[:, label] for one, label in zip(logits, labels, strict=True)])
    return count_above(logits, own)[..., 0]


def _labels(trace: Trace, labels: Labels) -> Tensor:
    """Class indices ``[B, 1]``, one for each image."""
    if labels is None:
        raise TypeError(f"labels must be one class or B={trace.n_images} of them, by index or name, got None")
    found = own_classes(trace.class_names, labels, trace.n_images)
    return torch.tensor(found, dtype=torch.long, device=trace.output.device).unsqueeze(1)
