"""Figures and the report: they hold the result's numbers, and need no network."""

from __future__ import annotations

import base64
import gzip
import html
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from bokeh.models import CrosshairTool, CustomJS, Div, HoverTool, VArea
from bokeh.plotting import figure
from study_helpers import Pictures
from tiny_models import tiny_vit

from classspace_widgets.metrics import contributions
from classspace_widgets.plots import (
    plot_contributions,
    plot_explanation,
    plot_heads,
    plot_overview,
    plot_probes,
    plot_result,
    save_figure,
    show_figure,
    write_report,
)
from classspace_widgets.plots.files import figures_in
from classspace_widgets.plots.heat import plot_heat_table
from classspace_widgets.studies import ExplanationStudy, StudyResults, head_table, run_study
from classspace_widgets.studies.results import StudyResult
from classspace_widgets.studies.standard import all_studies


@pytest.fixture(scope="module")
def results():
    return run_study(tiny_vit(), Pictures(8, broken=(3,)), list(all_studies()), random_twin=True, progress=False)


def lines(fig):
    return [r for r in fig.renderers if type(r.glyph).__name__ == "Line"]


def test_curves_hold_the_numbers(results):
    plotted = plot_result(results["identifiability"])
    figures = figures_in(plotted)
    assert [f.title.text for f in figures] == ["residual", "attention", "mlp"]
    for fig in figures:
        drawn = lines(fig)
        assert len(drawn) == 8
        for renderer in drawn:
            data = renderer.data_source.data
            weights, tokens = data["weights"][0], data["tokens"][0]
            rows = results["identifiability"].where(
                weights=weights, tokens=tokens, stream=fig.title.text, outcome="all"
            )
            assert np.array_equal(data["value"], rows.sort_values("block")["value"])
            assert (renderer.glyph.line_dash == [6]) == (weights == "random")
        assert sum(isinstance(r.glyph, VArea) for r in fig.renderers) == 4
        assert fig.legend[0].click_policy == "hide"
        assert {item.label.value for item in fig.legend[0].items} >= {"[CLS]", "[CLS], random"}
    assert [f.legend[0].visible for f in figures] == [False, False, True]
    assert figures[-1].legend[0] in figures[-1].right
    callbacks = [c for r in lines(figures[-1]) for found in r.js_property_callbacks.values() for c in found]
    targets = {c.args["other"] for c in callbacks if isinstance(c, CustomJS)}
    assert set(lines(figures[0])) <= targets, "a click on the one legend hides the curve in every panel"
    overlays = {t.overlay for f in figures for t in f.toolbar.tools if isinstance(t, CrosshairTool)}
    assert len(overlays) == 1, "one crosshair over all panels"
    assert len({f.x_range for f in figures}) == len({f.y_range for f in figures}) == 1


def test_panels_of_a_row_are_of_one_size_and_fit_a_page(results):
    for name in ("identifiability", "residual_composition"):
        figures = figures_in(plot_result(results[name]))
        assert len({(f.frame_width, f.frame_height) for f in figures}) == 1
        assert sum(f.frame_width for f in figures) + 60 + 190 < 1240
        # One axis of values for all of them.
        assert [f.yaxis[0].visible for f in figures] == [True] + [False] * (len(figures) - 1)


def test_colours_are_those_of_the_widgets(results):
    def colours(name):
        return {
            r.data_source.data["label"][0]: r.glyph.line_color
            for f in figures_in(plot_result(results[name]))
            for r in lines(f)
        }

    for name in ("class_value_agreement", "residual_composition"):
        found = colours(name)
        assert (found["attention"], found["mlp"]) == ("#0f97a8", "#d5701a")
        assert len(set(found.values())) == len(found), "no colour twice"
    assert len(set(colours("identifiability").values())) == 4


def test_every_result_has_a_figure_for_light_and_dark_pages(results):
    for result in results.values():
        figures = figures_in(plot_result(result))
        assert figures
        for fig in figures:
            assert isinstance(fig, figure)
            assert fig.background_fill_color is None
            assert fig.border_fill_color is None
            assert any(isinstance(t, HoverTool) for t in fig.toolbar.tools)


def chance_lines(fig):
    return [r for r in fig.renderers if type(r.glyph).__name__ == "HSpan"]


def test_identifiability_is_drawn_with_its_chance(results, tmp_path):
    result = results["identifiability"]
    assert result.chance == pytest.approx(8 / 14)  # of 7 classes
    for shown in (result, StudyResult.load(result.save(tmp_path / "one.json.gz"))):
        for fig in figures_in(plot_result(shown)):
            (line,) = chance_lines(fig)
            assert line.data_source.data["y"] == [shown.chance] or line.glyph.y == shown.chance
            assert fig.legend[0].items[-1].label.value == "chance 0.57"
            assert fig.y_range.start < shown.chance < fig.y_range.end
    far = figures_in(plot_result(replace(result, chance=-1.5)))[0]
    assert far.y_range.start < -1.5, "there is room for it"
    for name, other in results.items():
        if name != "identifiability":
            assert other.chance is None
            assert not any(chance_lines(fig) for fig in figures_in(plot_result(other)))


def test_rows_panels_and_curves_can_be_chosen(results):
    result = results["key_value_agreement"]
    split = plot_result(result, series="outcome", where={"tokens": "image"})
    names = {r.data_source.data["outcome"][0] for f in figures_in(split) for r in lines(f)}
    assert names == {"correct", "misclassified"}
    with pytest.raises(ValueError, match=r"choose one of each with where=.* for tokens"):
        plot_result(result, series="outcome")
    with pytest.raises(ValueError, match="no column"):
        plot_result(result, series="colour")
    with pytest.raises(KeyError, match="no column"):
        plot_result(result, where={"colour": "red"})
    seen = results["identifiability"].tables["by_class"]["class_name"].iloc[0]
    assert figures_in(plot_result(results["identifiability"], class_name=seen))
    with pytest.raises(ValueError, match="no picture of class 'missing'"):
        plot_result(results["identifiability"], class_name="missing")


def test_the_range_of_several_twins_is_drawn_and_the_interval_of_one_is_not():
    for twins, bands in ((1, 1), (2, 2)):
        found = run_study(tiny_vit(), Pictures(4), "identifiability", random_twin=twins, progress=False)
        fig = plot_result(found["identifiability"], where={"stream": "residual", "tokens": "image"})
        areas = [r for r in fig.renderers if type(r.glyph).__name__ == "VArea"]
        assert len(areas) == bands
    random = found["identifiability"].where(weights="random", stream="residual", tokens="image", outcome="all")
    assert np.array_equal(areas[1].data_source.data["low"], random.sort_values("block")["low"])


def test_heat_table(results):
    result = results["attention_perturbation"]
    fig = plot_heat_table(result)
    cells = next(r for r in fig.renderers if type(r.glyph).__name__ == "Rect").data_source.data
    table = result.where(outcome="all")
    assert len(cells["value"]) == len(table)
    assert list(fig.y_range.factors) == ["self_only", "no_others", "no_cls", "none"]
    assert cells["text"][0] == f"{table['value'].iloc[0]:.3f}"


@pytest.fixture(scope="module")
def explained():
    study = ExplanationStudy(methods=("gradient", "rollout"), steps=3, replicates=20)
    return run_study(tiny_vit(), Pictures(4), study, random_twin=True, progress=False)["explanation"]


def test_perturbation_curves_hold_the_numbers_and_the_random_order(explained):
    plotted = plot_explanation(explained, measure="probability")
    negative, positive, table = figures_in(plotted)
    for order, fig in (("negative", negative), ("positive", positive)):
        drawn = {r.data_source.data["label"][0]: r for r in lines(fig)}
        names = ["gradient", "rollout", "random"]
        assert list(drawn) == [n + w for n in names for w in ("", ", random weights")]
        rows = explained.tables["curves"]
        rows = rows[(rows["method"] == "rollout") & (rows["measure"] == f"{order} probability")]
        rows = rows[(rows["weights"] == "trained") & (rows["outcome"] == "all")].sort_values("kept")
        assert np.array_equal(drawn["rollout"].data_source.data["value"], rows["value"])
        assert np.array_equal(drawn["rollout"].data_source.data["share"], rows["kept"] / 16)
        assert drawn["random"].glyph.line_dash == [6]
        assert drawn["gradient"].glyph.line_dash == []
        assert sum(isinstance(r.glyph, VArea) for r in fig.renderers) == 3
    assert set(table.y_range.factors) == {"gradient", "rollout", "random"}
    with pytest.raises(ValueError, match="methods must be among"):
        plot_explanation(explained, methods=["magic"])
    with pytest.raises(ValueError, match="measure must be"):
        plot_explanation(explained, measure="area")
    assert len(figures_in(plot_overview({"explanation": explained}))) == 3


def test_probes_with_the_lens_and_their_control():
    import pandas as pd

    frame = pd.DataFrame(
        [
            (block, stream, "image", reading, 0.1 * block + 0.2 * (reading == "probe"), 10)
            for stream in ("residual", "mlp")
            for reading in ("probe", "lens")
            for block in (1, 2, 3)
        ],
        columns=["block", "stream", "tokens", "reading", "value", "count"],
    )
    residual, mlp = figures_in(plot_probes(frame, control=frame.assign(value=0.05)))
    assert [residual.title.text, mlp.title.text] == ["residual", "mlp"]
    drawn = {(r.data_source.data["curve"][0], r.data_source.data["weights"][0]): r for r in lines(mlp)}
    assert np.allclose(drawn["probe, image", "trained"].data_source.data["value"], [0.3, 0.4, 0.5])
    assert np.allclose(drawn["lens, image", "random"].data_source.data["value"], 0.05)
    assert drawn["lens, image", "random"].glyph.line_dash == [6]


def test_every_curve_of_every_study_has_its_control(results):
    for result in results.values():
        for fig in figures_in(plot_result(result)):
            drawn = [r.data_source.data["weights"][0] for r in lines(fig) if "weights" in r.data_source.data]
            assert drawn.count("trained") == drawn.count("random"), result.name


def test_overview(results):
    figures = figures_in(plot_overview(results))
    assert len(figures) > 15
    overlays = {t.overlay for f in figures for t in f.toolbar.tools if isinstance(t, CrosshairTool)}
    assert len(overlays) == 1
    with pytest.raises(ValueError, match="no result"):
        plot_overview({})


def test_a_result_without_values_is_drawn_as_a_note():
    results = run_study(tiny_vit(), Pictures(2, masks=False), ["place_difference", "token_removal"], progress=False)
    for result in results.values():
        plotted = plot_result(result)
        assert isinstance(plotted, Div)
        assert "no object masks" in plotted.text
    assert len(report_page(results)) > 1000


def report_page(results):
    from classspace_widgets.plots.report import report_html

    return report_html(results)


def test_the_report_is_one_offline_file(results, tmp_path):
    path = write_report(results, tmp_path / "deep" / "report.html", title="A <study>", text="First.\n\nSecond.")
    page = path.read_text()
    assert "A &lt;study&gt;" in page
    assert "<p>First.</p><p>Second.</p>" in page
    for result in results.values():
        assert result.title in page
        assert result.method.split(".")[0].replace("'", "&#x27;") in page
    assert "truncated file 3" in page
    assert '"torch"' in page or "&quot;torch&quot;" in page
    markup = re.sub(r"(<script[^>]*>).*?</script>", r"\1", page, flags=re.DOTALL)
    fetched = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)\s*=\s*[\"']?([^\"' >]+)", markup)
    assert fetched == []
    with pytest.raises(ValueError, match="no result"):
        write_report(StudyResults({}), tmp_path / "x.html")


def test_a_table_of_heads_is_drawn_with_its_intervals():
    space = tiny_vit()
    pictures = list(torch.randn(4, 3, 32, 32))
    table = head_table(space, [1, 4], images=torch.stack(pictures))
    with pytest.raises(ValueError, match=r"of one class, this table has 2; choose one: table\[table"):
        plot_heads(table)
    own = table[table["class_name"] == space.class_names[4]]
    fig = plot_heads(own)
    data = next(r for r in fig.renderers if type(r.glyph).__name__ == "Rect").data_source.data
    for i in range(len(own)):
        (row,) = own[(own["block"] == data["block"][i]) & (own["head"] == data["head"][i])].itertuples()
        assert (data["value"][i], data["low"][i], data["high"][i]) == (row.value, row.low, row.high)
        assert data["alpha"][i] == (0.3 if row.low <= 0 <= row.high else 1.0)
    assert len(set(data["alpha"])) == 2
    tips = [label for tool in fig.toolbar.tools if isinstance(tool, HoverTool) for label, _ in tool.tooltips]
    assert "interval" in tips
    plain = plot_heads(np.eye(3))
    assert (next(iter(plain.renderers)).data_source.data["alpha"] == 1).all()


def test_saving_figures(results, tmp_path, monkeypatch):
    page = save_figure(plot_result(results["accuracy"]), tmp_path / "a.html").read_text()
    assert "cdn.bokeh" not in page.split("<body")[0].split("<script")[0]
    with pytest.raises(ValueError, match=r"\.html, \.png or \.svg"):
        save_figure(plot_result(results["accuracy"]), tmp_path / "a.pdf")
    import bokeh.io

    def nothing(*_args, **_options):
        raise RuntimeError("no browser")

    monkeypatch.setattr(bokeh.io, "export_png", nothing)
    with pytest.raises(RuntimeError, match=r"classspace-widgets\[figures\]"):
        save_figure(plot_result(results["accuracy"]), tmp_path / "a.png")


def test_bars_have_the_heights_of_the_contributions():
    space = tiny_vit()
    trace = space.trace(torch.randn(2, 3, 32, 32))
    shares = contributions(trace, [1, 3])
    fig = plot_contributions(shares, class_number=1, image=1, token=2, title="t")
    drawn = {r.data_source.data["name"][0]: r.data_source.data for r in fig.renderers}
    assert set(drawn) == {"attention", "MLP", "embedding, bias"}
    assert np.allclose(drawn["attention"]["value"], shares.attention[1, :, 1, 2])
    assert np.allclose(drawn["MLP"]["value"], shares.mlp[1, :, 1, 2])
    assert drawn["attention"]["at"] == drawn["MLP"]["at"] == [f"block {n + 1}" for n in range(trace.n_blocks)]
    assert drawn["embedding, bias"]["at"] == ["embedding", "bias"]
    bars = sum(sum(data["value"]) for data in drawn.values())
    assert bars == pytest.approx(float(trace.logits(classes=[3])[1, 2, 0]), abs=1e-4), "the bars sum to the logit"
    step = plot_contributions(contributions(trace, 1, reading="step"))
    assert [r.data_source.data["at"] for r in step.renderers][-1] == ["embedding"]
    with pytest.raises(IndexError, match=r"image must be in 0\.\.1, got 2"):
        plot_contributions(shares, image=2)


def test_heads_are_drawn_by_block():
    effects = np.array([[1.0, -2.0, 0.5], [0.0, 3.0, np.nan]])  # [L=2, H=3]
    fig = plot_heads(effects, quantity="effect")
    data = fig.renderers[0].data_source.data
    assert [(b, h, v) for b, h, v in zip(data["block"], data["head"], data["value"], strict=True)][:5] == [
        (1, 0, 1.0), (1, 1, -2.0), (1, 2, 0.5), (2, 0, 0.0), (2, 1, 3.0),
    ]  # fmt: skip
    colour = fig.renderers[0].glyph.fill_color.transform
    assert (colour.low, colour.high) == (-3.0, 3.0)
    red, blue = (tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (colour.palette[-1], colour.palette[0]))
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    strength = [int(c[7:9], 16) for c in colour.palette]
    assert (strength[0], strength[-1]) == (255, 255)
    assert strength[len(strength) // 2] < 30, "nothing is as light as a light page, and as dark as a dark one"
    with pytest.raises(ValueError, match=r"effects must have shape \[L blocks, H heads\], got \[2\]"):
        plot_heads([1.0, 2.0])


def test_a_shown_figure_contains_all_it_needs(results):
    shown = show_figure(plot_overview(results))
    page = html.unescape(re.search('srcdoc="([^"]*)"', shown._repr_html_()).group(1))
    packed = re.findall('<script type="application/x-script">([^<]*)</script>', page)
    scripts = [gzip.decompress(base64.b64decode(text)).decode() for text in packed]
    assert any("bokeh-widgets" in text[:60] for text in scripts), "the overview's headings are widgets"
    assert "embed_items" in scripts[-1]
    assert 'src="' not in page
    assert "http" not in re.sub("<script.*", "", page)
    row = plot_result(results["identifiability"], height=300)
    assert 300 < show_figure(row).height < 360
    assert show_figure(row, height=99).height == 99


def test_errors_say_what_cannot_be_drawn():
    result = StudyResult("accuracy", "Accuracy", {"main": pd.DataFrame({"measure": ["top-1"], "value": [0.5]})})
    results = {"accuracy": result}
    for draw, given, error, words in (
        (plot_result, results, TypeError, "plot_overview draws all"),
        (plot_result, None, TypeError, "got NoneType"),
        (plot_overview, result, TypeError, "plot_result draws a single one"),
        (plot_heat_table, result, ValueError, "accuracy has no condition"),
        (plot_explanation, result, ValueError, "no curves and no paper"),
        (plot_probes, result, TypeError, "probe_accuracy"),
    ):
        with pytest.raises(error, match=words):
            draw(given)
