"""What `cuda.py` measures: steps in order of importance, each with the seconds after which it is taken to hang."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import core
import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Step:
    """One step: its part is a table of the results."""

    part: str
    name: str
    measure: Callable[[Bench], None]
    limit: float = 90


@dataclass
class Bench:
    """Where it runs, until when, and whom results are told."""

    device: str
    ends: float
    tiny: bool
    say: Callable[..., None]
    spaces: dict[str, Any] = field(default_factory=dict)

    def note(self, text: str) -> None:
        self.say(note=text)

    def run(self, step: Step) -> None:
        """A step that fails becomes a note."""
        try:
            step.measure(self)
        except Exception as error:
            self.note(f"{step.name}: {_words(error)}")
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Call) -> float:
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def ratios(self, part: str, model: str, batch: int, precision: str, calls: dict[str, Call], budget: float) -> None:
        """Ratios to the first call, in turns, for about ``budget`` seconds; a call that fails becomes a note."""
        calls = {name: in_precision(precision, self.device, call) for name, call in calls.items()}
        peaks: dict[str, float] = {}
        for name in list(calls):
            if self.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                calls[name]()
                self.wait()
            except Exception as error:
                self.note(f"{part}, {model}, batch {batch}, {precision}, {name}: {_words(error)}")
                del calls[name]
                if self.device == "cuda":
                    torch.cuda.empty_cache()
                continue
            if self.device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
        if not calls:
            return
        taken: dict[str, list[float]] = {name: [] for name in calls}
        base = next(iter(taken.values()))
        until = min(time.monotonic() + budget, self.ends - 2)
        while len(base) < (2 if self.tiny else 40) and (not base or time.monotonic() < until):
            for name, call in calls.items():
                taken[name].append(self.seconds(call))
        for name, times in taken.items():
            ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
            row = {"part": part, "model": model, "batch": batch, "precision": precision, "method": name}
            row |= {"ratio": round(ratio, 3), "quickest": round(min(times) / min(base), 3)}
            row |= {"ms": round(statistics.median(times) * 1e3, 2), "rounds": len(times)}
            self.say(row=row | ({"peak_mib": round(peaks[name])} if name in peaks else {}))

    def inputs(self, space: Any, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels and labels of a batch; of two pictures at most in a trial run."""
        return core.inputs(space, min(batch, 2) if self.tiny else batch)

    def vit(self, size: str) -> Any:
        """ViT-B/16 or ViT-L/16 with random weights, made once; in a trial run something small instead."""
        from timm.models.vision_transformer import VisionTransformer

        from classspace_widgets import ClassSpace

        if size not in self.spaces:
            self.spaces.clear()  # one at a time on the card
            width, depth, heads = {"B": (768, 12, 12), "L": (1024, 24, 16)}[size]
            if self.tiny:
                width, depth, heads = 32, 2, 2
            torch.manual_seed(0)
            model = VisionTransformer(embed_dim=width, depth=depth, num_heads=heads).eval()
            torch.nn.init.normal_(model.head.bias)
            name = f"ViT-{size}/16" + (" (trial run: tiny)" if self.tiny else "")
            self.spaces[size] = ClassSpace(model, device=self.device, check=False, name=name)
        return self.spaces[size]


def _words(error: Exception) -> str:
    """The first line of an error's text, without the place of this project on the machine."""
    text = str(error).replace(f"{Path(__file__).resolve().parents[1]}{os.sep}", "").strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"


@contextmanager
def running(precision: str, device: str) -> Iterator[None]:
    """The pass in float32, in TF32 products, or in bfloat16 autocast."""
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions


def in_precision(precision: str, device: str, call: Call) -> Call:
    def run() -> object:
        with running(precision, device):
            return call()

    return run


# Each method beside the bare pass.


def readings(bench: Bench, size: str, batch: int, precision: str) -> None:
    """Readings, trace and contributions."""
    space = bench.vit(size)
    pixels, labels = bench.inputs(space, batch)
    inputs = (space, pixels, labels)
    calls: dict[str, Call] = {
        "bare forward pass": partial(core.bare, *inputs),
        "stream_readings, 4 streams": partial(space.stream_readings, pixels, labels, precision=precision),
        "trace": partial(core.trace, *inputs),
        "trace + direct contributions of one class": partial(core.direct, *inputs),
    }
    if batch <= 8:
        calls["trace with attention and heads"] = partial(core.attention_and_heads, *inputs)
    bench.ratios("Readings", space.name, batch, precision, calls, 2.5)


def questions(bench: Bench, size: str, batch: int, precision: str) -> None:
    """Importance, interventions, and (of one picture) a sweep over every head."""
    from classspace_widgets.causal import sweep_heads
    from classspace_widgets.explain import importance
    from classspace_widgets.images import Prepared
    from classspace_widgets.interventions import Ablate, KnockOutAttention, RemoveTokens, run_with

    space = bench.vit(size)
    pixels, labels = bench.inputs(space, batch)
    ready = Prepared(pixels)
    calls: dict[str, Call] = {"bare forward pass": partial(core.bare, space, pixels, labels)}
    for method in ("gradient", "direct", "rollout", "chefer"):
        calls[f"importance: {method}"] = partial(importance, space, classes=5, images=ready, method=method)
    calls |= {
        "remove a quarter of the tokens": partial(run_with, space, ready, [RemoveTokens(tokens=range(1, 50))]),
        "cut attention to [CLS]": partial(run_with, space, ready, [KnockOutAttention("no_cls")]),
        "switch off a head": partial(run_with, space, ready, [Ablate("head", heads=[1])]),
    }
    if batch == 1:
        calls["sweep over every head"] = partial(sweep_heads, space, ready, 3, progress=False)
    bench.ratios("Questions", space.name, batch, precision, calls, 3)


def counting(bench: Bench, size: str, batch: int, precision: str) -> None:
    """Studies, probes and lens fitting: what is done over whole data sets. Throughput is the inverse of the ratio."""
    import numpy as np

    from classspace_widgets.fitting import LensSums
    from classspace_widgets.probing.fit import probe_points
    from classspace_widgets.probing.ridge import RidgeSums
    from classspace_widgets.studies.counted import Contribution
    from classspace_widgets.studies.engine import read_batch
    from classspace_widgets.studies.standard import HIDDEN_STATE_STUDIES

    space = bench.vit(size)
    pixels, labels = bench.inputs(space, batch)
    batch = len(pixels)
    own = labels[:, 0].cpu()
    masks = torch.randint(0, 2, (batch, space.adapter.grid[0] * space.adapter.grid[1])).to(torch.int8)
    studies = [kind() for kind in HIDDEN_STATE_STUDIES]
    for study in studies:
        study.start(space)
    needs = frozenset[str]().union(*(study.needs for study in studies))
    position = iter(range(0, 1 << 40, batch))
    under_way: list[Contribution] = []

    def study() -> None:
        first = next(position)
        found = read_batch(space, pixels, own, masks, np.arange(first, first + batch), needs=needs)
        # As `run_study` does: a batch is counted while the device works on the next.
        under_way.append(Contribution(found, studies))
        if len(under_way) == 2:
            under_way.pop(0).count()

    points = probe_points(space)
    sums = RidgeSums.empty(points, 1, space.adapter.width, space.n_classes, space.device)

    def probes() -> None:
        trace = space.trace_pixels(pixels)
        with torch.inference_mode():
            for at, vectors in enumerate(trace.vectors_at(points, torch.float32)):
                sums.add(at, vectors, labels[:, 0])

    calls: dict[str, Call] = {
        "bare forward pass": partial(core.bare, space, pixels, labels),
        "studies of one batch": study,
        "sums of probes of every block": probes,
        "translator lens, sums of one batch": partial(LensSums.start(space, "translator").update, pixels),
    }
    if batch <= 8:
        ten = LensSums.start(space, "jacobian", classes=range(10))
        calls["Jacobian lens of 10 classes, sums of one batch"] = partial(ten.update, pixels)
    bench.ratios("Over data sets", space.name, batch, precision, calls, 3)


def through_a_lens(bench: Bench, size: str, batch: int, precision: str) -> None:
    """Readings through a fitted lens, which has a map of its own at every point."""
    space = bench.vit(size)
    pixels, labels = bench.inputs(space, batch)
    lens = space.fit_lens("translator", bench.inputs(space, 8)[0], batch_size=8, progress=False)
    calls: dict[str, Call] = {
        "bare forward pass": partial(core.bare, space, pixels, labels),
        "stream_readings through a fitted lens": partial(space.stream_readings, pixels, labels, lens=lens),
        "stream_readings, 4 streams": partial(space.stream_readings, pixels, labels),
    }
    bench.ratios("Through a fitted lens", space.name, batch, precision, calls, 3)


def one_image(bench: Bench) -> None:
    """Where the time of one picture goes, and what was tried against the cost of launching kernels."""
    space = bench.vit("B")
    pixels, labels = bench.inputs(space, 1)
    calls: dict[str, Call] = {
        "bare forward pass": partial(core.bare, space, pixels, labels),
        "stream_readings, 4 streams": partial(space.stream_readings, pixels, labels),
    }
    for what, call in list(calls.items()):
        try:
            calls[f"{what}, as a CUDA graph"] = graphed(bench, call)
        except Exception as error:
            bench.note(f"one picture, {what} as a CUDA graph: {_words(error)}")
    bench.ratios("One picture", space.name, 1, "float32", calls, 5)


def the_best(bench: Bench) -> None:
    """Two ways to find the five best of few numbers in very many rows, as `Ranker` does on a GPU: digit by digit, or sorted."""
    rows = 1_000 if bench.tiny else 400_000
    for width in (25, 40):
        scores = torch.randn(rows, width, device=bench.device)
        calls: dict[str, Call] = {
            "maximum": partial(scores.amax, dim=1),
            "topk": partial(scores.topk, 5, dim=1),
            "sort": partial(scores.sort, dim=1, descending=True),
        }
        bench.ratios("Five best, ratios to a maximum", f"{width} numbers", rows, "float32", calls, 1)


def graphed(bench: Bench, call: Call) -> Call:
    """A call captured once and replayed: only what never waits for the device can be captured."""
    if bench.device != "cuda":
        return call
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def compiled(bench: Bench) -> None:
    """One picture through torch.compile: the pass alone, and with its readings, whose hooks interrupt the graph."""
    space = bench.vit("B")
    pixels, labels = bench.inputs(space, 1)
    options: dict[str, Any] = {"backend": "eager"} if bench.tiny else {"mode": "reduce-overhead"}
    model = torch.compile(space.model, **options)
    read = torch.compile(space.stream_readings, **options)

    def whole() -> object:
        with torch.inference_mode():
            return model(pixels)

    calls: dict[str, Call] = {
        "bare forward pass": partial(core.bare, space, pixels, labels),
        "bare forward pass, torch.compile": whole,
        "stream_readings, torch.compile": partial(read, pixels, labels),
    }
    bench.ratios("One picture, compiled", space.name, 1, "float32", calls, 4)


def exactness(bench: Bench) -> None:
    """Ranks of the fast precisions on a trained model, against float32 on the CPU."""
    from classspace_widgets import ClassSpace
    from classspace_widgets.scenes import ScenesDataset

    data = ScenesDataset(2 if bench.tiny else 64, seed=5)
    scenes = [data.scene(i) for i in range(len(data))]
    images, labels = [scene.image for scene in scenes], torch.tensor([[scene.label] for scene in scenes])
    exact = ClassSpace.bundled(device="cpu").stream_readings(images, labels)
    space = ClassSpace.bundled(device=bench.device)
    for precision in ("float32", "tf32", "bfloat16", "float16"):
        with running("tf32" if precision == "tf32" else "float32", bench.device):
            found = space.stream_readings(images, labels, precision=precision)
        _rank_error(bench, f"projection in {precision}", found, exact)
    with running("bfloat16", bench.device):
        _rank_error(bench, "pass under bfloat16 autocast", space.stream_readings(images, labels), exact)


def _rank_error(bench: Bench, what: str, found: Any, exact: Any) -> None:
    off = (found.ranks.cpu() - exact.ranks).abs().float()
    bench.note(
        f"bundled model, {exact.ranks.shape[1]} scenes, {what}, against float32 on the CPU: rank error mean {off.mean():.4f}, "
        f"largest {int(off.max())}, exact {float((off == 0).float().mean()):.2%}"
    )


def whole_study(bench: Bench) -> None:
    """`run_study` from pictures on: drawing and preparing them, moving them, counting."""
    from classspace_widgets import ClassSpace
    from classspace_widgets.scenes import ScenesDataset
    from classspace_widgets.studies import Execution, run_study

    space, data = ClassSpace.bundled(device=bench.device), ScenesDataset(8 if bench.tiny else 512, seed=5)
    execution = Execution(batch_size=4 if bench.tiny else 64, workers=4)
    taken = bench.seconds(lambda: run_study(space, data, execution=execution, progress=False))
    bench.note(f"run_study on the bundled model: {len(data) / taken:.0f} scenes a second, drawing them included")


def photographs(bench: Bench) -> None:
    """Training steps a second of the model of photographs."""
    import numpy as np

    from classspace_widgets.training.photos.data import Photographs
    from classspace_widgets.training.photos.train import Recipe, Run

    count = 160 if bench.tiny else 5_120
    made = np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    held = Photographs(made, np.arange(count) % 100, tuple(f"n{i:02}" for i in range(100)))
    batch, steps = (8, 1) if bench.tiny else (512, 30)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Recipe(batch=batch, held_back=1), held, Path(folder), device=bench.device)
        for _ in range(1 if bench.tiny else 3):
            run.take_step(1.0, 0.5, 0.7)
        taken = bench.seconds(lambda: [run.take_step(1.0, 0.5, 0.7) for _ in range(steps)])
    bench.note(
        f"model of photographs: {steps / taken:.1f} training steps a second at batch {batch}, half of the tokens: "
        f"an epoch of 36,000 photographs takes {36_000 / batch * taken / steps:.1f} s"
    )


def _grid(kind: Callable[..., None], sizes: str, batches: tuple[int, ...], precisions: tuple[str, ...]) -> list[Step]:
    part = kind.__name__
    return [
        Step(part, f"{part}: ViT-{size}/16, batch {batch}, {precision}", partial(kind, size=size, batch=batch, precision=precision))
        for size in sizes
        for batch in batches
        for precision in precisions
    ]  # fmt: skip


_ALL = ("float32", "bfloat16", "tf32")

STEPS: list[Step] = [
    *_grid(readings, "B", (8, 1, 64), _ALL),
    *_grid(counting, "B", (64,), ("bfloat16", "float32")),
    Step("one_image", "one_image", one_image),
    Step("the_best", "the_best", the_best),
    Step("exactness", "exactness", exactness),
    *_grid(questions, "B", (1, 8), ("float32",)),
    *_grid(through_a_lens, "B", (8,), ("float32",)),
    *_grid(readings, "B", (256,), _ALL),
    *_grid(readings, "L", (8, 1, 64), _ALL),
    *_grid(counting, "L", (64,), ("bfloat16",)),
    Step("whole_study", "whole_study", whole_study),
    Step("photographs", "photographs", photographs),
    *_grid(questions, "B", (64,), ("float32", "bfloat16")),
    *_grid(counting, "B", (8, 256), ("bfloat16", "float32")),
    *_grid(readings, "L", (256,), _ALL),
    *_grid(questions, "L", (1, 8, 64), ("float32",)),
    *_grid(counting, "L", (8, 256), ("bfloat16",)),
    *_grid(questions, "B", (1, 8), ("bfloat16", "tf32")),
    *_grid(questions, "BL", (256,), ("bfloat16",)),
    Step("compiled", "compiled", compiled, limit=75),
]
"""In order of importance: what the time does not reach is at the end."""
