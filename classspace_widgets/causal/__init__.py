"""Causal tracing over depth: what every head or token of every block does to the answer."""

from classspace_widgets.causal.sweeps import sweep_heads, sweep_tokens

__all__ = [
    "sweep_heads",
    "sweep_tokens",
]
