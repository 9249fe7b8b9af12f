"""When models decide, over data sets: counts against loops, random twins, figures, rows to join with other measurements."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.plots import plot_result
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.studies import Decisions, Execution, run_study


@pytest.fixture(scope="module")
def bundled():
    data = ScenesDataset(6, seed=4, distractors=(1, 2))
    return run_study(ClassSpace.bundled(), data, Decisions(replicates=50), random_twin=2, progress=False)["decisions"]


def test_against_a_loop_over_pictures():
    space, data = tiny_vit(), Pictures(5)
    result = run_study(space, data, Decisions(replicates=0), progress=False)["decisions"]
    found = []
    for item in (data[i] for i in range(5)):
        trace = space.trace(torch.as_tensor(item[0])[None] if torch.is_tensor(item[0]) else item[0])
        found.append(metrics.decision(trace, item[1], mid=False))
    image = slice(len(space.adapter.prefix), -1)
    for block in range(4):
        expected = {
            "decided": np.mean([float((f.decided_at[0, image] <= block).float().mean()) for f in found]),
            "entropy": np.mean([float(f.entropy[block, 0, image].mean()) / math.log(7) for f in found]),
            "tau": np.mean([float(f.tau[block, 0, image].mean()) for f in found]),
            "label": np.mean([float(f.log_probability[block, 0, image].exp().mean()) for f in found]),
        }
        for measure, value in expected.items():
            row = result.where(block=block, measure=measure, tokens="image", outcome="all", weights="trained")
            assert row["value"].item() == pytest.approx(value, abs=1e-5), (block, measure)


def test_random_twins_are_read_beside_the_model(bundled):
    decided = bundled.where(measure="decided", tokens="[CLS]", outcome="all")
    assert set(decided["weights"]) == {"trained", "random"}
    for _, rows in decided.groupby("weights"):
        shares = rows.sort_values("block")["value"]
        assert shares.is_monotonic_increasing
        assert shares.iloc[-1] == 1
    assert "decided halfway: class against context" in set(bundled.tables["differences"]["comparison"])


def test_one_row_a_picture(bundled):
    table = bundled.tables["pictures"]
    own = table[table["weights"] == "trained"]
    assert own["picture"].tolist() == list(range(6))
    assert own["correct"].isin([0.0, 1.0]).all()
    assert own["decided_share"].between(0, 1).all()


def test_the_figure_has_a_panel_for_each_measure(bundled):
    from classspace_widgets.plots.files import figures_in

    figures = figures_in(plot_result(bundled))
    assert [figure.title.text for figure in figures] == ["decided", "tau", "entropy", "label", "reciprocal rank"]


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        Decisions(k=0)


def test_the_table_of_pictures_has_a_limit_that_does_not_depend_on_the_order():
    space, data = ClassSpace.bundled(), ScenesDataset(6, seed=4)
    how = Execution(batch_size=2)
    whole = run_study(space, data, Decisions(replicates=0), execution=how, progress=False)["decisions"]
    some = run_study(space, data, Decisions(replicates=0, pictures=3), execution=how, progress=False)["decisions"]
    assert some.tables["pictures"].equals(whole.tables["pictures"].head(3))
    with pytest.raises(ValueError, match="pictures must be"):
        Decisions(pictures=-1)
