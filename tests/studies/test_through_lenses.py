"""Studies and metrics read through fitted lenses, against loops over single tokens."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from study_helpers import Pictures, slow_groups, slow_rank
from tiny_models import images_for, tiny_vit

from classspace_widgets.lens import FittedLens, LensMismatchError
from classspace_widgets.metrics import class_identifiability, contributions, decision
from classspace_widgets.studies import (
    Identifiability,
    IdentifiabilityChange,
    PlaceDifference,
    ResidualComposition,
    SimilarityChange,
    run_study,
)
from classspace_widgets.studies.readings import Readings
from classspace_widgets.studies.standard import all_studies

MODELS = {
    "cls": lambda: tiny_vit(reg_tokens=1),
    "gap": lambda: tiny_vit(global_pool="avg", class_token=False, fc_norm=True),
    "gap after norm": lambda: tiny_vit(global_pool="avg", fc_norm=False),
}


@pytest.fixture(params=MODELS, scope="module")
def case(request):
    space = MODELS[request.param]()
    lens = space.fit_lens("jacobian", images_for(space, 8))
    trace = space.trace(images_for(space, 5, seed=3))
    masks = torch.from_numpy(np.random.default_rng(4).integers(-1, 2, (5, 16)).astype(np.int8))
    return lens, Readings(trace, torch.tensor([0, 1, 2, 3, 4]), masks, np.arange(5), mid=True, lens=lens)


def logits_of(lens, batch, stream, block):
    """Scores ``[B, T', C]`` by the lens's own maps, one token at a time; the pooled token is the mean of the image tokens'."""
    trace = batch.trace
    number, prefix = lens.points.increment(stream, block), len(trace.prefix)
    tokens = []
    for t, vectors in enumerate(trace.stream(stream, block).unbind(dim=1)):
        kind = min(t, prefix)
        if bool(lens.classifier[number, kind]):
            tokens.append(lens.logit.logits(vectors))
            continue
        scores = vectors @ lens.weights[number, kind].T
        if stream in ("mid", "residual"):
            scores = scores + lens.offsets[number, kind]
        tokens.append(scores if lens.defined[number, kind] else torch.full_like(scores, torch.nan))
    if trace.pooling == "mean_norm" and bool(lens.classifier[number, prefix]):
        tokens.append(lens.logit.logits(trace.stream(stream, block)[:, prefix:].mean(dim=1)))
    elif trace.pooling in ("mean_norm", "norm_mean"):
        tokens.append(torch.stack(tokens[prefix:]).mean(dim=0))
    return torch.stack(tokens, dim=1).numpy()


def shares_of(study, batch):
    study.update(batch)
    table = study.result().table
    return table[table["outcome"] == "all"]


def by_group(batch, known, hit):
    """Shares ``{group: (value, tokens)}`` of tokens that are read, by a loop; ``hit(b, t)`` is what one counts."""
    found = {}
    for b in range(5):
        for group, tokens in slow_groups(batch, b).items():
            for t in tokens:
                if known(b, t):
                    total, count = found.get(group, (0, 0))
                    found[group] = (total + hit(b, t), count + 1)
    return {group: (total / count, count) for group, (total, count) in found.items()}


def agree(rows, expected):
    """The rows of one point are those of a loop; groups that nothing was read of are missing."""
    assert set(rows["tokens"]) == set(expected)
    for _, row in rows.iterrows():
        value, count = expected[row["tokens"]]
        assert row["value"] == pytest.approx(value, abs=1e-9)
        assert row["count"] == count


def test_identifiability(case):
    lens, batch = case
    table = shares_of(Identifiability(mid=True, replicates=20), batch)
    for point in batch.trace.points:
        z = logits_of(lens, batch, point.stream, point.block)
        expected = by_group(
            batch, lambda b, t, z=z: not np.isnan(z[b, t, 0]), lambda b, t, z=z: 1 - slow_rank(z[b, t], b) / 7
        )
        agree(table[(table["block"] == point.block) & (table["stream"] == point.stream)], expected)
    if batch.trace.pooling == "token":
        last = table[(table["block"] == 3) & (table["stream"] == "residual")]
        assert set(last["tokens"]) == {"[CLS]"}


def test_changes_from_block_to_block(case):
    lens, batch = case
    table = shares_of(IdentifiabilityChange(replicates=0), batch)
    for block in (1, 2, 3):
        z, before = (logits_of(lens, batch, "residual", b) for b in (block, block - 1))

        def known(b, t, z=z, before=before):
            return not np.isnan(z[b, t, 0] + before[b, t, 0])

        rises = by_group(batch, known, lambda b, t, z=z, before=before: z[b, t, b] > before[b, t, b])
        ranks = by_group(
            batch,
            known,
            lambda b, t, z=z, before=before: slow_rank(z[b, t], b) < slow_rank(before[b, t], b),
        )
        here = table[table["block"] == block]
        agree(here[here["measure"] == "logit"], rises)
        agree(here[here["measure"] == "identifiability"], ranks)


def test_similarity_change_and_composition(case):
    lens, batch = case
    change = shares_of(SimilarityChange(replicates=0), batch)
    composed = shares_of(ResidualComposition(replicates=0), batch)
    for block in (1, 2, 3):
        z = {name: logits_of(lens, batch, name, block) for name in ("attention", "mlp", "residual")}
        before = logits_of(lens, batch, "residual", block - 1)
        for stream in ("attention", "mlp"):
            own = z[stream]
            expected = by_group(
                batch,
                lambda b, t, own=own, before=before: not np.isnan(own[b, t, 0] + before[b, t, 0]),
                lambda b, t, own=own, before=before: own[b, t, b] > before[b, t, b],
            )
            agree(change[(change["block"] == block) & (change["stream"] == stream)], expected)
        expected = by_group(
            batch,
            lambda b, t, z=z: not np.isnan(z["residual"][b, t, 0]),
            lambda b, t, z=z, before=before: all(
                z["residual"][b, t].argmax() != other[b, t].argmax() for other in (before, z["attention"], z["mlp"])
            ),
        )
        agree(composed[(composed["block"] == block) & (composed["source"] == "composition")], expected)


def test_class_tokens_against_context_tokens(case):
    lens, batch = case
    study = PlaceDifference(replicates=20, sign_flips=50)
    study.update(batch)
    result = study.result()
    ends = {point.block: 0 for point in batch.trace.points}
    for point in batch.trace.points:
        if point.stream == "mid":
            continue
        z = logits_of(lens, batch, point.stream, point.block)
        unread = np.isnan(z[0, -1, 0])
        for name in ("main", "by_picture"):
            table = result.tables[name]
            row = table[(table["block"] == point.block) & (table["stream"] == point.stream)]
            assert len(row) == (0 if unread else 1)
        if unread:
            ends[point.block] += 1
            continue
        means = by_group(batch, lambda b, t: True, lambda b, t, z=z: 1 - slow_rank(z[b, t], b) / 7)
        main = result.table[(result.table["block"] == point.block) & (result.table["stream"] == point.stream)].iloc[0]
        assert main["value"] == pytest.approx(means["class"][0] - means["context"][0])
    # Nothing reads what the last block adds to image tokens: missing for attention, MLP and their sum.
    assert ends[3] == (3 if batch.trace.pooling == "token" else 0)


def test_what_a_result_says_of_its_lens(case):
    _, batch = case
    study = Identifiability(replicates=0)
    study.update(batch)
    assert "Read through a jacobian lens, fitted on 8 pictures" in " ".join(study.result().notes)
    with pytest.raises(ValueError, match="all batches must be read through the same lens"):
        study.update(replace(batch, lens=None, indices=np.arange(5, 10)))
    other = Identifiability(replicates=0)
    other.update(replace(batch, lens=None, indices=np.arange(5, 10)))
    with pytest.raises(ValueError, match="read through different lenses"):
        study.merge(other)


@pytest.fixture(scope="module")
def space():
    return tiny_vit()


def test_a_run_and_its_twins_have_lenses_of_their_own(space):
    asked = []

    def fit(model):
        asked.append(model)
        return model.fit_lens("jacobian", images_for(model, 8))

    names = ["identifiability", "place_difference", "accuracy"]
    found = run_study(space, Pictures(), names, lens=fit, random_twin=2, progress=False)
    assert len(asked) == 3
    assert found.provenance["lens"] == "jacobian"
    table = found["identifiability"].tables["twins"]
    for number, twin in enumerate(asked[1:], start=1):
        alone = run_study(twin, Pictures(), names, lens=fit(twin), progress=False)
        own = table[(table["twin"] == number)].drop(columns="twin").reset_index(drop=True)
        expected = alone["identifiability"].table.drop(columns="weights").reset_index(drop=True)
        assert np.allclose(own["value"], expected["value"])
    last = found["identifiability"].table
    last = last[(last["block"] == 3) & (last["stream"] == "residual")]
    assert set(last["tokens"]) == {"[CLS]"}
    assert found["place_difference"].table["block"].max() == 2


def test_a_run_in_parts_is_the_run(space, tmp_path):
    from classspace_widgets.studies import Execution

    lens = space.fit_lens("translator", images_for(space, 8))
    whole = run_study(space, Pictures(), lens=lens, progress=False)
    small = run_study(space, Pictures(), lens=lens, execution=Execution(batch_size=5), progress=False)
    assert set(whole.results) >= {
        "accuracy",
        "decisions",
        "identifiability",
        "identifiability_change",
        "place_difference",
        "similarity_change",
        "residual_composition",
    }
    assert set(whole.results) == {kind.name for kind in all_studies().values() if kind.through_lens}
    for name, result in whole.results.items():
        assert result.table.equals(small[name].table), name


def test_a_checkpoint_of_another_lens_is_refused(space, tmp_path):
    from classspace_widgets.studies.checkpoint import CheckpointError

    lens = space.fit_lens("translator", images_for(space, 8))
    path = tmp_path / "run.npz"
    run_study(space, Pictures(), "identifiability", lens=lens, checkpoint=path, progress=False)
    run_study(space, Pictures(), "identifiability", lens=lens, checkpoint=path, resume=True, progress=False)
    other = replace(lens, offsets=lens.offsets + 1)
    with pytest.raises(CheckpointError, match="lens"):
        run_study(space, Pictures(), "identifiability", lens=other, checkpoint=path, resume=True, progress=False)


def test_what_does_not_fit_is_refused(space):
    pictures = images_for(space, 8)
    lens = space.fit_lens("jacobian", pictures)
    with pytest.raises(ValueError, match=r"random twins have others; .*lens=lambda space: space\.fit_lens\('jacobian'"):
        run_study(space, Pictures(), "identifiability", lens=lens, random_twin=True, progress=False)
    with pytest.raises(ValueError, match="class_value_agreement cannot be read through a fitted lens; those that can"):
        run_study(space, Pictures(), "class_value_agreement", lens=lens, progress=False)
    with pytest.raises(LensMismatchError, match="blocks"):
        run_study(tiny_vit(depth=2), Pictures(), "identifiability", lens=lens, progress=False)
    with pytest.raises(TypeError, match="lens must be a fitted lens, or a function that gives one, got str"):
        run_study(space, Pictures(), "identifiability", lens="jacobian", progress=False)
    some = space.fit_lens("jacobian", pictures, classes=[1])
    with pytest.raises(ValueError, match="ranks need a lens of all 7 classes"):
        run_study(space, Pictures(), "identifiability", lens=some, progress=False)


def test_a_metric_reads_through_a_lens(space):
    lens = space.fit_lens("jacobian", images_for(space, 8))
    trace = space.trace(images_for(space, 2, seed=3))
    found = class_identifiability(trace, [1, 4], lens=lens)
    assert found.shape == (4, 2, 17)
    for block in range(4):
        ranks = trace.ranks("residual", block, labels=[1, 4], lens=lens)[..., 0]
        expected = torch.where(ranks < 0, torch.nan, 1 - ranks / 7)
        assert torch.allclose(found[block], expected, equal_nan=True)
    assert bool(found[3, :, 1:].isnan().all())
    two = class_identifiability(trace, [1, 4], stream="mlp", blocks=[2], lens=lens)
    assert two.shape == (1, 2, 17)


def test_contributions_through_a_lens(space):
    lens: FittedLens = space.fit_lens("jacobian", images_for(space, 8))
    trace = space.trace(images_for(space, 2, seed=3))
    steps = contributions(trace, [1, 4], "step", lens=lens)
    final = trace.logits("residual", 3, [1, 4], lens=lens).permute(2, 0, 1)
    assert torch.allclose(steps.total()[..., :1], final[..., :1], atol=1e-4)
    middle, before = (trace.logits(s, b, [1], lens=lens)[..., 0] for s, b in (("mid", 2), ("residual", 1)))
    assert torch.allclose(steps.attention[0, 1], middle - before, atol=1e-5)
    paper = contributions(trace, 1, "paper", lens=lens)
    own = trace.logits("mlp", 2, [1], lens=lens)[..., 0]
    assert torch.allclose(paper.mlp[0, 1], own - before, atol=1e-5)
    assert bool(paper.mlp[0, 2, :, 1:].isnan().all())
    with pytest.raises(ValueError, match="through a fitted lens read 'step' or 'paper'"):
        contributions(trace, 1, lens=lens)


def test_decisions_are_read_through_the_runs_lens(space):
    lens = space.fit_lens("translator", images_for(space, 8))
    data = Pictures()
    through = run_study(space, data, "decisions", lens=lens, progress=False)["decisions"]
    pictures = [data[i][0] for i in range(len(data))]
    found = decision(
        space.trace(torch.stack(pictures) if torch.is_tensor(pictures[0]) else pictures), lens=lens, mid=False
    )
    shares = through.where(measure="decided", tokens="image", outcome="all", weights="trained").sort_values("block")[
        "value"
    ]
    expected = [(found.decided_at[:, len(space.adapter.prefix) : -1] <= n).double().mean().item() for n in range(4)]
    assert shares.tolist() == pytest.approx(expected, abs=1e-5)
    plain = run_study(space, Pictures(), "decisions", progress=False)["decisions"]
    assert not through.table.equals(plain.table)
