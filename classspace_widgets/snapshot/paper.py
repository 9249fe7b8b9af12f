"""Figures for print: pictures and maps in rows with words beside them, drawn once and written as PNG, SVG or PDF."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from classspace_widgets.files import write_whole
from classspace_widgets.lookup import close_matches

if TYPE_CHECKING:
    from PIL.Image import Image

POINT = 72
"""Points in an inch."""
KINDS = (".png", ".svg", ".pdf")
FONT = "Helvetica, Arial, sans-serif"
SHOWN_DPI = 144


@dataclass(frozen=True)
class Theme:
    """Colours of a figure: behind it, of its words, and of words that matter less."""

    background: str | None
    ink: str
    muted: str


THEMES = {
    "light": Theme("#ffffff", "#1c2430", "#5b6572"),
    "dark": Theme("#14181f", "#e8ebf0", "#a3adba"),
    # Of middle lightness, to be read on white and on dark.
    "transparent": Theme(None, "#737b86", "#737b86"),
}


@dataclass(frozen=True)
class Words:
    """Text at a place of the figure, in points; ``y`` is its baseline, ``anchor`` is start, middle or end."""

    x: float
    y: float
    text: str
    size: float = 8
    muted: bool = False
    anchor: str = "start"


@dataclass(frozen=True)
class Raster:
    """Pixels at a place of the figure, in points, made for the resolution that is asked for: ``draw((width, height))``."""

    x: float
    y: float
    width: float
    height: float
    draw: Callable[[tuple[int, int]], Image]


@dataclass(frozen=True)
class PaperFigure:
    """A figure for print.

    Made by `importance_strip`, `identifiability_strip` and `TokenImportance.plot`; `save_figure` writes it as well.

    Attributes
    ----------
    marks : tuple
        What is drawn, in order.
    width, height : float
        In points, 72 to an inch.
    theme : Theme
    title : str
        What the figure is about, for those who cannot see it.
    """

    marks: tuple[Words | Raster, ...]
    width: float
    height: float
    theme: Theme
    title: str = ""

    def __repr__(self) -> str:
        return f"PaperFigure({self.title}: {self.width / POINT:.1f} x {self.height / POINT:.1f} inches)"

    def _repr_png_(self) -> tuple[bytes, dict[str, Any]]:
        shown = self.image(SHOWN_DPI)
        buffer = io.BytesIO()
        shown.save(buffer, "PNG")
        return buffer.getvalue(), {"width": round(shown.width / 2), "alt": self.title}

    def image(self, dpi: float = 300) -> Image:
        """The figure as a picture of so many pixels to the inch.

        Parameters
        ----------
        dpi : float

        Returns
        -------
        PIL.Image.Image
            RGBA; what is behind it is transparent in the theme ``"transparent"``.
        """
        from PIL import Image, ImageDraw, ImageFont

        scale = _resolution(dpi) / POINT
        size = (max(1, round(self.width * scale)), max(1, round(self.height * scale)))
        out = Image.new("RGBA", size, self.theme.background or (0, 0, 0, 0))
        pen = ImageDraw.Draw(out)
        for mark in self.marks:
            if isinstance(mark, Raster):
                left, top = round(mark.x * scale), round(mark.y * scale)
                right, bottom = round((mark.x + mark.width) * scale), round((mark.y + mark.height) * scale)
                drawn = mark.draw((max(1, right - left), max(1, bottom - top))).convert("RGBA")
                out.alpha_composite(drawn, (left, top))
                continue
            font = ImageFont.load_default(size=mark.size * scale)
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[mark.anchor]
            place = (mark.x * scale, mark.y * scale)
            pen.text(place, mark.text, fill=self._colour(mark), font=font, anchor=anchor)
        return out

    def svg(self, dpi: float = 300) -> str:
        """The figure as SVG: its words are text, its pictures have so many pixels to the inch.

        Parameters
        ----------
        dpi : float

        Returns
        -------
        str
        """
        scale = _resolution(dpi) / POINT
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.width:.2f}pt" height="{self.height:.2f}pt" '
            f'viewBox="0 0 {self.width:.2f} {self.height:.2f}" role="img" font-family="{FONT}">',
            f"<title>{_xml(self.title)}</title>",
        ]
        if self.theme.background:
            parts.append(f'<rect width="100%" height="100%" fill="{self.theme.background}"/>')
        for mark in self.marks:
            if isinstance(mark, Words):
                place = f'x="{mark.x:.2f}" y="{mark.y:.2f}" font-size="{mark.size:g}" text-anchor="{mark.anchor}"'
                parts.append(f'<text {place} fill="{self._colour(mark)}">{_xml(mark.text)}</text>')
                continue
            buffer = io.BytesIO()
            size = (max(1, round(mark.width * scale)), max(1, round(mark.height * scale)))
            mark.draw(size).save(buffer, "PNG", optimize=True)
            data = base64.b64encode(buffer.getvalue()).decode()
            place = f'x="{mark.x:.2f}" y="{mark.y:.2f}" width="{mark.width:.2f}" height="{mark.height:.2f}"'
            parts.append(f'<image {place} preserveAspectRatio="none" href="data:image/png;base64,{data}"/>')
        return "\n".join([*parts, "</svg>", ""])

    def save(self, path: str | Path, *, dpi: float = 300) -> Path:
        """Write the figure as ``.png``, ``.svg`` (words as text) or ``.pdf`` (one picture).

        Parameters
        ----------
        path : path
            Its ending says what is written.
        dpi : float
            Pixels to the inch, of the whole figure or of the pictures in an SVG.

        Returns
        -------
        Path

        Raises
        ------
        ValueError
            For another ending, or a resolution that is not above 0.
        """
        target = Path(path)
        kind = target.suffix.lower()
        if kind not in KINDS:
            raise ValueError(f"expected a path ending in {', '.join(KINDS)}, got {target.name!r}")
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind == ".svg":
            return write_whole(target, self.svg(dpi).encode())
        from PIL import Image

        drawn, buffer = self.image(dpi), io.BytesIO()
        if kind == ".png":
            drawn.save(buffer, "PNG", dpi=(dpi, dpi))
        else:
            page = Image.new("RGB", drawn.size, self.theme.background or "#ffffff")
            page.paste(drawn, mask=drawn.getchannel("A"))
            page.save(buffer, "PDF", resolution=dpi, title=self.title, quality=95, subsampling=0)
        return write_whole(target, buffer.getvalue())

    def _colour(self, mark: Words) -> str:
        return self.theme.muted if mark.muted else self.theme.ink


def theme_of(name: str) -> Theme:
    """A theme by name."""
    if name not in THEMES:
        raise ValueError(
            f"theme must be one of {', '.join(THEMES)}, got {name!r}{close_matches(str(name), list(THEMES))}"
        )
    return THEMES[name]


def words_width(text: str, size: float) -> float:
    """How wide a text is, in points."""
    from PIL import ImageFont

    # Measured large, because hinting rounds the widths of small letters.
    return float(ImageFont.load_default(size=size * 8).getlength(text)) / 8


def cut(text: str, width: float, size: float) -> str:
    """As much of a text as there is room for."""
    if words_width(text, size) <= width:
        return text
    while text and words_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def _resolution(dpi: float) -> float:
    if not 0 < dpi <= 2400:
        raise ValueError(f"dpi (pixels to the inch) must be above 0 and at most 2400, got {dpi}")
    return float(dpi)


def _xml(text: str) -> str:
    """Text for XML, without the characters that it cannot hold."""
    return escape("".join(c for c in text if c in "\t\n" or (ord(c) >= 32 and not 0xD800 <= ord(c) < 0xE000)))
