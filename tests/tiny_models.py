"""Small, perturbed models of several families for tests."""

from __future__ import annotations

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional

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


class Grouped(nn.Module):
    """Attention whose heads share keys and values in groups: head h reads those of h // (heads / key-value heads)."""

    def __init__(self, width, heads, shared):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.num_kv_groups = heads, shared, heads // shared
        self.head_dim = width // heads
        self.fused_attn = True
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, shared * self.head_dim)
        self.v_proj = nn.Linear(width, shared * self.head_dim)
        self.attn_drop = nn.Dropout(0.0)
        self.proj = nn.Linear(width, width)

    def forward(self, x, attn_mask=None, is_causal=False):
        batch, tokens, width = x.shape
        q = self.q_proj(x).view(batch, tokens, self.num_heads, -1).transpose(1, 2)
        k, v = (p(x).view(batch, tokens, self.num_kv_heads, -1).transpose(1, 2) for p in (self.k_proj, self.v_proj))
        owner = [h // self.num_kv_groups for h in range(self.num_heads)]
        k, v = k[:, owner], v[:, owner]
        if self.fused_attn:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            mixed = self.attn_drop((q @ k.transpose(-2, -1) * self.head_dim**-0.5).softmax(dim=-1)) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))


def grouped_queries() -> ClassSpace:
    """Four heads on two pairs of keys and values."""
    model = tiny_vit(num_heads=4).model
    for block in model.blocks:
        block.attn = Grouped(24, 4, 2)
    return ClassSpace(perturb(model), device="cpu")


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
    "grouped queries": grouped_queries,
    "mean over all tokens": lambda: tiny_vit(global_pool="avg", pool_include_prefix=True, fc_norm=True),
}


def from_timm(name: str, **options) -> ClassSpace:
    settings = {"img_size": 64, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 7, "pretrained": False}
    options = {k: v for k, v in (settings | options).items() if v is not None}
    return ClassSpace(perturb(timm.create_model(name, **options)), device="cpu")


def images_for(space: ClassSpace, count: int = 2, seed: int = 5) -> torch.Tensor:
    size = 64 if space.adapter.model.patch_embed.img_size[0] == 64 else 32
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(seed))
