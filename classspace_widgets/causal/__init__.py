"""Causal tracing over depth: the effect of every head or token of every block on the answer."""

from classspace_widgets.causal.modes import KnockOut, Patch
from classspace_widgets.causal.sweeps import sweep_heads, sweep_tokens

__all__ = [
    "KnockOut",
    "Patch",
    "sweep_heads",
    "sweep_tokens",
]
