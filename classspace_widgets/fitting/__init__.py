"""Fitting lenses: maps from every point of the residual stream to class scores, from pictures, mostly without labels."""

from classspace_widgets.fitting.fit import LensSums as LensSums
from classspace_widgets.fitting.fit import fit_lens

__all__ = ["fit_lens"]
