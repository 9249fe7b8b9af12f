"""The report on lenses: each measure by hand, and on models where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.data import ArrayDataset
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.studies import lens_report


@pytest.fixture(scope="module")
def case():
    space = tiny_vit()
    generator = np.random.default_rng(3)
    pictures = generator.integers(0, 255, (9, 32, 32, 3), dtype=np.uint8)
    masks = np.zeros((9, 32, 32), np.uint8)
    for i in range(9):
        masks[i, : 8 * (1 + i % 3), : 8 * (1 + i % 2)] = 1
    data = ArrayDataset(pictures, np.arange(9) % 7, masks=masks)
    lenses = [space.fit_lens(kind, images_for(space, 8)) for kind in ("jacobian", "translator")]
    report = lens_report(space, lenses, data, promises=5, batch_size=4, progress=False)
    return space, lenses, data, report


def value(report, lens, block, measure):
    rows = report.table.query("lens == @lens and block == @block and measure == @measure")
    return rows.iloc[0]


def test_measures_follow_from_readings(case):
    space, lenses, data, report = case
    trace = space.trace([data[i][0] for i in range(9)])
    labels = [int(data[i][1]) for i in range(9)]
    assert report.pictures == 9
    for name, lens in (("logit", None), ("jacobian", lenses[0]), ("translator", lenses[1])):
        for block in (0, 2):
            logits = trace.logits("residual", block, tokens=[0], lens=lens)[:, 0]
            same = (logits.argmax(-1) == trace.output.argmax(-1)).double().mean()
            assert value(report, name, block, "agreement")["value"] == pytest.approx(float(same))
            model, read = trace.output.softmax(-1), logits.softmax(-1)
            divergence = (model * (model.log() - read.log())).sum(-1).mean()
            assert value(report, name, block, "divergence")["value"] == pytest.approx(float(divergence), rel=1e-3)
            scores = trace.logits("residual", block, labels=labels, lens=lens)[:, 1:, 0]
            ranks = trace.ranks("residual", block, labels=labels, lens=lens)[:, 1:, 0]
            found, inside_means = [], []
            for i in range(9):
                inside = np.asarray(data[i][2])[::8, ::8].ravel() == 1
                found.append(average_precision_score(inside, scores[i]))
                inside_means.append((1 - ranks[i].double().numpy() / 7)[inside].mean())
            row = value(report, name, block, "average precision")
            assert row["value"] == pytest.approx(np.mean(found), abs=1e-6)
            assert row["low"] < row["value"] < row["high"]
            assert value(report, name, block, "identifiability, object")["value"] == pytest.approx(
                np.mean(inside_means)
            )


def test_the_last_block_is_the_answer_and_image_tokens_have_no_jacobian_there(case):
    *_, report = case
    for name in ("logit", "jacobian", "translator"):
        assert value(report, name, 3, "agreement")["value"] == 1
        assert value(report, name, 3, "divergence")["value"] == pytest.approx(0, abs=1e-5)
    rows = report.table.query("lens == 'jacobian' and block == 3")
    assert set(rows["measure"]) == {"agreement", "divergence"}
    assert list(report.values("jacobian", "average precision").index) == [0, 1, 2]


def test_a_linear_model_keeps_its_promises():
    """Where blocks are linear the promise is kept to rounding, and a random push does what chance gives it."""
    space = tiny_vit(norm_layer=torch.nn.Identity, global_pool="avg", class_token=False, fc_norm=False)
    with torch.no_grad():
        for block in space.model.blocks:
            block.attn.proj.weight.zero_()
            block.mlp.act = torch.nn.Identity()
    space = ClassSpace(space.model, device="cpu")
    generator = np.random.default_rng(3)
    data = ArrayDataset(generator.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8), np.arange(6))
    lens = space.fit_lens("jacobian", images_for(space, 8))
    report = lens_report(space, lens, data, promises=6, progress=False)
    for block in (0, 1, 2):
        assert value(report, "jacobian", block, "promise slope")["value"] == pytest.approx(1, abs=1e-3)
        assert value(report, "jacobian", block, "promise correlation")["value"] == pytest.approx(1, abs=1e-4)
        assert abs(value(report, "jacobian", block, "random slope")["value"]) < 0.6


def test_the_contrast_model_keeps_its_promises():
    space = ClassSpace.bundled("contrast", device="cpu")
    data = ScenesDataset(6, seed=21)
    report = lens_report(space, space.bundled_lens("jacobian"), data, promises=6, progress=False)
    for block in (2, 4, 6):
        assert 0.7 < value(report, "jacobian", block, "promise slope")["value"] < 1.4
        assert abs(value(report, "jacobian", block, "random slope")["value"]) < 0.35


def test_bad_input_is_refused(case):
    space, _, data, _ = case
    some = space.fit_lens("jacobian", images_for(space, 8), classes=[0, 1])
    with pytest.raises(ValueError, match="a report need"):
        lens_report(space, some, data)
    with pytest.raises(ValueError, match="promises"):
        lens_report(space, [], data, promises=-1)


def test_a_random_twin_with_lenses_of_its_own_stands_beside_the_model(case):
    space, lenses, data, report = case
    both = lens_report(
        space,
        lenses,
        data,
        promises=0,
        control=lambda twin: twin.fit_lens("jacobian", images_for(twin, 8)),
        progress=False,
    )
    assert set(both.table.loc[both.table["weights"] == "random", "lens"]) == {"logit", "jacobian"}
    for measure in ("agreement", "average precision"):
        assert both.values("jacobian", measure).equals(report.values("jacobian", measure))
    twin = space.random_twin(0)
    alone = lens_report(twin, twin.fit_lens("jacobian", images_for(twin, 8)), data, promises=0, progress=False)
    random = both.table[both.table["weights"] == "random"].drop(columns="weights").reset_index(drop=True)
    expected = alone.table.drop(columns="weights").reset_index(drop=True)
    assert np.allclose(random["value"], expected["value"], equal_nan=True)


def test_measures_are_attached_to_a_lens(case):
    _, lenses, _, report = case
    lens = next(one for one in lenses if one.kind == "jacobian")
    trust = report.attached(lens).trust
    assert trust["agreement"] == pytest.approx(report.values("jacobian", "agreement").tolist(), abs=1e-4)
    assert trust["logit: agreement"] == pytest.approx(report.values("logit", "agreement").tolist(), abs=1e-4)
    assert np.isnan(trust["average precision"][3])
    assert lens.trust == {}
