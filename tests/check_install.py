"""The installed wheel without torch: it imports, says its version, and shows a saved snapshot."""

from __future__ import annotations

import sys

import classspace_widgets
from classspace_widgets import Explorer, Session, Snapshot
from classspace_widgets.scenes import gallery

assert "torch" not in sys.modules
assert "site-packages" in str(classspace_widgets.__file__), classspace_widgets.__file__
assert Explorer is not None
assert Session is not None
assert Snapshot is not None
scenes = gallery()
print(f"classspace_widgets {classspace_widgets.__version__} imports without torch; {len(scenes)} scenes drawn")
