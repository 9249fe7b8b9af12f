"""The cost of when a pass decides: ``python benchmarks/decision.py [--threads 2] [--repeats 9] [--clock cpu]``.

ViT-B/16 (224 pixels, 1000 classes); medians and minima of interleaved repeats, as ratios to `stream_readings` of the same
pictures for one class (``bare`` in the output), which itself contains the forward pass.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import timm
import torch
from explain import measured_options, ratios

from classspace_widgets import ClassSpace, metrics
from classspace_widgets.space.streaming import stream_readings


def main() -> None:
    options = measured_options(9)
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
