"""One forward pass, kept as the increments of the residual stream; nothing is stored that can be derived."""

from classspace_widgets.trace.top_k import TopK as TopK
from classspace_widgets.trace.trace import Trace
from classspace_widgets.trace.trace import recording as recording

__all__ = ["Trace"]
