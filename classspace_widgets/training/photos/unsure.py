"""From which margin and entropy on a model is wrong more often than right, and how well that tells what it does not know."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from classspace_widgets.certainty import margin_and_entropy

WINDOW = 10
"""A tenth of the photographs, those next to each other in certainty, is how many a share of right answers is counted over."""

Logits = NDArray[np.float32]
Labels = NDArray[np.int64]


def half_right(certainty: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """The certainty at which about half of the answers are right: below it fewer are.

    Parameters
    ----------
    certainty : ndarray [N]
        Any value that rises with how sure the model is.
    right : ndarray [N]

    Returns
    -------
    float
        The middle of the last window, of a tenth of the photographs in their order of certainty, of which fewer than half are
        right; minus infinity where there is none.
    """
    order, window = np.argsort(certainty, kind="stable"), max(1, len(right) // WINDOW)
    shares = np.convolve(right[order], np.ones(window) / window, mode="valid")
    wrong = np.flatnonzero(shares < 0.5)
    return float(certainty[order][wrong[-1] + window // 2]) if len(wrong) else -np.inf


def thresholds(logits: Logits, labels: Labels) -> dict[str, float]:
    """Margin and entropy at which half of the answers are right; labels ``[N]``, of pictures of the model's classes alone."""
    margin, entropy = margin_and_entropy(logits)
    right = logits.argmax(1) == labels
    return {"margin": round(half_right(margin, right), 3), "entropy": round(-half_right(-entropy, right), 3)}


def told(found: dict[str, float], logits: Logits, labels: Labels) -> dict[str, Any]:
    """How these thresholds do on other photographs.

    Parameters
    ----------
    found : dict
        From `thresholds`.
    logits : ndarray [N, C]
    labels : ndarray [N]
        -1 for photographs of none of the model's classes.

    Returns
    -------
    dict
        ``own``, ``others``: how many photographs there were; ``own_unsure``, ``others_unsure``: share of them of which the model
        is unsure; ``right``, ``right_otherwise``: share of right answers among its own classes where it is unsure, and where
        it is not.
    """
    margin, entropy = margin_and_entropy(logits)
    unsure = (margin < found["margin"]) | (entropy > found["entropy"])
    own, right = labels >= 0, logits.argmax(1) == labels
    shares = {
        "own_unsure": unsure[own],
        "others_unsure": unsure[~own],
        "right": right[own & unsure],
        "right_otherwise": right[own & ~unsure],
    }
    return {
        "own": int(own.sum()),
        "others": int((~own).sum()),
        **{name: round(float(values.mean()), 4) if len(values) else None for name, values in shares.items()},
    }
