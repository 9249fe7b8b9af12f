"""Throughput of studies against the bare forward pass, and of the vectorised statistics.

    python benchmarks/studies.py [--model vit_base_patch16_224] [--device cpu] [--batch 8] [--rounds 6] [--bf16] [--cpu-time]

Bare and measured batches take turns, so that a busy machine slows both; the ratio of medians is reported.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.studies import standard_studies
from classspace_widgets.studies.counted import Contribution
from classspace_widgets.studies.engine import read_batch
from classspace_widgets.studies.standard import HIDDEN_STATE_STUDIES
from classspace_widgets.studies.statistics import bootstrap_ci, permutation_test


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds, for a machine that others use too")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    space = ClassSpace.from_timm(arguments.model, pretrained=False, device=arguments.device)
    config = space.model.pretrained_cfg
    size = config["input_size"]
    pixels = torch.randn(arguments.batch, *size, device=space.device)
    labels = torch.randint(space.lens.offset.shape[0], (arguments.batch,))
    masks = torch.randint(0, 2, (arguments.batch, space.adapter.grid[0] * space.adapter.grid[1])).to(torch.int8)
    dtype = torch.bfloat16 if arguments.bf16 else None
    count = 0

    def synchronise() -> None:
        if space.device.type == "cuda":
            torch.cuda.synchronize()

    def bare() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(space.device.type, dtype or torch.bfloat16, enabled=dtype is not None),
        ):
            space.model(pixels)
        synchronise()

    def studied(studies: list) -> None:
        nonlocal count
        needs = frozenset().union(*(s.needs for s in studies))
        indices = np.arange(count, count + arguments.batch)
        count += arguments.batch
        readings = read_batch(space, pixels, labels, masks, indices, needs=needs, autocast=dtype)
        Contribution(readings, studies).count()
        synchronise()

    sets = {"hidden-state studies": [kind() for kind in HIDDEN_STATE_STUDIES], "and memories": standard_studies()}
    for studies in sets.values():
        for study in studies:
            study.start(space)
    runs = {"bare": bare} | {name: (lambda s=studies: studied(s)) for name, studies in sets.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(arguments.rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if round_:
                times[name].append(clock() - start)
    base = statistics.median(times["bare"])
    print(f"{arguments.model}, {arguments.device}, batch {arguments.batch}, bf16={arguments.bf16}: bare {base:.3f} s")
    for name in sets:
        own = statistics.median(times[name])
        print(f"  {name}: {own:.3f} s, throughput {base / own:.2f} of bare")
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 1000, 300_000) / 1000, generator.integers(0, 1000, 700_000) / 1000
    start = time.perf_counter()
    permutation_test(1 - first, 1 - second, permutations=300)
    print(f"  300 permutations of 1,000,000 tokens: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    permutation_test(generator.normal(size=300_000), generator.normal(size=700_000), permutations=300)
    print(f"  the same with values that never repeat: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    bootstrap_ci(generator.normal(size=(10_000, 49)), replicates=1000)
    print(f"  1000 bootstrap resamples of 10,000 pictures, 49 curves: {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
