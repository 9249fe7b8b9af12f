"""Value vectors as classes, and the memory studies, against slow references and a case worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from study_helpers import Pictures, readings_of, slow_groups, slow_logits
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.memories import most_activating, recording_active, value_vectors
from classspace_widgets.memories.values import ValueVectors, recording_coefficients
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.studies import ClassValueAgreement, KeyValueAgreement, MemoryCompositionality


@pytest.fixture(scope="module", params=[{}, {"init_values": 0.5}], ids=["plain", "layer scale"])
def space(request):
    return tiny_vit(**request.param)


def projection(space, block, sublayer):
    part = space.model.blocks[block - 1]
    linear = part.attn.proj if sublayer == "attention" else part.mlp.fc2
    scale = part.ls1 if sublayer == "attention" else part.ls2
    gamma = scale.gamma.detach() if hasattr(scale, "gamma") else torch.ones(24)
    return linear.weight.detach() * gamma[:, None]


@pytest.mark.parametrize("sublayer", ["attention", "mlp"])
def test_value_vectors(space, sublayer):
    values = value_vectors(space, 2, sublayer)
    weight, embedding = projection(space, 2, sublayer), space.model.head.weight.detach()
    m = {"attention": 24, "mlp": 48}[sublayer]
    assert values.vectors.shape == (m, 24)
    for j in (0, 7, m - 1):
        torch.testing.assert_close(values.vectors[j], weight[:, j])
        for c in range(7):
            torch.testing.assert_close(values.scores[c, j], embedding[c] @ weight[:, j])
            expected = torch.nn.functional.cosine_similarity(embedding[c], weight[:, j], dim=0)
            torch.testing.assert_close(values.cosines[c, j], expected)
    assert values.agreement().tolist() == [max(row) for row in values.cosines.tolist()]


def test_value_vectors_are_what_the_sublayer_adds(space):
    data = Pictures(2)
    with recording_coefficients(space, 2, "mlp") as collected:
        trace = space.trace(torch.stack([data[i][0] for i in range(2)]))
    part = space.model.blocks[1]
    bias = part.mlp.fc2.bias.detach() * (part.ls2.gamma.detach() if hasattr(part.ls2, "gamma") else 1)
    added = collected[0] @ value_vectors(space, 2, "mlp").vectors + bias
    torch.testing.assert_close(added, trace.stream("mlp", 2), atol=1e-4, rtol=1e-4)


def test_tables_of_classes_and_values():
    values = ValueVectors(
        vectors=torch.tensor([[1.0, 0], [0, 2], [-3, 0], [0, 0]]),
        class_embedding=torch.tensor([[2.0, 0], [0, 1], [3, 3]]),
        block=1,
        sublayer="mlp",
        class_names=("a", "b", "c"),
    )
    table = values.top_classes(2)
    assert table["class_name"].tolist()[:4] == ["c", "a", "c", "b"]
    assert table["score"].tolist()[:4] == [3, 2, 6, 2]
    assert table["cosine"].tolist()[1] == 1
    assert values.top_classes(1, values=[2])["class_name"].tolist() == ["b"]
    assert values.for_class(0, 2)["value"].tolist() == [0, 1]
    assert values.top_values(1).tolist() == [[0], [1], [1]]
    assert values.cosines[:, 3].tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"0\.\.2"):
        values.for_class(3)
    with pytest.raises(ValueError, match=r"1\.\.3"):
        values.top_classes(4)
    with pytest.raises(ValueError, match=r"0\.\.3"):
        values.top_classes(1, values=[4])


def test_active_memories_are_the_highest_coefficients(space):
    data = Pictures(2)
    pixels = torch.stack([data[i][0] for i in range(2)])
    with recording_active(space, k=3) as active:
        space.trace(pixels)
    for block in (1, 3):
        for sublayer in ("attention", "mlp"):
            with recording_coefficients(space, block, sublayer) as collected:
                space.trace(pixels)
            expected = collected[0].argsort(dim=-1, descending=True)[..., :3]
            assert torch.equal(active[block, sublayer], expected)
    assert all(not module._forward_pre_hooks for module in space.model.modules())


def test_hooks_come_off_after_an_error(space):
    with pytest.raises(RuntimeError, match="stop"), recording_active(space):
        raise RuntimeError("stop")
    assert all(not module._forward_pre_hooks for module in space.model.modules())


def test_class_value_agreement_and_wilcoxon(space):
    from scipy import stats

    study, control = ClassValueAgreement(), ClassValueAgreement()
    twin = space.random_twin()
    study.start(space)
    control.start(twin)
    result = study.result(control)
    row = result.where(weights="trained", block=2, stream="mlp")
    own, other = (value_vectors(s, 2, "mlp").agreement().double().numpy() for s in (space, twin))
    assert row["value"].item() == pytest.approx(own.mean())
    test = result.tables["wilcoxon"]
    test = test[(test["block"] == 2) & (test["stream"] == "mlp")]
    expected = stats.wilcoxon(own - other, alternative="greater", method="exact")
    assert test["p"].item() == pytest.approx(expected.pvalue)
    assert test["p_least"].item() == 2.0 ** -len(own)
    assert test["difference"].item() == pytest.approx((own - other).mean())
    # Several twins: a test against each.
    second = ClassValueAgreement()
    second.start(space.random_twin(5))
    both = study.result([control, second]).tables["wilcoxon"]
    both = both[(both["block"] == 2) & (both["stream"] == "mlp")].set_index("twin")
    assert both.loc[1, "p"] == test["p"].item()
    third = value_vectors(space.random_twin(5), 2, "mlp").agreement().double().numpy()
    assert both.loc[2, "difference"] == pytest.approx((own - third).mean())


@pytest.mark.parametrize("definition", ["value_of_class", "class_of_value"])
def test_key_value_agreement(space, definition):
    batch = readings_of(space, Pictures(), range(4))
    study = KeyValueAgreement(definition=definition)
    study.update(batch)
    table = study.result().table
    embedding = space.model.head.weight.detach()
    for block in (1, 3):
        for sublayer in ("attention", "mlp"):
            scores = (embedding @ projection(space, block, sublayer)).numpy()
            agree = []
            for b in range(4):
                label = int(batch.labels[b])
                for t in slow_groups(batch, b)["image"]:
                    hit = False
                    for j in batch.active[block, sublayer][b, t].tolist():
                        if definition == "value_of_class":
                            hit |= j in np.argsort(-scores[label])[:5]
                        else:
                            hit |= label in np.argsort(-scores[:, j])[:5]
                    agree.append(hit)
            row = table[(table["block"] == block) & (table["stream"] == sublayer)]
            row = row[(row["tokens"] == "image") & (row["outcome"] == "all")]
            assert row["value"].item() == pytest.approx(np.mean(agree))


def test_memory_compositionality(space):
    batch = readings_of(space, Pictures(), range(4))
    study = MemoryCompositionality()
    study.update(batch)
    table = study.result().table
    embedding = space.model.head.weight.detach()
    for block in (1, 3):
        for sublayer in ("attention", "mlp"):
            says = (embedding @ projection(space, block, sublayer)).argmax(dim=0).tolist()
            top1 = slow_logits(space, batch, block, sublayer).argmax(-1)
            composed = [
                all(says[j] != top1[b, t] for j in batch.active[block, sublayer][b, t].tolist())
                for b in range(4)
                for t in slow_groups(batch, b)["image"]
            ]
            row = table[(table["block"] == block) & (table["stream"] == sublayer)]
            row = row[(row["tokens"] == "image") & (row["outcome"] == "all")]
            assert row["value"].item() == pytest.approx(np.mean(composed))


@pytest.mark.parametrize("by", ["patch", "picture"])
def test_most_activating_patches(space, by):
    data = Pictures(7, broken=(2,))
    table = most_activating(space, data, 2, "mlp", [3, 40], k=4, batch_size=3, by=by)
    entries = {3: [], 40: []}
    for i in (0, 1, 3, 4, 5, 6):
        with recording_coefficients(space, 2, "mlp") as collected:
            space.trace(data[i][0][None])
        for value in entries:
            patches = [(float(v), i, p) for p, v in enumerate(collected[0][0, 1:, value])]
            entries[value] += [max(patches)] if by == "picture" else patches
    for value, found in entries.items():
        expected = sorted(found, reverse=True)[:4]
        rows = table[table["value"] == value]
        assert rows["place"].tolist() == [0, 1, 2, 3]
        assert rows["picture"].tolist() == [i for _, i, _ in expected]
        assert (rows["row"] * 4 + rows["column"]).tolist() == [p for _, _, p in expected]
        np.testing.assert_allclose(rows["coefficient"], [v for v, _, _ in expected], atol=1e-5)
        assert rows["label"].tolist() == [data[i][1] for _, i, _ in expected]


def test_places_on_a_grid_that_is_not_square():
    space = tiny_vit(img_size=(32, 48))

    class Wide(Pictures):
        def __getitem__(self, index):
            pixels, label, _ = super().__getitem__(index)
            return torch.cat([pixels, pixels.flip(2)[:, :, :16]], dim=2), label

    data = Wide(3)
    table = most_activating(space, data, 2, "mlp", [3], k=24)
    with recording_coefficients(space, 2, "mlp") as collected:
        space.trace(torch.stack([data[i][0] for i in range(3)]))
    places = collected[0][:, 1:, 3].reshape(3, 4, 6)
    for row in table.itertuples():
        assert row.coefficient == pytest.approx(float(places[row.picture, row.row, row.column]), abs=1e-6)
    assert table["column"].max() == 5
    assert table["row"].max() == 3


def test_most_activating_of_a_model_in_training_or_in_half_precision():
    model = tiny_vit(drop_rate=0.5, proj_drop_rate=0.5).model
    expected = most_activating(ClassSpace(model), Pictures(5), 2, "mlp", [3], k=4)
    training = most_activating(ClassSpace(model.train()), Pictures(5), 2, "mlp", [3], k=4)
    assert expected.equals(training)
    assert model.training
    half = ClassSpace(model, dtype=torch.bfloat16)
    np.testing.assert_allclose(
        most_activating(half, Pictures(5), 2, "mlp", [3], k=4)["coefficient"], expected["coefficient"], rtol=0.1
    )


def test_bad_input(space):
    with pytest.raises(ValueError, match=r"1\.\.3"):
        value_vectors(space, 4)
    with pytest.raises(ValueError, match="sublayer"):
        value_vectors(space, 1, "other")
    with pytest.raises(TypeError, match=r"pass its ClassSpace .*, got Trace"):
        value_vectors(space.trace(torch.zeros(1, 3, *space.preprocessing.size)), 1)
    with pytest.raises(ValueError, match=r"0\.\.47"):
        most_activating(space, Pictures(2), 1, "mlp", [48])
    with pytest.raises(ValueError, match="by must"):
        most_activating(space, Pictures(2), 1, "mlp", [0], by="row")
    with pytest.raises(ValueError, match="definition"):
        KeyValueAgreement(definition="mine")
    batch = readings_of(space, Pictures(), [0], needs=frozenset())
    with pytest.raises(ValueError, match="run_study"):
        KeyValueAgreement().update(batch)
    other = tiny_vit()
    other.model.blocks[0].mlp.fc2 = torch.nn.Identity()
    with pytest.raises(UnsupportedModelError, match=r"block 1 .* mlp"):
        value_vectors(other, 1, "mlp")
