"""Memories whose classes can be read off the page: eight value vectors, three classes, two patches."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.studies import ClassValueAgreement, KeyValueAgreement, MemoryCompositionality, SimilarityChange
from classspace_widgets.studies.readings import Readings

# Value vectors are the columns; class c is the c-th axis.
VALUES = torch.tensor(
    [
        [8.0, 7, 6, 5, 4, 3, 2, 1],
        [1, 2, 3, 4, 5, 6, 7, 8],
        [1, 2, 8, 7, 6, 5, 4, 3],
        [0, 0, 0, 0, 0, 0, 0, 0],
    ]
)


@pytest.fixture(scope="module")
def space():
    model = tiny_vit(depth=1, img_size=16, embed_dim=4, num_heads=1, num_classes=3).model
    with torch.no_grad():
        model.norm.weight.fill_(1)
        model.norm.bias.zero_()
        model.head.weight.copy_(torch.eye(3, 4))
        model.head.bias.zero_()
        model.blocks[0].mlp.fc2.weight.copy_(VALUES)
        model.blocks[0].attn.proj.weight.copy_(VALUES[:, :4])
    return ClassSpace(model, device="cpu")


@pytest.fixture(scope="module")
def batch(space):
    """Label 0; [CLS] and four patches, of which two speak for class 2 and two for class 0 in what the MLP adds."""
    trace = space.trace(torch.zeros(1, 3, 16, 16))
    speaks = torch.tensor([0, 2, 2, 0, 0])
    added = torch.nn.functional.one_hot(speaks, 4).float() * 3
    before = torch.tensor([[2.0, 1, 0, 0], [0, 1, 2, 0], [2, 1, 0, 0], [1, 2, 0, 0], [2, 1, 0, 0]])
    still = torch.tensor([[0.0, 0, 1, 0]]).expand(5, 4)
    trace = replace(trace, increments=[before[None], still[None], added[None]])
    mlp = torch.tensor([[[0, 1], [7, 6], [4, 7], [0, 7], [5, 6]]])
    active = {(1, "mlp"): mlp, (1, "attention"): torch.zeros_like(mlp)}
    return Readings(trace, torch.tensor([0]), active=active, mid=True)


def value(study, batch, **where):
    study.update(batch)
    rows = study.result().where(block=1, tokens="image", outcome="all", **where)
    return rows["value"].item()


def test_largest_cosines(space):
    study = ClassValueAgreement()
    study.start(space)
    row = study.result().where(block=1, stream="mlp")
    # Class 0 lies nearest to (8, 1, 1), class 1 to (1, 8, 3), class 2 to (6, 3, 8).
    expected = (8 / math.sqrt(66) + 8 / math.sqrt(74) + 8 / math.sqrt(109)) / 3
    assert row["value"].item() == pytest.approx(expected)


def test_key_value_agreement_in_both_definitions(batch):
    # The five values of highest projection on class 0 are 0 to 4: patches with [4, 7] and [0, 7] have one of them.
    assert value(KeyValueAgreement(replicates=0), batch, stream="mlp") == 0.5
    # Every value has all three classes among its first five, so by the text's definition every patch agrees.
    assert value(KeyValueAgreement(definition="class_of_value", replicates=0), batch, stream="mlp") == 1.0


def test_memory_compositionality(batch):
    # First classes of the values: 0 0 2 2 2 1 1 1.  Patches say 2 2 0 0; their memories {1}, {2, 1}, {0, 1}, {1}.
    assert value(MemoryCompositionality(replicates=0), batch, stream="mlp") == 0.5


def test_similarity_change(batch):
    # Class 0 in what the MLP adds: two patches far above their input; where it speaks for class 2, class 0 reads below
    # zero: still above (0, 1, 2), below (2, 1, 0).
    assert value(SimilarityChange(replicates=0), batch, stream="mlp") == 0.75
