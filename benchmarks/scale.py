"""Many classes and many pictures: what a snapshot of 21,843 classes costs, and a study over as many pictures as ImageNet has.

    python benchmarks/scale.py classes              # ViT-B/16 with 21,843 classes: snapshot, explorer, page
    python benchmarks/scale.py pictures             # 100,000 pictures with cached readings; --pictures 1281167 for all
    python benchmarks/scale.py fine                 # ViT-L/16 at 384 px: a page of ten classes, in Chromium
    python benchmarks/scale.py workers              # two Dask workers against one process

Each number is printed beside its target. Seconds are of the processor unless they say otherwise, so that a busy machine does
not change them much; targets are ratios or were set for two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

IMAGENET = 1_281_167
PAPER = ("accuracy", "identifiability", "identifiability_change", "place_difference", "similarity_change")
PAPER += ("residual_composition", "class_value_agreement", "key_value_agreement", "memory_compositionality")


def shown(what: str, value: float, unit: str, target: float | None = None, *, least: bool = False) -> None:
    """Print a number beside its target."""
    beside = ""
    if target is not None:
        met = value >= target if least else value <= target
        beside = f"  (target {target:g}: {'met' if met else 'MISSED'})"
    print(f"{what:58s} {value:10.2f} {unit}{beside}", flush=True)


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it returns."""
    start = time.process_time()
    made = function()
    return time.process_time() - start, made


def peak() -> float:
    """Peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def resident() -> float:
    """Memory of this process now, in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def model(name: str, **options: Any) -> Any:
    """A model with random weights, whose one-dimensional ones are not the constants that they start from."""
    torch.manual_seed(0)
    made = timm.create_model(name, pretrained=False, **options)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, 0.5, 0.2)
    return made


def classes(_options: argparse.Namespace) -> None:
    """ViT-B/16 with the classes of ImageNet-21k."""
    from classspace_widgets import ClassSpace, Explorer, export_html
    from classspace_widgets.scenes import gallery

    space = ClassSpace(model("vit_base_patch16_224", num_classes=21_843), device="cpu")
    trace = space.trace(gallery(size=224)[0].picture, attention=True, heads=True)
    vectors = [increment[0] for increment in trace.increments]
    products, explorers = [], []
    for _ in range(3):
        with torch.inference_mode():
            products.append(seconds(lambda: [trace.lens.raw(v) for v in vectors] and None)[0])
        taken, explorer = seconds(lambda: Explorer(trace))
        explorers.append(taken)
    shown("products alone (median of 3)", float(np.median(products)), "s")
    shown("Explorer(trace) (median of 3)", float(np.median(explorers)), "s")
    ratios = [e / p for e, p in zip(explorers, products, strict=True)]
    shown("Explorer(trace) / its products (median of ratios)", float(np.median(ratios)), "", 1.6)
    with tempfile.TemporaryDirectory() as folder:
        taken, page = seconds(lambda: export_html(explorer, Path(folder) / "page.html"))
        shown("export_html(explorer), which carries what fits", taken, "s")
        shown("its size", page.nbytes / 1e6, "MB", 20)
        print(page.notes[0][:150])
        taken, _ = seconds(lambda: export_html(explorer, Path(folder) / "page.html", classes=list(range(12))))
        shown("export_html of 12 classes that are not at hand", taken, "s")
    shown("peak memory of the process (the model has 412 MB)", peak(), "MB")


class Constant:
    """As many equal pictures as are asked for, with labels that go round."""

    name = "simulated ImageNet"

    def __init__(self, count: int, size: int, n_classes: int) -> None:
        self.count, self.n_classes = count, n_classes
        self.pixels = torch.randn(3, size, size, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.pixels, index % self.n_classes


def pictures(options: argparse.Namespace) -> None:
    """A study whose readings are those of its first batch throughout, so that only counting costs."""
    from classspace_widgets import ClassSpace
    from classspace_widgets.studies import Execution, checkpoint, engine, run, run_study

    space = ClassSpace(model("vit_small_patch16_224"), device="cpu")
    kept: dict[tuple[str, int], Any] = {}
    read = engine.read_batch

    def cached(of: Any, pixels: Any, labels: Any, masks: Any, indices: Any, **needs: Any) -> Any:
        key = (of.name, len(labels))
        if key not in kept:
            kept[key] = read(of, pixels, labels, masks, indices, **needs)
            _ = kept[key].hidden, kept[key].outcome, kept[key].membership, kept[key].overflowed
        placed = kept[key].with_indices(indices)
        placed.labels = torch.from_numpy(np.asarray(indices) % 1000)
        return placed

    saves: list[tuple[float, float, float]] = []
    write = checkpoint.save_checkpoint

    def timed(path: Path, *content: Any) -> None:
        start = time.process_time()
        write(path, *content)
        saves.append((time.process_time() - start, path.stat().st_size / 1e6, resident()))

    engine.read_batch, run.save_checkpoint = cached, timed
    data = Constant(options.pictures, 224, 1000)
    with tempfile.TemporaryDirectory() as folder:
        execution = Execution(batch_size=64)
        few = Constant(64, 224, 1000)
        run_study(space, few, PAPER, random_twin=options.twins, execution=execution, progress=False)
        before = resident()
        taken, results = seconds(
            lambda: run_study(
                space,
                data,
                PAPER,
                random_twin=options.twins,
                execution=execution,
                checkpoint=Path(folder) / "run",
                progress=False,
            )
        )
    assert results.provenance["pictures"] == options.pictures
    weights = 1 + options.twins
    print(
        f"{options.pictures:,} pictures, {weights} models of 12 blocks, 197 tokens, 1000 classes, {len(PAPER)} studies"
    )
    shown("counting, a picture and model", 1e3 * taken / options.pictures / weights, "ms")
    shown(
        "counting, all of ImageNet (extrapolated) and one model",
        taken / options.pictures / weights * IMAGENET / 3600,
        "h",
    )
    middle = len(saves) // 2
    shown("memory at the start of the run", before, "MB")
    shown("memory in the middle of the run", saves[middle][2], "MB")
    shown("memory at its end", saves[-1][2], "MB")
    shown("checkpoint", saves[-1][1], "MB", 20)
    shown("writing it", float(np.median([s[0] for s in saves])), "s", 0.2)
    merge(space, execution, options.twins)


def merge(space: Any, execution: Any, twins: int) -> None:
    """64 partial results of the size that the run has."""
    from classspace_widgets.studies import engine, run
    from classspace_widgets.studies.standard import chosen_studies

    data = Constant(64 * 64, 224, 1000)
    spaces = run._spaces(space, twins, 0, None)
    job = run._job(spaces, data, chosen_studies(PAPER), None, 0.5, execution)
    state = engine.Progress.empty(job)
    part = engine.run_part(job, {0: engine.Taken()})
    own = {key: counts["seen"] for key, counts in part.states.items()}
    total = 0.0
    for n in range(64):
        for key, counts in part.states.items():
            counts["seen"] = own[key] + 64 * n
        total += seconds(lambda n=n: state.absorb(replace(part, done=[n])))[0]
    assert state.done.all()
    assert state.pictures == 64 * 64
    shown("merging 64 partial results", total, "s", 5)


def fine(_options: argparse.Namespace) -> None:
    """ViT-L/16 at 384 px: 577 tokens and 24 blocks, on a page of ten classes."""
    from playwright.sync_api import sync_playwright

    sys.path.insert(0, str(Path(__file__).parent))
    import shutil

    import pages

    from classspace_widgets import ClassSpace, export_html
    from classspace_widgets.scenes import gallery

    space = ClassSpace(model("vit_large_patch16_384"), device="cpu")
    trace = space.trace(gallery(size=384)[0].picture, attention=True, heads=True)
    before = peak()
    ten = trace.output[0].topk(10).indices.tolist()
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "page.html"
        taken, page = seconds(lambda: export_html(trace, path, classes=ten))
        shown("page of ten classes", page.nbytes / 1e6, "MB", 2)
        shown("exporting it", taken, "s")
        shown("peak memory: model and trace", before, "MB")
        shown("peak memory: with the page", peak(), "MB")
        found = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=found, args=pages.FLAGS)
        row = pages.measure(browser, path, rounds=3)
        browser.close()
    shown("first paint (wall clock)", row["first paint ms"], "ms")
    shown("slider, median (wall clock, one frame is 16.7)", row["slider median ms"], "ms")
    shown("slider, 95 % (wall clock)", row["slider p95 ms"], "ms", 16)
    shown("class switch (wall clock)", row["class switch median ms"], "ms")


WORKERS = """
import json, sys, time, torch
torch.set_num_threads(1)
from classspace_widgets import ClassSpace
from classspace_widgets.scenes import ScenesDataset
from classspace_widgets.studies import Execution, run_study
if __name__ == "__main__":
    space, data, found = ClassSpace.bundled(device="cpu"), ScenesDataset(int(sys.argv[2]), seed=3), None
    options = dict(studies=["accuracy", "identifiability"], progress=False)
    if sys.argv[1] == "0":
        start = time.perf_counter()
        found = run_study(space, data, execution=Execution(), **options)
    else:
        from distributed import Client, LocalCluster
        with LocalCluster(n_workers=int(sys.argv[1]), threads_per_worker=1, dashboard_address=None) as cluster:
            with Client(cluster) as client:
                run_study(space, ScenesDataset(16, seed=4), execution=Execution(client=client), **options)
                start = time.perf_counter()
                found = run_study(space, data, execution=Execution(client=client), **options)
    table = found["identifiability"].table
    print(json.dumps([time.perf_counter() - start, float(table["value"].sum()), int(table["count"].sum())]))
"""


def workers(options: argparse.Namespace) -> None:
    """Wall-clock seconds of one process, of one Dask worker and of two, each with one thread."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "workers.py"
        script.write_text(WORKERS)
        found = {}
        for count in (0, 1, 2):
            command = [sys.executable, str(script), str(count), str(options.scenes)]
            out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[count] = json.loads(out.splitlines()[-1])
            shown(f"{options.scenes} scenes, {count or 'no'} Dask worker(s) (wall clock)", found[count][0], "s")
    assert found[0][1:] == found[1][1:] == found[2][1:], "the results differ"
    shown("two workers against one", found[1][0] / found[2][0], "times as fast")


def main() -> None:
    """Run one part."""
    parts = {"classes": classes, "pictures": pictures, "fine": fine, "workers": workers}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--pictures", type=int, default=100_000)
    parser.add_argument("--twins", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=400)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    parts[options.part](options)


if __name__ == "__main__":
    main()
