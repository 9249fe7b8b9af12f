"""What a wheel and an sdist must hold: ``python check_packages.py dist/*``."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

WHEEL = (
    "classspace_widgets/__init__.py",
    "classspace_widgets/py.typed",
    "classspace_widgets/models/weights/photos.safetensors",
    "classspace_widgets/models/weights/photos.md",
    "classspace_widgets/demo.ipynb",
    "classspace_widgets/images/photographs/espresso.jpg",
    "classspace_widgets/images/photographs/README.md",
    "classspace_widgets/static/widget.js",
    "classspace_widgets/static/view.js",
    "classspace_widgets/static/page.js",
    "classspace_widgets/static/actions.js",
    "classspace_widgets/static/tour.js",
    "classspace_widgets/tours/four-ways.md",
    "classspace_widgets/tours/vocabulary.json",
    "classspace_widgets/static/memories.js",
    "classspace_widgets/static/LICENSES.txt",
)
SDIST = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "demo.ipynb",
    "js/package.json",
    "js/package-lock.json",
    "tests/conftest.py",
)
FORBIDDEN = ("node_modules", "__pycache__", ".ipynb_checkpoints")
WEIGHTS_LIMIT = 12_000_000


def check(path: Path) -> None:
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as archive:
            sizes = {info.filename: info.file_size for info in archive.infolist()}
        wanted = WHEEL
    else:
        with tarfile.open(path) as archive:
            sizes = {member.name.split("/", 1)[-1]: member.size for member in archive.getmembers()}
        wanted = SDIST + tuple(name for name in WHEEL if not name.endswith("demo.ipynb"))
    missing = [name for name in wanted if name not in sizes]
    strange = [name for name in sizes if any(part in name for part in FORBIDDEN)]
    weights = {name: size for name, size in sizes.items() if name.endswith(".safetensors")}
    if missing or strange:
        sys.exit(f"{path.name}: missing {missing}, should not be there {strange}")
    if not weights or max(weights.values()) > WEIGHTS_LIMIT:
        sys.exit(f"{path.name}: weights must be there, each at most {WEIGHTS_LIMIT} bytes, got {weights}")
    print(f"{path.name}: {len(sizes)} files, {path.stat().st_size / 1e6:.1f} MB, weights {weights}")


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        check(Path(argument))
