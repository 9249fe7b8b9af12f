"""All measurements on a GPU in one command, in order of importance, within a given number of minutes.

    python benchmarks/cuda.py --minutes 8              # on a GPU
    python benchmarks/cuda.py --device cpu --tiny      # a trial run without a GPU: small models, a few rounds

First the tests marked ``cuda``, then the steps of ``cuda_steps.py``.  ``RESULTS_CUDA.md`` and ``results_cuda.csv`` beside this
file are written after every result, so that a run that is cut short keeps what it has measured.

The steps run in a process of their own, which says what it begins and finds.  Where a step hangs, or takes the process down
with it (a GPU that is lost, an illegal access), a new one goes on with the next step.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch
from cuda_steps import STEPS, Bench

HERE = Path(__file__).resolve().parent
COLUMNS = ("part", "model", "batch", "precision", "method", "ratio", "quickest", "ms", "peak_mib", "rounds")
SHOWN = ("model", "batch", "precision", "method", "ratio", "ms", "peak_mib")
READING, STUDY, AT_BATCH_ONE = {"float32": 1.25, "bfloat16": 1.35}, 1 / 0.70, 1.6
"""Largest ratios to the bare pass that are wanted: of readings from batch 8 up, of studies (0.70 of its throughput in
bfloat16), and of readings of one picture."""
STARTING = 60
"""Seconds that a process may take before its first step: it imports torch and timm."""


@dataclass
class Sheet:
    """What has been measured so far; written to disk whenever something is added."""

    folder: Path
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
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
        lines = ["# Results on a GPU", "", self.title, ""]
        lines += ["Ratios are to the bare forward pass of the same round, medians over rounds.", ""]
        lines += [*(f"- {note}" for note in self.notes), ""]
        for part in dict.fromkeys(row["part"] for row in self.rows):
            lines += [f"## {part}", "", "| model | batch | precision | method | ratio | ms | peak MiB | target |"]
            lines += ["|---|---|---|---|---|---|---|---|"]
            for row in (row for row in self.rows if row["part"] == part):
                cells = [*(row.get(column, "") for column in SHOWN), target(row)]
                lines.append("| " + " | ".join(map(str, cells)) + " |")
            lines.append("")
        return "\n".join(lines)


def target(row: dict[str, Any]) -> str:
    """What was wanted of a ratio, and whether it was reached."""
    if row["method"] == "stream_readings, 4 streams" and row["precision"] in READING:
        wanted = READING[row["precision"]] if row["batch"] >= 8 else AT_BATCH_ONE
    elif row["method"] == "studies of one batch" and row["precision"] == "bfloat16" and row["batch"] >= 8:
        wanted = STUDY
    else:
        return ""
    return f"{wanted:.2f}: {'met' if row['ratio'] <= wanted else 'missed'}"


def run_tests(sheet: Sheet, device: str, seconds: float, *, tiny: bool) -> None:
    """The tests marked cuda: equal numbers on the GPU and on the CPU, every family."""
    command = [sys.executable, "-m", "pytest", "-o", "addopts=", "-q", "-p", "no:cacheprovider", "-m", "cuda"]
    command += [str(HERE.parent / "tests" / "device"), *(["-k", "contributions"] if tiny else [])]
    environment = {**os.environ, "CLASSSPACE_CUDA_TESTS_ON": device}
    start = time.monotonic()
    with (sheet.folder / "cuda_tests.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            sheet.note(f"tests marked cuda: stopped after {seconds:.0f} s, see cuda_tests.log")
        log.seek(0)
        lines = log.read().strip().splitlines() or ["no output"]
    sheet.note(f"tests marked cuda: {lines[-1]} ({time.monotonic() - start:.0f} s)")
    for line in [line for line in lines if line.startswith(("FAILED", "ERROR"))][:40]:
        sheet.note(f"  {line[:200]}")


def _end(process: subprocess.Popen[Any]) -> None:
    """End a process and what it started; one that waits for a dead GPU may not even be killed at once."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=5)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass


def run_steps(sheet: Sheet, options: argparse.Namespace, ends: float) -> None:
    """Every step, in as few processes as will do."""
    steps = [step for step in STEPS if not options.only or step.part in options.only]
    if options.tiny:  # one of each kind and precision: another size or batch is the same code
        steps = list({(step.part, step.name.rpartition(" ")[2]): step for step in steps}.values())
    names = [step.name for step in steps]
    while names and time.monotonic() < ends - 5:
        reached = _one_process(sheet, options, names, ends)
        names = names[reached:]
    if names:
        sheet.note(f"no time was left for: {', '.join(names)}")


def worker(options: argparse.Namespace, names: list[str], ends: float) -> list[str]:
    """The command that runs these steps and says what it finds."""
    command = [sys.executable, __file__, "--worker", json.dumps(names), "--device", options.device]
    return [*command, "--minutes", str((ends - time.monotonic()) / 60), *(["--tiny"] if options.tiny else [])]


def _one_process(sheet: Sheet, options: argparse.Namespace, names: list[str], ends: float) -> int:
    """Run steps in a new process; how many of them are over with."""
    command = worker(options, names, ends)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        return _followed(sheet, process, names, ends)
    finally:
        if process.poll() is not None and process.stdout is not None:
            process.stdout.close()  # One that cannot be killed is left alone.


def _followed(sheet: Sheet, process: subprocess.Popen[str], names: list[str], ends: float) -> int:
    """What a process says is written down until it ends, hangs or the time is over; how many steps are over with."""
    said: queue.Queue[str | None] = queue.Queue()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            said.put(line)
        said.put(None)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    limits = {step.name: step.limit for step in STEPS}
    begun, until = 0, time.monotonic() + STARTING
    while True:
        try:
            line = said.get(timeout=max(0.1, min(until, ends) - time.monotonic()))
        except queue.Empty:
            _end(process)
            listener.join(5)
            what = names[begun - 1] if begun else "the start of the process"
            sheet.note(f"{what}: stopped, {'it hung' if time.monotonic() < ends else 'the time was over'}")
            return max(1, begun)
        if line is None:
            process.wait()
            if process.returncode:
                what = names[begun - 1] if begun else "the start of the process"
                sheet.note(f"{what}: the process ended with {process.returncode}")
                return max(1, begun)
            return len(names)
        try:
            message = json.loads(line)
        except ValueError:
            print(line, end="")  # what some library printed
            continue
        if "begin" in message:
            begun = names.index(message["begin"]) + 1
            until = time.monotonic() + limits[message["begin"]]
        elif "note" in message:
            sheet.note(message["note"])
        elif "row" in message:
            sheet.add(message["row"])


def work(options: argparse.Namespace) -> None:
    """The process that measures: says what it begins and finds, a line of JSON each."""

    def say(**message: Any) -> None:
        print(json.dumps(message), flush=True)

    bench = Bench(options.device, time.monotonic() + 60 * options.minutes, options.tiny, say)
    wanted = json.loads(options.worker)
    for step in STEPS:
        if step.name in wanted:
            say(begin=step.name)
            bench.run(step)


def title(device: str) -> str:
    """Date, machine and versions."""
    import timm

    about = f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}"
    if device != "cuda":
        name = f"{platform.machine()} CPU, {os.cpu_count()} cores"
        return f"{date.today()}: {name}, {about}. A trial run without a GPU: its numbers mean nothing."
    card = torch.cuda.get_device_properties(0)
    return (
        f"{date.today()}: {card.name} ({card.total_memory / 2**30:.0f} GiB, capability {card.major}.{card.minor}), CUDA "
        f"{torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, {about}, {os.cpu_count()} cores."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--tiny", action="store_true", help="trial run: small models, a few rounds")
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the results")
    parser.add_argument("--only", nargs="+", choices=["tests", *dict.fromkeys(step.part for step in STEPS)])
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options)
        return
    ends = time.monotonic() + 60 * options.minutes
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; for a trial run use --device cpu --tiny")
    options.out.mkdir(parents=True, exist_ok=True)
    sheet = Sheet(options.out, title(options.device))
    print(sheet.title, flush=True)
    sheet.write()
    if not options.only or "tests" in options.only:
        run_tests(sheet, options.device, 60 * options.minutes / 4, tiny=options.tiny)
    run_steps(sheet, options, ends)
    print(f"done, {ends - time.monotonic():.0f} s left; see {options.out / 'RESULTS_CUDA.md'}")


if __name__ == "__main__":
    main()
