from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from tiny_models import images_for

from classspace_widgets.explain import importance, mask_scores, perturbation
from classspace_widgets.explain.perturbation import PerturbationCurves, paper_area
from classspace_widgets.studies.explanation import ExplanationStudy
from classspace_widgets.studies.readings import Readings
from classspace_widgets.studies.statistics import picture_weights


def batch_of(space, rows):
    rows = list(rows)
    images = images_for(space, 6)[rows]
    labels = torch.tensor([0, 1, 2, 3, 4, 5])[rows]
    masks = (torch.randn(6, 16, generator=torch.Generator().manual_seed(2)) > 0).to(torch.int8)
    masks[3] = -1
    return Readings(space.trace(images), labels, masks[rows], indices=np.array(rows), pixels=images)


def study_of(space, *batches, **options):
    study = ExplanationStudy(**({"methods": ("gradient", "rollout"), "steps": 5, "replicates": 20} | options))
    for rows in batches:
        study.update(batch_of(space, rows))
    return study


def test_the_law_of_merging(space):
    # The batches are the same: only then are the passes' rounding errors.
    whole = study_of(space, range(3), range(3, 6)).result()
    merged = study_of(space, range(3)).merge(study_of(space, range(3, 6))).result()
    for name, table in whole.tables.items():
        pd.testing.assert_frame_equal(table, merged.tables[name], check_exact=True)


def test_values_are_those_of_the_functions(space):
    result = study_of(space, range(6), random_orders=2).result()
    batch = batch_of(space, range(6))
    found = importance(space, batch.labels[:, None], images=batch.pixels)
    curves = perturbation(space, batch.pixels, batch.labels, found.scores[:, 0], kept=[1, 5, 8, 12, 16])
    rows = result.table[(result.table["method"] == "gradient") & (result.table["outcome"] == "all")]
    values = rows.set_index("measure")["value"]
    for order in ("negative", "positive"):
        for measure in ("accuracy", "probability"):
            expected = float(curves.area(order, measure).mean())
            assert values[f"{order} {measure} area"] == pytest.approx(expected, abs=1e-6)
    for name, value in mask_scores(found.scores[:, 0], batch.token_masks).items():
        assert values[name] == pytest.approx(float(value.nanmean()), abs=1e-6)
    counts = rows.set_index("measure")["count"]
    assert counts["iou"] == 5
    assert counts["negative accuracy area"] == 6
    steps = result.tables["curves"]
    chosen = (steps["method"] == "random") & (steps["measure"] == "negative accuracy") & (steps["outcome"] == "all")
    assert sorted(steps[chosen]["kept"]) == [1, 5, 8, 12, 16]
    assert (rows["low"] <= rows["value"] + 1e-12).all()
    assert list(result.tables["paper"]["method"]) == ["gradient", "random", "rollout"]


def test_without_masks_there_are_no_mask_scores(space):
    batch = batch_of(space, range(2))
    batch.token_masks = None
    study = ExplanationStudy(methods=("gradient",), steps=2, random_orders=0, replicates=0)
    study.update(batch)
    assert not study.result().table["measure"].isin(["iou", "energy"]).any()


def test_bad_options():
    for options in ({"methods": ()}, {"methods": ("magic",)}, {"steps": 1}, {"random_orders": -1}):
        with pytest.raises(ValueError, match="got"):
            ExplanationStudy(**options)


def test_losses_and_scores_from_probes_go_through_the_same_test(space):
    from classspace_widgets.probing import LensScores, ProbeScores
    from classspace_widgets.probing.ridge import RidgeProbes

    batch = batch_of(space, range(6))
    trace, prefix = batch.trace, len(batch.trace.prefix)
    # A shared probe with the lens's own matrix, and one for every token: both slow references of the same scores.
    generator = torch.Generator().manual_seed(3)
    shared = RidgeProbes(
        ((2, "residual"),),
        torch.randn(1, 1, *space.lens.folded.T.shape, generator=generator),
        torch.zeros(1, 1, space.n_classes),
    )
    each = RidgeProbes(
        shared.points, shared.weights.repeat(1, trace.n_tokens, 1, 1), shared.bias.repeat(1, trace.n_tokens, 1)
    )
    vectors = trace.stream("residual", 2).float()
    expected = torch.stack(
        [
            torch.stack([v @ shared.weights[0, 0][:, c] for v in image[prefix:]])
            for image, c in zip(vectors, batch.labels, strict=True)
        ]
    )
    assert torch.allclose(ProbeScores(shared, 2)(batch), expected, atol=1e-4)
    assert torch.allclose(ProbeScores(each, 2)(batch), expected, atol=1e-4)
    lens = torch.stack(
        [trace.logits("mlp", 1, classes=[c])[b, prefix:, 0] for b, c in enumerate(batch.labels.tolist())]
    )
    assert torch.allclose(LensScores(1, "mlp")(batch), lens, atol=1e-5)
    with pytest.raises(ValueError, match="fit them for all"):
        ProbeScores(RidgeProbes(shared.points, each.weights[:, :3], each.bias[:, :3]), 2)(batch)
    study = ExplanationStudy(
        methods=("gradient", "gradient:paper"),
        scorers={"probe": ProbeScores(shared, 2)},
        steps=3,
        random_orders=0,
        replicates=0,
    )
    study.update(batch)
    table = study.result().table
    assert list(dict.fromkeys(table["method"])) == ["gradient", "gradient:paper", "probe"]
    curves = perturbation(space, batch.pixels, batch.labels, expected, kept=[1, 8, 16])
    own = table[(table["method"] == "probe") & (table["measure"] == "positive probability area")]["value"].iloc[0]
    assert own == pytest.approx(float(curves.area("positive", "probability").mean()), abs=1e-6)
    with pytest.raises(ValueError, match="need new names"):
        ExplanationStudy(scorers={"chefer": LensScores(1)})


def right_half(space, rows):
    """A batch whose labels are the model's own answers, but for every third picture."""
    batch = batch_of(space, rows)
    best = batch.trace.output.argmax(dim=1)
    batch.labels = torch.where(torch.tensor(list(rows)) % 3 == 0, (best + 1) % space.n_classes, best)
    return batch


def test_areas_of_the_paper_are_of_the_data_set_s_curve(space):
    """Sum of the mean curve over its own maximum times its steps, and its resamples'."""
    study = ExplanationStudy(methods=("gradient",), steps=5, replicates=200, random_orders=0)
    study.update(right_half(space, range(6)))
    result = study.result()
    steps = result.tables["curves"]
    main = result.table[result.table["outcome"] == "all"].set_index("measure")
    paper = result.tables["paper"].set_index("method")
    weights = picture_weights(range(6), 200)
    batch = right_half(space, range(6))
    found = importance(space, batch.labels[:, None], images=batch.pixels)
    curves = perturbation(space, batch.pixels, batch.labels, found.scores[:, 0], kept=[1, 5, 8, 12, 16])
    for order in ("negative", "positive"):
        for measure in ("accuracy", "probability"):
            of = (steps["measure"] == f"{order} {measure}") & (steps["outcome"] == "all")
            curve = steps[of]["value"].to_numpy()
            expected = curve.sum() / (curve.max() * 5)
            row = main.loc[f"{order} {measure} area (paper)"]
            assert row["value"] == pytest.approx(expected)
            assert curves.paper_area(order, measure) == pytest.approx(expected, abs=1e-6)
            each = (curves.correct if measure == "accuracy" else curves.probability)[order].double().numpy()
            drawn = weights @ each / weights.sum(axis=1, keepdims=True)
            with np.errstate(invalid="ignore", divide="ignore"):
                resampled = drawn.sum(axis=1) / (drawn.max(axis=1) * 5)
            limits = np.nanquantile(resampled, [0.025, 0.975])
            if expected == 1:  # a curve that never falls has no spread: Wilson's interval of 6 pictures
                limits = stats.binomtest(6, 6).proportion_ci(method="wilson")
            assert (row["low"], row["high"]) == pytest.approx(tuple(limits), abs=1e-5)
            assert row["count"] == 6
        assert (
            paper.loc["gradient", f"{order} accuracy area (paper)"]
            == main.loc[f"{order} accuracy area (paper)", "value"]
        )
        assert paper.loc["gradient", f"{order} accuracy area"] == main.loc[f"{order} accuracy area", "value"]
    assert main.loc["negative accuracy area (paper)", "value"] != main.loc["negative accuracy area", "value"]


def test_paper_area_by_hand():
    # It takes no account of how often the whole picture is answered rightly: half the accuracy, the same area.
    assert float(paper_area(torch.tensor([0.8, 0.6, 0.2]))) == pytest.approx(1.6 / 2.4)
    assert float(paper_area(torch.tensor([0.4, 0.3, 0.1]))) == pytest.approx(1.6 / 2.4)
    assert paper_area(torch.tensor([[0.0, 0.5], [1.0, 1.0]])).tolist() == [0.5, 1.0]
    assert paper_area(torch.zeros(3)).isnan()
    curves = PerturbationCurves((4, 2), {"negative": torch.tensor([[True, True], [True, False]])}, {})
    assert curves.paper_area("negative") == 0.75
    assert curves.area("negative").tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="order must be one of"):
        curves.paper_area("positive")


def test_differences_are_between_the_methods_that_they_name(space):
    study = ExplanationStudy(methods=("gradient", "direct", "gradient:paper"), steps=3, replicates=50)
    study.update(right_half(space, range(6)))
    result = study.result()
    values = result.table[result.table["outcome"] == "all"].set_index(["method", "measure"])["value"]
    found = result.tables["differences"].set_index("comparison")["value"]
    expected = {}
    for own in ("gradient", "gradient:paper"):
        for other in ("direct", "random"):
            for order, sign in (("negative", 1), ("positive", -1)):
                gap = values[own, f"{order} accuracy area"] - values[other, f"{order} accuracy area"]
                expected[f"{order}: {own} against {other}"] = sign * gap
    assert found.to_dict() == pytest.approx(expected)


def test_a_note_names_scores_of_unused_tokens(space):
    from classspace_widgets.probing import LensScores

    last = len(space.adapter.blocks)
    study = ExplanationStudy(
        methods=("gradient",),
        steps=2,
        random_orders=0,
        replicates=0,
        scorers={"early": LensScores(1), "end": LensScores(last)},
    )
    study.update(batch_of(space, range(2)))
    told = [note.split("'")[1] for note in study.result().notes]
    assert told == (["end"] if space.adapter.pooling == "token" else [])
