"""A conversion whose original learns on says so, instead of mixing old weights and new ones."""

from __future__ import annotations

import copy
import gc
import io

import pytest
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.models.convert import convert
from convert.originals import CLASSIFIERS, answer, pixels


def step(model):
    """One step of an optimizer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    output = model(pixels())
    (output if isinstance(output, torch.Tensor) else output.logits).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("change", ["a step", "new weights"])
def test_a_pass_after_training_of_the_original_is_refused(change):
    original = CLASSIFIERS["ViT"]()
    space = ClassSpace(original)
    space.trace(pixels())
    if change == "a step":
        step(original)
    else:
        original.load_state_dict({key: value + 0.1 for key, value in original.state_dict().items()})
    with pytest.raises(RuntimeError, match=r"ViTForImageClassification .* have changed since.*: ClassSpace\(model\)"):
        space.trace(pixels())
    again = ClassSpace(original)
    assert torch.allclose(again.trace(pixels()).output, answer(original, pixels()), atol=1e-4)


def test_tensors_in_common_alone_follow_the_original():
    """torchvision keeps queries, keys and values together, so that nothing is joined and nothing goes stale."""
    original = CLASSIFIERS["torchvision"]()
    space = ClassSpace(original)
    before = space.trace(pixels()).output
    step(original)
    after = space.trace(pixels()).output
    assert not torch.allclose(after, before, atol=1e-3)
    assert torch.allclose(after, answer(original, pixels()), atol=1e-4)


def test_changes_that_are_none_are_let_through():
    original = CLASSIFIERS["ViT"]()
    space = ClassSpace(original)
    original.load_state_dict({key: value.clone() for key, value in original.state_dict().items()})
    space.trace(pixels())


def test_copies_and_conversions_without_their_original_go_on():
    original = CLASSIFIERS["ViT"]()
    space = ClassSpace(original)
    copied, twin = copy.deepcopy(space.model), space.random_twin()
    stored = io.BytesIO()
    torch.save(space.model, stored)
    expected = space.trace(pixels()).output
    step(original)
    assert torch.equal(ClassSpace(copied).trace(pixels()).output, expected)
    twin.trace(pixels())
    stored.seek(0)
    assert torch.equal(ClassSpace(torch.load(stored, weights_only=False)).trace(pixels()).output, expected)
    converted = convert(original)
    step(original)
    del original, space
    gc.collect()
    ClassSpace(converted).trace(pixels())
