"""From a `Trace` (torch, on the device) to a `Snapshot` (numpy, compact), and what a live kernel adds to it later."""

from classspace_widgets.capture.payload import capture

__all__ = ["capture"]
