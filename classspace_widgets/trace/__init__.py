"""One forward pass, kept as the increments of the residual stream; nothing is stored that can be derived."""

from classspace_widgets.trace.trace import TopK, Trace, recording

__all__ = ["TopK", "Trace", "recording"]
