"""The cost of interventions and sweeps: ``python benchmarks/interventions.py [--threads 2] [--repeats 15] [--clock cpu]``.

Ratios are to the bare forward pass of the same batch, medians of interleaved repeats.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from timm.models.vision_transformer import VisionTransformer

from classspace_widgets import ClassSpace
from classspace_widgets.causal import Patch, sweep_heads, sweep_tokens
from classspace_widgets.interventions import (
    Ablate,
    KnockOutAttention,
    MaskTokens,
    PatchResidual,
    RemoveTokens,
    run_with,
    trace_with,
)

CLOCK = time.perf_counter


def small() -> ClassSpace:
    """The shape of the bundled model."""
    torch.manual_seed(0)
    return ClassSpace(
        VisionTransformer(img_size=96, patch_size=8, embed_dim=192, depth=10, num_heads=3, num_classes=40), device="cpu"
    )


def base() -> ClassSpace:
    torch.manual_seed(0)
    return ClassSpace(VisionTransformer(), device="cpu")


def medians(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of every call, run in turns so that drifts of the machine hit all alike."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(repeats):
        for name, call in calls.items():
            start = CLOCK()
            call()
            taken[name].append(CLOCK() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


def overhead(space: ClassSpace, batch: int, repeats: int) -> dict[str, float]:
    size = space.model.patch_embed.img_size[0]
    images = torch.randn(batch, 3, size, size)
    donor = space.trace(images[:1])
    last = space.trace(images[:1]).n_tokens

    def bare() -> torch.Tensor:
        with torch.inference_mode():
            return space.model(images)

    cases = {
        "empty": [],
        "remove a quarter of the tokens": [RemoveTokens(tokens=range(1, 1 + last // 4))],
        "mask tokens": [MaskTokens(tokens=[5, 6])],
        "no_cls, after softmax": [KnockOutAttention("no_cls")],
        "no_cls, renormalised": [KnockOutAttention("no_cls", renormalise=True)],
        "self_only": [KnockOutAttention("self_only")],
        "self_unscaled": [KnockOutAttention("self_unscaled")],
        "edges of one head": [KnockOutAttention("edges", sources=[5], heads=[0])],
        "ablate a head": [Ablate("head", heads=[1])],
        "ablate an MLP": [Ablate("mlp", blocks=[3])],
        "patch": [PatchResidual(3, tokens=[5], source=donor)],
    }
    calls: dict[str, Callable[[], object]] = {"bare": bare}
    for name, interventions in cases.items():
        calls[name] = lambda i=interventions: run_with(space, images, i)
    times = medians(calls, repeats)
    return {name: round(seconds / times["bare"], 3) for name, seconds in times.items()} | {
        "bare, ms": round(times["bare"] * 1e3, 1)
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine, one thread")
    options = parser.parse_args()
    if options.clock == "cpu":
        global CLOCK
        CLOCK, options.threads = time.process_time, 1
    torch.set_num_threads(options.threads)
    found: dict[str, object] = {}
    space = small()
    image = torch.randn(1, 3, 96, 96)
    donor = space.trace(torch.randn(1, 3, 96, 96))
    what_if = medians(
        {
            "trace_with(self_only)": lambda: trace_with(space, image, [KnockOutAttention("self_only")]),
            "trace_with(remove)": lambda: trace_with(space, image, [RemoveTokens(tokens=range(1, 40))]),
        },
        options.repeats,
    )
    found["one intervention on the small model, ms"] = {k: round(v * 1e3, 1) for k, v in what_if.items()}
    sweeps = medians(
        {
            "heads": lambda: sweep_heads(space, image, 3),
            "tokens, knock out": lambda: sweep_tokens(space, image, 3),
            "tokens, patch": lambda: sweep_tokens(space, image, 3, mode=Patch(donor)),
            "tokens, remove": lambda: sweep_tokens(space, image, 3, mode="remove"),
        },
        1,
    )
    found["sweeps on the small model (10 blocks, 3 heads, 145 tokens, width 192), s"] = {
        k: round(v, 2) for k, v in sweeps.items()
    }
    found["small model, batch 1, ratio to the bare forward"] = overhead(space, 1, options.repeats)
    found["ViT-B/16, batch 1, ratio to the bare forward"] = overhead(base(), 1, options.repeats)
    found["ViT-B/16, batch 8, ratio to the bare forward"] = overhead(base(), 8, max(3, options.repeats // 3))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
