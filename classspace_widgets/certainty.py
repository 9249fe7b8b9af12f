"""How sure a model is of its answer: the margin of its best class, the entropy over all classes, and both in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    Floats = np.ndarray[Any, np.dtype[np.floating[Any]]]
    Doubles = np.ndarray[Any, np.dtype[np.float64]]


class Unsure(TypedDict):
    """Where a model counts as unsure: below this margin, or above this entropy (in nats).

    ``right`` is the share of photographs of its classes that it named rightly when it was as unsure as that.
    """

    margin: float
    entropy: float
    right: float


class AnswerMeta(TypedDict):
    """A model's answer to one picture: margin in 0..1, entropy in nats, and the sentence that views show.

    ``unsure`` is None where nobody has measured from where on this model is wrong more often than right.
    """

    margin: float
    entropy: float
    unsure: bool | None
    text: str


def margin_and_entropy(logits: Floats) -> tuple[Doubles, Doubles]:
    """How far the best class is ahead of the second, and how spread out the probabilities are.

    Parameters
    ----------
    logits : ndarray [..., C]
        Of at least two classes.

    Returns
    -------
    margin : ndarray [...]
        Probability of the best class less that of the second, in 0..1.
    entropy : ndarray [...]
        ``-sum_c p_c ln p_c`` in nats, in 0..ln C: e to this power is the number of equally likely classes that would be as
        spread out.

    Examples
    --------
    >>> margin, entropy = margin_and_entropy(np.log([0.5, 0.25, 0.25]))
    >>> round(float(margin), 3), round(float(np.exp(entropy)), 3)
    (0.25, 2.828)
    """
    logs = np.asarray(logits, np.float64)
    logs = logs - logs.max(-1, keepdims=True)
    logs = logs - np.log(np.exp(logs).sum(-1, keepdims=True))
    shares = np.exp(logs)
    second, best = np.moveaxis(np.sort(shares, -1)[..., -2:], -1, 0)
    return best - second, -np.where(shares > 0, shares * logs, 0).sum(-1)


def answer_meta(logits: Floats, names: Sequence[str], unsure: Unsure | None = None) -> AnswerMeta | None:
    """How sure a model is of its answer to one picture; None where its logits are of one class, or not finite.

    Parameters
    ----------
    logits : ndarray [C]
    names : sequence of str
        Of the C classes.
    unsure : Unsure, optional
        Where this model counts as unsure.

    Examples
    --------
    >>> answer_meta(np.log([0.5, 0.3, 0.2]), ["cat", "dog", "cow"])["text"]
    'cat 50%, 20 points ahead of dog; as unsure as among 2.8 equally likely classes.'
    """
    if len(logits) < 2 or not np.isfinite(logits).all():
        return None
    margin, entropy = (float(value) for value in margin_and_entropy(logits))
    best, second = (names[int(c)] for c in np.argsort(-logits, kind="stable")[:2])
    top = float(1 / np.exp(np.asarray(logits, np.float64) - logits.max()).sum())
    choices = f"{np.exp(entropy):.1f}"
    spread = "" if choices == "1.0" else f"; as unsure as among {choices} equally likely classes"
    text = f"{best} {top:.0%}, {100 * margin:.0f} points ahead of {second}{spread}."
    doubted = None if unsure is None else margin < unsure["margin"] or entropy > unsure["entropy"]
    if unsure and doubted:
        text = (
            f"Unsure: {text} When it was as unsure as this, the model named {unsure['right']:.0%} of photographs of its "
            f"{len(names)} classes rightly; this picture may show none of them."
        )
    return {"margin": round(margin, 4), "entropy": round(entropy, 4), "unsure": doubted, "text": text}
