"""The cost of when a pass decides: ``python benchmarks/decision.py [--threads 2] [--repeats 9] [--clock cpu]``.

ViT-B/16 (224 pixels, 1000 classes); medians and minima of interleaved repeats, as ratios to `stream_readings` of the same
pictures for one class (``bare`` in the output), which itself contains the forward pass.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import timm
import torch
from explain import ratios, set_clock

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.space.streaming import stream_readings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a busy machine, one thread")
    options = parser.parse_args()
    if options.clock == "cpu":
        set_clock(time.process_time)
        options.threads = 1
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    space = ClassSpace(timm.create_model("vit_base_patch16_224", pretrained=False), device="auto")
    found: dict[str, object] = {}
    for batch in options.batches:
        images = torch.randn(batch, 3, 224, 224, device=space.device)
        trace = space.trace(images)
        calls: dict[str, Callable[[], object]] = {
            "bare": lambda images=images: stream_readings(space, images, 5),
            "decision of a trace": lambda trace=trace: metrics.decision(trace, 5),
            "trace and decision": lambda images=images: metrics.decision(space.trace(images), 5),
            "trace and decision, by block": lambda images=images: metrics.decision(space.trace(images), 5, mid=False),
        }
        found[f"batch {batch}, ratio to stream_readings"] = ratios(calls, options.repeats)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
