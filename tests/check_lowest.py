"""Print the lowest versions that pyproject.toml allows, as pip takes them; torch and timm are left out.

.ci/run installs them and runs the tests with them.
"""

from __future__ import annotations

import re
from pathlib import Path

import tomllib

LEFT_OUT = {"torch", "timm"}


def main() -> None:
    """Print ``name==version`` for every dependency."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    for entry in project["project"]["dependencies"]:
        match = re.fullmatch(r"([a-zA-Z0-9_-]+)>=([0-9.]+)", entry)
        if match is None:
            raise SystemExit(f"expected name>=version, got {entry!r}")
        if match[1] not in LEFT_OUT:
            print(f"{match[1]}=={match[2]}")


if __name__ == "__main__":
    main()
