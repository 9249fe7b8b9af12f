"""Attention perturbation and token removal against a slow forward pass, and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slow_vit import slow_forward
from study_helpers import Pictures, readings_of
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.studies import AttentionPerturbation, Execution, TokenRemoval, run_study


@pytest.fixture(scope="module")
def space():
    return tiny_vit(depth=2)


def lens(space, vectors):
    """Class logits, one vector at a time, by the model's own norm and classifier in float64."""
    norm, head = space.model.norm, space.model.head
    weight, bias = (p.detach().double().numpy() for p in (norm.weight, norm.bias))
    out = []
    for v in vectors:
        scaled = (v - v.mean()) / np.sqrt(((v - v.mean()) ** 2).mean() + norm.eps) * weight + bias
        out.append(head.weight.detach().double().numpy() @ scaled + head.bias.detach().double().numpy())
    return np.array(out)


def slow_rows(space, data, run):
    """Accuracy and mean identifiability by group of what ``run(embedded, is_object)`` leaves: streams' rows and tokens."""
    hits, points = [], {"[CLS]": [], "image": [], "class": [], "context": []}
    for i in range(len(data)):
        _, label, _ = data[i]
        batch = readings_of(space, data, [i])
        mask = batch.token_masks[0].numpy()
        embedded = batch.trace.increments[0][0].double().numpy()
        last, logits, tokens = run(embedded, mask)
        hits.append(int(np.argmax(logits)) == label)
        for token, reading in zip(tokens, lens(space, last), strict=True):
            value = 1 - sum(other > reading[label] for other in reading) / len(reading)
            groups = ["[CLS]"] if token == 0 else ["image"]
            if token and mask[token - 1] >= 0:
                groups.append("class" if mask[token - 1] == 1 else "context")
            for group in groups:
                points[group].append(value)
    return np.mean(hits), {name: np.mean(values) for name, values in points.items() if values}


def check(result, condition, expected):
    accuracy, points = expected
    rows = result.where(condition=condition, outcome="all").set_index(["measure", "tokens"])["value"]
    assert rows["accuracy", "output"] == pytest.approx(accuracy)
    for group, value in points.items():
        assert rows["identifiability", group] == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("renormalise", [False, True])
def test_attention_perturbation(space, renormalise):
    data = Pictures(5)
    study = AttentionPerturbation(renormalise=renormalise)
    result = run_study(space, data, study, execution=Execution(batch_size=2), progress=False)["attention_perturbation"]
    allowed = {
        "none": lambda reader, source: True,
        "no_cls": lambda reader, source: reader == 0 or source != 0,
        "no_others": lambda reader, source: reader == 0 or source in (0, reader),
        "self_only": lambda reader, source: reader == 0 or source == reader,
    }
    assert list(dict.fromkeys(result.table["condition"])) == list(allowed)
    for condition, may in allowed.items():
        # The paper's self_only sets the weight on itself to 1: as if all others were masked before the softmax.
        masked = "before" if renormalise or condition == "self_only" else "keep"

        def run(embedded, _mask, may=may, masked=masked):
            cuts = {masked: lambda _b, _h, reader, source: may(reader, source)}
            streams, logits = slow_forward(space.model, embedded, **cuts)
            return streams[-1], logits, range(len(embedded))

        check(result, condition, slow_rows(space, data, run))


def test_token_removal(space):
    data = Pictures(5)
    result = run_study(space, data, TokenRemoval(), execution=Execution(batch_size=2), progress=False)["token_removal"]
    for condition, gone in (("none", None), ("class removed", 1), ("context removed", 0)):

        def run(embedded, mask, gone=gone):
            tokens = [0] + [t + 1 for t, m in enumerate(mask) if gone is None or m != gone]
            streams, logits = slow_forward(space.model, embedded[tokens])
            return streams[-1], logits, tokens

        check(result, condition, slow_rows(space, data, run))


UP = torch.tensor([1.0, -1.0, 0.0, 0.0])


def averaging(prefix, gain):
    """A model whose one block adds ``gain`` times the mean of what is read, tokens being +UP or -UP at unit length.

    Classes 0 and 1 are +UP and -UP. Three patches carry +UP and the last one, the object, -UP, all in the position
    embedding; [CLS] starts with ``prefix`` times UP.
    """
    model = tiny_vit(depth=1, img_size=16, embed_dim=4, num_heads=1, num_classes=2).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.norm.weight.fill_(1)
        model.blocks[0].norm1.weight.fill_(1)
        # Queries and keys are zero, so attention is uniform; the first norm makes +-UP longer by sqrt(2).
        model.blocks[0].attn.qkv.weight[8:] = gain / 2**0.5 * torch.eye(4)
        model.blocks[0].attn.proj.weight.copy_(torch.eye(4))
        model.pos_embed[0, 0] = prefix * UP
        model.pos_embed[0, 1:] = torch.stack([UP, UP, UP, -UP])
        model.head.weight.copy_(torch.stack([UP, -UP]))
    return ClassSpace(model, device="cpu")


class OnePicture:
    """Label 1; the object is the last patch."""

    def __len__(self):
        return 1

    def __getitem__(self, _index):
        mask = np.zeros((16, 16), np.uint8)
        mask[8:, 8:] = 1
        return torch.zeros(3, 16, 16), 1, mask


def test_token_removal_by_hand():
    """[CLS] reads three votes for class 0 and one for class 1; without the context only the one for class 1 is left."""
    results = run_study(averaging(prefix=0, gain=1), OnePicture(), "token_removal", progress=False)
    removed = results["token_removal"].where(measure="accuracy").drop_duplicates("condition").set_index("condition")
    assert removed["value"].to_dict() == {"none": 0.0, "class removed": 0.0, "context removed": 1.0}


def test_attention_perturbation_by_hand():
    """Every condition leaves something else. In units of UP, tokens are 1, 1, 1, -1 and [CLS] is -1; attention adds -0.8
    times the sum of what is read (its 5 weights are 1/5 each, and the gain is -4).

    ======== ======================== =============================
    ..       object (-1)              context (1)
    ======== ======================== =============================
    none     -1 - 0.8 (3 - 1 - 1) < 0 1 - 0.8 (3 - 1 - 1) > 0
    no_cls   -1 - 0.8 (3 - 1) < 0     1 - 0.8 (3 - 1) < 0
    no_others -1 - 0.8 (-1 - 1) > 0   1 - 0.8 (1 - 1) > 0
    self_only -1 - 4 (-1) > 0         1 - 4 < 0
    ======== ======================== =============================

    Below 0 the label is the first of two classes, identifiability 1; above it is the second, 1/2.
    """
    results = run_study(averaging(prefix=-1, gain=-4), OnePicture(), "attention_perturbation", progress=False)
    cut = results["attention_perturbation"].where(measure="identifiability", outcome="all")
    cut = cut.set_index(["condition", "tokens"])["value"]
    expected = {"none": (1, 0.5), "no_cls": (1, 1), "no_others": (0.5, 0.5), "self_only": (0.5, 1)}
    for condition, (inside, outside) in expected.items():
        assert (cut[condition, "class"], cut[condition, "context"]) == (inside, outside), condition
        assert cut[condition, "image"] == pytest.approx((inside + 3 * outside) / 4)
        # [CLS] itself reads on: -1 - 0.8 (3 - 1 - 1) < 0.
        assert cut[condition, "[CLS]"] == 1


def test_contrasts_subtract_what_they_name(space):
    results = run_study(space, Pictures(6), ["attention_perturbation", "token_removal"], progress=False)
    for name, pairs in {
        "attention_perturbation": {
            "image tokens: none against self_only": ("identifiability", "image", "none", "self_only"),
            "image tokens: no_cls against no_others": ("identifiability", "image", "no_cls", "no_others"),
            "answer: none against self_only": ("accuracy", "output", "none", "self_only"),
        },
        "token_removal": {
            "answer: context removed against class removed": ("accuracy", "output", "context removed", "class removed"),
        },
    }.items():
        found = results[name].tables["differences"].set_index("comparison")
        assert list(found.index) == list(pairs)
        for comparison, (measure, tokens, more, less) in pairs.items():
            rows = results[name].where(measure=measure, tokens=tokens, outcome="all").set_index("condition")["value"]
            assert found.loc[comparison, "value"] == pytest.approx(rows[more] - rows[less])
            assert found.loc[comparison, "low"] <= found.loc[comparison, "value"] <= found.loc[comparison, "high"]
            assert found.loc[comparison, "pictures"] == 6


def test_a_register_is_not_called_cls():
    """The first token of a model without [CLS] may be a register, which nothing says anything about."""
    space = tiny_vit(global_pool="avg", class_token=False, reg_tokens=2, fc_norm=True)
    results = run_study(space, Pictures(4), ["attention_perturbation", "identifiability"], progress=False)
    measured = set(results["attention_perturbation"].table.query("count > 0")["condition"])
    assert "self_only" in measured
    assert "no_cls" not in measured
    assert "[CLS]" not in set(results["identifiability"].table.query("count > 0")["tokens"])
