"""Key-value memories: value vectors projected onto classes, and the pictures that activate them."""

from classspace_widgets.memories.atlas import memory_atlas
from classspace_widgets.memories.values import most_activating, recording_active, value_vectors

__all__ = [
    "memory_atlas",
    "most_activating",
    "recording_active",
    "value_vectors",
]
