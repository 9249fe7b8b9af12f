"""Attention perturbation and token removal against a slow forward pass, and cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from slow_vit import slow_forward
from study_helpers import Pictures, readings_of
from tiny_models import tiny_vit

from classspace_widgets.studies import AttentionPerturbation, TokenRemoval, run_study


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
    result = run_study(space, data, study, batch_size=2, progress=False)["attention_perturbation"]
    allowed = {
        "none": lambda reader, source: True,
        "no_cls": lambda reader, source: reader == 0 or source != 0,
        "self_only": lambda reader, source: reader == 0 or source == reader,
    }
    for condition, may in allowed.items():

        def run(embedded, _mask, may=may):
            streams, logits = slow_forward(
                space.model, embedded, keep=lambda _b, _h, reader, source: may(reader, source), renormalise=renormalise
            )
            return streams[-1], logits, range(len(embedded))

        check(result, condition, slow_rows(space, data, run))


def test_token_removal(space):
    data = Pictures(5)
    result = run_study(space, data, TokenRemoval(), batch_size=2, progress=False)["token_removal"]
    for condition, gone in (("none", None), ("class removed", 1), ("context removed", 0)):

        def run(embedded, mask, gone=gone):
            tokens = [0] + [t + 1 for t, m in enumerate(mask) if gone is None or m != gone]
            streams, logits = slow_forward(space.model, embedded[tokens])
            return streams[-1], logits, tokens

        check(result, condition, slow_rows(space, data, run))


def test_by_hand_a_model_that_only_reads_others():
    """Attention that averages, nothing else: what it knows comes from the tokens that it may read.

    Two classes are the two axes of the residual stream.  The patches of the upper half carry class 0, those of the lower
    half class 1; [CLS] starts with nothing and reads the mean of all.
    """
    space = tiny_vit(depth=1, img_size=16, embed_dim=4, num_heads=1, num_classes=2)
    model = space.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.norm.weight.fill_(1)
        model.blocks[0].norm1.weight.fill_(1)
        # Values and output projection are the identity; queries and keys are zero, so attention is uniform.
        model.blocks[0].attn.qkv.weight[8:] = torch.eye(4)
        model.blocks[0].attn.proj.weight.copy_(torch.eye(4))
        up, down = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([-1.0, 1.0, 0.0, 0.0])
        # Three patches speak for class 0, the last one for class 1; all that they carry is in the position embedding.
        model.pos_embed[0, 1:] = torch.stack([up, up, up, down])
        model.head.weight.copy_(torch.stack([up, down]))
    space = type(space)(model, device="cpu")

    class OnePicture:
        """Label 1; the object is the last patch."""

        def __len__(self):
            return 1

        def __getitem__(self, _index):
            mask = np.zeros((16, 16), np.uint8)
            mask[8:, 8:] = 1
            return torch.zeros(3, 16, 16), 1, mask

    results = run_study(space, OnePicture(), ["attention_perturbation", "token_removal"], progress=False)
    removed = results["token_removal"].where(measure="accuracy").drop_duplicates("condition").set_index("condition")
    # [CLS] reads three votes for class 0 and one for class 1; without the context only the one for class 1 is left.
    assert removed["value"].to_dict() == {"none": 0.0, "class removed": 0.0, "context removed": 1.0}
    cut = results["attention_perturbation"].where(measure="identifiability", outcome="all")
    cut = cut.set_index(["condition", "tokens"])["value"]
    # The object's patch keeps its own class; alone it reads itself, which only makes it surer. Identifiability of the
    # better of two classes is 1, of the worse one 1/2.
    for condition in ("none", "no_cls", "self_only"):
        assert cut[condition, "class"] == 1.0
        assert cut[condition, "context"] == 0.5
        assert cut[condition, "image"] == pytest.approx((3 * 0.5 + 1) / 4)
        assert cut[condition, "[CLS]"] == 0.5
