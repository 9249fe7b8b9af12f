"""The torch-free arrays that views need, their container and files, and still pictures of them.

`container` holds the bytes, `meta` the types of their JSON, `check` what must be in them; `source` is what a snapshot may
ask of a live kernel; `snapshot` and `atlas` are the two kinds there are; `still`, `filmstrip`, `strips` and `paper` draw.
"""

from classspace_widgets.snapshot.container import SnapshotError
from classspace_widgets.snapshot.snapshot import Snapshot

__all__ = ["Snapshot", "SnapshotError"]
