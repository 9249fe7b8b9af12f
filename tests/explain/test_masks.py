from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from classspace_widgets.explain import mask_scores


def slow(scores, mask):
    """One threshold at a time."""
    scores, mask = scores[mask >= 0], mask[mask >= 0] == 1
    best = 0.0
    for threshold in set(scores.tolist()):
        chosen = scores >= threshold
        best = max(best, (chosen & mask).sum() / (chosen | mask).sum())
    top = scores == scores.max()
    positive = scores.clip(0)
    return {
        "pointing_game": (top & mask).sum() / top.sum(),
        "iou": best,
        "average_precision": average_precision_score(mask, scores),
        "energy": positive[mask].sum() / positive.sum() if positive.sum() > 0 else np.nan,
    }


@settings(max_examples=60)
@given(st.data())
def test_scores_equal_their_slow_versions(data):
    size = data.draw(st.integers(2, 12))
    values = data.draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size))
    mask = np.array(data.draw(st.lists(st.sampled_from([0, 1, -1]), min_size=size, max_size=size)))
    scores = np.array(values, dtype=float)
    found = mask_scores(torch.tensor(scores)[None], torch.tensor(mask)[None])
    if not (mask == 1).any() or not (mask == 0).any():
        assert all(value.isnan().all() for value in found.values())
        return
    for name, expected in slow(scores, mask).items():
        np.testing.assert_allclose(float(found[name][0]), expected, atol=1e-12, equal_nan=True)


def test_a_perfect_and_a_useless_map():
    mask = torch.tensor([[1, 1, 0, 0]])
    perfect = mask_scores(torch.tensor([[2.0, 1.0, 0.0, -1.0]]), mask)
    assert {name: float(value) for name, value in perfect.items()} == dict.fromkeys(perfect, 1.0)
    flat = mask_scores(torch.ones(1, 4), mask)
    assert {name: float(value) for name, value in flat.items()} == dict.fromkeys(flat, 0.5)


def test_bad_shapes():
    with pytest.raises(ValueError, match=r"shape \[B, P\]"):
        mask_scores(torch.zeros(2, 3), torch.zeros(2, 4))
