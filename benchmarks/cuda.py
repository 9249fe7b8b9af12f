"""All measurements on a GPU in one command, in order of importance, within a given number of minutes.

    python benchmarks/cuda.py --minutes 8              # on a GPU
    python benchmarks/cuda.py --device cpu --tiny      # without a GPU: small models, a few rounds

First the tests marked ``cuda``; then ratios to the bare forward pass, methods in turns within each round, medians over
rounds; then ranks of the fast precisions on a trained model, and training steps of the model of photographs.
``RESULTS_CUDA.md`` and ``results_cuda.csv`` beside this file are written after every step, so that a run that is cut
short keeps what it has measured.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import core
import torch

HERE = Path(__file__).resolve().parent
COLUMNS = ("part", "model", "batch", "precision", "method", "ratio", "quickest", "ms", "peak_mib", "rounds")
TARGETS = {
    ("stream_readings, 4 streams", "float32"): 1.25,
    ("stream_readings, 4 streams", "bfloat16"): 1.35,
}
"""Largest ratio wanted from batch 8 up; 1.6 at batch 1."""
AT_BATCH_ONE = 1.6

Call = Callable[[], object]


@dataclass
class Sheet:
    """What has been measured so far; written to disk whenever something is added."""

    folder: Path
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *rows: dict[str, Any]) -> None:
        self.rows += rows
        for row in rows:
            print("  ".join(str(row.get(column, "")) for column in COLUMNS), flush=True)
        self.write()

    def note(self, text: str) -> None:
        self.notes.append(text)
        print(f"- {text}", flush=True)
        self.write()

    def write(self) -> None:
        with (self.folder / "results_cuda.csv").open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
            table.writeheader()
            table.writerows(self.rows)
        (self.folder / "RESULTS_CUDA.md").write_text(self.markdown())

    def markdown(self) -> str:
        """A table for each part; each ratio with its target where there is one."""
        lines = ["# Results on a GPU", "", self.title, "", *(f"- {note}" for note in self.notes), ""]
        for part in dict.fromkeys(row["part"] for row in self.rows):
            lines += [f"## {part}", "", "| model | batch | precision | method | ratio | ms | peak MiB | target |"]
            lines += ["|---|---|---|---|---|---|---|---|"]
            for row in (row for row in self.rows if row["part"] == part):
                shown = [
                    row.get(column, "")
                    for column in ("model", "batch", "precision", "method", "ratio", "ms", "peak_mib")
                ]
                lines.append("| " + " | ".join(str(value) for value in [*shown, target(row)]) + " |")
            lines.append("")
        return "\n".join(lines)


def target(row: dict[str, Any]) -> str:
    """What was wanted of a ratio, and whether it was reached."""
    wanted = TARGETS.get((row["method"], row["precision"]))
    if wanted is None:
        return ""
    wanted = wanted if row["batch"] >= 8 else AT_BATCH_ONE
    return f"{wanted}: {'met' if row['ratio'] <= wanted else 'missed'}"


@dataclass
class Bench:
    """Where it runs, until when, and where results go."""

    device: str
    ends: float
    sheet: Sheet
    tiny: bool

    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.monotonic()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, call: Call) -> float:
        self.wait()
        start = time.perf_counter()
        call()
        self.wait()
        return time.perf_counter() - start

    def measure(self, part: str, model: str, batch: int, precision: str, calls: dict[str, Call], budget: float) -> None:
        """Ratios to the first call, in turns, for about ``budget`` seconds; a call that fails becomes a note."""
        peaks: dict[str, float] = {}
        for name in list(calls):
            if self.device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            try:
                calls[name]()
                self.wait()
            except Exception as error:
                self.sheet.note(f"{part}, {model}, batch {batch}, {precision}, {name}: {_words(error)}")
                del calls[name]
                if self.device == "cuda":
                    torch.cuda.empty_cache()
                continue
            if self.device == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated() / 2**20
        taken: dict[str, list[float]] = {name: [] for name in calls}
        until = time.monotonic() + min(budget, max(1.0, self.left()))
        while len(next(iter(taken.values()), [0] * 99)) < (3 if self.tiny else 40):
            for name, call in calls.items():
                taken[name].append(self.seconds(call))
            if time.monotonic() > until:
                break
        if not taken:
            return
        base = next(iter(taken.values()))
        rows = []
        for name, times in taken.items():
            ratio = statistics.median(a / b for a, b in zip(times, base, strict=True))
            row = {"part": part, "model": model, "batch": batch, "precision": precision, "method": name}
            row |= {"ratio": round(ratio, 3), "quickest": round(min(times) / min(base), 3)}
            row |= {"ms": round(statistics.median(times) * 1e3, 2), "rounds": len(times)}
            rows.append(row | ({"peak_mib": round(peaks[name])} if name in peaks else {}))
        self.sheet.add(*rows)


def _words(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"


# Precisions: how the model runs, and how readings are projected.


@contextmanager
def running(precision: str, device: str) -> Iterator[None]:
    """The pass in float32, in TF32 products, or in bfloat16 autocast."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def in_precision(precision: str, device: str, call: Call) -> Call:
    def run() -> object:
        with running(precision, device):
            return call()

    return run


def vit(bench: Bench, size: str) -> tuple[str, Any]:
    """ViT-B/16 or ViT-L/16 with random weights; in a rehearsal something small instead."""
    from timm.models.vision_transformer import VisionTransformer

    from classspace_widgets import ClassSpace

    shapes = {"B": (768, 12, 12), "L": (1024, 24, 16)}
    width, depth, heads = (64, 3, 4) if bench.tiny else shapes[size]
    torch.manual_seed(0)
    model = VisionTransformer(embed_dim=width, depth=depth, num_heads=heads).eval()
    torch.nn.init.normal_(model.head.bias)
    name = f"ViT-{size}/16" + (" (rehearsal: tiny)" if bench.tiny else "")
    return name, ClassSpace(model, device=bench.device, check=False, name=name)


# The parts, in order of importance.


def tests(bench: Bench) -> None:
    """The tests marked cuda: equal numbers on the GPU and on the CPU, every family."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", "-m", "cuda"]
    command += [str(HERE.parent / "tests"), "--ignore", str(HERE.parent / "tests" / "browser")]
    start = time.monotonic()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(20, bench.left() / 3), check=False)
        (bench.sheet.folder / "cuda_tests.log").write_text(done.stdout + done.stderr)
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        bench.sheet.note(f"tests marked cuda: {last} ({time.monotonic() - start:.0f} s)")
        for line in failed[:40]:
            bench.sheet.note(f"  {line[:200]}")
    except subprocess.TimeoutExpired:
        bench.sheet.note(f"tests marked cuda: not finished after {time.monotonic() - start:.0f} s")


def readings(bench: Bench) -> None:
    """Readings, trace and contributions beside the bare pass."""
    for size, share in (("B", 3.0), ("L", 3.0)):
        name, space = vit(bench, size)
        for batch in (1, 8) if bench.tiny else (1, 8, 64, 256):
            pixels, labels = core.inputs(space, batch)
            for precision in ("float32", "tf32", "bfloat16") if bench.device == "cuda" else ("float32", "bfloat16"):
                if bench.left() < 30:
                    bench.sheet.note(f"no time left for {name}, batch {batch}, {precision}")
                    return
                inputs = (space, pixels, labels)
                calls: dict[str, Call] = {
                    "bare forward pass": partial(core.bare, *inputs),
                    "stream_readings, 4 streams": partial(space.stream_readings, pixels, labels, precision=precision),
                    "trace": partial(core.trace, *inputs),
                    "trace + direct contributions of one class": partial(core.direct, *inputs),
                }
                if batch <= 8:
                    calls["trace with attention and heads"] = partial(core.attention_and_heads, *inputs)
                calls = {key: in_precision(precision, bench.device, call) for key, call in calls.items()}
                bench.measure("Readings", name, batch, precision, calls, share)
        del space


def one_image(bench: Bench) -> None:
    """Where the time of one picture goes, and what was tried against the cost of launching kernels."""
    name, space = vit(bench, "B")
    pixels, labels = core.inputs(space, 1)
    calls: dict[str, Call] = {
        "bare forward pass": lambda: core.bare(space, pixels, labels),
        "stream_readings, 4 streams": lambda: space.stream_readings(pixels, labels),
    }
    if bench.device == "cuda":
        for what in list(calls):
            try:
                calls[f"{what}, as a CUDA graph"] = graphed(calls[what])
            except Exception as error:
                bench.sheet.note(f"one picture, {what} as a CUDA graph: {_words(error)}")
    bench.measure("One picture", name, 1, "float32", calls, 5)


def graphed(call: Call) -> Call:
    """A call captured once and replayed: only what never waits for the device can be captured."""
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


def questions(bench: Bench) -> None:
    """Importance, interventions and sweeps beside the bare pass."""
    from classspace_widgets.causal import sweep_heads
    from classspace_widgets.explain import importance
    from classspace_widgets.interventions import Ablate, KnockOutAttention, RemoveTokens, run_with

    name, space = vit(bench, "B")
    for batch in (1, 8) if bench.tiny else (1, 8, 64):
        pixels, labels = core.inputs(space, batch)

        calls: dict[str, Call] = {"bare forward pass": partial(core.bare, space, pixels, labels)}
        for method in ("gradient", "direct", "rollout", "chefer"):
            calls[f"importance: {method}"] = partial(importance, space, classes=5, images=pixels, method=method)
        calls |= {
            "remove a quarter of the tokens": partial(run_with, space, pixels, [RemoveTokens(tokens=range(1, 50))]),
            "cut attention to [CLS]": partial(run_with, space, pixels, [KnockOutAttention("no_cls")]),
            "switch off a head": partial(run_with, space, pixels, [Ablate("head", heads=[1])]),
        }
        bench.measure("Questions", name, batch, "float32", calls, 6)
    pixels, labels = core.inputs(space, 1)
    sweep = {
        "bare forward pass": lambda: core.bare(space, pixels, labels),
        "sweep over every head": lambda: sweep_heads(space, pixels, 3),
    }
    bench.measure("Questions", name, 1, "float32", sweep, 6)


def studies(bench: Bench) -> None:
    """Measured batches of studies beside the bare pass: throughput is the inverse of the ratio."""
    import numpy as np

    from classspace_widgets.studies.engine import read_batch
    from classspace_widgets.studies.standard import HIDDEN_STATE

    name, space = vit(bench, "B")
    for batch in (8,) if bench.tiny else (64, 256):
        pixels, labels = core.inputs(space, batch)
        labels = labels[:, 0].cpu()
        masks = torch.randint(0, 2, (batch, space.adapter.grid[0] * space.adapter.grid[1])).to(torch.int8)
        for precision in ("float32", "bfloat16"):
            counted = [kind() for kind in HIDDEN_STATE]
            for study in counted:
                study.start(space)
            read = partial(
                read_batch,
                space,
                pixels,
                labels,
                masks,
                np.arange(batch),
                needs=frozenset().union(*(study.needs for study in counted)),
                autocast=torch.bfloat16 if precision == "bfloat16" else None,
            )
            calls = {
                "bare forward pass": in_precision(precision, bench.device, partial(core.bare, space, pixels, labels)),
                "hidden-state studies": partial(studied, counted, read),
            }
            bench.measure("Studies (0.70 of bare throughput is a ratio of 1.43)", name, batch, precision, calls, 6)


def studied(counted: list[Any], read: Call) -> None:
    """One batch, counted by every study."""
    found = read()
    for study in counted:
        study.update(found)


def exactness(bench: Bench) -> None:
    """Ranks of the fast precisions on a trained model, against float32 on the CPU."""
    from classspace_widgets import ClassSpace
    from classspace_widgets.scenes import ScenesDataset

    data = ScenesDataset(4 if bench.tiny else 64, seed=5)
    scenes = [data.scene(i) for i in range(len(data))]
    exact_space = ClassSpace.bundled(device="cpu")
    images = [scene.image for scene in scenes]
    labels = torch.tensor([[scene.label] for scene in scenes])
    exact = exact_space.stream_readings(images, labels)
    space = ClassSpace.bundled(device=bench.device)
    for precision in ("float32", "tf32", "bfloat16"):
        if precision == "tf32" and bench.device != "cuda":
            continue
        with running(precision, bench.device):
            found = space.stream_readings(images, labels, precision=precision)
        off = (found.ranks.cpu() - exact.ranks).abs().float()
        bench.sheet.note(
            f"bundled model, {len(images)} scenes, {precision} against float32 on the CPU: rank error mean {off.mean():.4f}, "
            f"largest {int(off.max())}, exact {float((off == 0).float().mean()):.2%}"
        )


def fitting(bench: Bench) -> None:
    """Sums of linear probes beside the bare pass."""
    from timm.models.vision_transformer import VisionTransformer

    from classspace_widgets import ClassSpace
    from classspace_widgets.probing import collect_sums
    from classspace_widgets.scenes import ScenesDataset

    torch.manual_seed(0)
    model = VisionTransformer(img_size=96, patch_size=8, embed_dim=192, depth=12, num_heads=3, num_classes=24).eval()
    space = ClassSpace(model, device=bench.device, check=False)
    data = ScenesDataset(24 if bench.tiny else 192, seed=3)
    ready = space.preprocess([data.scene(i).image for i in range(len(data))])[0]
    calls: dict[str, Call] = {
        "bare forward pass": lambda: core.bare(space, ready, None),
        "sums of probes of every block, drawing the scenes included": lambda: collect_sums(space, data, progress=False),
    }
    bench.measure("Probes", "ViT of 12 blocks, width 192, 96 px", len(data), "float32", calls, 8)


def photographs(bench: Bench) -> None:
    """Training steps a second of the model of photographs."""
    import numpy as np

    from classspace_widgets.training.photos.data import Photographs
    from classspace_widgets.training.photos.train import Recipe, Run

    count = 640 if bench.tiny else 5_120
    made = np.random.default_rng(0).integers(0, 256, (count, 3, 64, 64), dtype=np.uint8)
    held = Photographs(made, np.arange(count) % 100, tuple(f"n{i:02}" for i in range(100)))
    batch = 32 if bench.tiny else 512
    run = Run(Recipe(batch=batch, held_back=1), held, bench.sheet.folder, device=bench.device)
    for _ in range(3):
        run.take_step(1.0, 0.5, 0.7)
    steps = 3 if bench.tiny else 30
    taken = bench.seconds(lambda: [run.take_step(1.0, 0.5, 0.7) for _ in range(steps)])
    bench.sheet.note(
        f"model of photographs: {steps / taken:.1f} training steps a second at batch {batch}, half of the tokens: "
        f"an epoch of 36,000 photographs takes {36_000 / batch * taken / steps:.1f} s"
    )


PARTS = (tests, readings, one_image, studies, exactness, questions, fitting, photographs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="trial run: small models, a few rounds")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=[part.__name__ for part in PARTS])
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; for a trial run use --device cpu --tiny")
    options.out.mkdir(parents=True, exist_ok=True)
    name = (
        torch.cuda.get_device_name()
        if options.device == "cuda"
        else f"{platform.machine()} CPU, {os.cpu_count()} cores"
    )
    rehearsal = "" if options.device == "cuda" else " A trial run without a GPU: its numbers mean nothing."
    title = f"{date.today()}: {name}, torch {torch.__version__}, Python {platform.python_version()}.{rehearsal}"
    sheet = Sheet(options.out, title)
    bench = Bench(options.device, time.monotonic() + 60 * options.minutes, sheet, options.tiny)
    print(title, flush=True)
    for part in PARTS:
        if options.only and part.__name__ not in options.only:
            continue
        if bench.left() < 20:
            sheet.note(f"no time left for: {part.__name__}")
            continue
        try:
            part(bench)
        except Exception as error:
            traceback.print_exc()
            sheet.note(f"{part.__name__} stopped: {_words(error)}")
        if options.device == "cuda":
            torch.cuda.empty_cache()
    print(f"done, {bench.left():.0f} s left; see {options.out / 'RESULTS_CUDA.md'}")


if __name__ == "__main__":
    main()
