"""The time until the first view: ``python benchmarks/start.py``. Every step is timed in new processes, one after the other."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

STEPS = """
import json, time
taken, last = {}, time.perf_counter()
def done(name):
    global last
    now = time.perf_counter()
    taken[name], last = now - last, time.perf_counter()
import classspace_widgets
done("import classspace_widgets")
import torch
done("import torch")
import torchvision
done("import torchvision, which timm imports")
import timm
done("import timm")
space = classspace_widgets.ClassSpace.bundled(device="cpu")
done("ClassSpace.bundled()")
from classspace_widgets.scenes import gallery
scene = gallery()[0]
done("a scene is drawn")
trace = space.trace(scene.picture, attention=True, heads=True)
done("its trace")
snapshot = trace.snapshot()
done("its snapshot")
print(json.dumps(taken))
"""


def main() -> None:
    """Print the median of every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    runs = []
    for _ in range(rounds + 1):  # The first one finds cold files.
        out = subprocess.run([sys.executable, "-c", STEPS], check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(out))
    for name in runs[0]:
        print(f"{statistics.median(run[name] for run in runs[1:]) * 1e3:8.0f} ms  {name}")


if __name__ == "__main__":
    main()
