"""Ways of finding ranks and top classes on a CPU that were tried and not kept: ``python benchmarks/candidates.py``.

Each is timed beside the float32 product that `stream_readings` makes of 1600 rows and 1000 classes at width 768, in turns, in
processor time. An approximate product helps only where few classes lie within its guaranteed error of the target, because
those must be scored again in float32 for the rank to stay exact. ``--compile`` also fuses counting with group maxima, which
takes a C++ compiler and some 20 seconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from classspace_widgets.lens.projection import _pack, _packed_product
from classspace_widgets.lens.ranking import COARSE, Ranker, group_count, padded_classes

ROWS, WIDTH, CLASSES = 1600, 768, 1000
PIECE = 400


def bfloat16_product(rows: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """A float32 product that oneDNN computes in bfloat16."""
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        return torch.mm(rows, weights)
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = "ieee"


def three_terms(rows: torch.Tensor) -> torch.Tensor:
    """Rows as two bfloat16 parts, side by side: high, high, low."""
    high = rows.bfloat16().float()
    return torch.cat([high, high, rows - high], 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    columns = padded_classes(CLASSES)
    embedding = torch.randn(columns, WIDTH, generator=generator) / WIDTH**0.5
    rows = torch.randn(ROWS, WIDTH, generator=generator)
    packed = _pack(embedding.T.contiguous())
    assert packed is not None
    scores = _packed_product(rows, packed)
    own = scores.gather(1, torch.randint(CLASSES, (ROWS, 1), generator=generator))
    high = embedding.bfloat16().float()
    split = torch.cat([high, embedding - high, high], 1).T.contiguous()
    step = embedding.abs().amax(1, keepdim=True) / 127
    whole = (embedding / step).round().to(torch.int8).T.contiguous()

    def int8() -> torch.Tensor:
        scale = rows.abs().amax(1, keepdim=True) / 127
        return torch._int_mm((rows / scale).round().to(torch.int8), whole).float() * scale * step.T

    lengths = rows.norm(dim=1, keepdim=True) * embedding.norm(dim=1)
    exact = rows.double() @ embedding.double().T
    # Two factors rounded to 8 bits each; in three terms, what is left out and the rounding of the low parts.
    for name, found, bound in (
        ("bfloat16", bfloat16_product(rows, embedding.T), 2**-8 * lengths),
        ("bfloat16 in three terms", bfloat16_product(three_terms(rows), split), 3 * 2**-18 * lengths),
        ("int8", int8(), None),
    ):
        error = float((found - exact).abs().max())
        bound = torch.tensor(error) if bound is None else bound
        close = ((scores - own).abs() <= 2 * bound).sum(1).float() - 1
        print(f"{name}: largest error {error:.2g}; classes within the error of the target: {close.mean():.3g} a row")
    near = torch.stack([torch.randperm(CLASSES, generator=generator)[:123] for _ in range(ROWS)])

    def again() -> None:
        for some, chosen in zip(rows.split(100), near.split(100), strict=True):
            torch.bmm(embedding[chosen], some.unsqueeze(2))

    ranker = Ranker(ROWS, CLASSES, 5, dtype=torch.float32, device=torch.device("cpu"))
    groups = group_count(CLASSES)

    def maxima() -> None:
        ranker.count_above(scores, own)
        scores.view(ROWS, COARSE, -1).amax(1).view(ROWS, -1, groups).amax(1)

    calls = {
        "float32 product": lambda: _packed_product(rows, packed),
        "bfloat16 product": lambda: bfloat16_product(rows, embedding.T),
        "bfloat16 product in three terms": lambda: bfloat16_product(three_terms(rows), split),
        "int8 product": int8,
        "123 classes a row scored again": again,
        "counting and group maxima": maxima,
        "counting, and top five": lambda: (ranker.count_above(scores, own), ranker.best(scores)),
    }
    if options.compile:
        both = torch.compile(lambda s, o: ((s > o).float().sum(1), s.view(len(s), -1, groups).amax(1)), dynamic=False)
        pieces = list(zip(scores.split(PIECE), own.split(PIECE), strict=True))
        calls["counting and group maxima, fused"] = lambda: [both(*piece) for piece in pieces]
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(options.rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            taken[name].append(time.process_time() - start)
    base = taken["float32 product"]
    for name, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, base, strict=True))
        print(f"{ratio:7.2f} {statistics.median(seconds) * 1e3:8.1f} ms  {name}")


if __name__ == "__main__":
    main()
