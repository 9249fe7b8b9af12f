"""Agreement with captum and pytorch-grad-cam on the same model and pictures."""

from __future__ import annotations

import pytest
import torch
from tiny_models import images_for, tiny_vit
from torch import nn

from classspace_widgets.explain import importance
from classspace_widgets.explain.weights import explicit_attention

captum_attr = pytest.importorskip("captum.attr")
grad_cam = pytest.importorskip("pytorch_grad_cam")


class Reading(nn.Module):
    """The class reading of what one block's attention adds, as a function of that block's attention weights."""

    def __init__(self, space, trace, block):
        super().__init__()
        self.values = trace.values(block).clone()
        weight, bias = trace.out_projection(block)
        self.weight, self.bias = weight.clone(), bias.clone()
        self.model = space.model

    def forward(self, weights):
        heads = (weights @ self.values).transpose(1, 2).flatten(2)
        added = heads @ self.weight.T + self.bias
        return self.model.head(self.model.norm(added[:, 0]))


@pytest.mark.parametrize("block", [1, 2, 3])
def test_gradient_equals_captum(block):
    space = tiny_vit(init_values=0.4)
    images = images_for(space)
    trace = space.trace(images, attention=True, heads=True)
    weights = trace.attention_weights[block].clone()
    saliency = captum_attr.Saliency(Reading(space, trace, block))
    expected = saliency.attribute(weights.requires_grad_(), target=3, abs=False)[:, :, 0]
    found = importance(space, 3, images=images, heads=True).by_head[:, 0, block - 1]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    times = captum_attr.InputXGradient(Reading(space, trace, block)).attribute(weights, target=3)[:, :, 0]
    torch.testing.assert_close(found * weights[:, :, 0].detach(), times.detach(), rtol=1e-4, atol=1e-6)


def test_captum_integrated_gradients_of_a_linear_reading_are_weight_times_importance():
    """Without a scale, what a block adds is linear in its weights, so the integral is the gradient times the weights."""
    space = tiny_vit(norm_layer=nn.Identity)
    images = images_for(space, 1)
    trace = space.trace(images, attention=True, heads=True)
    weights = trace.attention_weights[3].clone()
    captum = captum_attr.IntegratedGradients(Reading(space, trace, 3))
    expected = captum.attribute(weights, target=3, n_steps=8)[:, :, 0].float()
    found = importance(space, 3, images=images, heads=True).by_head[:, 0, 2] * weights[:, :, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_captum_integrated_gradients_along_the_weights_keep_the_sign():
    """Integrated from no attention to the real weights, most of the map agrees in sign with weight times importance."""
    space = tiny_vit()
    images = images_for(space, 1)
    trace = space.trace(images, attention=True, heads=True)
    weights = trace.attention_weights[3].clone()
    captum = captum_attr.IntegratedGradients(Reading(space, trace, 3))
    integrated = captum.attribute(weights, target=3, n_steps=64)[:, :, 0].float()
    found = importance(space, 3, images=images, heads=True).by_head[:, 0, 2] * weights[:, :, 0]
    agree = (integrated.sign() == found.sign()).float()
    share = float((agree * integrated.abs()).sum() / integrated.abs().sum())
    assert share > 0.8
    flipped = float(((-integrated).sign() == found.sign()).float().mean())
    assert flipped < 0.3


def test_relevance_from_pytorch_grad_cams_gradients():
    """Its hooks see the same activations and gradients at the attention weights as the single backward call."""
    space = tiny_vit()
    images = images_for(space, 1)
    blocks = space.adapter.blocks
    for block in blocks:
        block.attn.fused_attn = False
    layers = [block.attn.attn_drop for block in blocks]
    kept = grad_cam.activations_and_gradients.ActivationsAndGradients(space.model, layers, None)
    try:
        kept(images)[0, 4].backward()
        pairs = list(zip(kept.activations, kept.gradients, strict=True))
    finally:
        kept.release()
        for block in blocks:
            block.attn.fused_attn = True
        space.model.zero_grad()
    relevance = torch.eye(17)
    for weights, slopes in pairs:
        relevance = relevance + (weights[0] * slopes[0]).clamp(min=0).mean(dim=0) @ relevance
    found = importance(space, 4, images=images, method="chefer").maps[0, 0]
    torch.testing.assert_close(found, relevance[0], rtol=1e-4, atol=1e-6)


def test_grad_cam_of_a_block_from_our_attention():
    """Grad-CAM at a block's norm is the same with attention computed explicitly by us as with the model's own."""
    space = tiny_vit()
    images = images_for(space, 1)

    def reshape(tokens):
        return tokens[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)

    targets = [grad_cam.utils.model_targets.ClassifierOutputTarget(2)]
    maps = []
    for ours in (False, True):
        with grad_cam.GradCAM(space.model, [space.adapter.blocks[1].norm1], reshape_transform=reshape) as cam:
            if ours:
                with explicit_attention(space.adapter):
                    maps.append(torch.from_numpy(cam(images, targets)))
            else:
                maps.append(torch.from_numpy(cam(images, targets)))
    torch.testing.assert_close(maps[0], maps[1], rtol=1e-3, atol=1e-4)
