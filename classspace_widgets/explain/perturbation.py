"""Perturbation tests: remove tokens in the order of their importance, and follow the model's answer.

Tokens are removed after the position embedding; prefix tokens are kept (Vilas et al. 2023; Chefer et al. 2021).
Negative: the least important first, so the curve of a good explanation stays high. Positive: the most important
first, so it falls early.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.explain.describe import curves_html
from classspace_widgets.interventions.resume import Resumable
from classspace_widgets.interventions.run import pixels_of
from classspace_widgets.interventions.subsets import run_subsets
from classspace_widgets.lookup import items_of

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace

ORDERS = ("negative", "positive")


@dataclass(frozen=True)
class PerturbationCurves:
    """The model's answer as tokens are removed.

    Made by `perturbation`.

    Attributes
    ----------
    kept : tuple of int [S]
        Numbers of kept image tokens, descending; P is the whole picture.
    correct : dict of str to Tensor [B, S], bool
        By order: True where the label is the predicted class.
    probability : dict of str to Tensor [B, S]
        By order: the label's probability.
    """

    __repr__ = short_repr
    _repr_html_ = curves_html

    kept: tuple[int, ...]
    correct: dict[str, Tensor]
    probability: dict[str, Tensor]

    def area(self, order: str, measure: str = "accuracy") -> Tensor:
        """Area under each image's curve ``[B]``, in [0, 1]: the trapezoid rule over the share of kept tokens.

        The areas in the paper's table are defined differently: see `paper_area`.

        Parameters
        ----------
        order : str
            ``"negative"`` (higher is better) or ``"positive"`` (lower is better).
        measure : str
            ``"accuracy"`` or ``"probability"``.

        Returns
        -------
        Tensor [B], float64
            In [0, 1].
        """
        if order not in self.correct:
            raise ValueError(f"order must be one of {tuple(self.correct)}, got {order!r}")
        if measure not in ("accuracy", "probability"):
            raise ValueError(f"measure must be 'accuracy' or 'probability', got {measure!r}")
        values = self.correct[order].double() if measure == "accuracy" else self.probability[order].double()
        if len(self.kept) == 1:
            return values[:, 0]
        share = torch.tensor(self.kept, dtype=torch.float64, device=values.device)
        return torch.trapezoid(values.flip(1), share.flip(0), dim=1) / (share[0] - share[-1])

    def paper_area(self, order: str, measure: str = "accuracy") -> float:
        """The area as in the paper's code, of the mean curve of all B images; see `paper_area`."""
        self.area(order, measure)  # raises for unknown names
        values = self.correct[order].double() if measure == "accuracy" else self.probability[order].double()
        return float(paper_area(values.mean(dim=0)))


def paper_area(curve: Tensor) -> Tensor:
    """The area as in the paper's code: the sum of a curve, divided by its largest value times the number of its steps.

    It is relative to the best value of the curve: a model that answers only 60 % of the whole pictures correctly can reach
    1. The paper's table has these areas; `PerturbationCurves.area` is not relative.

    Parameters
    ----------
    curve : Tensor [..., S]
        Accuracy or mean probability over a data set, for S numbers of kept tokens.

    Returns
    -------
    Tensor [...]
        In [1/S, 1]; NaN for a curve of zeros.

    Examples
    --------
    >>> paper_area(torch.tensor([0.8, 0.8, 0.4]))
    tensor(0.8333)
    """
    return curve.sum(dim=-1) / (curve.amax(dim=-1) * curve.shape[-1])


def perturbation(
    space: ClassSpace,
    images: Any,
    labels: Sequence[int] | Tensor,
    scores: Tensor,
    *,
    kept: Sequence[int] | None = None,
    orders: Sequence[str] = ORDERS,
    run: Resumable | None = None,
) -> PerturbationCurves:
    """Remove image tokens by score, in both orders, for a batch of pictures.

    Parameters
    ----------
    space : ClassSpace
    images : Any
        As in `ClassSpace.trace`, or a `Trace`.
    labels : sequence of int or str, or Tensor [B]
        The class, by index or name, that accuracy and probability are about.
    scores : Tensor [B, P]
        Importance of the image tokens; ties keep the order of the tokens.
    kept : sequence of int, optional
        Numbers of image tokens to keep; by default all from P to 1.
    orders : sequence of str
        ``"negative"``, ``"positive"`` or both.
    run : Resumable, optional
        The recorded pass over the same images, if there is one.

    Returns
    -------
    PerturbationCurves
    """
    prefix, (rows, columns) = len(space.adapter.prefix), space.adapter.grid
    count = rows * columns
    scores = torch.as_tensor(scores, device=space.device)
    if scores.ndim != 2 or scores.shape[1] != count:
        raise ValueError(f"scores must have shape [B, P] with P={count} image tokens, got {tuple(scores.shape)}")
    if scores.isnan().any():
        raise ValueError("scores must not be NaN: tokens cannot be ordered by them")
    steps = tuple(sorted({int(n) for n in (range(1, count + 1) if kept is None else kept)}, reverse=True))
    if not steps or steps[-1] < 1 or steps[0] > count:
        raise ValueError(f"kept must be numbers of image tokens in 1..{count}, got {kept!r}")
    if not orders or any(order not in ORDERS for order in orders):
        raise ValueError(f"orders must be among {ORDERS}, got {tuple(orders)}")
    given = () if isinstance(labels, str) else tuple(getattr(labels, "shape", (len(labels),)))
    if given != (len(scores),):
        hint = "; for one-hot or soft labels pass labels.argmax(1)" if len(given) == 2 else ""
        raise ValueError(f"labels must have shape [B]=({len(scores)},), got {given}{hint}")
    target = torch.tensor([space.class_index(label) for label in items_of(labels)[0]], device=space.device)
    if run is None:
        with pixels_of(space, images) as pixels:
            run = Resumable.record(space.adapter, pixels)
    if len(run.output) != len(scores):
        raise ValueError(f"scores are for {len(scores)} images, the pass has {len(run.output)}")
    best = scores.argsort(dim=1, descending=True, stable=True)
    logits = _curves(run, best, steps, tuple(orders), prefix, count)
    probability = logits.float().softmax(dim=-1).gather(-1, target.view(1, -1, 1, 1).expand(*logits.shape[:3], 1))
    correct = logits.argmax(dim=-1) == target.view(1, -1, 1)
    return PerturbationCurves(
        steps,
        {order: correct[i] for i, order in enumerate(orders)},
        {order: probability[i, ..., 0] for i, order in enumerate(orders)},
    )


def _curves(
    run: Resumable, best: Tensor, steps: tuple[int, ...], orders: tuple[str, ...], prefix: int, count: int
) -> Tensor:
    """Logits ``[orders, B, S, C]``; those of the whole picture come from the recorded pass."""
    images, subsets, positions = [], [], []
    prefix_tokens = torch.arange(prefix, device=best.device)
    logits = run.output.new_zeros(len(orders), len(best), len(steps), run.output.shape[1]).clone()
    for i, order in enumerate(orders):
        for image, ranked in enumerate(best):
            for s, n in enumerate(steps):
                if n == count:
                    logits[i, image, s] = run.output[image]
                    continue
                kept = ranked[:n] if order == "negative" else ranked[count - n :]
                images.append(image)
                positions.append((i, image, s))
                subsets.append(torch.cat([prefix_tokens, kept.sort().values + prefix]))
    if subsets:
        index = torch.tensor(positions, device=logits.device)
        logits[index[:, 0], index[:, 1], index[:, 2]] = run_subsets(run, images, subsets)
    return logits


def random_scores(indices: Sequence[int] | Any, count: int, *, repeat: int = 0, seed: int = 0) -> Tensor:
    """Random scores ``[B, P]`` that depend only on the seed, the repeat and each picture's position in the data.

    The control of the perturbation test: no explanation should be worse.

    Parameters
    ----------
    indices : sequence of int
        Positions of the B pictures in the data set.
    count : int
        Number of image tokens P.
    repeat : int
        Other numbers draw other orders.
    seed : int

    Returns
    -------
    Tensor [B, P], float32
        In [0, 1).

    Examples
    --------
    >>> one = random_scores([3, 4], 144)
    >>> torch.equal(one[1], random_scores([4], 144)[0])  # does not depend on the batch
    True
    """
    drawn = []
    for index in indices:
        generator = torch.Generator("cpu").manual_seed(
            ((seed * 1_000_003 + repeat) * 1_000_003 + int(index)) % (1 << 62)
        )
        drawn.append(torch.rand(count, generator=generator, device="cpu"))
    return torch.stack(drawn)
