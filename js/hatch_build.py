"""Builds the front end before the package: `npm ci` and `npm run build`, into ``classspace_widgets/static``."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = ("widget.js", "view.js", "page.js", "actions.js", "tour.js", "memories.js", "engine.js", "LICENSES.txt")


class FrontEndBuildHook(BuildHookInterface):
    """Hatchling's custom build hook: a wheel without its front end must not come to be."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless what an sdist carries is built already, or the install is editable."""
        root = Path(self.root)
        built = [root / "classspace_widgets" / "static" / name for name in BUILT]
        complete = all(path.is_file() for path in built)
        if complete and (root / "PKG-INFO").is_file():
            return
        npm = shutil.which("npm")
        if version == "editable" and (complete or npm is None):
            # Python code can be worked on without Node; a widget says how to build what it misses.
            return
        if npm is None:
            raise RuntimeError(
                "building classspace-widgets from a checkout needs npm (Node.js 20 or later) for its front end, and "
                "npm was not found; install Node.js, or install the released wheel with: pip install classspace-widgets"
            )
        for command in (["ci", "--no-audit", "--no-fund"], ["run", "build"]):
            done = subprocess.run([npm, *command], cwd=root / "js", check=False)
            if done.returncode:
                raise RuntimeError(f"`npm {' '.join(command)}` in js/ ended with status {done.returncode}; see above")
        missing = [path.name for path in built if not path.is_file()]
        if missing:
            raise RuntimeError(f"the front end's build left out {', '.join(missing)}")
