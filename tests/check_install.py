"""The installed wheel without torch: it imports and says its version; `check_bare` opens a snapshot with it."""

from __future__ import annotations

import sys
from pathlib import Path

import classspace_widgets
from classspace_widgets import Explorer, Session, Snapshot

assert "torch" not in sys.modules
assert "site-packages" in str(classspace_widgets.__file__), classspace_widgets.__file__
assert Explorer is not None
assert Session is not None
assert Snapshot is not None
print(f"classspace_widgets {classspace_widgets.__version__} imports without torch")
# Written here for `check_bare`, which opens files.
fixture = Path(__file__).parent / "fixtures" / "all.bin"
Snapshot.unpack(fixture.read_bytes()).save(sys.argv[1])
