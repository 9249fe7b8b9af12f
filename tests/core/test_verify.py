"""The identities that readings rest on: a small breach is found, in every precision that can show it."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from classspace_widgets import ClassSpace
from classspace_widgets.models import UnsupportedModelError
from core.families import perturbed

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3, "num_classes": 5}


def vit(kind=VisionTransformer, **options):
    torch.manual_seed(0)
    return perturbed(kind(**(SMALL | options)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factor", [1.01, 0.99])
def test_an_output_that_is_off_by_a_hundredth_is_refused(dtype, factor):
    model = vit().to(dtype)
    model.head.register_forward_hook(lambda _m, _a, output: output * factor)
    with pytest.raises(
        UnsupportedModelError, match=r"does not give its output \(relative error [5-9]\.\de-03|1\.\de-02"
    ):
        ClassSpace(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_a_stream_that_is_off_by_a_thousandth_is_refused(dtype, block):
    model = vit().to(dtype)
    model.blocks[block].register_forward_hook(lambda _m, _a, output: output * 1.001)
    with pytest.raises(UnsupportedModelError, match="does not sum to its residual stream"):
        ClassSpace(model)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_given_the_room_that_rounding_takes_and_no_more(dtype):
    assert ClassSpace(vit(), dtype=dtype).identities["output"] < 0.05
    broken = vit()
    broken.head.register_forward_hook(lambda _m, _a, output: output * 1.3)
    with pytest.raises(UnsupportedModelError, match="does not give its output"):
        ClassSpace(broken, dtype=dtype)


def test_an_output_of_nan_is_refused():
    """Where weights are finite and only the output is not."""
    model = vit()
    model.head.register_forward_hook(lambda _m, _a, output: output * float("nan"))
    with pytest.raises(UnsupportedModelError, match="does not give its output"):
        ClassSpace(model)


class Features(VisionTransformer):
    def forward(self, x):
        return self.forward_features(x)


class OneClassLess(VisionTransformer):
    def forward(self, x):
        return super().forward(x)[:, :-1]


@pytest.mark.parametrize(("kind", "shape"), [(Features, r"\(1, 17, 24\)"), (OneClassLess, r"\(1, 4\)")])
def test_an_output_of_another_shape_is_refused(kind, shape):
    with pytest.raises(UnsupportedModelError, match=rf"expected an output of shape \[B, C\]=\[1, 5\], got {shape}"):
        ClassSpace(vit(kind))


def test_the_errors_are_those_of_the_pass():
    """Both are relative to the largest number, and near the rounding of the precision."""
    for dtype, most in ((torch.float32, 1e-5), (torch.float64, 1e-14)):
        found = ClassSpace(vit().to(dtype)).identities
        assert set(found) == {"residual", "output"}
        assert 0 <= max(found.values()) < most
    foreign = ClassSpace(vit(), class_embedding=torch.ones(2, 24))
    assert set(foreign.identities) == {"residual"}
