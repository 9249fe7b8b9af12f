"""Print the lowest versions that pyproject.toml allows, of what the package needs and of `lab`, as pip takes them.

.ci/run installs them and runs the tests with them.
"""

from __future__ import annotations

import re
from pathlib import Path

import tomllib


def main() -> None:
    """Print ``name==version`` for every dependency."""
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    for entry in project["project"]["dependencies"] + project["project"]["optional-dependencies"]["lab"]:
        match = re.fullmatch(r"([a-zA-Z0-9_-]+)>=([0-9.]+)", entry)
        if match is None:
            raise SystemExit(f"expected name>=version, got {entry!r}")
        print(f"{match[1]}=={match[2]}")


if __name__ == "__main__":
    main()
