"""Tiny models, passes and snapshots by torch, which the tests of the page's engine compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from tiny_models import perturb

from classspace_widgets import ClassSpace
from classspace_widgets.capture import capture
from classspace_widgets.capture.model import model_container
from classspace_widgets.interventions import from_spec, trace_with
from classspace_widgets.snapshot.container import Array, pack

MODELS: dict[str, dict[str, Any]] = {
    "cls": {},
    "registers": {"reg_tokens": 2, "init_values": 0.5, "no_embed_class": True, "qkv_bias": False},
    "gap": {"global_pool": "avg", "class_token": False},
    "norm_mean": {"global_pool": "avg", "fc_norm": False, "pool_include_prefix": True},
}
"""Arguments of timm's vision transformer beside those of `engine_space`."""

KNOCK_OUTS = [
    {"type": "KnockOutAttention", "kind": kind, "renormalise": renormalise}
    for kind in ("no_cls", "no_others", "self_only", "self_unscaled")
    for renormalise in (False, True)
    if (kind, renormalise) != ("self_unscaled", True)
]
REMOVE = {"type": "RemoveTokens", "tokens": [3, 5]}
SHORT: list[list[dict[str, Any]]] = [
    [],
    [REMOVE],
    [{"type": "KnockOutAttention", "kind": "edges", "sources": [4], "blocks": [1]}],
    [{"type": "Ablate", "sublayer": "head", "heads": [1], "blocks": [2], "mode": "mean"}, REMOVE],
]
"""Lists of interventions that every model is run with."""
ALL: list[list[dict[str, Any]]] = [
    *SHORT,
    [{"type": "RemoveTokens", "tokens": [2, 6], "outside": True}],
    [{"type": "RemoveTokens", "box": [0, 0, 1, 2]}],
    [{"type": "RemoveTokens", "mask": [[1, 0, 0], [0, 1, 0]]}],
    [{"type": "MaskTokens", "tokens": [0, 4], "mode": "zero"}],
    [{"type": "MaskTokens", "tokens": [1, 2], "mode": "mean"}],
    *([one] for one in KNOCK_OUTS),
    [{"type": "KnockOutAttention", "kind": "edges", "readers": [0, 2], "sources": [1, 3], "renormalise": True}],
    [{"type": "KnockOutAttention", "kind": "edges", "readers": [0], "heads": [0, 2], "blocks": [2]}],
    *(
        [{"type": "Ablate", "sublayer": sublayer, "mode": mode, "blocks": [1]}]
        for sublayer in ("attention", "mlp", "head")
        for mode in ("zero", "mean")
    ),
    [{"type": "PatchResidual", "target_block": 0, "tokens": [2, 3], "source": [0, 5]}],
    [{"type": "PatchResidual", "target_block": 1, "tokens": [0], "source": [0, 4]}],
    [{"type": "PatchResidual", "target_block": 2, "tokens": [0, 3], "source_block": 1, "source_token": 4}],
    [REMOVE, {"type": "PatchResidual", "target_block": 2, "tokens": [4], "source_block": 0, "source_token": 2}],
    [{"type": "AddVector", "block": 2, "tokens": [0], "vector": [0.25 * n for n in range(12)]}],
    [REMOVE, KNOCK_OUTS[0], {"type": "KnockOutAttention", "kind": "edges", "sources": [1], "renormalise": True}],
    [REMOVE, {"type": "PatchResidual", "target_block": 1, "tokens": [0, 2], "source": [0, 4]}],
]
"""Those that one model is run with: every kind of intervention, in every mode."""


def engine_space(name: str) -> ClassSpace:
    """A tiny model whose weights float16 holds exactly."""
    settings = {"img_size": (16, 24), "patch_size": 8, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 7}
    model = perturb(VisionTransformer(mlp_ratio=2.0, **settings, **MODELS[name]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    model.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "crop_pct": 1.0, "crop_mode": "squash"}
    return ClassSpace(model, device="cpu")


def pixels() -> torch.Tensor:
    """One random input."""
    return torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(5))


def fixtures(name: str) -> dict[str, bytes]:
    """All files of a model, by their names."""
    made = {f"{name}_model": model_container(engine_space(name)), f"{name}_passes": passes(name)}
    return made | (snapshots(name) if name in ("registers", "gap", "norm_mean") else {})


def passes(name: str) -> bytes:
    """The passes of a model under the interventions of `ALL` or `SHORT`, as a container."""
    space = engine_space(name)
    specs = ALL if name == "cls" else SHORT
    arrays: dict[str, Array] = {"pixels": pixels()[0].numpy()}
    for number, spec in enumerate(specs):
        trace = trace_with(space, pixels(), from_spec(spec), attention=True, heads=True)
        blocks = range(1, trace.n_blocks + 1)
        found = {
            "increments": torch.stack([increment[0] for increment in trace.increments]),
            "weights": torch.stack([trace.attention_weights[block][0] for block in blocks]),
            "heads": torch.stack([trace.head_inputs[block][0] for block in blocks]),
            "output": trace.output[0],
        }
        arrays |= {f"{number}.{what}": np.asarray(value.float().numpy()) for what, value in found.items()}
    return pack({"kind": "passes", "specs": specs}, arrays)


def snapshots(name: str) -> dict[str, bytes]:
    """A pass, and one with removed tokens, as the kernel captures them: of every class, and of a few."""
    space = engine_space(name)
    plain = trace_with(space, pixels(), [], attention=True, heads=True)
    removed = trace_with(space, pixels(), from_spec([REMOVE]), attention=True, heads=True)
    return {
        f"{name}_plain": capture(plain, payload="all").pack(),
        f"{name}_removed": capture(removed, payload="all").pack(),
        f"{name}_classes": capture(plain, payload="classes", classes=[2, 5]).pack(),
    }
