"""Poolings that timm does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class FirstAndMean(nn.Module):
    """The first token beside the mean of the image tokens, as linear probes of DINOv2 are given them.

    A single token is both.

    Parameters
    ----------
    width : int
        D.
    prefix : int
        Number of tokens before the image tokens.

    Examples
    --------
    >>> FirstAndMean(1, prefix=1)(torch.tensor([[[5.0], [1.0], [3.0]]]))
    tensor([[5., 2.]])
    """

    def __init__(self, width: int, prefix: int) -> None:
        super().__init__()
        self.prefix, self.out_features = prefix, 2 * width

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``[B, T, D]`` to features ``[B, 2 D]``."""
        first = tokens[:, 0]
        image = tokens[:, self.prefix :] if tokens.shape[1] > 1 else tokens
        return torch.cat([first, image.mean(dim=1)], dim=1)


def first_and_mean_vit(num_classes: int, **options: Any) -> nn.Module:
    """timm's `VisionTransformer` with a classifier ``[C, 2 D]`` over what `FirstAndMean` makes of the tokens."""
    from timm.models.vision_transformer import VisionTransformer

    model: Any = VisionTransformer(num_classes=0, **options)
    model.attn_pool = FirstAndMean(model.embed_dim, model.num_prefix_tokens)
    model.global_pool, model.pool_include_prefix = "map", True
    model.head = nn.Linear(2 * model.embed_dim, num_classes)
    model.num_classes = num_classes
    made: nn.Module = model
    return made
