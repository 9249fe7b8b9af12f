"""Small models of every family, with every 1-D parameter (and what else starts at zero) perturbed.

Fresh models have norms that are the identity and biases that are zero, so a lens that forgot them would pass.
"""

from __future__ import annotations

import inspect

import pytest
import timm
import torch
from packaging.version import Version
from torch import nn

SMALL = {"depth": 2, "embed_dim": 32, "num_heads": 4, "img_size": 32, "num_classes": 12}

GROUPED = {"num_kv_heads": 2, "qkv_fused": False}
"""Four heads on two pairs of keys and values, where the installed timm has it."""

SUPPORTED = {
    "ViT": ("vit_base_patch16_224", {}),
    "ViT, query and key norm": ("vit_base_patch16_224", {"qk_norm": True}),
    "ViT, attention and MLP norm": ("vit_base_patch16_224", {"scale_attn_norm": True, "scale_mlp_norm": True}),
    "ViT, dynamic image size": ("vit_base_patch16_224", {"dynamic_img_size": True}),
    "ViT, not square": ("vit_base_patch16_224", {"img_size": (32, 48)}),
    "ViT, mean over all tokens": ("vit_base_patch16_224", {"global_pool": "avg", "pool_include_prefix": True}),
    "DeiT": ("deit_base_patch16_224", {}),
    "DeiT, distilled": ("deit_base_distilled_patch16_224", {}),
    "DeiT III (LayerScale)": ("deit3_base_patch16_224", {}),
    "DINOv2 with registers": ("vit_base_patch14_reg4_dinov2", {"img_size": 28}),
    "DINOv2 giant (SwiGLU)": ("vit_giant_patch14_reg4_dinov2", {"img_size": 28, "mlp_ratio": 2.0}),
    "FlexiViT": ("flexivit_base", {}),
    "CLIP tower": ("vit_base_patch16_clip_224", {}),
    "Residual post-norm (rpn), GAP": ("vit_base_patch16_rpn_224", {}),
    "Registers, GAP": ("vit_medium_patch16_reg4_gap_256", {}),
    "SigLIP, GAP": ("vit_base_patch16_siglip_gap_224", {}),
    "BEiT": ("beit_base_patch16_224", {}),
    "BEiT v2": ("beitv2_base_patch16_224", {}),
    "EVA": ("eva_giant_patch14_224", {"img_size": 28, "mlp_ratio": 2.0}),
    "EVA-02": ("eva02_base_patch14_224", {"img_size": 28}),
    "EVA-02 CLIP": ("eva02_base_patch16_clip_224", {}),
    "RoPE": ("vit_base_patch16_rope_224", {}),
    "RoPE, grouped queries": ("vit_base_patch16_rope_224", GROUPED),
    "RoPE, mixed": ("vit_base_patch16_rope_mixed_224", {}),
    "DINOv3": ("vit_base_patch16_dinov3", {}),
    "Relative position": ("vit_relpos_base_patch16_224", {}),
    "Relative position, [CLS]": ("vit_relpos_base_patch16_clsgap_224", {}),
    "Relative position, rpn": ("vit_relpos_medium_patch16_rpn_224", {}),
    "Shared relative position": ("vit_srelpos_medium_patch16_224", {}),
    "Hybrid (convolutional stem)": ("vit_base_r26_s32_224", {"img_size": 64}),
    "Parallel attention and MLP": ("vit_base_patch16_xp_224", {}),
    "Parallel things": ("vit_small_patch16_18x2_224", {}),
    "Differential attention": ("vit_dwee_patch16_reg1_gap_256", {}),
}

POOLED = {
    "SigLIP, attention pooling": ("vit_base_patch16_siglip_224", {}),
    "EVA, attention pooling": ("eva_giant_patch14_224", {"img_size": 28, "mlp_ratio": 2.0, "global_pool": "map"}),
    "ViT, attention pooling": ("vit_base_patch16_224", {"global_pool": "map"}),
}
"""Heads that pool all tokens by a module: a token is read as if it were the only one."""

REFUSED = {
    "CaiT": ("cait_xxs24_224", {"depth": 1, "embed_dim": 32, "num_heads": 4}),
    "XCiT": ("xcit_nano_12_p16_224", {"depth": 1, "embed_dim": 32, "num_heads": 4}),
    "PiT": ("pit_ti_224", {}),
    "Swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1)}),
    "LeViT": ("levit_128s", {}),
    "ResNet": ("resnet10t", {}),
    "Mean and maximum pooled": ("vit_base_patch16_224", {**SMALL, "global_pool": "avgmax"}),
    "No classifier": ("vit_base_patch16_224", {**SMALL, "num_classes": 0}),
}

_GROUPS = "num_kv_heads" in inspect.signature(timm.models.eva.Eva).parameters
available = {n: spec for n, spec in SUPPORTED.items() if timm.is_model(spec[0]) and (_GROUPS or spec[1] is not GROUPED)}


def perturbed(model: nn.Module, seed: int = 1) -> nn.Module:
    """The model with random norms, biases, scales, tokens and classifier."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim <= 1:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator).to(parameter)
            elif any(part in name for part in ("token", "pos", "head", "latent", "attn_pool")):
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator).to(parameter)
    return model.eval()


def build(family: str, **options) -> nn.Module:
    """A small model of a family, perturbed."""
    name, own = {**SUPPORTED, **POOLED}[family]
    return perturbed(timm.create_model(name, **{**SMALL, **own, **options}))


def build_double(family: str) -> nn.Module:
    """The same in float64, where the installed timm can."""
    if family == "RoPE, mixed" and Version(timm.__version__) < Version("1.0.31"):
        pytest.skip("this timm computes the frequencies of mixed RoPE in float32, so not in float64")
    return build(family).double()


def pixels(space, images: int = 2, seed: int = 0) -> torch.Tensor:
    """A batch of noise of the size that a model takes."""
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(images, 3, *space.preprocessing.size, generator=generator)
    return batch.to(space.device, space.dtype)
