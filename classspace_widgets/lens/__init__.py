"""The logit lens: final norm, then classifier; its readings, and how they are computed at little cost."""

from classspace_widgets.lens.lens import ClassLens, class_ranks

__all__ = ["ClassLens", "class_ranks"]
