"""Long tokens over data sets."""

from __future__ import annotations

import pytest
import torch
from study_helpers import Pictures, readings_of
from tiny_models import images_for, tiny_vit

from classspace_widgets import metrics
from classspace_widgets.interventions import AddVector, trace_with
from classspace_widgets.plots import plot_result
from classspace_widgets.studies import Outliers, run_study


def test_planted_tokens_are_counted():
    space = tiny_vit()
    trace = trace_with(space, space.trace(images_for(space)), AddVector(2, 60 * torch.randn(24), tokens=[4, 11]))
    study = Outliers(replicates=0)
    study.update(trace, torch.tensor([1, 2]))
    result = study.result()
    image = result.where(tokens="image", outcome="all")
    shares = image[image["measure"] == "outliers"].set_index("block")["value"]
    assert shares.tolist() == [0, 0, 2 / 16, 2 / 16]
    norms = metrics.token_norms(trace).norms[:, :, 1:].mean(dim=(1, 2))
    assert image[image["measure"] == "length"]["value"].tolist() == pytest.approx(norms.tolist(), rel=1e-5)
    assert "are found after block 2: 12.50%" in result.notes[0] or "after block 3: 12.50%" in result.notes[0]


def test_their_absence_is_noted_and_twins_are_beside():
    result = run_study(tiny_vit(), Pictures(3), Outliers(threshold=50, replicates=10), random_twin=True, progress=False)
    assert result["outliers"].notes[0] == "No image token is longer than 50 times the median of its block."
    assert set(result["outliers"].table["weights"]) == {"trained", "random"}
    assert plot_result(result["outliers"]) is not None


def test_parts_merge():
    space = tiny_vit()
    whole, first, second = (Outliers(replicates=5) for _ in range(3))
    for study, part in ((whole, range(4)), (first, [0, 1]), (second, [2, 3])):
        study.update(readings_of(space, Pictures(4), part))
    assert first.merge(second).result().table.equals(whole.result().table)
    with pytest.raises(ValueError, match="threshold must be above 0"):
        Outliers(threshold=0)
