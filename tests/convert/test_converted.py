"""Every family of every library against its own forward pass: answers, residual streams, classes, shared memory."""

from __future__ import annotations

import re

import pytest
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.models.convert import convert
from convert.originals import BACKBONES, CLASSES, CLASSIFIERS, answer, hidden_states, pixels, told_states

FAMILIES = {**CLASSIFIERS, **BACKBONES}


@pytest.fixture(scope="module", params=FAMILIES, ids=str)
def pair(request):
    original = FAMILIES[request.param]()
    return original, convert(original)


def test_the_answer_is_the_originals(pair):
    original, converted = pair
    with torch.no_grad():
        found = converted(pixels())
    expected = answer(original, pixels())
    assert expected.shape == found.shape
    assert torch.allclose(found, expected, atol=2e-5 * float(expected.abs().max()))
    assert float((expected[0] - expected[1]).abs().max()) > 0.01  # pictures differ in it


def test_the_trace_is_the_originals(pair):
    original, converted = pair
    space = ClassSpace(converted, class_embedding=torch.eye(2, converted.embed_dim))
    trace = space.trace(pixels(1))
    states = hidden_states(original, pixels(1))
    assert len(states) == trace.n_blocks + 1 == 4
    told = told_states(original, pixels(1))
    for block, expected in enumerate(states):
        assert told is None or torch.equal(told[block], expected)
        found = trace.stream("residual", block)[0]
        assert torch.allclose(found, expected, atol=2e-5 * float(expected.abs().max())), block


def test_what_needs_no_change_is_shared_and_not_copied(pair):
    original, converted = pair
    own = {parameter.untyped_storage().data_ptr() for parameter in original.parameters()}
    copied = {n for n, p in converted.named_parameters() if p.untyped_storage().data_ptr() not in own}
    joined = {name for name in copied if ".attn.qkv." in name}
    # A [CLS] that takes its position along, and biases of zero where the original has none.
    small = {name for name in copied - joined if name in ("cls_token", "head.bias", "patch_embed.proj.bias")}
    assert copied == joined | small
    library = type(original).__module__.partition(".")[0]
    assert not joined or library == "transformers"


def test_the_original_is_left_as_it_was():
    original = CLASSIFIERS["torchvision"]()
    before = {name: value.clone() for name, value in original.state_dict().items()}
    original.train()
    state = torch.random.get_rng_state()
    convert(original)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(module.training for module in original.modules())
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in original.modules())
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


@pytest.mark.parametrize("family", CLASSIFIERS)
def test_a_space_of_the_original_has_its_classes_and_answer(family):
    original = CLASSIFIERS[family]()
    space = ClassSpace(original)
    library = "torchvision" if family == "torchvision" else "transformers"
    assert space.origin.startswith(f"{type(original).__name__} of {library}, converted into timm's ")
    assert space.class_names == (CLASSES if library == "transformers" else ("class 0", "class 1", "class 2"))
    trace = space.trace(pixels())
    expected = answer(original, pixels())
    assert torch.allclose(trace.output, expected, atol=2e-5 * float(expected.abs().max()))
    assert max(space.identities.values()) < 1e-4


def test_half_precision_is_compared_in_full():
    original = CLASSIFIERS["ViT"]().bfloat16()
    converted = convert(original)
    assert converted.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16
    shared = original.vit.get_submodule(
        "layers.0.mlp.fc1" if hasattr(original.vit, "layers") else "encoder.layer.0.intermediate.dense"
    )
    assert converted.blocks[0].mlp.fc1.weight.data_ptr() == shared.weight.data_ptr()


@pytest.mark.parametrize("family", BACKBONES)
def test_a_backbone_says_what_it_needs(family):
    original = BACKBONES[family]()
    with pytest.raises(UnsupportedModelError, match="no classifier") as caught:
        ClassSpace(original)
    # The line in the message, typed in.
    told = str(caught.value)
    width = int(re.search(r"\[C, (\d+)\]", told).group(1))
    line = told[told.index("ClassSpace(model") :].partition(" with ")[0].replace("[...]", "['one', 'two']")
    names = {"ClassSpace": ClassSpace, "model": original}
    names |= dict.fromkeys(("embedding", "features"), torch.eye(2, width))
    assert eval(line, names).class_names == ("one", "two")


def test_a_class_derived_from_a_librarys_counts_as_its():
    original = CLASSIFIERS["torchvision"]()

    class Mine(type(original)):
        pass

    original.__class__ = Mine
    assert ClassSpace(original).n_classes == 3
