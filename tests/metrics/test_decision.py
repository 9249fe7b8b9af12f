"""When a pass decides: synthetic streams with a known point, loops over logits, other lenses, removed tokens, tables."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.interventions import RemoveTokens, trace_with
from classspace_widgets.lens import ClassLens
from classspace_widgets.scenes import gallery
from classspace_widgets.trace import Trace

KINDS = {
    "token": {},
    "mean_norm": {"global_pool": "avg", "class_token": False, "fc_norm": True},
    "norm_mean": {"global_pool": "avg", "class_token": False, "fc_norm": False},
}


def synthetic(logits, **options):
    """A trace whose residual stream is logits ``[L + 1, B, T, C]``, read as they are; attention adds half of each change."""
    stream = torch.as_tensor(logits, dtype=torch.float64)
    classes = stream.shape[-1]
    lens = ClassLens(torch.eye(classes).double(), torch.zeros(classes).double(), False, False, 0.0)
    increments = [stream[0]]
    for before, after in pairwise(stream):
        increments += [(after - before) / 2, (after - before) / 2]
    names = tuple(f"class {c}" for c in range(classes))
    settings = {"prefix": ("[CLS]",), "grid": (1, stream.shape[2] - 1), "pooling": "token", "layout": "sequential"}
    return Trace(tuple(increments), stream[-1][:, 0], lens, class_names=names, **(settings | options))


@pytest.mark.parametrize("block", range(5))
def test_the_point_from_which_the_final_class_stays_first(block):
    logits = torch.zeros(5, 1, 2, 3)
    logits[:, :, :, 1] = 1.0  # class 1 is first ...
    logits[block:, :, 0, 2] = 3.0  # ... until class 2 is, at [CLS], from a block on
    logits[0, :, 1, 2] = 9.0  # a lead that is lost again is no decision
    found = metrics.decision(synthetic(logits), mid=False)
    assert found.decided_at[0].tolist() == [block, 1, block]  # [CLS], the image token, the answer
    assert found.decided_block[0].tolist() == [block, 1, block]
    assert found.final[0, :, 0].tolist() == [2, 1, 2]
    # Between two blocks the stream has half of the change: 1.5 against 1.
    fine = metrics.decision(synthetic(logits))
    expected = "embedding" if block == 0 else f"block {block} mid"
    assert fine.points[fine.decided_at[0, 0]].name == expected
    assert fine.decided_block[0, 0] == block


@pytest.mark.parametrize("kind", KINDS)
def test_against_a_loop_over_logits(kind):
    space = tiny_vit(**KINDS[kind])
    trace = space.trace(images_for(space))
    labels = [3, 6]
    found = metrics.decision(trace, labels, k=4)
    assert found.points[1].stream == "mid"
    stats = pytest.importorskip("scipy.stats")
    for b, label in enumerate(labels):
        for place in range(trace.n_tokens + 1):
            seen = []
            for point in found.points:
                if place == trace.n_tokens:
                    seen.append(trace.readout(point.stream, point.block)[b].double().numpy())
                else:
                    seen.append(trace.logits(point.stream, point.block)[b, place].double().numpy())
            order = np.argsort(-seen[-1], kind="stable")[:4]
            assert found.final[b, place].tolist() == order.tolist()
            same = [int(np.argmax(logits)) == order[0] for logits in seen]
            decided = min(n for n in range(len(same)) if all(same[n:]))
            assert found.decided_at[b, place] == decided
            for n, logits in enumerate(seen):
                shares = np.exp(logits - logits.max())
                shares /= shares.sum()
                others = [c for c in range(7) if c != label]
                best = max(others, key=lambda c: logits[c])
                expected = {
                    "first": np.argmax(logits),
                    "tau": stats.kendalltau(logits[order], [4, 3, 2, 1]).statistic,
                    "entropy": -sum(p * math.log(p) for p in shares),
                    "log_probability": math.log(shares[label]),
                    "reciprocal_rank": 1 / (1 + sum(logits > logits[label])),
                    "margin": logits[label] - logits[best],
                    "competitor": best,
                }
                for name, value in expected.items():
                    own = getattr(found, name)[n, b, place].item()
                    assert own == pytest.approx(value, abs=1e-5), (name, n, b, place)


def test_pooled_and_distilled_answers_end_in_the_models_own():
    import timm

    for options in ({"global_pool": "map"}, {"class_token": False, "global_pool": "avg"}):
        space = tiny_vit(**options)
        trace = space.trace(images_for(space))
        found = metrics.decision(trace)
        assert found.first[-1, :, -1].tolist() == trace.output.argmax(dim=-1).tolist()
    model = timm.create_model("deit_tiny_distilled_patch16_224", depth=2, embed_dim=24, num_heads=3, img_size=32)
    space = ClassSpace(model.eval())
    trace = space.trace(torch.randn(2, 3, 32, 32))
    assert torch.equal(metrics.decision(trace).first[-1, :, -1], trace.output.argmax(dim=-1))


def test_another_lens_and_where_it_has_no_map():
    space = ClassSpace.bundled("contrast")
    trace = space.trace(gallery()[0].picture)
    lens = space.bundled_lens("jacobian")
    found = metrics.decision(trace, "fish", lens=lens)
    assert found.lens == "jacobian"
    # Nothing after the last block reads image tokens, so the last point that does is their last.
    assert bool((found.first[-1, 0, 1:-1] == -1).all())
    assert bool(found.margin[-1, 0, 1:-1].isnan().all())
    assert bool((found.final[0, 1:-1, 0] >= 0).all())
    last = max(n for n in range(len(found.points)) if found.first[n, 0, 1] >= 0)
    assert torch.equal(found.final[0, 1:-1, 0], found.first[last, 0, 1:-1])
    assert found.decided_at[0, 1:-1].max() <= last
    assert found.decided_at[0, 1:-1].min() >= 0
    read = trace.logits("residual", 3, lens=lens)[0, 5]
    assert found.first[6, 0, 5] == read.argmax()


def test_removed_tokens_are_not_read():
    space = tiny_vit()
    trace = trace_with(space, space.trace(images_for(space)), [RemoveTokens(tokens=[3])])
    found = metrics.decision(trace)
    assert found.decided_at[:, 3].tolist() == [-1, -1]
    assert found.decided_block[:, 3].tolist() == [-1, -1]
    assert bool(found.entropy[:, :, 3].isnan().all())
    assert bool((found.decided_at[:, [0, 1, 2, 4]] >= 0).all())
    assert found.table()["image_decided_share"].notna().all()


def test_the_table_has_a_row_for_each_picture():
    scenes = gallery()[:3]
    trace = ClassSpace.bundled().trace([scene.picture for scene in scenes])
    found = metrics.decision(trace, [scene.label for scene in scenes])
    table = found.table(np.stack([scene.mask for scene in scenes]))
    assert table["image"].tolist() == [0, 1, 2]
    assert table["label_name"].tolist() == [trace.class_names[scene.label] for scene in scenes]
    assert table["correct"].all()
    assert table["decided_point"].tolist() == [found.points[n].name for n in found.decided_at[:, -1].tolist()]
    assert table["decided_share"].between(0, 1).all()
    assert table["object_decided_share"].between(0, 1).all()
    assert table["margin"].tolist() == pytest.approx(found.margin[-1, :, -1].tolist())
    assert "object_decided_share" not in found.table()
    assert "decided" in found._repr_html_()


def test_bad_input_is_refused_in_words():
    space = tiny_vit()
    trace = space.trace(images_for(space))
    with pytest.raises(ValueError, match=r"k must be .* 1..7, got 8|k must be in 1..7"):
        metrics.decision(trace, k=8)
    with pytest.raises(ValueError, match="labels"):
        metrics.decision(trace, [1, 2, 3])
    with pytest.raises(ValueError, match="class"):
        metrics.decision(trace, 9)
    other = ClassSpace.bundled("contrast").bundled_lens("jacobian")
    with pytest.raises(ValueError, match="fit one"):
        metrics.decision(trace, lens=other)
