"""What fitting a lens costs, and reading through one: ``python benchmarks/lenses.py [fit] [vit] [read]``.

- ``fit``: a Jacobian lens of 24 classes on 96 scenes, for the contrast and the default model, in seconds;
- ``vit``: one of 10 classes on 64 pictures for a model of the size of ViT-B/16, in passes forward and backward of the bare model;
- ``read``: `stream_readings` through a lens over the logit lens, for the default model and for ViT-B/16 with 1000 classes.

Ratios are medians over interleaved rounds in processor time, which a busy machine changes less than the clock.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from timm.models.vision_transformer import VisionTransformer

from classspace_widgets import ClassSpace, show_progress
from classspace_widgets.lens import FittedLens
from classspace_widgets.scenes import ScenesDataset

ROUNDS = 5


def clocked(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of the processor."""
    wall, own = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - own


def fit(scenes: int = 96) -> None:
    """Seconds of a fit, for the two models that the targets name."""
    for name, target in (("contrast", 15), ("default", 40)):
        space, data = ClassSpace.bundled(name, device="cpu"), ScenesDataset(scenes, seed=5)
        pictures = [data[n][0] for n in range(scenes)]
        wall, own = clocked(lambda space=space, pictures=pictures: space.fit_lens("jacobian", pictures, progress=False))
        print(f"fit {name}: {wall:.1f} s by the clock, {own:.1f} s of processor (target {target} s on two cores)")
        wall, own = clocked(
            lambda space=space, pictures=pictures: space.fit_lens("translator", pictures, progress=False)
        )
        print(f"fit {name}, translator: {wall:.1f} s by the clock, {own:.1f} s of processor")


def base(classes: int) -> ClassSpace:
    """A model of the size of ViT-B/16 with random weights."""
    torch.manual_seed(0)
    model = VisionTransformer(num_classes=classes).eval()
    model.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "crop_pct": 0.9}
    return ClassSpace(model, device="cpu")


def vit(pictures: int = 64, batch: int = 4) -> None:
    """A fit of 10 classes in units of a bare pass forward and backward over the same pictures."""
    space = base(10)
    pixels = torch.randn(pictures, 3, 224, 224)

    def bare(some: torch.Tensor) -> None:
        shown = some.clone().requires_grad_(True)
        torch.autograd.grad(space.model(shown)[:, 0].sum(), shown)

    for parameter in space.model.parameters():
        parameter.requires_grad_(False)
    bare(pixels[:batch])
    unit = statistics.median(clocked(lambda: bare(pixels[:batch]))[1] for _ in range(3)) * pictures / batch
    wall, own = clocked(lambda: space.fit_lens("jacobian", pixels, batch_size=batch, progress=False))
    print(
        f"fit ViT-B/16, 10 classes, {pictures} pictures: {own / unit:.1f} bare passes forward and backward (target 25); "
        f"{wall:.0f} s by the clock"
    )


def noise_lens(space: ClassSpace) -> FittedLens:
    """A lens of the right shape with maps of noise: reading costs the same whatever the maps hold."""
    points, kinds = space.adapter.points.n_increments, len(space.adapter.prefix) + 1
    count, width = space.lens.folded.shape
    classifier = torch.zeros(points, kinds, dtype=torch.bool)
    classifier[-1, 0] = True
    return FittedLens(
        kind="translator",
        weights=torch.randn(points, kinds, count, width) / 10,
        offsets=torch.zeros(points, kinds, count),
        defined=torch.ones(points, kinds, dtype=torch.bool),
        classifier=classifier,
        logit=space.lens,
        classes=tuple(range(count)),
        class_names=tuple(space.class_names),
        prefix=tuple(space.adapter.prefix),
        layout=space.adapter.layout,
        n_pictures=64,
        error=torch.zeros(points, kinds),
    )


def _size(space: ClassSpace) -> tuple[int, int]:
    height, width = space.model.patch_embed.img_size
    return int(height), int(width)


def read(rounds: int = ROUNDS) -> None:
    """`stream_readings` through a lens over the same through the logit lens."""
    cases = (("default", ClassSpace.bundled(device="cpu"), 16), ("ViT-B/16, 1000 classes", base(1000), 1))
    for name, space, batch in cases:
        lens = space.bundled_lens("jacobian") if name == "default" else noise_lens(space)
        pixels = torch.randn(batch, 3, *_size(space))
        runs = {
            "lens": lambda space=space, pixels=pixels, lens=lens: space.stream_readings(pixels, [0], lens=lens),
            "logit": lambda space=space, pixels=pixels: space.stream_readings(pixels, [0]),
            "bare": lambda space=space, pixels=pixels: _bare(space, pixels),
        }
        for run in runs.values():
            run()
        seconds = {what: [clocked(run)[1] for _ in range(1)] for what, run in runs.items()}
        for _ in range(rounds - 1):
            for what, run in runs.items():
                seconds[what].append(clocked(run)[1])
        ratios = [a / b for a, b in zip(seconds["lens"], seconds["logit"], strict=True)]
        over = [b / c for b, c in zip(seconds["logit"], seconds["bare"], strict=True)]
        print(
            f"read {name}, batch {batch}: through a lens {statistics.median(ratios):.2f} of the logit lens (target 1.10), "
            f"{min(ratios):.2f} to {max(ratios):.2f}; the logit lens {statistics.median(over):.2f} of the bare pass"
        )


def _bare(space: ClassSpace, pixels: torch.Tensor) -> None:
    with torch.inference_mode():
        space.model(pixels)


PARTS = {"fit": fit, "vit": vit, "read": read}

if __name__ == "__main__":
    show_progress(False)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=list(PARTS), choices=[*PARTS, []])
    for part in parser.parse_args().parts or list(PARTS):
        PARTS[part]()
