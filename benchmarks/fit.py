"""What `ClassSpace.fit` costs beside the bare forward passes: ``python benchmarks/fit.py``.

A model of random weights and pictures of noise in JPEG files; both are timed in processor time of the whole process too, which a busy
machine changes less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image

from classspace_widgets import ClassSpace


def photographs(root: Path, count: int, classes: int) -> None:
    """Noise of low frequency, as large as photographs are."""
    rng = np.random.default_rng(0)
    for number in range(count):
        folder = root / f"class {number % classes}"
        folder.mkdir(exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def bare(model: torch.nn.Module, pixels: torch.Tensor, count: int) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of as many pictures in batches that are ready."""
    wall, processor = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for start in range(0, count, len(pixels)):
            model(pixels[: min(len(pixels), count - start)])
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    """Print both times, and what is left of 1.15 times the bare passes plus 5 s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--classes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model(arguments.model, num_classes=0).eval()
    size = model.patch_embed.img_size
    pixels = torch.randn(16, 3, *size)
    with tempfile.TemporaryDirectory() as folder:
        photographs(Path(folder), arguments.pictures, arguments.classes)
        for _ in range(arguments.rounds):
            plain = bare(model, pixels, arguments.pictures)
            wall, processor = time.perf_counter(), time.process_time()
            space = ClassSpace.fit(model, folder, progress=False)
            fit = time.perf_counter() - wall, time.process_time() - processor
            assert space.fitted is not None
            for what, before, after in zip(("wall clock", "processor"), plain, fit, strict=True):
                print(
                    f"{what}: bare passes {before:.1f} s, fit {after:.1f} s, ratio {after / before:.3f}, "
                    f"{after - 1.15 * before:+.1f} s beside 1.15 times (at most +5)"
                )


if __name__ == "__main__":
    main()
