"""The result of every importance method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from classspace_widgets.describe import short_repr
from classspace_widgets.explain.describe import importance_html

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from classspace_widgets.snapshot.paper import PaperFigure


@dataclass(frozen=True)
class TokenImportance:
    """Importance of every token for some classes.

    Made by `importance`.

    Attributes
    ----------
    maps : Tensor [B, K, T]
        Importance of every token for every class; negative values only for signed methods.
    classes : Tensor [B, K], int64
        The classes, one row per image.
    method : str
    signed : bool
        True if negative values are possible: evidence against the class.
    prefix : int
        Number of prefix tokens; image tokens follow row by row.
    grid : tuple of int
        Rows and columns of image tokens.
    by_block : Tensor [B, K, L, T] or None
        Importance by block, if the method has it; sums to ``maps``.
    by_head : Tensor [B, K, L, H, T] or None
        Importance by head, with ``heads=True``; sums to ``by_block``.
    class_names : tuple of str
        Names of all C classes.
    pictures : ndarray [B, height, width, 3], uint8, or None
        The pictures as the model saw them, for display.
    """

    __repr__ = short_repr
    _repr_html_ = importance_html

    maps: Tensor
    classes: Tensor
    method: str
    signed: bool
    prefix: int
    grid: tuple[int, int]
    by_block: Tensor | None = None
    by_head: Tensor | None = None
    class_names: tuple[str, ...] = field(default=(), repr=False)
    pictures: np.ndarray[Any, Any] | None = field(default=None, repr=False)

    @property
    def image_maps(self) -> Tensor:
        """Importance of the image tokens on their grid, ``[B, K, rows, columns]``."""
        return self.maps[..., self.prefix :].reshape(*self.maps.shape[:-1], *self.grid)

    @property
    def scores(self) -> Tensor:
        """Importance of the image tokens, ``[B, K, P]``."""
        return self.maps[..., self.prefix :]

    def plot(
        self, *, scale: str = "map", title: str | None = None, width: float = 6.9, theme: str = "light"
    ) -> PaperFigure:
        """The maps over their pictures as a figure for print: a row for each picture, a column for each class.

        Several methods side by side: `plots.importance_strip`.

        Parameters
        ----------
        scale : str
            The value with the strongest colour: the largest of each ``"map"``, of each ``"column"`` or of the whole
            ``"figure"``.
        title : str, optional
            Title of the figure; by default a description.
        width : float
            Largest width in inches.
        theme : str
            ``"light"``, ``"dark"`` or ``"transparent"``.

        Returns
        -------
        PaperFigure
            ``.save("figure.png", dpi=300)``, also as SVG or PDF.
        """
        from classspace_widgets.explain.strips import importance_figure

        return importance_figure(self, scale=scale, title=title, width=width, theme=theme)
