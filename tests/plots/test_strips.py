"""Figures for print: the maps' numbers are in their colours, and the files have the size and the words that were asked for."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bokeh.plotting import figure
from PIL import Image
from tiny_models import tiny_vit

from classspace_widgets import ClassSpace
from classspace_widgets.explain import importance
from classspace_widgets.metrics import class_identifiability
from classspace_widgets.plots import files, identifiability_strip, importance_strip, save_figure
from classspace_widgets.scenes import gallery
from classspace_widgets.snapshot.paper import PaperFigure, Raster, Words
from classspace_widgets.snapshot.strips import colours_of

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def trace():
    return ClassSpace.bundled(device="cpu").trace([scene.picture for scene in gallery()[:2]])


def words(figure: PaperFigure) -> list[str]:
    return [mark.text for mark in figure.marks if isinstance(mark, Words)]


def cells(figure: PaperFigure) -> list[Raster]:
    """The pictures and maps, row by row; the legends' bars are flatter."""
    return [mark for mark in figure.marks if isinstance(mark, Raster) and mark.height > 12]


def patch_colours(mark: Raster, grid: tuple[int, int]) -> np.ndarray:
    """The colour in the middle of every patch: [rows, columns, 3]."""
    pixels = np.asarray(mark.draw((grid[1] * 9, grid[0] * 9)).convert("RGB"), float)
    return pixels[4::9, 4::9]


def test_colours_are_the_values():
    values = np.array([[-1.0, -0.5, 0.0], [0.5, 1.0, np.nan]])
    signed = colours_of(values, "signed").astype(int)
    assert signed[..., 3].tolist() == [[235, 117, 0], [117, 235, 0]]
    assert signed[0, 0, :3].tolist() == [33, 102, 172]
    assert signed[1, 1, :3].tolist() == [178, 24, 43]
    amount = colours_of(np.array([[0.0, 1.0]]), "amount").astype(int)
    assert amount[0, 1].tolist() == [122, 62, 157, 235]
    assert amount[0, 0, 3] == 0
    found = colours_of(np.array([[0.0, 1.0]]), "identifiability")
    assert found[0, 0, :3].tolist() == [68, 1, 84]
    assert found[0, 1, :3].tolist() == [253, 231, 37]


def over_the_greyed_picture(picture: np.ndarray, shares: np.ndarray, colour: tuple, grid: tuple) -> np.ndarray:
    """What patches must look like, by hand: grey at 60 % on white, then the colour by its share."""
    shown = Image.fromarray(picture).resize((grid[1] * 9, grid[0] * 9), Image.Resampling.BICUBIC)
    grey = np.asarray(shown.convert("L"), float)[4::9, 4::9, None]
    under = 0.4 * 255 + 0.6 * grey
    alpha = 0.92 * np.abs(shares)[..., None]
    return under * (1 - alpha) + np.array(colour) * alpha


@pytest.mark.parametrize("scale", ["map", "column", "figure"])
def test_the_maps_are_those_of_every_method(trace, scale):
    methods = ["gradient", "rollout"]
    made = importance_strip(trace, "fish", methods=methods, scale=scale)
    found = {method: importance(trace, "fish", method=method).image_maps[:, 0].double().numpy() for method in methods}
    everything = max(np.abs(maps).max() for maps in found.values())
    drawn = cells(made)
    assert len(drawn) == 2 * 3
    for b in range(2):
        whole = np.asarray(drawn[3 * b].draw((96, 96)).convert("RGB"))
        assert np.array_equal(whole, trace.pictures[b])
        for m, method in enumerate(methods):
            values = found[method][b]
            unit = {"map": np.abs(values).max(), "column": np.abs(found[method]).max(), "figure": everything}[scale]
            colours = patch_colours(drawn[3 * b + 1 + m], trace.grid)
            for sign, colour in ((1, (178, 24, 43) if method == "gradient" else (122, 62, 157)), (-1, (33, 102, 172))):
                expected = over_the_greyed_picture(trace.pictures[b], values / unit, colour, trace.grid)
                of_sign = values * sign > 0
                assert np.abs(colours - expected)[of_sign].max(initial=0) < 3
            # Every map says how large it becomes, whatever it is drawn in units of.
            largest = np.abs(values).max()
            notes = [float(w.removeprefix("up to ").lstrip("±")) for w in words(made) if w.startswith("up to")]
            assert notes[2 * b + m] == pytest.approx(largest, rel=0.06)
    legend = {"map": "each map", "column": "each column", "figure": "the whole figure"}[scale]
    assert sum(legend in text for text in words(made)) == 2
    assert {"gradient", "rollout", "against the class", "for the class", "0", "largest"} <= set(words(made))


def test_rows_are_named_where_classes_differ(trace):
    assert words(importance_strip(trace, methods="gradient"))[:4] == [
        "Token importance",
        "gradient",
        "fish",
        "up to ±13",
    ]
    assert words(importance_strip(trace, "fish", methods="gradient"))[0] == "Token importance for fish"
    several = words(importance_strip(trace, ["fish", "boat"], methods=["chefer"], title="Mine"))
    assert several[0] == "Mine"
    assert [w for w in several if w in ("fish", "boat")] == ["fish", "boat", "fish", "boat"]
    assert "against the class" not in several


def test_importance_draws_itself(trace):
    found = importance(trace, ["fish", "boat"])
    made = found.plot(scale="column")
    assert words(made)[:3] == ["Token importance, method gradient", "fish", "boat"]
    drawn = cells(made)
    assert len(drawn) == 2 * 3
    both = importance_strip(trace, "boat", methods="gradient", scale="column")
    for b in range(2):
        assert np.array_equal(
            patch_colours(drawn[3 * b + 2], trace.grid), patch_colours(cells(both)[2 * b + 1], trace.grid)
        )
    predicted = importance(trace).plot()
    assert [w for w in words(predicted) if w in ("fish", "rocket")] == ["fish", "rocket"]


def test_a_class_through_the_depth(trace):
    made = identifiability_strip(trace, ["fish", "boat"], blocks=[0, 8])
    values = {
        c: class_identifiability(trace, c, blocks=[0, 8])[:, 0, 1:].reshape(2, *trace.grid) for c in ("fish", "boat")
    }
    drawn = cells(made)
    assert len(drawn) == 2 * 3
    shown = Image.fromarray(trace.pictures[0]).resize((108, 108), Image.Resampling.BICUBIC)
    under = np.asarray(shown, float)[4::9, 4::9]
    for c, name in enumerate(("fish", "boat")):
        for n in range(2):
            own = colours_of(values[name][n].double().numpy(), "identifiability")[..., :3]
            assert np.abs(patch_colours(drawn[3 * c + 1 + n], trace.grid) - (0.25 * under + 0.75 * own)).max() < 3
    bar = next(mark for mark in made.marks if isinstance(mark, Raster) and mark.height == 6)
    (tick,) = [mark for mark in made.marks if isinstance(mark, Raster) and mark.width < 1]
    assert (tick.x + tick.width / 2 - bar.x) / bar.width == pytest.approx(25 / 48)
    assert "chance .52" in words(made)
    assert words(identifiability_strip(trace.snapshot(image=1)))[0] == "Class identifiability of rocket"


def test_files_have_the_size_and_the_words(trace, tmp_path):
    made = importance_strip(trace, methods=["gradient", "chefer"], width=3.3)
    assert made.width <= 3.3 * 72 + 1e-6
    png = Image.open(save_figure(made, tmp_path / "deep" / "one.png", dpi=150))
    assert png.size == (round(made.width / 72 * 150), round(made.height / 72 * 150))
    assert png.info["dpi"] == pytest.approx((150, 150), abs=0.1)
    assert np.array_equal(np.asarray(png), np.asarray(made.image(150)))
    drawing = ElementTree.parse(save_figure(made, tmp_path / "one.svg", dpi=150)).getroot()
    assert drawing.get("width") == f"{made.width:.2f}pt"
    assert [text.text for text in drawing.iter(f"{SVG}text")] == words(made)
    pictures = list(drawing.iter(f"{SVG}image"))
    assert len(pictures) == len(made.marks) - len(words(made))
    first = Image.open(io.BytesIO(base64.b64decode(pictures[0].get("href").partition(",")[2])))
    assert first.width == round(float(pictures[0].get("width")) * 150 / 72)
    data = save_figure(made, tmp_path / "one.pdf").read_bytes()
    box = [float(n) for n in re.search(rb"/MediaBox \[ (.*?) \]", data)[1].split()]
    assert box == pytest.approx([0, 0, made.width, made.height], abs=0.3)
    page = Image.open(io.BytesIO(data[data.index(b"\xff\xd8") :]))
    exact = np.asarray(made.image(300).convert("RGB"), float)
    assert np.abs(np.asarray(page, float) - exact).mean() < 1
    assert made._repr_png_()[0].startswith(b"\x89PNG")
    assert "Token importance" in repr(made)


def test_on_light_on_dark_and_on_any_page(trace):
    corner = {
        theme: importance_strip(trace, methods="gradient", theme=theme).image(72).getpixel((1, 1))
        for theme in ("light", "dark", "transparent")
    }
    assert corner == {"light": (255, 255, 255, 255), "dark": (20, 24, 31, 255), "transparent": (0, 0, 0, 0)}


def test_names_are_text_and_are_shortened_to_fit(trace, tmp_path):
    names = trace.class_names
    long = tuple(f"<b>&{n}\x00 {'long ' * 30}" for n in names)
    try:
        trace.space.class_names = long
        made = importance_strip(replace(trace, class_names=long), methods=["gradient", "direct"])
    finally:
        trace.space.class_names = names
    named = next(w for w in words(made) if w.startswith("<b>&fish"))
    assert named.endswith("…")
    texts = [text.text for text in ElementTree.fromstring(made.svg()).iter(f"{SVG}text")]
    assert named.replace("\x00", "") in texts
    assert made.width <= 6.9 * 72 + 1e-6


def test_pictures_that_are_not_square_and_maps_without_a_picture():
    space = tiny_vit(img_size=(32, 64))
    trace = space.trace(Image.new("RGB", (64, 32), "teal"))
    made = importance_strip(trace, 1, methods="gradient")
    picture, values = cells(made)
    assert picture.height / picture.width == pytest.approx(0.5)
    assert values.height == picture.height
    trace = replace(trace, pictures=None)
    bare = importance_strip(trace, 1, methods="gradient")
    assert np.isfinite(patch_colours(cells(bare)[-1], trace.grid)).all()


def test_what_is_refused(trace, tmp_path):
    with pytest.raises(ValueError, match="method must be one of"):
        importance_strip(trace, methods=["gradients"])
    with pytest.raises(ValueError, match="methods is empty"):
        importance_strip(trace, methods=[])
    with pytest.raises(ValueError, match="scale must be one of map, column, figure, got 'row'"):
        importance_strip(trace, methods="gradient", scale="row")
    with pytest.raises(
        ValueError, match="theme must be one of light, dark, transparent, got 'drak'; close matches: dark"
    ):
        importance_strip(trace, methods="gradient", theme="drak")
    with pytest.raises(ValueError, match=r"width=0\.4 inches has no room for 2 maps"):
        importance_strip(trace, methods="gradient", width=0.4)
    with pytest.raises(TypeError, match="takes a Snapshot or a Trace, got str"):
        identifiability_strip("fish")
    with pytest.raises(ValueError, match=r"block must be in 0\.\.8, got 9"):
        identifiability_strip(trace, blocks=[9])
    made = importance_strip(trace, methods="gradient")
    with pytest.raises(ValueError, match=r"ending in \.png, \.svg, \.pdf, got 'one.gif'"):
        save_figure(made, tmp_path / "one.gif")
    for dpi in (0, -3, 1e6, float("nan")):
        with pytest.raises(ValueError, match="dpi"):
            made.image(dpi)


def test_bokeh_figures_have_a_resolution_and_need_a_browser(tmp_path, monkeypatch):
    asked = {}

    def written(_plot, *, filename, **options):
        asked.update(options)
        Path(filename).write_bytes(b"drawn")

    monkeypatch.setattr("bokeh.io.export_png", written)
    save_figure(figure(), tmp_path / "curve.png", dpi=288)
    assert asked["scale_factor"] == 3
    save_figure(figure(), tmp_path / "curve.png")
    assert asked["scale_factor"] == 1

    def broken(*_args, **_options):
        raise RuntimeError("no driver")

    monkeypatch.setattr("bokeh.io.export_svg", broken)
    with pytest.raises(RuntimeError, match=re.escape('pip install "classspace-widgets[figures]"')):
        save_figure(figure(), tmp_path / "curve.svg")
    with pytest.raises(ValueError, match=r"ending in \.html, \.png or \.svg"):
        files.save_figure(figure(), tmp_path / "curve.pdf")
