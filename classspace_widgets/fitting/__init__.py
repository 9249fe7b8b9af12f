"""Fitting lenses: maps from every point of the residual stream to class scores, from pictures, mostly without labels."""

from classspace_widgets.fitting.fit import LensSums, fit_lens

__all__ = ["LensSums", "fit_lens"]
