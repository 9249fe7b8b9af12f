"""Small, perturbed models of several families for tests."""

from __future__ import annotations

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from classspace_widgets import ClassSpace


def perturb(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random values in every one-dimensional parameter: fresh norms and biases hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * 0.15)
            elif name.endswith("bias"):
                parameter.copy_(noise * 0.2)
            else:
                parameter.add_(noise * 0.2)
    return model.eval()


PICTURES = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop_pct": 0.875}
"""What timm's configuration of a model says about its pictures; without one they would be assumed, with a warning."""


def tiny_vit(**options) -> ClassSpace:
    settings = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 24,
        "depth": 3,
        "num_heads": 3,
        "num_classes": 7,
        "mlp_ratio": 2.0,
    }
    model = perturb(VisionTransformer(**(settings | options)))
    model.pretrained_cfg = PICTURES
    return ClassSpace(model, device="cpu")


FAMILIES = {
    "vit": lambda: tiny_vit(),
    "layer scale, query/key norm, registers": lambda: tiny_vit(init_values=0.5, qk_norm=True, reg_tokens=2),
    "gap": lambda: tiny_vit(global_pool="avg", class_token=False, fc_norm=True),
    "scale norm": lambda: tiny_vit(scale_attn_norm=True),
    "relpos": lambda: from_timm("vit_relpos_small_patch16_224", rel_pos_dim=None),
    "beit": lambda: from_timm("beit_base_patch16_224"),
    "eva": lambda: from_timm("eva02_tiny_patch14_224", patch_size=16),
    "rope mixed": lambda: from_timm("vit_small_patch16_rope_mixed_224"),
    "deit": lambda: from_timm("deit_tiny_patch16_224"),
}


def from_timm(name: str, **options) -> ClassSpace:
    settings = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 7, "pretrained": False}
    options = {k: v for k, v in (settings | options).items() if v is not None}
    return ClassSpace(perturb(timm.create_model(name, **options)), device="cpu")


def images_for(space: ClassSpace, count: int = 2, seed: int = 5) -> torch.Tensor:
    size = 64 if space.adapter.model.patch_embed.img_size[0] == 64 else 32
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
