"""Nearest states: patches of other pictures whose residual stream points the same way."""

from classspace_widgets.nearest.bank import StateBank
from classspace_widgets.nearest.build import state_bank
from classspace_widgets.nearest.find import Neighbours, neighbours

__all__ = ["Neighbours", "StateBank", "neighbours", "state_bank"]
