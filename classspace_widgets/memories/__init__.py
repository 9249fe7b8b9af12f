"""Key-value memories: value vectors projected onto classes, and the pictures that activate them."""

from classspace_widgets.memories.atlas import memory_atlas
from classspace_widgets.memories.values import (
    ValueVectors,
    most_activating,
    output_projection,
    recording_active,
    recording_coefficients,
    value_vectors,
)

__all__ = [
    "ValueVectors",
    "memory_atlas",
    "most_activating",
    "output_projection",
    "recording_active",
    "recording_coefficients",
    "value_vectors",
]
