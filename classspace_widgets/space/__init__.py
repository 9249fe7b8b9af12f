"""A model in its class embedding space: passes over images, traced or read on the way."""

from classspace_widgets.space.space import ClassSpace
from classspace_widgets.space.streaming import StreamReadings as StreamReadings
from classspace_widgets.space.streaming import stream_readings

__all__ = ["ClassSpace", "stream_readings"]
