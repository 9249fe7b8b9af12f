"""What converting models of other libraries costs: ``python benchmarks/convert.py``.  ViT-B sized, random weights, one thread each."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from classspace_widgets.models.convert import convert


def models() -> dict[str, Callable[[], nn.Module]]:
    """Models of the libraries that are installed, by name."""
    from torchvision.models import vit_b_16

    found: dict[str, Callable[[], nn.Module]] = {"torchvision vit_b_16": lambda: vit_b_16()}
    try:
        import transformers as library
    except ImportError:
        return found
    shape = {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
    return found | {
        "transformers ViT-B/16": lambda: library.ViTForImageClassification(library.ViTConfig(num_labels=1000)),
        "transformers BEiT-B/16": lambda: library.BeitModel(library.BeitConfig(use_relative_position_bias=True)),
        "transformers DINOv2-B/14, 224 px": lambda: library.Dinov2Model(library.Dinov2Config(image_size=224)),
        "transformers DINOv3-B/16": lambda: library.DINOv3ViTModel(library.DINOv3ViTConfig(**shape)),
        "transformers SigLIP-B/16": lambda: library.SiglipVisionModel(library.SiglipVisionConfig()),
    }


def own_megabytes(converted: nn.Module, original: nn.Module) -> float:
    """Megabytes of the conversion's tensors that are not the original's."""
    theirs = {one.untyped_storage().data_ptr() for one in original.parameters()}
    own = [one for one in converted.parameters() if one.untyped_storage().data_ptr() not in theirs]
    return sum(one.numel() * one.element_size() for one in own) / 1e6


def main() -> None:
    """Print the median time of every model's conversion, and what it adds to memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for name, build in models().items():
        original = build().eval()
        seconds, processor = [], []
        for _ in range(rounds):
            start, started = time.perf_counter(), time.process_time()
            converted = convert(original)
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - started)
        whole = sum(one.numel() * one.element_size() for one in original.parameters()) / 1e6
        print(
            f"{statistics.median(seconds):6.2f} s (first {seconds[0]:.2f}; {statistics.median(processor):.2f} of the processor)  {own_megabytes(converted, original):6.1f} of "
            f"{whole:.0f} MB copied  {name}"
        )


if __name__ == "__main__":
    main()
