"""Readings through fitted lenses in snapshots, against the trace that they come from."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from make_fixtures import synthetic
from tiny_models import images_for, tiny_vit

from classspace_widgets.export.portable import portable
from classspace_widgets.lens import FittedLens, LensMismatchError
from classspace_widgets.snapshot import Snapshot, SnapshotError
from classspace_widgets.snapshot.container import unpack
from classspace_widgets.snapshot.select import select_classes, select_streams

MODELS = {
    "cls": lambda: tiny_vit(reg_tokens=2),
    "gap": lambda: tiny_vit(global_pool="avg", class_token=False, fc_norm=True),
    "gap after norm": lambda: tiny_vit(global_pool="avg", fc_norm=False),
}


@pytest.fixture(params=MODELS, scope="module")
def case(request):
    space = MODELS[request.param]()
    pictures = images_for(space, 8)
    lenses = [space.fit_lens(kind, pictures) for kind in ("jacobian", "translator")]
    return space, lenses, space.trace(images_for(space, 2, seed=5))


def points_of(trace):
    return [("residual", 0), *((s, b) for b in trace.points.blocks for s in ("attention", "mid", "mlp", "residual"))]


@pytest.mark.parametrize("payload", ["all", "classes", "increments"])
def test_logits_and_ranks_are_the_traces(case, payload):
    _, lenses, trace = case
    snapshot = Snapshot.unpack(trace.snapshot(image=1, payload=payload, classes=[3, 0], lenses=lenses).pack())
    for lens in lenses:
        for c in (3, 0):
            logits, ranks = snapshot.logits(c, lens=lens.kind), snapshot.ranks(c, lens=lens.kind)
            for number, (stream, block) in enumerate(points_of(trace)):
                expected = trace.logits(stream, block, classes=[c], lens=lens)[1, :, 0].numpy()
                own = logits[number, : trace.n_tokens]
                np.testing.assert_allclose(own, expected, rtol=2e-3, atol=2e-3)
                counted = trace.ranks(stream, block, classes=[c], lens=lens)[1, :, 0].numpy()
                np.testing.assert_array_equal(ranks[number, : trace.n_tokens], counted)
                # Not read is not 0.
                np.testing.assert_array_equal(np.isnan(own), counted == -1)


def test_the_pooled_token_is_read_as_an_image_token(case):
    _, lenses, trace = case
    snapshot = trace.snapshot(lenses=lenses)
    if not snapshot.meta["tokens"]["pooled"]:
        pytest.skip("this model reads its answer from a prefix token")
    for lens in lenses:
        found = snapshot.logits(2, lens=lens.kind)[:, -1]
        for number, (stream, block) in enumerate(points_of(trace)):
            if stream == "residual":
                expected = float(trace.readout(stream, block, lens=lens)[0, 2])
                assert found[number] == pytest.approx(expected, rel=2e-3, abs=2e-3)
    assert snapshot.logits(2, lens="jacobian")[-1, -1] == pytest.approx(float(trace.output[0, 2]), rel=2e-3)


def test_best_classes_and_their_softmax_travel_where_some_classes_do(case):
    space, lenses, trace = case
    for made in (
        trace.snapshot(payload="classes", classes=[1, 4], lenses=lenses),
        select_classes(trace.snapshot(payload="all", lenses=lenses), [1, 4]),
    ):
        for number, lens in enumerate(lenses):
            for point, (stream, block) in enumerate(points_of(trace)):
                scores = trace.logits(stream, block, lens=lens)[0]
                top = made.arrays[f"lens{number}_top"][point, : trace.n_tokens]
                values = made.arrays[f"lens{number}_top_logits"][point, : trace.n_tokens].astype(float)
                lse = made.arrays[f"lens{number}_lse"][point, : trace.n_tokens]
                unread = scores.isnan().any(-1).numpy()
                assert (top[unread] == 255).all()
                assert np.isnan(values[unread]).all()
                assert np.isnan(lse[unread]).all()
                best = scores.nan_to_num().topk(min(5, space.n_classes))
                np.testing.assert_array_equal(top[~unread], best.indices.numpy()[~unread])
                np.testing.assert_allclose(values[~unread], best.values.numpy()[~unread], rtol=2e-3, atol=2e-3)
                np.testing.assert_allclose(lse, scores.logsumexp(-1).numpy(), rtol=2e-3, atol=5e-3)


def test_fewer_streams_and_ranks_alone(case):
    _, lenses, trace = case
    whole = trace.snapshot(payload="classes", classes=[1, 4], lenses=lenses)
    residual = Snapshot.unpack(select_streams(whole, ["residual"]).pack())
    here = residual.points.of_streams("residual")
    others = [n for n in range(len(residual.points)) if n not in here]
    ranks, logits = residual.ranks(4, lens=1), residual.logits(4, lens=1)
    np.testing.assert_array_equal(ranks[here], whole.ranks(4, lens=1)[here])
    np.testing.assert_array_equal(logits[here], whole.logits(4, lens=1)[here])
    assert (ranks[others] == -1).all()
    assert np.isnan(logits[others]).all()
    alone = Snapshot.unpack(select_streams(whole, ranks_only=True).pack())
    np.testing.assert_array_equal(alone.ranks(4, lens=0), whole.ranks(4, lens=0))
    with pytest.raises(KeyError, match="no logits of class 4"):
        alone.logits(4, lens=0)


def test_classes_that_an_exported_page_of_increments_leaves_out_are_not_read(case):
    _, lenses, trace = case
    whole = trace.snapshot(payload="increments", classes=[1], lenses=lenses)
    lost = next(c for c in range(7) if c not in whole.meta["classes"]["kept"])
    whole.source = None
    made = Snapshot.unpack(select_classes(whole, [1, lost]).pack())
    np.testing.assert_array_equal(made.logits(1, lens=0), whole.logits(1, lens=0))
    assert np.isnan(made.logits(lost, lens=0)).all()
    assert (made.ranks(lost, lens=0) == -1).all()


def test_a_kernel_answers_for_more_classes_and_captures_anew(case):
    _, lenses, trace = case
    snapshot = trace.snapshot(payload="classes", classes=[1], lenses=lenses)
    steps = snapshot.source.answer("classes", {"classes": [6, 2]})
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            answer = stop.value
            break
    _, arrays = unpack(answer.part)
    whole = trace.snapshot(payload="all", lenses=lenses)
    for number in range(2):
        for row, c in enumerate((6, 2)):
            np.testing.assert_array_equal(arrays[f"lens{number}_logits"][row], whole.arrays[f"lens{number}_logits"][c])
            np.testing.assert_array_equal(arrays[f"lens{number}_ranks"][row], whole.arrays[f"lens{number}_ranks"][c])
    page = portable(snapshot, classes=[0, 5], mode="classes")
    assert [lens["kind"] for lens in page.meta["lenses"]] == ["jacobian", "translator"]
    np.testing.assert_array_equal(page.ranks(5, lens="translator"), whole.ranks(5, lens="translator"))


def test_a_lens_of_some_classes_brings_logits_alone():
    space = tiny_vit()
    pictures = images_for(space, 8)
    some = space.fit_lens("jacobian", pictures, classes=[5, 1])
    whole = space.fit_lens("jacobian", pictures)
    snapshot = Snapshot.unpack(space.trace(pictures[:1]).snapshot(lenses=[whole, some]).pack())
    assert [lens["label"] for lens in snapshot.meta["lenses"]] == ["jacobian", "jacobian 2"]
    assert snapshot.meta["lenses"][1]["classes"] == [5, 1]
    np.testing.assert_allclose(snapshot.logits(5, lens=1), snapshot.logits(5, lens=0), atol=1e-2)
    with pytest.raises(KeyError, match="no ranks of class 5 through the lens 1"):
        snapshot.ranks(5, lens=1)
    with pytest.raises(KeyError, match="no logits of class 0 through the lens 'jacobian 2'"):
        snapshot.logits(0, lens="jacobian 2")
    with pytest.raises(KeyError, match="no lens 'probe', it carries jacobian, jacobian 2"):
        snapshot.logits(0, lens="probe")


def test_what_is_said_of_a_lens(case, tmp_path):
    _, lenses, trace = case
    measured = replace(lenses[0], trust={"agreement": (float("nan"), 0.25, 0.5, 1.0)})
    measured.save(tmp_path / "one.safetensors")
    loaded = FittedLens.load(tmp_path / "one.safetensors")
    assert json.dumps(loaded.trust) == json.dumps(measured.trust)
    said = trace.snapshot(lenses=loaded).meta["lenses"]
    assert said[0]["trust"] == {"agreement": [None, 0.25, 0.5, 1.0]}
    assert said[0]["pictures"] == 8
    assert said[0]["question"] == "what of this token the answer goes on to use"
    image = len(trace.prefix)
    expected = [float(loaded.error[trace.points.increment(s, b), image]) for s, b in points_of(trace)]
    found = [float("nan") if e is None else e for e in said[0]["error"]]
    np.testing.assert_allclose(found, expected, rtol=1e-2)


def test_without_lenses_nothing_is_added(case):
    _, _, trace = case
    plain = trace.snapshot()
    assert "lenses" not in plain.meta
    assert not [name for name in plain.arrays if name.startswith("lens")]


def test_a_lens_of_another_model_is_refused(case):
    _, lenses, _ = case
    other = tiny_vit(depth=2)
    with pytest.raises(LensMismatchError, match="3 sequential blocks, this model has 2"):
        other.trace(images_for(other, 1)).snapshot(lenses=lenses)
    with pytest.raises(TypeError, match=r"lenses must be fitted lenses, got ClassLens; fit one"):
        other.trace(images_for(other, 1)).snapshot(lenses=[other.lens])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda meta, arrays: arrays.pop("lens1_ranks"), "it lacks lens1_ranks"),
        (lambda meta, arrays: arrays.update(lens0_ranks=arrays["lens0_ranks"] * 0 + 9), "numbers in 0..6"),
        (lambda meta, arrays: arrays.update(lens0_logits=arrays["lens0_logits"][:, :3]), "must have shape"),
        (lambda meta, arrays: meta["lenses"][0].update(label="translator"), "a label each"),
        (lambda meta, arrays: meta["lenses"][2].update(classes=[7]), "in 0..6"),
    ],
)
def test_damaged_lenses_are_refused(damage, message):
    snapshot = synthetic("all", lenses=True)
    damage(snapshot.meta, snapshot.arrays)
    with pytest.raises(SnapshotError, match=message):
        Snapshot.unpack(snapshot.pack())


def test_float16_is_enough_for_scores():
    """A lens's own error is far above what half precision changes."""
    space = tiny_vit()
    lens = space.fit_lens("jacobian", images_for(space, 8))
    trace = space.trace(images_for(space, 1))
    exact = trace.logits("residual", 1, classes=[2], lens=lens)[0, :, 0]
    found = trace.snapshot(lenses=lens).logits(2, lens=0)[4]
    assert torch.allclose(torch.tensor(found).float(), exact, rtol=1e-3, atol=1e-3)
