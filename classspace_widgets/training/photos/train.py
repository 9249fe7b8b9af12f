"""Train the model of photographs: ``python -m classspace_widgets.training.photos.train --data FOLDER --out FOLDER``.

The learning rate is constant after a short warm-up, so that training can go on for any length of time. At any
point ``--cool-down N`` adds a branch: N epochs in which the rate falls to zero and all image tokens are kept. Every
step draws its batch and its augmentation from (seed, step) only, so an interrupted run goes on without a difference.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
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
from classspace_widgets.training.photos.augment import augment, mix, normalise
from classspace_widgets.training.photos.data import Photographs, read
from classspace_widgets.training.photos.recorded import Recorded


@dataclass(frozen=True)
class Recipe:
    """The model of photographs and its training.

    Attributes
    ----------
    timm : dict
        Arguments of `timm.models.vision_transformer.VisionTransformer`.
    keep : float
        Share of the image tokens that a step sees, chosen at random, before the cool-down.
    mixed, mixed_at_end : float
        Share of the pictures that are mixed by mixup or CutMix; and that to which it falls in a cool-down.
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
    mixed_at_end: float = 0.0
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
        # On a CPU, torch's fused attention is slow in its backward pass: a step of 33 tokens took 1.08 s, without it 0.51 s.
        for block in model.blocks:  # type: ignore[union-attr]
            block.attn.fused_attn = False
    return model


def class_logits(model: Any, pixels: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Logits [B, C] of a pass that keeps this share of the image tokens, chosen at random."""
    tokens = model._pos_embed(model.patch_embed(pixels))
    if share < 1:
        batch, prefix = len(tokens), model.num_prefix_tokens
        places = tokens.shape[1] - prefix
        drawn = torch.rand(batch, places, generator=generator, device=generator.device).to(tokens.device)
        kept = drawn.argsort(1)[:, : round(share * places)]
        image = tokens[:, prefix:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        tokens = torch.cat([tokens[:, :prefix], image], dim=1)
    logits: Tensor = model.forward_head(model.norm(model.blocks(model.norm_pre(tokens))))
    return logits.float()


@torch.inference_mode()
def accuracy(model: torch.nn.Module, photographs: Photographs, device: str) -> dict[str, float]:
    """Top-1 and top-5 accuracy in [0, 1], of the pictures as they are (no mirror images)."""
    model.eval()
    hits = torch.zeros(2)
    for start in range(0, len(photographs.labels), 500):
        pixels = normalise(torch.from_numpy(photographs.pixels[start : start + 500]).to(device))
        labels = torch.from_numpy(photographs.labels[start : start + 500])
        with torch.autocast(device.split(":")[0], torch.bfloat16):
            best = model(pixels).float().topk(min(5, len(photographs.folders))).indices.cpu()
        correct = best == labels[:, None]
        hits += torch.stack([correct[:, 0].sum(), correct.any(1).sum()])
    model.train()
    return {
        name: round(float(hit) / len(photographs.labels), 4) for name, hit in zip(("top1", "top5"), hits, strict=True)
    }


class Run:
    """A training run that lives in a folder: model, averaged weights, optimizers, step.

    On a GPU its steps are recorded and replayed, unless ``record`` is False.
    """

    def __init__(
        self,
        recipe: Recipe,
        photographs: Photographs,
        out: Path,
        *,
        seed: int = 1,
        device: str = "cpu",
        record: bool = True,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.out, self.seed, self.device = recipe, out, seed, device
        self.training, self.validation = photographs.split(recipe.held_back)
        self.model = build(recipe, len(photographs.folders), device).to(device)
        self.averaged = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizers = optimizers(self.model, rate=recipe.rate, matrix_rate=recipe.matrix_rate, decay=recipe.decay)
        self.highest = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step, self.seconds, self.history = 0, 0.0, []  # type: int, float, list[dict[str, float]]
        self.pixels = torch.from_numpy(self.training.pixels).to(device)
        self.labels = torch.from_numpy(self.training.labels).to(device)
        self.order = (-1, torch.empty(0))  # an epoch, and the pictures in its order
        self.rows = torch.zeros(recipe.batch, dtype=torch.long, device=device)
        self.mixed, self.changed = torch.zeros((), device=device), torch.ones((), device=device)
        on_gpu = self.pixels.is_cuda
        self.generator = torch.cuda.default_generators[self.pixels.device.index or 0] if on_gpu else torch.Generator()
        self.keep = recipe.keep
        self.update: Callable[[tuple[float, float]], Tensor] = (
            Recorded(self._update) if on_gpu and record else lambda settings: self._update()
        )

    @property
    def hardware(self) -> str:
        """What it runs on, for the model card."""
        if self.pixels.is_cuda:
            return f"one {torch.cuda.get_device_name(self.pixels.device)}"
        threads = torch.get_num_threads()
        return f"{threads} thread{'s' if threads > 1 else ''} of a CPU"

    @property
    def epoch_steps(self) -> int:
        """Steps of one epoch."""
        return len(self.labels) // self.recipe.batch

    def load(self, file: Path) -> None:
        """Go on from a checkpoint."""
        saved = torch.load(file, map_location=self.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        self.averaged.load_state_dict(saved["averaged"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.step, self.seconds, self.history = saved["step"], saved["seconds"], saved["history"]

    def save(self, name: str) -> None:
        """Write a checkpoint, and the recipe with what was measured as text."""
        state = {"model": self.model.state_dict(), "averaged": self.averaged.state_dict(), "step": self.step}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        with replacing(self.out / f"{name}.pt") as unfinished:
            torch.save({**state, "seconds": self.seconds, "history": self.history}, unfinished)
        report = {"recipe": asdict(self.recipe), "seed": self.seed, "step": self.step, "seconds": round(self.seconds)}
        report |= {"pictures": len(self.labels), "hardware": self.hardware}
        write_whole(self.out / f"{name}.json", json.dumps({**report, "history": self.history}, indent=1).encode())

    def take_step(self, share_of_rate: float, keep: float, mixed: float) -> Tensor:
        """Train on one batch; returns its loss, which the next step may overwrite."""
        recipe = self.recipe
        epoch, batch = divmod(self.step, self.epoch_steps)
        if self.order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.labels))
            self.order = epoch, torch.from_numpy(order).to(self.device)
        self.rows.copy_(self.order[1][batch * recipe.batch : (batch + 1) * recipe.batch])
        self.mixed.fill_(mixed)
        self.changed.fill_(1 - min(recipe.average, (1 + self.step) / (10 + self.step)))
        self.generator.manual_seed(self.seed * 1_000_003 + self.step)
        self.keep = keep
        for optimizer, rates in zip(self.optimizers, self.highest, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * share_of_rate
        loss = self.update((share_of_rate, keep))
        self.step += 1
        return loss

    def _update(self) -> Tensor:
        """What a step does on the device."""
        recipe, classes = self.recipe, len(self.training.folders)
        pixels = augment(normalise(self.pixels[self.rows]), self.generator)
        targets = functional.one_hot(self.labels[self.rows], classes).float()
        targets = targets * (1 - recipe.smoothing) + recipe.smoothing / classes
        pixels, targets = mix(pixels, targets, self.generator, share=self.mixed)
        with torch.autocast(self.device.split(":")[0], torch.bfloat16):
            logits = class_logits(self.model, pixels, self.keep, self.generator)
        loss = functional.cross_entropy(logits, targets)
        self.model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            averaged: list[Tensor] = list(self.averaged.parameters())
            weights: list[Tensor] = list(self.model.parameters())
            steps = list(torch._foreach_sub(weights, averaged))
            torch._foreach_mul_(steps, self.changed)
            torch._foreach_add_(averaged, steps)
        return loss.detach()

    def train(
        self,
        steps: int,
        name: str,
        *,
        cool_down: bool,
        save_every: float = 180.0,
        minutes: float | None = None,
        measure_every: int = 3,
    ) -> None:
        """Train for this many steps, with a checkpoint every ``save_every`` seconds.

        In a cool-down the rate falls to zero (on a GPU in 25 steps, to 4 % of the highest), and all tokens are kept. The accuracy of the averaged weights is measured
        every ``measure_every`` epochs.
        """
        first, started, saved_at = self.step, time.monotonic(), time.monotonic()
        before = self.seconds

        def fallen(done: float) -> float:
            return self.recipe.mixed + (self.recipe.mixed_at_end - self.recipe.mixed) * done

        bar = tqdm(total=steps, desc=name, unit="step", mininterval=30)
        mean: Tensor | None = None
        self.model.train()
        while self.step - first < steps:
            if minutes is not None and time.monotonic() - started > 60 * minutes:
                break
            done = (self.step - first) / steps
            rate = 1 - done if cool_down else min(1.0, (self.step + 1) / self.recipe.warm_up)
            if self.pixels.is_cuda:  # each new rate is a new recording
                rate = math.ceil(rate * 25) / 25
            keep, mixed = (1.0, fallen(done)) if cool_down else (self.recipe.keep, self.recipe.mixed)
            loss = self.take_step(rate, keep, mixed)
            mean = loss.clone() if mean is None else 0.99 * mean + 0.01 * loss
            if self.step % 50 == 0 and self.pixels.is_cuda:
                torch.cuda.synchronize()  # no more steps are asked for than the time allows
            self.seconds = before + time.monotonic() - started
            bar.update()
            if self.step % self.epoch_steps == 0 and (self.step // self.epoch_steps) % measure_every == 0:
                measured = accuracy(self.averaged, self.validation, self.device)
                self.history.append({"epoch": self.step / self.epoch_steps, "loss": round(float(mean), 4), **measured})
                bar.write(json.dumps(self.history[-1]))
            if time.monotonic() - saved_at > save_every:
                self.save(name)
                saved_at = time.monotonic()
        self.save(name)
        bar.close()

    def cool_down_within(self, minutes: float, **options: Any) -> None:
        """A cool-down of as many steps as the minutes allow, by the pace of twenty steps that come before it."""
        started, trial = time.monotonic(), 20
        for _ in range(trial):
            self.take_step(1.0, 1.0, self.recipe.mixed)
        taken = time.monotonic()
        for _ in range(trial):
            self.take_step(1.0, 1.0, self.recipe.mixed).item()
        pace = (time.monotonic() - taken) / trial
        left = 60 * minutes - (time.monotonic() - started)
        self.train(max(1, round(0.9 * left / pace)), "cooled", cool_down=True, minutes=left / 60, **options)


def mean_weights(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """Mean of the averaged weights of some checkpoints; one that is given twice counts twice."""
    every = [torch.load(file, map_location="cpu", weights_only=True)["averaged"] for file in checkpoints]
    return {name: torch.stack([one[name] for one in every]).mean(0) for name in every[0]}


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m classspace_widgets.training.photos.train", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of class folders, or a file of photos.data pack"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--epochs", type=float, default=1000, help="epochs at the constant rate (in all)")
    parser.add_argument("--cool-down", type=float, default=0, help="epochs of a cool-down, then stop")
    parser.add_argument(
        "--cool-down-minutes", type=float, default=0, help="a cool-down of about this length, then stop"
    )
    parser.add_argument("--measure-every", type=int, default=3, help="epochs between two measurements of the accuracy")
    parser.add_argument("--minutes", type=float, help="stop the constant part after this many minutes")
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--start", type=Path, nargs="+", help="checkpoints from whose mean weights a cool-down starts")
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="highest learning rate of AdamW")
    parser.add_argument("--matrix-rate", type=float, default=Recipe.matrix_rate, help="highest learning rate of Muon")
    parser.add_argument(
        "--average", type=float, default=Recipe.average, help="kept of the averaged weights at each step"
    )
    parser.add_argument("--mixed-at-end", type=float, default=Recipe.mixed_at_end, help="share of mixed pictures then")
    parser.add_argument("--no-recording", action="store_true", help="launch each kernel of a step (on a GPU)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    if given.start and not (given.cool_down or given.cool_down_minutes):
        parser.error("--start is for a cool-down: give --cool-down EPOCHS or --cool-down-minutes MINUTES")
    if given.start and (given.out / "run.pt").exists():
        parser.error(f"{given.out} holds a run, from which a cool-down would start; give --out another folder")
    given.out.mkdir(parents=True, exist_ok=True)
    own = ("batch", "mixed_at_end", "rate", "matrix_rate", "average")
    recipe = replace(Recipe(), **{name: getattr(given, name) for name in own})
    options = {"seed": given.seed, "device": given.device, "record": not given.no_recording}
    run = Run(recipe, read(given.data), given.out, **options)
    if (given.out / "run.pt").exists():
        run.load(given.out / "run.pt")
    elif given.start:
        weights = mean_weights(given.start)
        run.model.load_state_dict(weights)
        run.averaged.load_state_dict(weights)
    left = round(given.epochs * run.epoch_steps) - run.step
    every = {"measure_every": given.measure_every}
    cools = given.cool_down or given.cool_down_minutes
    if left > 0 and not (cools and given.minutes is None and (run.step or given.start)):
        run.train(left, "run", cool_down=False, minutes=given.minutes, **every)
    if given.cool_down:
        run.train(round(given.cool_down * run.epoch_steps), "cooled", cool_down=True, **every)
    elif given.cool_down_minutes:
        run.cool_down_within(given.cool_down_minutes, **every)
    print(json.dumps(accuracy(run.averaged, run.validation, given.device)))


if __name__ == "__main__":
    main()
