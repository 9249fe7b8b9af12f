"""The cost of one pass for linear probes of every block, token and class: ``python benchmarks/probes.py``.

The sums of 13 stream points x 65 tokens over many pictures, against the bare forward pass over the same pictures, in
turns; then the solves.  Pictures are drawn before the clock starts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import timm
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.data import ArrayDataset
from classspace_widgets.probing import collect_sums
from classspace_widgets.probing.fit import probe_points
from classspace_widgets.probing.ridge import RidgeSums


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--parts", type=int, default=5, help="turns into which the pictures are divided")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = timm.models.vision_transformer.VisionTransformer(
        img_size=64, patch_size=8, embed_dim=128, depth=12, num_heads=4, num_classes=20
    ).eval()
    space = ClassSpace(model, device=options.device)
    size = options.pictures // options.parts
    generator = np.random.default_rng(0)
    pictures = generator.integers(0, 256, (size, 64, 64, 3), dtype=np.uint8)
    labels = generator.integers(0, 20, size)
    data = ArrayDataset(pictures, labels)
    points = probe_points(space)
    whole: RidgeSums | None = None
    bare, sums = [], []

    def clock() -> float:
        if space.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    ready = [space.preprocess(list(pictures[i : i + 32]))[0] for i in range(0, size, 32)]
    for _ in range(options.parts):
        start = clock()
        with torch.inference_mode():
            for pixels in ready:
                model(pixels)
        bare.append(clock() - start)
        start = clock()
        part = collect_sums(space, data, batch_size=32)
        sums.append(clock() - start)
        whole = part if whole is None else whole.merge(part)
    assert whole is not None
    start = clock()
    whole.solve(1.0)
    solve = clock() - start
    ratio = statistics.median(s / b for s, b in zip(sums, bare, strict=True))
    print(
        f"{len(points)} stream points x {space.trace_pixels(ready[0][:1]).n_tokens} tokens, {options.pictures} pictures"
    )
    print(
        f"sums over the bare forward pass: {ratio:.2f} (median of {options.parts}); bare {sum(bare):.1f} s; solves {solve:.1f} s"
    )


if __name__ == "__main__":
    main()
