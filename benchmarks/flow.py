"""The cost of where a logit stands: ``python benchmarks/flow.py [--threads 2] [--repeats 9] [--clock cpu]``.

ViT-B/16 (224 pixels, 1000 classes); ratios are to the bare forward pass of the same batch, medians and minima of
interleaved repeats.  The flow is over all points of the residual stream; with and without the trace that it starts from.
The target, at most 2.2 bare forwards, is for the flow of one class of a trace that is there.  A trace keeps no attention weights
and no gates, so the flow computes queries, keys and the first half of every MLP again: about 0.5 of a bare forward.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import timm
import torch
from explain import measured_options, ratios

from classspace_widgets import ClassSpace, metrics


def main() -> None:
    options = measured_options(9)
    space = ClassSpace(timm.create_model("vit_base_patch16_224", pretrained=False), device="auto")
    if torch.cuda.is_available():
        space = ClassSpace(space.model, device="cuda")
    found: dict[str, object] = {}
    for batch in options.batches:
        images = torch.randn(batch, 3, 224, 224, device=space.device)
        trace, weights = space.trace(images), space.trace(images, attention=True)

        def bare(images: torch.Tensor = images) -> torch.Tensor:
            with torch.inference_mode():
                return space.model(images)

        calls: dict[str, Callable[[], object]] = {
            "bare": bare,
            "trace": lambda images=images: space.trace(images),
            "flow, one class, of a trace": lambda trace=trace: metrics.flow(trace, 5),
            "flow, one class, of a trace with attention": lambda trace=weights: metrics.flow(trace, 5),
            "flow, five classes, of a trace": lambda trace=trace: metrics.flow(trace, range(5)),
            "trace and flow, one class": lambda images=images: metrics.flow(space.trace(images), 5),
        }
        found[f"batch {batch}, ratio to the bare forward"] = ratios(calls, options.repeats)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
