"""Ridge probes against scikit-learn on the same vectors, merging, k-shot, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets.points import Points
from classspace_widgets.probing import collect_sums, fit_probes, probe_accuracy
from classspace_widgets.probing.fit import probe_points
from classspace_widgets.probing.ridge import RidgeSums

COUNT = 60
STREAMS = ("residual", "attention", "mid", "mlp")


@pytest.fixture(scope="module")
def space():
    return tiny_vit(num_classes=4)


@pytest.fixture(scope="module")
def vectors(space):
    data = Pictures(COUNT, classes=4)
    trace = space.trace(torch.stack([data[i][0] for i in range(COUNT)]))
    found = {point: trace.stream(point[1], point[0]).double().numpy() for point in Points(3)}
    return found, np.array([data[i][1] for i in range(COUNT)])


def reference(x, labels, penalty):
    return Ridge(alpha=penalty).fit(x, np.eye(4)[labels])


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_probes_per_position_equal_scikit_learn(space, vectors, penalty):
    found, labels = vectors
    probes = fit_probes(space, Pictures(COUNT, classes=4), streams=STREAMS, penalty=penalty, batch_size=7)
    assert set(probes.points) == set(found)
    assert probes.weights.shape == (13, 17, 24, 4)
    for point, x in found.items():
        at = probes.points.index(point)
        scores = probes.scores(torch.from_numpy(x), *point).numpy()
        for t in (0, 5, 16):
            if np.ptp(x[:, t], axis=0).max() == 0:
                continue
            ridge = reference(x[:, t], labels, penalty)
            np.testing.assert_allclose(probes.weights[at, t].numpy().T, ridge.coef_, atol=2e-4)
            np.testing.assert_allclose(scores[:, t], ridge.predict(x[:, t]), atol=2e-4)


def test_a_shared_probe_equals_scikit_learn(space, vectors):
    found, labels = vectors
    probes = fit_probes(space, Pictures(COUNT, classes=4), per_position=False, tokens=[1, 2, 9], penalty=2.0)
    for block in range(4):
        x = found[block, "residual"][:, [1, 2, 9]]
        ridge = reference(x.reshape(-1, 24), labels.repeat(3), 2.0)
        np.testing.assert_allclose(probes.weights[block, 0].numpy().T, ridge.coef_, atol=2e-4)
        np.testing.assert_allclose(probes.bias[block, 0].numpy(), ridge.intercept_, atol=2e-4)


def test_merging_equals_one_pass(space):
    whole = collect_sums(space, Pictures(20, classes=4), batch_size=4)
    first = collect_sums(space, Pictures(8, classes=4), batch_size=4)
    second = collect_sums(space, Pictures(12, classes=4, start=8), batch_size=4)
    merged = first.merge(second)
    # Activations are float32, and differ in their last digits with the size of a batch.
    torch.testing.assert_close(merged.gram, whole.gram, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(merged.cross, whole.cross, rtol=1e-5, atol=1e-4)
    assert torch.equal(merged.counts, whole.counts)
    with pytest.raises(ValueError, match="can be merged"):
        first.merge(collect_sums(space, Pictures(8, classes=4), tokens=[0]))


def test_by_hand():
    # One feature, two classes at -1 and 1: centred X'X = 4, X'y = 2 for the second class, alpha 4 gives 2/8.
    sums = RidgeSums.empty([(1, "residual")], 1, 1, 2)
    sums.add(0, torch.tensor([[[-1.0]], [[-1.0]], [[1.0]], [[1.0]]]), torch.tensor([0, 0, 1, 1]))
    probes = sums.solve(4.0)
    torch.testing.assert_close(probes.weights.flatten(), torch.tensor([-0.25, 0.25]))
    torch.testing.assert_close(probes.bias.flatten(), torch.tensor([0.5, 0.5]))


def test_k_shot(space):
    data = Pictures(COUNT, classes=4)
    sums = collect_sums(space, data, k_shot=3, tokens=[0, 4])
    assert sums.counts.tolist() == [[3.0] * 4] * 2
    again = collect_sums(space, data, k_shot=3, tokens=[0, 4])
    other = collect_sums(space, data, k_shot=3, tokens=[0, 4], seed=1)
    assert torch.equal(sums.gram, again.gram)
    assert not torch.equal(sums.gram, other.gram)


def test_accuracy_of_probes_and_lens(space, vectors):
    found, labels = vectors
    data = Pictures(COUNT, classes=4)
    probes = fit_probes(space, data, tokens=[0, 3], penalty=0.1)
    table = probe_accuracy(space, probes, data, batch_size=11)
    for block in range(4):
        for group, place, token in (("[CLS]", 0, 0), ("image", 1, 3)):
            x = torch.from_numpy(found[block, "residual"][:, [0, 3]])
            for reading, scores in (
                ("probe", probes.scores(x, block)),
                ("lens", space.lens.logits(torch.from_numpy(found[block, "residual"][:, [0, 3]]).float())),
            ):
                expected = (scores[:, place].argmax(-1).numpy() == labels).mean()
                row = table[(table["block"] == block) & (table["tokens"] == group) & (table["reading"] == reading)]
                assert row["value"].item() == pytest.approx(expected), (block, token, reading)
                assert row["count"].item() == COUNT
                # The model answers from [CLS]: nothing reads the last block's image tokens.
                assert bool(row["used"].item()) is not (block == 3 and group == "image")


def test_a_model_without_a_prefix_token_has_no_rows_of_one():
    space = tiny_vit(num_classes=4, global_pool="avg", class_token=False, fc_norm=True)
    data = Pictures(12, classes=4)
    table = probe_accuracy(space, fit_probes(space, data, tokens=[0, 3], progress=False), data, progress=False)
    assert set(table["tokens"]) == {"image"}
    assert table["count"].eq(2 * 12).all()
    assert table["used"].all()


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({}, {"[CLS]", "image"}),
        ({"global_pool": "avg", "class_token": False, "fc_norm": True}, {"image"}),
        ({"class_token": False, "reg_tokens": 2, "global_pool": "avg"}, {"image"}),
    ],
)
def test_only_tokens_that_there_are_have_rows(options, tokens):
    """Of a model without [CLS] the first token is a patch, or a register."""
    space = tiny_vit(num_classes=4, **options)
    probes = fit_probes(space, Pictures(12, classes=4), penalty=1.0, progress=False)
    table = probe_accuracy(space, probes, Pictures(6, classes=4, start=50), progress=False)
    assert set(table["tokens"]) == tokens
    counts = table.groupby("tokens")["count"].first()
    assert counts["image"] == 6 * 16
    assert counts.get("[CLS]", 6) == 6


def test_bad_input(space):
    with pytest.raises(ValueError, match="4 classes needs at least as many examples, got 3"):
        fit_probes(space, Pictures(3, classes=4))
    with pytest.raises(ValueError, match="singular with penalty 0"):
        fit_probes(space, Pictures(8, classes=4), penalty=0)
    with pytest.raises(ValueError, match="not be negative"):
        fit_probes(space, Pictures(8, classes=4), penalty=-1)
    with pytest.raises(ValueError, match="streams must be some of"):
        probe_points(space, ["keys"])
    with pytest.raises(ValueError, match=r"0\.\.16"):
        fit_probes(space, Pictures(8, classes=4), tokens=[17])
    with pytest.raises(ValueError, match="at least 1"):
        fit_probes(space, Pictures(8, classes=4), k_shot=0)
    probes = fit_probes(space, Pictures(8, classes=4), tokens=[0, 1])
    with pytest.raises(ValueError, match="no probe of block 9"):
        probes.scores(torch.zeros(1, 2, 24), 9)
    with pytest.raises(ValueError, match="2 positions"):
        probes.scores(torch.zeros(1, 3, 24), 1)


@pytest.mark.parametrize("shared", [False, True])
def test_massive_activations_do_not_drown_the_rest(shared):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 1, 12)).astype(np.float32)
    # Two features of a thousand times the size of the others, and nearly the same, as trained models have them.
    x[:, 0, 3] *= 3000
    x[:, 0, 7] = x[:, 0, 3] * np.float32(1.0001) + x[:, 0, 7]
    labels = generator.integers(0, 4, 30)
    vectors = torch.from_numpy(np.repeat(x, 2, axis=1))
    sums = RidgeSums.empty([(0, "residual")], 1 if shared else 2, 12, 4)
    sums.add(0, vectors, torch.from_numpy(labels))
    probes = sums.solve(0.1)
    ridge = reference(
        np.repeat(x[:, 0], 2 if shared else 1, axis=0).astype(float), np.repeat(labels, 2 if shared else 1), 0.1
    )
    np.testing.assert_allclose(probes.weights[0, 0].numpy().T, ridge.coef_, rtol=1e-3, atol=1e-5)
