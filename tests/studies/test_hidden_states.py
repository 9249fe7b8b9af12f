"""Hidden-state studies against slow references and hand-worked cases."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from study_helpers import Pictures, readings_of, slow_groups, slow_logits, slow_rank
from tiny_models import tiny_vit

from classspace_widgets.lens import ClassLens
from classspace_widgets.metrics import class_identifiability, class_similarity_change
from classspace_widgets.points import Points
from classspace_widgets.studies import (
    Accuracy,
    Identifiability,
    IdentifiabilityChange,
    PlaceDifference,
    ResidualComposition,
    SimilarityChange,
)
from classspace_widgets.studies.hidden import read_hidden
from classspace_widgets.studies.readings import Readings
from classspace_widgets.trace import Trace

MODELS = {
    "vit": {},
    "registers, layer scale": {"reg_tokens": 2, "init_values": 0.5},
    "mean, then norm": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "norm, then mean": {"global_pool": "avg", "fc_norm": False},
}


@pytest.fixture(params=MODELS, scope="module")
def batch(request):
    space = tiny_vit(**MODELS[request.param])
    return space, readings_of(space, Pictures(), range(5))


def measured(study, batch):
    study.update(batch)
    return study.result()


def one(table, **conditions):
    for column, wanted in conditions.items():
        table = table[table[column] == wanted]
    assert len(table) == 1, f"{len(table)} rows for {conditions}"
    return float(table["value"].iloc[0])


def test_readings_equal_the_models_own_norm_and_classifier(batch):
    space, readings = batch
    hidden = readings.hidden
    for at, (block, stream) in enumerate(hidden.points):
        logits = slow_logits(space, readings, block, stream)
        for b in range(len(readings.labels)):
            label = int(readings.labels[b])
            np.testing.assert_allclose(hidden.label_logit[b, at].numpy(), logits[b, :, label], atol=2e-4)
            assert hidden.top1[b, at].tolist() == logits[b].argmax(axis=-1).tolist()
            assert hidden.label_rank[b, at].tolist() == [slow_rank(row, label) for row in logits[b]]


def test_the_last_reading_is_the_models_own_output():
    for options in MODELS.values():
        space = tiny_vit(**options)
        readings = readings_of(space, Pictures(), range(5))
        hidden = readings.hidden
        token = -1 if space.adapter.pooling != "token" else 0
        own = readings.trace.output.gather(1, readings.labels[:, None])[:, 0]
        torch.testing.assert_close(hidden.label_logit[:, -1, token], own, atol=1e-4, rtol=1e-4)


def test_chunks_do_not_matter(batch):
    _, readings = batch
    whole = read_hidden(readings.trace, readings.labels, chunk_bytes=1 << 30)
    alone = read_hidden(readings.trace, readings.labels, chunk_bytes=1)
    assert torch.equal(whole.label_rank, alone.label_rank)
    assert torch.equal(whole.top1, alone.top1)


def test_identifiability(batch):
    space, readings = batch
    result = measured(Identifiability(mid=True, replicates=20), readings)
    for block, stream in Points(3):
        logits = slow_logits(space, readings, block, stream)
        seen: dict[str, list[float]] = {}
        for b in range(len(readings.labels)):
            for group, tokens in slow_groups(readings, b).items():
                ranks = [slow_rank(logits[b, t], int(readings.labels[b])) for t in tokens]
                seen.setdefault(group, []).extend(1 - r / 7 for r in ranks)
        for group, values in seen.items():
            row = result.where(block=block, stream=stream, tokens=group, outcome="all")
            assert row["value"].item() == pytest.approx(np.mean(values), abs=1e-12)
            assert row["count"].item() == len(values)
            assert row["low"].item() <= row["value"].item() <= row["high"].item()
    last = result.tables["last_block"]
    assert set(last["block"]) == {3}
    assert set(last["stream"]) == {"residual"}


def test_outcomes_and_classes_add_up_to_the_whole(batch):
    _, readings = batch
    result = measured(Identifiability(), readings)
    keys = ["block", "stream", "tokens"]
    main = result.table
    parts = main[main["outcome"] != "all"]
    total = parts.assign(sum=parts["value"] * parts["count"]).groupby(keys)[["sum", "count"]].sum()
    whole = main[main["outcome"] == "all"].set_index(keys)
    by_class = result.tables["by_class"]
    classes = by_class.assign(sum=by_class["value"] * by_class["count"]).groupby(keys)[["sum", "count"]].sum()
    for split in (total, classes):
        assert (split["count"] == whole["count"].reindex(split.index)).all()
        np.testing.assert_allclose(split["sum"] / split["count"], whole["value"].reindex(split.index))


def test_change_rates(batch):
    space, readings = batch
    change = measured(IdentifiabilityChange(), readings)
    similar = measured(SimilarityChange(), readings)
    own_input = measured(SimilarityChange(against="sublayer_input"), readings)
    labels = readings.labels.tolist()

    def label_logits(block, stream):
        logits = slow_logits(space, readings, block, stream)
        return [[logits[b, t, labels[b]] for t in slow_groups(readings, b)["image"]] for b in range(len(labels))]

    def share(after, before):
        return np.mean([x > y for a, b in zip(after, before, strict=True) for x, y in zip(a, b, strict=True)])

    where = {"tokens": "image", "outcome": "all"}
    for block in (1, 2, 3):
        before = label_logits(block - 1, "residual")
        rise = share(label_logits(block, "residual"), before)
        assert one(change.table, block=block, measure="logit", **where) == pytest.approx(rise)
        for stream in ("attention", "mlp"):
            rise = share(label_logits(block, stream), before)
            assert one(similar.table, block=block, stream=stream, **where) == pytest.approx(rise)
        against_mid = share(label_logits(block, "mlp"), label_logits(block, "mid"))
        assert one(own_input.table, block=block, stream="mlp", **where) == pytest.approx(against_mid)
        attention = one(similar.table, block=block, stream="attention", **where)
        assert one(own_input.table, block=block, stream="attention", **where) == attention


def test_residual_composition(batch):
    space, readings = batch
    result = measured(ResidualComposition(), readings)
    for block in (1, 2, 3):
        counts = dict.fromkeys(("previous", "attention", "mlp", "composition"), 0)
        total = 0
        tops = {
            "after": slow_logits(space, readings, block, "residual").argmax(-1),
            "previous": slow_logits(space, readings, block - 1, "residual").argmax(-1),
            "attention": slow_logits(space, readings, block, "attention").argmax(-1),
            "mlp": slow_logits(space, readings, block, "mlp").argmax(-1),
        }
        for b in range(len(readings.labels)):
            for t in slow_groups(readings, b)["image"]:
                total += 1
                matches = [s for s in ("previous", "attention", "mlp") if tops[s][b, t] == tops["after"][b, t]]
                for source in matches or ["composition"]:
                    counts[source] += 1
        for source, count in counts.items():
            value = one(result.table, block=block, source=source, tokens="image", outcome="all")
            assert value == pytest.approx(count / total)


def test_accuracy_against_sorting(batch):
    _, readings = batch
    result = measured(Accuracy(k=(1, 3)), readings)
    for k in (1, 3):
        best = readings.trace.output.argsort(dim=1, descending=True)[:, :k]
        hits = [int(label) in row for label, row in zip(readings.labels, best.tolist(), strict=True)]
        assert one(result.table, measure=f"top-{k}") == pytest.approx(np.mean(hits))
    assert "tokens" not in result.table.columns


def hand_made():
    """One picture, [CLS] and two image tokens, two blocks, three classes, an identity lens: all numbers by hand."""
    lens = ClassLens(torch.eye(3), torch.zeros(3), False, False, 0.0)
    increments = [
        [[1.0, 0, 0], [0, 2, 0], [0, 0, 3]],  # embedding: classes 0, 1, 2
        [[0.0, 4, 0], [3, 0, 0], [0, 0, 1]],  # attention 1 -> 1, 0, 2
        [[0.0, 0, 2], [0, 0, 4], [0, 0, 0.5]],  # MLP 1 -> 2, 2, 2; residual: [1,4,2] [3,2,4] [0,0,4.5]
        [[5.0, 0, 0], [0, 3, 0], [2, 2, 0]],  # attention 2
        [[0.0, 0, 3], [0, 0, 0.5], [3.5, 0, 0]],  # MLP 2; residual: [6,4,5] [3,5,4.5] [5.5,2,4.5]
    ]
    space = SimpleNamespace(
        lens=lens,
        class_names=("a", "b", "c"),
        points=Points(2),
        adapter=SimpleNamespace(prefix=("[CLS]",), pooling="token"),
    )
    trace = Trace(
        increments=[torch.tensor([i]) for i in increments],
        output=torch.tensor([[6.0, 4.0, 5.0]]),
        lens=lens,
        prefix=("[CLS]",),
        grid=(1, 2),
        pooling="token",
        layout="sequential",
        class_names=("a", "b", "c"),
        space=space,
    )
    return trace, torch.tensor([0]), torch.tensor([[1, 0]], dtype=torch.int8)


def test_a_case_worked_by_hand():
    trace, labels, masks = hand_made()
    ident = Identifiability(replicates=0)
    ident.update(trace, labels, masks)
    table = ident.result().table
    where = {"stream": "residual", "outcome": "all"}
    # Class 0 in the residual streams: ranks of ([CLS], class token, context token).
    for block, ranks in {0: (0, 1, 1), 1: (2, 1, 1), 2: (0, 2, 0)}.items():
        for group, rank in zip(("[CLS]", "class", "context"), ranks, strict=True):
            assert one(table, block=block, tokens=group, **where) == pytest.approx(1 - rank / 3)
    change = IdentifiabilityChange(replicates=0)
    change.update(trace, labels, masks)
    table = change.result().table
    # Logits of class 0: block 0 (1, 0, 0), block 1 (1, 3, 0), block 2 (6, 3, 5.5).
    assert one(table, block=1, measure="logit", tokens="image", outcome="all") == 0.5
    assert one(table, block=2, measure="logit", tokens="image", outcome="all") == 0.5
    assert one(table, block=2, measure="logit", tokens="[CLS]", outcome="all") == 1
    assert one(table, block=2, measure="identifiability", tokens="image", outcome="all") == 0.5
    assert one(table, block=1, measure="identifiability", tokens="image", outcome="all") == 0, "ties are no rise"
    similar = SimilarityChange(replicates=0)
    similar.update(trace, labels, masks)
    table = similar.result().table
    # Logits of class 0 in block 1: input (1, 0, 0), attention (0, 3, 0), MLP (0, 0, 0). A tie is no rise.
    for stream, shares in {"attention": (0, 1, 0), "mlp": (0, 0, 0)}.items():
        for group, share in zip(("[CLS]", "class", "context"), shares, strict=True):
            assert one(table, block=1, stream=stream, tokens=group, outcome="all") == share
        rises = class_similarity_change(trace, 0, sublayer=stream)
        assert rises[0, 0].tolist() == [bool(share) for share in shares]
    assert class_similarity_change(trace, 0, sublayer="mlp", against="sublayer_input")[0, 0].tolist() == [
        False,
        False,
        False,
    ]
    assert class_identifiability(trace, 0)[0, 0].tolist() == pytest.approx([1, 2 / 3, 2 / 3])
    composition = ResidualComposition(replicates=0)
    composition.update(trace, labels, masks)
    table = composition.result().table
    # First classes in block 2: attention (0, 1, tie 0/1), MLP (2, 2, 0), residual before (1, 2, 2), after (0, 1, 0).
    expected = {"previous": 0.0, "attention": 1.0, "mlp": 0.5, "composition": 0.0}
    for source, share in expected.items():
        assert one(table, block=2, source=source, tokens="image", outcome="all") == share
    # Block 1: attention (1, 0, 2), MLP (2, 2, 2), before (0, 1, 2), after (1, 2, 2).
    for source, share in {"previous": 0.5, "attention": 0.5, "mlp": 1.0, "composition": 0.0}.items():
        assert one(table, block=1, source=source, tokens="image", outcome="all") == share


def test_place_difference(batch):
    space, readings = batch
    study = PlaceDifference(permutations=2000)
    result = measured(study, readings)
    prefix = len(space.adapter.prefix)
    for block, stream in Points(3, mid=False):
        logits = slow_logits(space, readings, block, stream)
        inside, outside = [], []
        for b in range(len(readings.labels)):
            for p in range(16):
                value = 1 - slow_rank(logits[b, prefix + p], int(readings.labels[b])) / 7
                (inside if readings.token_masks[b, p] == 1 else outside).append(value)
        row = result.where(block=block, stream=stream)
        difference = np.mean(inside) - np.mean(outside)
        assert row["value"].item() == pytest.approx(difference)
        # A picture's tokens counted as ranks: the exact distribution of shuffled labels is that of drawing without
        # replacement, found here by convolving over the tokens, one at a time.
        assert row["p_tokens"].item() == pytest.approx(exact_p(inside, outside), abs=0.04)


def exact_p(inside, outside):
    """Share of all ways to choose as many tokens as ``inside`` from all, whose sum is at least its own (7 classes)."""
    points = np.round(7 * np.array(inside + outside)).astype(int)
    ways = np.zeros((len(inside) + 1, points.sum() + 1))
    ways[0, 0] = 1
    for value in points:
        ways[1:, value:] += ways[:-1, : ways.shape[1] - value].copy()
    counts = ways[-1]
    return counts[points[: len(inside)].sum() :].sum() / counts.sum()


def placed(ranks):
    """Pictures of three classes with [CLS], a class token and a context token, whose label 0 has the given ranks ``[B, 2]``."""
    trace, _, _ = hand_made()
    logits = {0: [3.0, 2, 1], 1: [2.0, 3, 1], 2: [1.0, 3, 2]}
    tokens = torch.tensor([[logits[0], *(logits[r] for r in pair)] for pair in ranks])
    empty = torch.zeros_like(tokens)
    trace = replace(trace, increments=(tokens, empty, empty, empty, empty), output=tokens[:, 0])
    count = len(ranks)
    return trace, torch.zeros(count, dtype=torch.int64), torch.tensor([[1, 0]] * count, dtype=torch.int8)


def by_picture(ranks, **options):
    study = PlaceDifference(**options)
    study.update(*placed(ranks))
    result = study.result()
    table = result.tables["by_picture"]
    row = table[(table["block"] == 2) & (table["stream"] == "residual")].iloc[0]
    main = result.where(block=2, stream="residual").iloc[0]
    assert main["p_pictures"] == row["p_pictures"]
    return row, main


def test_p_over_pictures_by_hand():
    better, equal, worse = (0, 1), (1, 1), (2, 1)
    # Twenty pictures that agree: no flip of signs does as well, so p is 1 / (n + 1) and never 0.
    row, _ = by_picture([better] * 20, sign_flips=500)
    assert row["p_pictures"] == row["p_least"] == 1 / 501
    assert row["value"] == pytest.approx(1 / 3)
    assert (row["class"], row["context"], row["count"]) == (1, pytest.approx(2 / 3), 20)
    # Pictures without a difference: every flip does as well.
    row, _ = by_picture([equal] * 20, sign_flips=500)
    assert row["p_pictures"] == 1
    row, _ = by_picture([worse] * 20, sign_flips=500)
    assert row["p_pictures"] == 1
    # Five of seven are better: of the 2**7 ways to sign seven equal differences 29 have five pluses or more.
    ranks = [better] * 5 + [worse] * 2
    row, _ = by_picture(ranks, sign_flips=20_000)
    assert row["p_pictures"] == pytest.approx(29 / 128, abs=0.01)
    assert row["p_pictures"] != by_picture(ranks, sign_flips=20_000, seed=1)[0]["p_pictures"]
    assert row["p_pictures"] == by_picture(ranks, sign_flips=20_000)[0]["p_pictures"]


def test_the_sign_test_does_not_flip_by_the_weights_of_the_bootstrap():
    """p of twelve unequal differences, against every way to sign them, whatever the seed."""
    ranks = [(0, 2)] * 4 + [(0, 1)] * 2 + [(1, 2)] + [(2, 0)] * 3 + [(1, 0)] * 2
    values = np.array([b - a for a, b in ranks])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 12)).reshape(12, -1)
    exact = np.mean(values @ signs >= values.sum())
    assert 0.1 < exact < 0.9
    for seed in range(3):
        assert by_picture(ranks, sign_flips=10_000, seed=seed)[0]["p_pictures"] == pytest.approx(exact, abs=0.02)


def test_tokens_and_pictures_are_weighted_apart():
    """One picture has two class tokens, the other one: the mean over tokens is not the mean over pictures."""
    trace, labels, _ = placed([(0, 1), (2, 1)])
    third = trace.increments[0][:, 1:2]
    more = (third, *[torch.zeros_like(third)] * 4)
    increments = tuple(torch.cat(pair, dim=1) for pair in zip(trace.increments, more, strict=True))
    trace = replace(trace, increments=increments, grid=(1, 3))
    study = PlaceDifference()
    study.update(trace, labels, torch.tensor([[1, 0, 1], [1, 0, -1]], dtype=torch.int8))
    result = study.result()
    main = result.where(block=0).iloc[0]
    assert main["class"] == pytest.approx((1 + 1 + 1 / 3) / 3)
    assert main["context"] == pytest.approx(2 / 3)
    row = result.tables["by_picture"].iloc[0]
    assert row["class"] == pytest.approx((1 + 1 / 3) / 2)
    assert row["context"] == pytest.approx(2 / 3)
    assert row["value"] == pytest.approx(0, abs=1e-9)
    assert main["value"] == pytest.approx(1 / 9)


def test_the_interval_over_pictures():
    generator = np.random.default_rng(2)
    ranks = [tuple(pair) for pair in generator.integers(0, 3, (80, 2)).tolist()]
    differences = np.array([(b - a) / 3 for a, b in ranks])
    row, main = by_picture(ranks)
    half = 1.96 * differences.std() / np.sqrt(80)
    for found in (row, main):
        assert found["value"] == pytest.approx(differences.mean())
        assert found["low"] == pytest.approx(differences.mean() - half, abs=0.015)
        assert found["high"] == pytest.approx(differences.mean() + half, abs=0.015)
    assert np.isnan(by_picture(ranks[:1])[0]["low"])
    assert np.isnan(by_picture(ranks[:1])[1]["low"])


def test_a_note_says_which_tokens_the_model_does_not_use():
    """In a model that answers from [CLS] the last block's image tokens lead nowhere; where tokens are pooled they do."""
    from classspace_widgets.studies.protocol import UNUSED

    for options, unused in (({}, True), (MODELS["mean, then norm"], False)):
        readings = readings_of(tiny_vit(**options), Pictures(), range(3))
        for study in (Identifiability(), PlaceDifference(), SimilarityChange()):
            assert (UNUSED in measured(study, readings).notes) is unused
        assert UNUSED not in measured(Accuracy(), readings).notes


def test_without_masks_nothing_is_compared():
    space = tiny_vit()
    study = PlaceDifference()
    study.update(readings_of(space, Pictures(masks=False), range(4)))
    result = study.result()
    assert len(result.table) == 0
    assert "no object masks" in result.notes[0]
    assert "value" in result.table.columns


def test_bad_batches_raise_clear_errors():
    trace, labels, masks = hand_made()
    with pytest.raises(ValueError, match=r"squeeze\(1\)"):
        Readings(trace, labels[:, None], masks)
    with pytest.raises(ValueError, match=r"0\.\.2"):
        Readings(trace, torch.tensor([3]), masks)
    with pytest.raises(ValueError, match="integers"):
        Readings(trace, torch.tensor([0.5]), masks)
    with pytest.raises(ValueError, match=r"\[B, P\]=\(1, 2\)"):
        Readings(trace, labels, torch.zeros(1, 3))
    with pytest.raises(ValueError, match="a trace needs labels"):
        Accuracy().update(trace)
    with pytest.raises(RuntimeError, match="no batch"):
        Accuracy().result()
    with pytest.raises(ValueError, match="against"):
        SimilarityChange(against="nothing")
