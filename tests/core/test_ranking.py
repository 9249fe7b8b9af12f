"""Ranks are numbers of strictly larger scores: every way of counting them, against Python's own comparison."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from make_fixtures import synthetic

from classspace_widgets.lens import class_ranks, count_above
from classspace_widgets.lens.ranking import COUNTED_CLASSES, LONG_ROWS, Ranker, found_classes, padded_classes

# Few values, so that ties are common, and what floats have besides numbers.
score = st.sampled_from([-2.0, -1.0, 0.0, 0.5, 1.0, math.inf, -math.inf, math.nan])


def slow(scores: list[float], own: float) -> int:
    return -1 if math.isnan(own) else sum(other > own for other in scores)


@given(st.lists(st.lists(score, min_size=5, max_size=5), min_size=1, max_size=4), st.lists(score, max_size=3))
def test_larger_scores_are_counted(rows, own):
    scores, wanted = torch.tensor(rows), torch.tensor([own] * len(rows)).reshape(len(rows), len(own))
    expected = [[slow(row, one) for one in own] for row in rows]
    assert count_above(scores, wanted).tolist() == expected
    assert count_above(scores.double(), wanted.double()).tolist() == expected


@settings(max_examples=50)
@given(st.integers(1, 3 * COUNTED_CLASSES), st.data())
def test_ranks_of_all_classes_are_counted_or_sorted_alike(count, data):
    scores = data.draw(st.lists(score, min_size=count, max_size=count))
    expected = [slow(scores, one) for one in scores]
    assert class_ranks(torch.tensor(scores)).tolist() == expected
    chosen = data.draw(st.lists(st.integers(0, count - 1), max_size=3 * COUNTED_CLASSES))
    assert class_ranks(torch.tensor(scores), torch.tensor(chosen, dtype=torch.long)).tolist() == [
        expected[c] for c in chosen
    ]


def test_ties_share_the_better_rank():
    assert class_ranks(torch.tensor([2.0, 5.0, 2.0, 1.0])).tolist() == [1, 0, 1, 3]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_long_rows_are_counted_too(dtype):
    """They are counted one by one."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(-50, 50, (2, 3, LONG_ROWS + 5), generator=generator).to(dtype)
    scores[0, 0, 7], scores[1, 2, 9] = torch.nan, torch.inf
    own = scores[..., [7, 9, 11]]
    expected = [
        [[slow(row, one) for one in some] for row, some in zip(a, b, strict=True)]
        for a, b in zip(scores.tolist(), own.tolist(), strict=True)
    ]
    assert count_above(scores, own).tolist() == expected
    assert count_above(scores[..., ::2], own).tolist() == [
        [[slow(row, one) for one in some] for row, some in zip(a, b, strict=True)]
        for a, b in zip(scores[..., ::2].tolist(), own.tolist(), strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_counts_are_exact_in_half_precision(dtype):
    """Sums of ones in bfloat16 end at 256."""
    scores = torch.ones(2, 3000, dtype=dtype)
    assert count_above(scores, torch.tensor([[0.0], [1.0]], dtype=dtype)).tolist() == [[3000], [0]]


def test_scores_that_autograd_follows_are_counted():
    scores = torch.tensor([[1.0, 3.0, 2.0]], requires_grad=True) * 2
    assert count_above(scores, scores[:, 2:]).tolist() == [[1]]


@pytest.mark.parametrize("classes", [20, 300, 1003])
def test_the_kernel_of_the_streaming_readings_counts_the_same(classes):
    """It counts in buffers that are made once, and masks nothing: that is done once for all points."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.full((50, padded_classes(classes)), -1e30)
    scores[:, :classes] = torch.randint(0, 40, (50, classes), generator=generator).float()
    ranker = Ranker(50, classes, 1, dtype=scores.dtype, device=scores.device)
    for c in (0, 7, classes - 1):
        own = scores[:, c : c + 1].clone()
        assert torch.equal(ranker.count_above(scores, own).long(), count_above(scores, own)[:, 0])


@pytest.mark.parametrize(("classes", "k"), [(5, 5), (100, 3), (200, 4), (1000, 5), (21_843, 7)])
def test_a_gpu_s_way_of_ranking_gives_the_same(classes, k):
    """Ones are counted without a buffer, and few numbers are sorted; where scores are equal, any of their places will do."""
    scores = torch.full((20, padded_classes(classes)), -1e30)
    scores[:, :classes] = torch.randint(
        0, 4 * classes, (20, classes), generator=torch.Generator().manual_seed(2)
    ).float()
    ranker = Ranker(20, classes, k, dtype=scores.dtype, device=scores.device)
    counted, best = ranker.count_above(scores, scores[:, 3:4]), ranker.best(scores)
    values = best.values.clone()
    ranker.on_cpu = False
    assert torch.equal(ranker.count_above(scores, scores[:, 3:4]), counted)
    found = ranker.best(scores)
    assert torch.equal(found.values, values)
    assert torch.equal(scores.gather(1, found_classes(found, classes)), values)
    assert torch.equal(values, scores.sort(dim=1, descending=True).values[:, :k])


@pytest.mark.parametrize("mode", ["all", "increments"])
def test_a_snapshot_counts_the_same_without_torch(mode):
    snapshot = synthetic(mode)
    ranks = snapshot.counted_ranks(range(7))
    for tokens, logits in snapshot.scan():
        expected = count_above(torch.from_numpy(logits), torch.from_numpy(logits)).numpy()
        np.testing.assert_array_equal(np.moveaxis(ranks, 0, -1)[:, tokens], expected)
