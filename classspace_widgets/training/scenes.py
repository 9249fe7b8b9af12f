"""Train a bundled model from a seed: ``python -m classspace_widgets.training.scenes --variant default --out weights``."""

from __future__ import annotations

import argparse
import math
import platform
import re
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from classspace_widgets.files import replacing
from classspace_widgets.models.bundled import WEIGHTS, build, load_bundled, save
from classspace_widgets.scenes.dataset import ScenesDataset
from classspace_widgets.training.augment import CONTEXT, augment, flip, normalise, token_targets
from classspace_widgets.training.cache import draw_all
from classspace_widgets.training.optimizers import optimizers
from classspace_widgets.training.recipe import RECIPES, Recipe

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


def losses(
    model: VisionTransformer, pixels: Tensor, classes: Tensor, targets: Tensor, kept: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Cross-entropy at the output, at tokens on objects and at tokens on context.

    Parameters
    ----------
    pixels : Tensor
        [B, 3, S, S].
    classes : Tensor
        [B, objects]; the first column is the label.
    targets : Tensor
        [B, P], from `token_targets`.
    kept : Tensor, optional
        [B, K], the image tokens to keep in each picture; all of them when left out.
    """
    prefix = model.num_prefix_tokens
    tokens = model._pos_embed(model.patch_embed(pixels))
    if kept is not None:
        image = tokens[:, prefix:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :prefix], image], dim=1)
        targets = targets.gather(1, kept)
    tokens = model.norm(model.blocks(model.norm_pre(tokens)))
    output = model.forward_head(tokens).float()
    every = model.head(model.fc_norm(tokens[:, prefix:])).float()
    on_objects = functional.cross_entropy(every[targets >= 0], targets[targets >= 0])
    on_context = -functional.log_softmax(every[targets == CONTEXT], dim=-1).mean()
    label = functional.cross_entropy(output, classes[:, 0])
    return label, on_objects.nan_to_num(), on_context.nan_to_num()


def keep_some(targets: Tensor, share: float, generator: torch.Generator) -> Tensor | None:
    """An even random choice of image tokens [B, K], or None for all."""
    if share >= 1:
        return None
    batch, tokens = targets.shape
    order = torch.rand(batch, tokens, generator=generator).argsort(dim=1)
    return order[:, : round(share * tokens)].to(targets.device)


def share_of_rate(step: int, recipe: Recipe) -> float:
    """Share of the highest learning rate in [0, 1]: linear warm-up, then half a cosine down to zero."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    done = (step - recipe.warm_up) / max(1, recipe.steps - recipe.warm_up)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def take_over(model: VisionTransformer, trained: VisionTransformer) -> None:
    """Begin with the weights of a trained model of the same width; a [CLS] token that `model` lacks is left behind."""
    weights = trained.state_dict()
    surplus = trained.num_prefix_tokens - model.num_prefix_tokens
    weights["pos_embed"] = weights["pos_embed"][:, surplus:]
    for part in ("weight", "bias"):
        if f"fc_norm.{part}" in model.state_dict() and f"norm.{part}" in weights:
            weights[f"fc_norm.{part}"] = weights.pop(f"norm.{part}")
    if not model.num_prefix_tokens:
        weights.pop("cls_token", None)
    model.load_state_dict(weights)


def hardware(device: str) -> str:
    """What a run ran on, for its card."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"CPU ({name}), {torch.get_num_threads()} threads, bfloat16 autocast, torch {torch.__version__}"


def train(
    recipe: Recipe,
    out: Path,
    *,
    variant: str,
    seed: int = 1,
    device: str = "cpu",
    workers: int = 1,
    cache: Path | None = None,
    keep_every: int = 250,
    stop_at: int | None = None,
    start_folder: Path = WEIGHTS,
) -> VisionTransformer:
    """Train, going on from the checkpoint in `out` if there is one, and write weights and card.

    Every step draws its batch and its augmentation from (seed, step) alone, so an interrupted run that goes on
    gives the same model as one that was never interrupted.
    """
    out.mkdir(parents=True, exist_ok=True)
    size, patch = recipe.timm["img_size"], recipe.timm["patch_size"]
    data = ScenesDataset(recipe.scenes, seed, size=size, p_home=recipe.p_home, distractors=recipe.distractors)
    images, masks, classes = draw_all(data, cache or out / "cache", workers=workers)
    torch.manual_seed(seed)
    model = build(recipe.timm).to(device)
    makers = optimizers(model, rate=recipe.rate, matrix_rate=recipe.matrix_rate, decay=recipe.decay)
    highest = [[group["lr"] for group in maker.param_groups] for maker in makers]
    step, seconds, history = 0, 0.0, []
    place = out / f"{variant}.checkpoint.pt"
    if place.exists():
        kept = torch.load(place, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        for maker, state in zip(makers, kept["optimizers"], strict=True):
            maker.load_state_dict(state)
        step, seconds, history = kept["step"], kept["seconds"], kept["history"]
    elif recipe.start_from is not None:
        take_over(model, load_bundled(recipe.start_from, folder=start_folder))

    def keep() -> None:
        state = {"model": model.state_dict(), "optimizers": [maker.state_dict() for maker in makers], "step": step}
        with replacing(place) as half:
            torch.save({**state, "seconds": seconds, "history": history}, half)
        card = {"variant": variant, "timm": recipe.timm, "recipe": asdict(recipe), "seed": seed, "trained_steps": step}
        card |= {"seconds": round(seconds), "device": device, "hardware": hardware(device), "history": history}
        save(model, card, out, variant)

    stop = recipe.steps if stop_at is None else min(stop_at, recipe.steps)
    bar = tqdm(total=recipe.steps, initial=step, desc=variant, unit="step", mininterval=5)
    model.train()
    mean: dict[str, float] = {}
    while step < stop:
        start = time.perf_counter()
        rows = np.random.default_rng([seed, step]).integers(recipe.scenes, size=recipe.batch)
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pixels = normalise(torch.from_numpy(images[rows]).to(device))
        shown = torch.from_numpy(masks[rows]).to(device)
        pixels, shown = (augment if recipe.vary else flip)(pixels, shown, generator)
        kinds = torch.from_numpy(classes[rows]).to(device)
        for maker, rates in zip(makers, highest, strict=True):
            for group, rate in zip(maker.param_groups, rates, strict=True):
                group["lr"] = rate * share_of_rate(step, recipe)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            targets = token_targets(shown, kinds, patch)
            share = recipe.keep if step < recipe.keep_until * recipe.steps else 1.0
            parts = losses(model, pixels, kinds, targets, keep_some(targets, share, generator))
        loss = parts[0] + recipe.token_weight * parts[1] + recipe.context_weight * parts[2]
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for maker in makers:
            maker.step()
        step, seconds = step + 1, seconds + time.perf_counter() - start
        bar.update()
        for name, part in zip(("label", "objects", "context"), parts, strict=True):
            mean[name] = 0.98 * mean.get(name, part.item()) + 0.02 * part.item()
        if step % 25 == 0:
            bar.set_postfix({name: f"{value:.3f}" for name, value in mean.items()})
        if step % keep_every == 0 or step == recipe.steps:
            history.append({"step": step, **{name: round(value, 4) for name, value in mean.items()}})
            keep()
    bar.close()
    if step == stop:
        keep()
    return model.eval()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m classspace_widgets.training.scenes", description=__doc__)
    parser.add_argument("--variant", choices=RECIPES, default="default")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoint, weights and card")
    parser.add_argument("--steps", type=int, help="length of the whole schedule")
    parser.add_argument("--stop-at", type=int, help="stop early, keeping the schedule")
    parser.add_argument("--scenes", type=int, help="pictures to draw")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--cache", type=Path, help="folder for drawn pictures (default: OUT/cache)")
    parser.add_argument("--keep-every", type=int, default=250, help="steps between checkpoints")
    given = parser.parse_args(arguments)
    changes: dict[str, Any] = {k: v for k in ("steps", "scenes", "batch") if (v := getattr(given, k)) is not None}
    options = {k: getattr(given, k) for k in ("variant", "seed", "device", "workers", "cache", "keep_every", "stop_at")}
    train(replace(RECIPES[given.variant], **changes), given.out, **options)


if __name__ == "__main__":
    main()
