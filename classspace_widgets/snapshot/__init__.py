"""The torch-free arrays that views need, their container and files, and still pictures of them."""

from classspace_widgets.snapshot.snapshot import Snapshot, SnapshotError, pack, unpack

__all__ = ["Snapshot", "SnapshotError", "pack", "unpack"]
