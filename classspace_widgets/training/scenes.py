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
from classspace_widgets.training.cache import DrawnScenes, draw_all
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
        [B, K], the image tokens that the pass keeps in each picture; by default all.
    """
    prefix = model.num_prefix_tokens
    tokens = model._pos_embed(model.patch_embed(pixels))
    if kept is not None:
        image = tokens[:, prefix:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :prefix], image], dim=1)
        targets = targets.gather(1, kept)
    tokens = model.norm(model.blocks(model.norm_pre(tokens)))
    output = model.forward_head(tokens).float()
    token_logits = model.head(model.fc_norm(tokens[:, prefix:])).float()
    on_objects = functional.cross_entropy(token_logits[targets >= 0], targets[targets >= 0])
    on_context = -functional.log_softmax(token_logits[targets == CONTEXT], dim=-1).mean()
    label = functional.cross_entropy(output, classes[:, 0])
    return label, on_objects.nan_to_num(), on_context.nan_to_num()


def random_tokens(targets: Tensor, share: float, generator: torch.Generator) -> Tensor | None:
    """A random share of the image tokens of every picture, [B, K]; None for all of them."""
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


def copy_weights(model: VisionTransformer, trained: VisionTransformer) -> None:
    """Copy the weights of a trained model of the same width, without the [CLS] token if `model` has none."""
    weights = trained.state_dict()
    extra = trained.num_prefix_tokens - model.num_prefix_tokens
    weights["pos_embed"] = weights["pos_embed"][:, extra:]
    for part in ("weight", "bias"):
        if f"fc_norm.{part}" in model.state_dict() and f"norm.{part}" in weights:
            weights[f"fc_norm.{part}"] = weights.pop(f"norm.{part}")
    if not model.num_prefix_tokens:
        weights.pop("cls_token", None)
    model.load_state_dict(weights)


def hardware(device: str) -> str:
    """The machine that a run used, for the model card."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"CPU ({name}), {torch.get_num_threads()} threads, bfloat16 autocast, torch {torch.__version__}"


class Run:
    """A training run that lives in a folder: model, optimizers and step, with what training printed on the way.

    Every step draws its batch and its augmentation from (seed, step) only, so an interrupted run that goes on
    gives the same model as one that was never interrupted.
    """

    def __init__(self, recipe: Recipe, scenes: DrawnScenes, out: Path, *, variant: str, seed: int, device: str) -> None:
        torch.manual_seed(seed)
        self.recipe, self.out, self.variant, self.seed, self.device = recipe, out, variant, seed, device
        self.images, self.masks, self.classes = scenes
        self.model = build(recipe.timm).to(device)
        self.optimizers = optimizers(self.model, rate=recipe.rate, matrix_rate=recipe.matrix_rate, decay=recipe.decay)
        self.highest = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step, self.seconds, self.history = 0, 0.0, []  # type: int, float, list[dict[str, float]]
        self.mean: dict[str, float] = {}

    @property
    def checkpoint(self) -> Path:
        """File of the checkpoint."""
        return self.out / f"{self.variant}.checkpoint.pt"

    def load(self) -> None:
        """Go on from the checkpoint."""
        saved = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds, self.history = saved["step"], saved["seconds"], saved["history"]

    def save(self) -> None:
        """Write the checkpoint, and the weights with their card."""
        state = {"model": self.model.state_dict(), "step": self.step}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        with replacing(self.checkpoint) as unfinished:
            torch.save({**state, "seconds": self.seconds, "history": self.history}, unfinished)
        card = {
            "variant": self.variant,
            "trained_on": "scenes",
            "timm": self.recipe.timm,
            "recipe": asdict(self.recipe),
            "seed": self.seed,
        }
        card |= {"trained_steps": self.step, "seconds": round(self.seconds), "device": self.device}
        save(self.model, card | {"hardware": hardware(self.device), "history": self.history}, self.out, self.variant)

    def take_step(self) -> None:
        """Train on one batch."""
        recipe, device, start = self.recipe, self.device, time.perf_counter()
        rows = np.random.default_rng([self.seed, self.step]).integers(recipe.scenes, size=recipe.batch)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        pixels = normalise(torch.from_numpy(self.images[rows]).to(device))
        masks = torch.from_numpy(self.masks[rows]).to(device)
        pixels, masks = (augment if recipe.vary else flip)(pixels, masks, generator)
        classes = torch.from_numpy(self.classes[rows]).to(device)
        for optimizer, rates in zip(self.optimizers, self.highest, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share_of_rate(self.step, recipe)
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            targets = token_targets(masks, classes, recipe.timm["patch_size"])
            share = recipe.keep if self.step < recipe.keep_until * recipe.steps else 1.0
            parts = losses(self.model, pixels, classes, targets, random_tokens(targets, share, generator))
        loss = parts[0] + recipe.token_weight * parts[1] + recipe.context_weight * parts[2]
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step, self.seconds = self.step + 1, self.seconds + time.perf_counter() - start
        for name, part in zip(("label", "objects", "context"), parts, strict=True):
            self.mean[name] = 0.98 * self.mean.get(name, part.item()) + 0.02 * part.item()

    def train(self, stop: int, *, save_every: int) -> None:
        """Train up to a step, with a checkpoint every so many steps and at the end."""
        bar = tqdm(total=self.recipe.steps, initial=self.step, desc=self.variant, unit="step", mininterval=5)
        self.model.train()
        while self.step < stop:
            self.take_step()
            bar.update()
            if self.step % 25 == 0:
                bar.set_postfix({name: f"{value:.3f}" for name, value in self.mean.items()})
            if self.step % save_every == 0 or self.step == self.recipe.steps:
                means = {name: round(value, 4) for name, value in self.mean.items()}
                self.history.append({"step": self.step, **means})
                self.save()
        bar.close()
        if self.step == stop:
            self.save()


def train(
    recipe: Recipe,
    out: Path,
    *,
    variant: str,
    seed: int = 1,
    device: str = "cpu",
    workers: int = 1,
    cache: Path | None = None,
    save_every: int = 250,
    stop_at: int | None = None,
    start_folder: Path = WEIGHTS,
) -> VisionTransformer:
    """Train, going on from the checkpoint in `out` if there is one, and write weights and card.

    Parameters
    ----------
    recipe : Recipe
    out : Path
        Folder for checkpoint, weights and card.
    variant : str
        Name of the model and its files.
    seed : int
        Of weights, scenes, batches and augmentation.
    workers : int
        Processes that draw the scenes.
    cache : Path, optional
        Folder for drawn scenes; by default ``out / "cache"``.
    save_every : int
        Steps between checkpoints.
    stop_at : int, optional
        Stop after this step of the schedule.
    start_folder : Path
        Where the weights of ``recipe.start_from`` are.
    """
    out.mkdir(parents=True, exist_ok=True)
    size = recipe.timm["img_size"]
    data = ScenesDataset(recipe.scenes, seed, size=size, p_home=recipe.p_home, distractors=recipe.distractors)
    scenes = draw_all(data, cache or out / "cache", workers=workers)
    run = Run(recipe, scenes, out, variant=variant, seed=seed, device=device)
    if run.checkpoint.exists():
        run.load()
    elif recipe.start_from is not None:
        copy_weights(run.model, load_bundled(recipe.start_from, folder=start_folder))
    run.train(recipe.steps if stop_at is None else min(stop_at, recipe.steps), save_every=save_every)
    return run.model.eval()


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
    parser.add_argument("--save-every", type=int, default=250, help="steps between checkpoints")
    given = parser.parse_args(arguments)
    changes: dict[str, Any] = {k: v for k in ("steps", "scenes", "batch") if (v := getattr(given, k)) is not None}
    options = {k: getattr(given, k) for k in ("variant", "seed", "device", "workers", "cache", "save_every", "stop_at")}
    train(replace(RECIPES[given.variant], **changes), given.out, **options)


if __name__ == "__main__":
    main()
