"""The paper's questions, measured on scenes: where a class is identifiable, block by block, and what attention adds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classspace_widgets.lens import count_above
from classspace_widgets.training.augment import CONTEXT, normalise, token_targets
from classspace_widgets.training.cache import DrawnScenes

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

Floats = NDArray[np.float64]


@contextmanager
def streams(model: VisionTransformer) -> Iterator[list[Tensor]]:
    """Collect the residual stream [B, T, D] before the first block and after each block: L + 1 tensors for every pass."""
    collected: list[Tensor] = []
    with ExitStack() as hooks:
        first = model.blocks[0].register_forward_pre_hook(lambda _, inputs: collected.append(inputs[0]))
        hooks.callback(first.remove)
        for block in model.blocks:
            hooks.callback(block.register_forward_hook(lambda _, inputs, output: collected.append(output)).remove)
        yield collected


@contextmanager
def attention_cut(model: VisionTransformer) -> Iterator[None]:
    """Every image token attends to itself only, in all blocks: its attention output is its own value, projected."""
    prefix = model.num_prefix_tokens

    def own_value(attention: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        value = attention.qkv(inputs[0][:, prefix:])[..., -output.shape[-1] :]
        return torch.cat([output[:, :prefix], attention.proj(value)], dim=1)

    with ExitStack() as hooks:
        for block in model.blocks:
            hooks.callback(block.attn.register_forward_hook(own_value).remove)
        yield


def lens(model: VisionTransformer, stream: Tensor) -> Tensor:
    """Class logits [B, T, C] of a residual stream [B, T, D]: final norm, then classifier."""
    logits: Tensor = model.head(model.fc_norm(model.norm(stream)))
    return logits


def identifiability(logits: Tensor, labels: Tensor) -> Tensor:
    """1 - rank/C of a class at every token.

    Parameters
    ----------
    logits : Tensor
        [B, T, C].
    labels : Tensor
        [B], class per picture, or [B, T], class per token.

    Returns
    -------
    Tensor
        [B, T], float32, in (0, 1]; 1 where the class has the highest logit.
    """
    wanted = labels[:, None].expand(logits.shape[:2]) if labels.ndim == 1 else labels
    own = logits.gather(-1, wanted[..., None])
    return 1 - count_above(logits, own)[..., 0] / logits.shape[-1]


@dataclass(frozen=True)
class Places:
    """Mean identifiability per picture and stream, [N, L + 1]: of one class on the tokens of one place.

    NaN where a picture has no such token. ``correct`` [N] tells where the model's answer is right."""

    main_on_main: Floats
    main_on_context: Floats
    main_on_others: Floats
    others_on_others: Floats
    correct: NDArray[np.bool_]


@torch.no_grad()
def measure(model: VisionTransformer, scenes: DrawnScenes, *, batch: int = 50) -> Places:
    """Read all image tokens of all scenes, block by block.

    Parameters
    ----------
    scenes : tuple of ndarray
        Images [N, S, S, 3], masks [N, S, S] and classes [N, objects], from `draw_all`.
    """
    patch = model.patch_embed.patch_size[0]
    rows: dict[str, list[Tensor]] = {name: [] for name in Places.__dataclass_fields__}
    for start in range(0, len(scenes[0]), batch):
        images, masks, classes = (torch.from_numpy(array[start : start + batch]) for array in scenes)
        pixels = normalise(images)
        with streams(model) as collected:
            output = model(pixels)
        labels, targets = classes[:, 0], token_targets(masks, classes, patch)
        on_main = targets == labels[:, None]
        on_others, on_context = (targets >= 0) & ~on_main, targets == CONTEXT
        logits = [lens(model, stream)[:, model.num_prefix_tokens :] for stream in collected]
        of_main = torch.stack([identifiability(layer, labels) for layer in logits], 1)
        of_own = torch.stack([identifiability(layer, targets.clamp(min=0)) for layer in logits], 1)
        for name, values, where in (
            ("main_on_main", of_main, on_main),
            ("main_on_context", of_main, on_context),
            ("main_on_others", of_main, on_others),
            ("others_on_others", of_own, on_others),
        ):
            rows[name].append(values.masked_fill(~where[:, None], torch.nan).nanmean(-1))
        rows["correct"].append(output.argmax(-1) == labels)
    arrays: dict[str, Any] = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
    return Places(**{k: v if k == "correct" else v.astype(np.float64) for k, v in arrays.items()})


def interval(values: Floats, *, replicates: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over pictures and its 95 % bootstrap interval; NaN are left out.

    Parameters
    ----------
    values : ndarray
        [N], one per picture.
    """
    values = values[~np.isnan(values)]
    picks = np.random.default_rng(seed).integers(len(values), size=(replicates, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def wilson(correct: int, n: int) -> tuple[float, float, float]:
    """A share and its 95 % Wilson interval.

    Examples
    --------
    >>> [round(x, 3) for x in wilson(97, 100)]
    [0.97, 0.915, 0.99]
    """
    z, share = 1.959964, correct / n  # z is the normal distribution's 97.5 % quantile
    middle, spread = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return share, (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
