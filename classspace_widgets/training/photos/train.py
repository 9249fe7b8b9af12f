"""Train the model of photographs: ``python -m classspace_widgets.training.photos.train --data FOLDER --out FOLDER``.

The learning rate is constant after a short warm-up, so that training can go on for as long as there is time; at any
point ``--cool-down N`` branches off: N epochs in which the rate falls to zero and all image tokens are kept. Every
step draws its batch and its changes from (seed, step) alone, so an interrupted run goes on as if nothing had happened.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from classspace_widgets.files import replacing, write_whole
from classspace_widgets.training.optimizers import optimizers
from classspace_widgets.training.photos.augment import mix, normalise, vary
from classspace_widgets.training.photos.data import Photographs, read


@dataclass(frozen=True)
class Recipe:
    """The model of photographs and its training.

    Attributes
    ----------
    timm : dict
        Arguments of `timm.models.vision_transformer.VisionTransformer`.
    keep : float
        Share of the image tokens that a step sees, chosen at random, before the cool-down.
    mixed : float
        Share of the batches that are mixed by mixup or CutMix.
    rate, matrix_rate : float
        Learning rates: of AdamW (embeddings, norms, biases, classifier), and of Muon (the blocks' matrices).
    average : float
        Share of the averaged weights that is kept at each step.
    """

    timm: dict[str, Any] = field(
        default_factory=lambda: {
            "img_size": 64, "patch_size": 8, "embed_dim": 192, "depth": 9, "num_heads": 6, "drop_path_rate": 0.1
        }
    )  # fmt: skip
    batch: int = 128
    keep: float = 0.5
    mixed: float = 0.7
    smoothing: float = 0.1
    rate: float = 1e-3
    matrix_rate: float = 4e-3
    decay: float = 0.05
    warm_up: int = 500
    average: float = 0.9995
    held_back: int = 40


def build(recipe: Recipe, classes: int, device: str = "cpu") -> torch.nn.Module:
    """The model, with random weights."""
    from timm.models.vision_transformer import VisionTransformer

    model: torch.nn.Module = VisionTransformer(num_classes=classes, **recipe.timm)
    if device.split(":")[0] == "cpu":
        # Half of a step on a CPU was the backward pass of torch's fused attention (1.08 s against .51 s, 33 tokens).
        for block in model.blocks:  # type: ignore[union-attr]
            block.attn.fused_attn = False
    return model


def answers(model: Any, pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Logits [B, C] of a pass that keeps this share of the image tokens."""
    tokens = model._pos_embed(model.patch_embed(pixels))
    if share < 1:
        batch, prefix = len(tokens), model.num_prefix_tokens
        places = tokens.shape[1] - prefix
        kept = torch.rand(batch, places, generator=generator).argsort(1)[:, : round(share * places)].to(tokens.device)
        image = tokens[:, prefix:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :prefix], image], dim=1)
    logits: Tensor = model.forward_head(model.norm(model.blocks(model.norm_pre(tokens))))
    return logits.float()


@torch.inference_mode()
def score(model: torch.nn.Module, photographs: Photographs, device: str) -> dict[str, float]:
    """Top-1 and top-5 accuracy, in [0, 1], mean of a picture and its mirror image not taken."""
    model.eval()
    hits = torch.zeros(2)
    for start in range(0, len(photographs.labels), 500):
        pixels = normalise(torch.from_numpy(photographs.pixels[start : start + 500]).to(device))
        labels = torch.from_numpy(photographs.labels[start : start + 500])
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            best = model(pixels).float().topk(min(5, len(photographs.folders))).indices.cpu()
        found = best == labels[:, None]
        hits += torch.stack([found[:, 0].sum(), found.any(1).sum()])
    model.train()
    return {
        name: round(float(hit) / len(photographs.labels), 4) for name, hit in zip(("top1", "top5"), hits, strict=True)
    }


class Run:
    """A training run that lives in a folder: model, averaged weights, optimizers, step."""

    def __init__(
        self, recipe: Recipe, photographs: Photographs, out: Path, *, seed: int = 1, device: str = "cpu"
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.out, self.seed, self.device = recipe, out, seed, device
        self.training, self.validation = photographs.split(recipe.held_back)
        self.model = build(recipe, len(photographs.folders), device).to(device)
        self.averaged = copy.deepcopy(self.model).requires_grad_(False)
        self.makers = optimizers(self.model, rate=recipe.rate, matrix_rate=recipe.matrix_rate, decay=recipe.decay)
        self.highest = [[group["lr"] for group in maker.param_groups] for maker in self.makers]
        self.step, self.seconds, self.history = 0, 0.0, []  # type: int, float, list[dict[str, float]]
        self.pixels = torch.from_numpy(self.training.pixels).to(device)
        self.labels = torch.from_numpy(self.training.labels).to(device)

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        return len(self.labels) // self.recipe.batch

    def load(self, file: Path) -> None:
        """Go on from a checkpoint."""
        kept = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.averaged.load_state_dict(kept["averaged"])
        for maker, state in zip(self.makers, kept["optimizers"], strict=True):
            maker.load_state_dict(state)
        self.step, self.seconds, self.history = kept["step"], kept["seconds"], kept["history"]

    def keep(self, name: str) -> None:
        """Write a checkpoint, and what was measured beside it as text."""
        state = {"model": self.model.state_dict(), "averaged": self.averaged.state_dict(), "step": self.step}
        state |= {"optimizers": [maker.state_dict() for maker in self.makers]}
        with replacing(self.out / f"{name}.pt") as half:
            torch.save({**state, "seconds": self.seconds, "history": self.history}, half)
        told = {"recipe": asdict(self.recipe), "seed": self.seed, "step": self.step, "seconds": round(self.seconds)}
        write_whole(self.out / f"{name}.json", json.dumps({**told, "history": self.history}, indent=1).encode())

    def one_step(self, share_of_rate: float, keep: float, mixed: float) -> Tensor:
        """One batch: gives its loss."""
        recipe = self.recipe
        epoch, place = divmod(self.step, self.epoch_steps)
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
        rows = torch.from_numpy(order[place * recipe.batch : (place + 1) * recipe.batch]).to(self.device)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        pixels = vary(normalise(self.pixels[rows]), generator)
        classes = len(self.training.folders)
        targets = functional.one_hot(self.labels[rows], classes).float()
        targets = targets * (1 - recipe.smoothing) + recipe.smoothing / classes
        pixels, targets = mix(pixels, targets, generator, share=mixed)
        for maker, rates in zip(self.makers, self.highest, strict=True):
            for group, rate in zip(maker.param_groups, rates, strict=True):
                group["lr"] = rate * share_of_rate
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            logits = answers(self.model, pixels, keep, generator)
        loss = functional.cross_entropy(logits, targets)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for maker in self.makers:
            maker.step()
        with torch.no_grad():
            share = 1 - min(recipe.average, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), share)
        self.step += 1
        return loss.detach()

    def go(
        self, steps: int, name: str, *, falling: bool, keep_every: float = 180.0, minutes: float | None = None
    ) -> None:
        """Train for this many steps; in a cool-down the rate falls to zero and all tokens are kept."""
        first, started, kept_at = self.step, time.monotonic(), time.monotonic()
        bar = tqdm(total=steps, desc=name, unit="step", mininterval=30)
        mean: Tensor | None = None
        self.model.train()
        while self.step - first < steps:
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                break
            begun = time.perf_counter()
            done = (self.step - first) / steps
            rate = 1 - done if falling else min(1.0, (self.step + 1) / self.recipe.warm_up)
            keep, mixed = (1.0, self.recipe.mixed * (1 - done)) if falling else (self.recipe.keep, self.recipe.mixed)
            loss = self.one_step(rate, keep, mixed)
            mean = loss if mean is None else 0.99 * mean + 0.01 * loss
            self.seconds += time.perf_counter() - begun
            bar.update()
            if self.step % self.epoch_steps == 0 and (self.step // self.epoch_steps) % (1 if falling else 3) == 0:
                found = score(self.averaged, self.validation, self.device)
                self.history.append({"epoch": self.step / self.epoch_steps, "loss": round(float(mean), 4), **found})
                bar.write(json.dumps(self.history[-1]))
            if time.monotonic() - kept_at > keep_every:
                self.keep(name)
                kept_at = time.monotonic()
        self.keep(name)
        bar.close()


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m classspace_widgets.training.photos.train", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of class folders, or a file of photos.data pack"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--epochs", type=float, default=1000, help="epochs at the constant rate (in all)")
    parser.add_argument("--cool-down", type=float, default=0, help="epochs of a cool-down, then stop")
    parser.add_argument("--minutes", type=float, help="stop the constant part after this many minutes")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    run = Run(replace(Recipe(), batch=given.batch), read(given.data), given.out, seed=given.seed, device=given.device)
    if (given.out / "run.pt").exists():
        run.load(given.out / "run.pt")
    left = round(given.epochs * run.epoch_steps) - run.step
    if left > 0 and not (given.cool_down and given.minutes is None and run.step):
        run.go(left, "run", falling=False, minutes=given.minutes)
    if given.cool_down:
        run.go(round(given.cool_down * run.epoch_steps), "cooled", falling=True)
    print(json.dumps(score(run.averaged, run.validation, given.device)))


if __name__ == "__main__":
    main()
