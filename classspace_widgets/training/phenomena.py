"""What the paper asks of a model, measured on scenes: where the class shows, block by block, and what attention does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from classspace_widgets.training.augment import CONTEXT, normalise, token_targets
from classspace_widgets.training.cache import Drawn

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

Floats = NDArray[np.float64]


@contextmanager
def streams(model: VisionTransformer) -> Iterator[list[Tensor]]:
    """Collect the residual stream [B, T, D] in front of the first block and after each: L + 1 of them a pass."""
    found: list[Tensor] = []
    with ExitStack() as hooks:
        first = model.blocks[0].register_forward_pre_hook(lambda _, given: found.append(given[0]))
        hooks.callback(first.remove)
        for block in model.blocks:
            hooks.callback(block.register_forward_hook(lambda _, given, out: found.append(out)).remove)
        yield found


@contextmanager
def attention_cut(model: VisionTransformer) -> Iterator[None]:
    """Every image token attends to itself alone, in all blocks: its attention output is its own value, projected."""
    prefix = model.num_prefix_tokens

    def own_value(attention: Any, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        value = attention.qkv(given[0][:, prefix:])[..., -out.shape[-1] :]
        return torch.cat([out[:, :prefix], attention.proj(value)], dim=1)

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
    return 1 - (logits > own).sum(-1) / logits.shape[-1]


@dataclass(frozen=True)
class Places:
    """Mean identifiability per picture and stream, NaN where a picture has no such token; all [N, L + 1]."""

    main_on_main: Floats
    main_on_context: Floats
    main_on_others: Floats
    others_on_others: Floats
    right: NDArray[np.bool_]


@torch.no_grad()
def measure(model: VisionTransformer, drawn: Drawn, *, batch: int = 50) -> Places:
    """Read all image tokens of all scenes, block by block.

    Parameters
    ----------
    drawn : tuple of ndarray
        Images [N, S, S, 3], masks [N, S, S] and classes [N, objects], as `draw_all` gives them.
    """
    patch = model.patch_embed.patch_size[0]
    rows: dict[str, list[Tensor]] = {name: [] for name in Places.__dataclass_fields__}
    for start in range(0, len(drawn[0]), batch):
        images, masks, classes = (torch.from_numpy(array[start : start + batch]) for array in drawn)
        pixels = normalise(images)
        with streams(model) as found:
            output = model(pixels)
        labels, targets = classes[:, 0], token_targets(masks, classes, patch)
        on_main = targets == labels[:, None]
        on_others, on_context = (targets >= 0) & ~on_main, targets == CONTEXT
        logits = [lens(model, stream)[:, model.num_prefix_tokens :] for stream in found]
        of_main = torch.stack([identifiability(level, labels) for level in logits], 1)
        of_own = torch.stack([identifiability(level, targets.clamp(min=0)) for level in logits], 1)
        for name, values, where in (
            ("main_on_main", of_main, on_main),
            ("main_on_context", of_main, on_context),
            ("main_on_others", of_main, on_others),
            ("others_on_others", of_own, on_others),
        ):
            rows[name].append(values.masked_fill(~where[:, None], torch.nan).nanmean(-1))
        rows["right"].append(output.argmax(-1) == labels)
    arrays: dict[str, Any] = {name: torch.cat(parts).numpy() for name, parts in rows.items()}
    return Places(**{k: v if k == "right" else v.astype(np.float64) for k, v in arrays.items()})


def interval(values: Floats, *, replicates: int = 1000, seed: int = 0) -> tuple[float, float, float]:
    """Mean over pictures and its 95 % bootstrap interval; pictures that are NaN do not count.

    Parameters
    ----------
    values : ndarray
        [N], one per picture.
    """
    values = values[~np.isnan(values)]
    picks = np.random.default_rng(seed).integers(len(values), size=(replicates, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def wilson(right: int, n: int) -> tuple[float, float, float]:
    """Share and its 95 % Wilson interval.

    Examples
    --------
    >>> [round(x, 3) for x in wilson(97, 100)]
    [0.97, 0.915, 0.99]
    """
    z, share = 1.959964, right / n
    middle, spread = share + z * z / (2 * n), z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return share, (middle - spread) / (1 + z * z / n), (middle + spread) / (1 + z * z / n)
