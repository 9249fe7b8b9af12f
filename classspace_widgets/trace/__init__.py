"""One forward pass of a model, kept as what every sublayer adds to the residual stream; and its file."""

from classspace_widgets.trace.trace import PARALLEL_STREAMS, STREAMS, Trace, recording

__all__ = ["PARALLEL_STREAMS", "STREAMS", "Trace", "recording"]
