"""The optimizers of every bundled model."""

from __future__ import annotations

from typing import Any

import torch


def optimizers(model: Any, *, rate: float, matrix_rate: float, decay: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for the rest, with no weight decay for vectors.

    Parameters
    ----------
    model : timm.models.vision_transformer.VisionTransformer
    rate, matrix_rate : float
        Highest learning rates of AdamW and of Muon.
    decay : float
        Weight decay of both.

    Raises
    ------
    RuntimeError
        Where torch is older than 2.9 and has no Muon.
    """
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(
            f"training needs torch 2.9 or later (for its optimizer Muon), this is torch {torch.__version__}"
        )
    matrices = [p for p in model.blocks.parameters() if p.ndim == 2]
    in_blocks = {id(p) for p in matrices}
    others = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in in_blocks]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": others, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    on_gpu = all(p.is_cuda for p in matrices)  # so that its steps can be recorded
    return [
        torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98), capturable=on_gpu),
        torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
    ]
