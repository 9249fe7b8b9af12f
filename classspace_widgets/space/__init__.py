"""A model in its class embedding space: passes over images, traced or read on the way."""

from classspace_widgets.space.space import ClassSpace
from classspace_widgets.space.streaming import StreamReadings, stream_readings

__all__ = ["ClassSpace", "StreamReadings", "stream_readings"]
