"""The cost of token importance and perturbation tests: ``python benchmarks/explain.py [--threads 2] [--repeats 15] [--clock cpu]``.

ViT-B/32 (224 pixels, 1000 classes); ratios are to the bare forward pass of the same batch, medians and minima of
interleaved repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import timm
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.explain import importance, perturbation

CLOCK = time.perf_counter


def set_clock(clock: Callable[[], float]) -> None:
    """Time by another clock, such as the processor's."""
    global CLOCK
    CLOCK = clock


def timed(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every call, run in turns so that drifts of the machine hit all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = CLOCK()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append(CLOCK() - start)
    return taken


def ratios(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, object]:
    taken = timed(calls, repeats)
    bare = taken["bare"]
    found: dict[str, object] = {"bare, ms (median)": round(statistics.median(bare) * 1e3, 2)}
    for name, times in taken.items():
        if name != "bare":
            found[name] = {
                "median": round(statistics.median(times) / statistics.median(bare), 3),
                "minimum": round(min(times) / min(bare), 3),
            }
    return found


def measured_options(repeats: int) -> argparse.Namespace:
    """Batches and repeats as the command line has them; threads, clock and seed are set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine, one thread")
    options = parser.parse_args()
    if options.clock == "cpu":
        set_clock(time.process_time)
        options.threads = 1
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return options


def main() -> None:
    options = measured_options(15)
    space = ClassSpace(timm.create_model("vit_base_patch32_224", pretrained=False), device="auto")
    if torch.cuda.is_available():
        space = ClassSpace(space.model, device="cuda")
    found: dict[str, object] = {}
    for batch in options.batches:
        images = torch.randn(batch, 3, 224, 224, device=space.device)

        def bare(images: torch.Tensor = images) -> torch.Tensor:
            with torch.inference_mode():
                return space.model(images)

        def of(images: torch.Tensor = images, **arguments: object) -> Callable[[], object]:
            return lambda: importance(space, images=images, **arguments)  # type: ignore[arg-type]

        calls: dict[str, Callable[[], object]] = {
            "bare": bare,
            "gradient, predicted class": of(),
            "gradient, one class, by head": of(classes=5, heads=True),
            "gradient, cross-entropy": of(classes=5, loss="cross_entropy"),
            "gradient, 1000 classes": of(classes=range(1000)),
            "direct": of(classes=5, method="direct"),
            "rollout": of(classes=5, method="rollout"),
            "chefer, one call": of(classes=5, method="chefer"),
        }
        found[f"importance, batch {batch}, ratio to the bare forward"] = ratios(calls, options.repeats)
    images = torch.randn(1, 3, 224, 224, device=space.device)
    scores = torch.randn(1, 49, device=space.device)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return space.model(images)

    found["negative and positive perturbation of one picture, every step, in forward passes"] = ratios(
        {"bare": forward, "both curves": lambda: perturbation(space, images, [3], scores)}, max(3, options.repeats // 3)
    )
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
