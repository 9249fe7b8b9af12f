"""The page: self-contained, under a policy, impossible to break out of, written whole or not at all."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_fixtures import synthetic

from classspace_widgets import ClassSpace, Explorer
from classspace_widgets.export import Payload, export_html, page
from classspace_widgets.export.portable import portable
from classspace_widgets.export.size import estimate_bytes
from classspace_widgets.images import sample_photo
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.select import select_classes, select_streams
from classspace_widgets.snapshot.still import caption, identifiability, still, viridis


def container(text: str) -> bytes:
    """The container in a data block: out of base64, gzip and planes of bytes."""
    data = bytearray(gzip.decompress(base64.b64decode(text)))
    length = int.from_bytes(data[8:12], "little")
    for entry in json.loads(data[12 : 12 + length])["arrays"]:
        size, span = int(entry["dtype"][1]), slice(entry["offset"], entry["offset"] + entry["nbytes"])
        planes = bytes(data[span])
        count = len(planes) // size
        data[span] = bytes(planes[b * count + i] for i in range(count) for b in range(size))
    return bytes(data)


RUNTIME, PAGE, ACTIONS = (f"/* {name} */ console.log('ran');" for name in ("runtime", "page", "actions"))
SCRIPTS = {"widget.js": RUNTIME, "page.js": PAGE, "actions.js": ACTIONS}


@pytest.fixture(autouse=True)
def built_front_end(monkeypatch: pytest.MonkeyPatch):
    """These tests are about the page around it: any script will do."""
    monkeypatch.setattr("classspace_widgets.export.front_end.script_text", lambda name: SCRIPTS[name])


class Reader(HTMLParser):
    """What a browser makes of a page: its tags, the text of its scripts, the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.title = ""
        self.inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts[-1] = (self.scripts[-1][0], self.scripts[-1][1] + data)
        if self.inside == "title":
            self.title += data


def policy_of(reader: Reader) -> str:
    return next(
        a["content"] for t, a in reader.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )


def test_the_payload_is_the_snapshot_and_opens_again(tmp_path: Path):
    snapshot = synthetic("all")
    out = export_html(snapshot, tmp_path / "page.html", title="Fish")
    reader = Reader(out.path.read_text())
    data = next(text for attributes, text in reader.scripts if attributes.get("type") == "application/x-classspace")
    back = Snapshot.unpack(container(data))
    assert back.meta == snapshot.meta
    assert out.nbytes == out.path.stat().st_size
    assert "7 classes travel" not in str(out)
    assert "a fixture" in str(out)


def test_the_policy_allows_exactly_the_scripts_of_the_page(tmp_path: Path):
    out = export_html([synthetic("all"), "text", synthetic("classes")], tmp_path / "page.html")
    reader = Reader(out.path.read_text())
    policy = policy_of(reader)
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    assert "unsafe-eval" not in policy
    ran = [text for attributes, text in reader.scripts if attributes.get("type") in (None, "module")]
    assert ran == [RUNTIME]
    assert re.search(r"script-src ([^;]*)", policy).group(1) == f"{hashed(RUNTIME)} {hashed(PAGE)}"


LATER = "application/x-classspace-script"


def test_scripts_that_are_needed_later_stand_in_the_pages_that_can_use_them(tmp_path: Path):
    from tiny_models import tiny_vit

    from classspace_widgets.interventions import RemoveTokens

    trace = tiny_vit().trace(np.zeros((32, 32, 3), dtype=np.uint8))

    def later(**options: object) -> dict[str, str]:
        reader = Reader(export_html(trace, tmp_path / "page.html", **options).path.read_text())
        found = {a["data-name"]: text for a, text in reader.scripts if a.get("type") == LATER}
        allowed = re.search(r"script-src ([^;]*)", policy_of(reader)).group(1)
        assert allowed == " ".join(map(hashed, [RUNTIME, *found.values()]))
        return found

    assert later() == {"page": PAGE}
    assert later(pins={"no corner": RemoveTokens([1])}) == {"page": PAGE, "actions": ACTIONS}
    reader = Reader(export_html("# Words alone", tmp_path / "text.html").path.read_text())
    assert not [a for a, _ in reader.scripts if a.get("type") == LATER]


def test_a_script_that_would_end_its_element_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(SCRIPTS, "page.js", "'</script>'")
    with pytest.raises(ValueError, match="would end it early"):
        export_html(synthetic("all"), tmp_path / "page.html")


POLICY = (
    "default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'"
)


def hashed(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def test_the_policy_is_this_one_word_for_word(tmp_path: Path):
    """What it must say, written down once more: a word less opens the page a little."""
    view = Reader(export_html(synthetic("all"), tmp_path / "view.html").path.read_text())
    assert policy_of(view) == POLICY.format(scripts=f"{hashed(RUNTIME)} {hashed(PAGE)}")
    text = Reader(export_html("# Words alone", tmp_path / "text.html").path.read_text())
    assert policy_of(text) == POLICY.format(scripts="'none'")
    assert [a["http-equiv"] for tag, a in view.tags if tag == "meta" and "http-equiv" in a] == [
        "Content-Security-Policy"
    ]
    tags = [tag for tag, _ in view.tags]
    assert tags.index("meta") < tags.index("script"), "a policy holds for what comes after it"


def test_reports_have_the_policy_of_pages(tmp_path: Path):
    import pandas as pd

    from classspace_widgets.export.packed import UNPACK
    from classspace_widgets.plots import write_report
    from classspace_widgets.studies import StudyResults
    from classspace_widgets.studies.results import StudyResult

    table = pd.DataFrame(
        {"weights": ["trained"] * 2, "block": [1, 2], "stream": ["residual"] * 2, "tokens": ["image"] * 2}
    )
    table = table.assign(outcome="all", value=[0.5, 0.6], low=[0.4, 0.5], high=[0.6, 0.7], count=[10, 10])
    result = StudyResult("identifiability", "<script>alert(1)</script>", {"main": table})
    out = write_report(
        StudyResults({"identifiability": result}), tmp_path / "r.html", title="\"'><script>alert(2)</script>"
    )
    reader = Reader(out.read_text())
    packed = [text for attributes, text in reader.scripts if attributes.get("type") == "application/x-script"]
    ran = [gzip.decompress(base64.b64decode(text)).decode() for text in packed]
    plain = [text for attributes, text in reader.scripts if not attributes.get("type")]
    assert plain == [UNPACK]
    assert policy_of(reader) == POLICY.format(scripts=" ".join(hashed(script) for script in [*ran, *plain]))
    assert len(reader.scripts) == len(packed) + len(plain)


def test_a_script_that_would_end_itself_is_refused():
    for script in ("'</script>'", "// </SCRIPT", "</ScRiPt >"):
        with pytest.raises(ValueError, match="holds '</script', which would end it early"):
            page.render([page.Mount(synthetic("all"))], title="x", script=script, later={})


def test_a_page_opens_on_a_class_that_it_carries(tmp_path: Path, monkeypatch):
    from classspace_widgets.widgets import Session

    monkeypatch.setattr("classspace_widgets.widgets.session.script", lambda name: "export default {}")
    session = Session(synthetic("all"), class_name="boat", block=1)
    for classes, opened in ((["fish"], 0), (["cactus", "boat"], 1), (["cactus", "fish"], 2), (None, 1)):
        out = export_html(session, tmp_path / "page.html", classes=classes)
        state = state_of(out.path)
        assert state["class_index"] == opened
        assert state["block"] == 1
    best = synthetic("all").predicted[0]
    other = next(c for c in range(7) if c != best)
    assert state_of(export_html(synthetic("all"), tmp_path / "page.html", classes=[other]).path) == {
        "class_index": other
    }
    assert "class_index" not in state_of(
        export_html(synthetic("all"), tmp_path / "page.html", classes=[other, best]).path
    )


def state_of(path: Path) -> dict:
    mount = next(a for tag, a in Reader(path.read_text()).tags if tag == "div" and a.get("class") == "csw-mount")
    return json.loads(mount["data-state"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text() | st.sampled_from(["</script><script>alert(1)</script>", "`${alert(1)}`", "PARTS", "\u2028'\\", "<!--"])
)
def test_what_a_notebook_keeps_holds_no_markup_of_names(text: str):
    """The script stands inside a page's script where a notebook is converted: no name may end it, or be run."""
    from classspace_widgets.export.saved import saved_form

    name = text.encode("utf-8", "replace").decode()
    snapshot = synthetic("all")
    snapshot.meta["classes"]["names"] = [f"{name}{i}" for i in range(7)]
    snapshot.meta["image"]["name"] = snapshot.meta["model"]["name"] = name
    script, still = saved_form(snapshot, "page")
    code = script["application/javascript"]
    assert "<" not in code.split(";\n")[0]
    assert 'frame.sandbox = "allow-scripts";' in code
    parts = json.loads(code[code.index("} = ") + 4 : code.index(";\n  //")])
    assert set(parts) == {"session", "picture", "page", "title", "height"}
    assert parts["page"].startswith("<!doctype html>")
    assert set(still) == {"image/png", "text/plain"}
    assert set(script) == {"application/javascript", "text/plain"}


def test_a_notebook_keeps_as_many_classes_as_its_limit_holds(monkeypatch):
    from classspace_widgets.export import saved

    space = ClassSpace.bundled("photos", device="cpu")
    explorer = Explorer(space.trace(sample_photo(), attention=True, heads=True), class_name="lemon", block=3)
    sizes = {}
    for limit in (10_000_000, 1_500_000, 1_000):
        monkeypatch.setattr(saved, "SAVED_LIMIT", limit)
        script, still = saved.saved_form(explorer, "page")
        code = script["application/javascript"]
        sizes[limit] = len(json.loads(code[code.index("} = ") + 4 : code.index(";\n  //")]).get("page", ""))
        kept = saved._that_fits(saved.as_mount(explorer))
        if limit == 1_500_000:
            note = kept.snapshot.meta["payload"]["note"]
            assert (
                "classes travel with this page, for all of them would be larger than the 1.5 MB that a notebook keeps"
                in note
            )
            assert kept.state["class_index"] == space.class_names.index("lemon")
            assert len(kept.snapshot.meta["classes"]["kept"]) < 82
            assert {"lemon", "espresso"} <= {space.class_names[c] for c in kept.snapshot.meta["classes"]["kept"]}
    assert sizes[10_000_000] > 2_000_000
    assert 1_000_000 < sizes[1_500_000] <= 1_500_000
    assert sizes[1_000] == 0
    assert "image/png" in still


def test_figures_in_notebooks_stand_in_a_closed_frame():
    from bokeh.plotting import figure

    from classspace_widgets.plots import show_figure

    plot = figure(title='"><script>alert(1)</script>')
    plot.line([1, 2], [3, 4])
    reader = Reader(show_figure(plot)._repr_html_())
    assert [tag for tag, _ in reader.tags] == ["div", "p", "iframe"]
    attributes = reader.tags[-1][1]
    assert attributes["sandbox"] == "allow-scripts allow-downloads"


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text()
    | st.sampled_from(
        [
            "</script><script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "<!--",
            "]]>",
            "\u2028'\"",
            "${1}",
            "\ud800",
        ]
    )
)
def test_no_title_text_or_class_name_breaks_out(text: str):
    snapshot = synthetic("all")
    snapshot.meta["classes"]["names"][snapshot.predicted[0]] = text.encode("utf-8", "replace").decode()
    snapshot.meta["image"]["name"] = snapshot.meta["classes"]["names"][snapshot.predicted[0]]
    plain = Reader(
        page.render([page.Mount(synthetic("all")), "x"], title="x", script=RUNTIME, later={"page": PAGE}, footer="x")
    )
    fuzzed = Reader(
        page.render(
            [page.Mount(snapshot, state={"map_name": text}), "x"],
            title=text,
            script=RUNTIME,
            later={"page": PAGE},
            footer=f"f{text}",
        )
    )
    assert [tag for tag, _ in fuzzed.tags] == [tag for tag, _ in plain.tags]
    assert [a.get("type") for a, _ in fuzzed.scripts] == [a.get("type") for a, _ in plain.scripts]
    assert all(not name.startswith("on") for _, attributes in fuzzed.tags for name in attributes)


@settings(max_examples=150)
@given(
    st.text() | st.sampled_from(["<script>alert(1)</script>", "[x](javascript:alert(1))", '![x](x" onerror="alert(1))'])
)
def test_markdown_makes_no_scripts_or_handlers(text: str):
    reader = Reader(f"<div>{page.markdown(text)}</div>")
    assert all(tag not in ("script", "iframe", "object", "style", "form") for tag, _ in reader.tags)
    for _, attributes in reader.tags:
        assert all(not name.startswith("on") for name in attributes)
        assert not (attributes.get("href") or "").lower().startswith("javascript:")


def test_a_gallery_and_texts_keep_their_order(tmp_path: Path):
    out = export_html(
        ["# One", [synthetic("all"), synthetic("all", seed=2)], "two"], tmp_path / "page.html", text="zero"
    )
    text = out.path.read_text()
    places = [text.index(part) for part in ("<p>zero</p>", "<h1>One</h1>", 'class="csw-gallery"', "<p>two</p>")]
    assert places == sorted(places)
    assert text.count('class="csw-mount"') == 2
    assert "<noscript>" in text


def test_bokeh_travels_only_when_a_figure_does(tmp_path: Path):
    from bokeh.plotting import figure

    plot = figure(width=200, height=100)
    plot.line([1, 2], [3, 4])
    without = export_html(synthetic("all"), tmp_path / "a.html")
    once = export_html([synthetic("all"), plot], tmp_path / "b.html")
    assert "Bokeh" not in without.path.read_text()
    assert 300_000 < once.nbytes - without.nbytes < 600_000
    reader = Reader(once.path.read_text())
    policy = policy_of(reader)
    assert "http" not in policy
    # The scripts travel packed; the policy names them as they will run.
    packed = [text for attributes, text in reader.scripts if attributes.get("type") == "application/x-script"]
    ran = [gzip.decompress(base64.b64decode(text)) for text in packed]
    assert b"Bokeh" in ran[0]
    for script in ran:
        assert base64.b64encode(hashlib.sha256(script).digest()).decode() in policy


def test_pages_that_would_be_too_large_are_refused_before_writing(tmp_path: Path):
    with pytest.raises(ValueError, match=r"more than max_bytes=0\.0 MB; pass classes="):
        export_html(synthetic("all"), tmp_path / "page.html", payload=Payload(max_bytes=1000))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        export_html(synthetic("all"), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="does not exist; create it first"):
        export_html(synthetic("all"), tmp_path / "no" / "page.html")


@pytest.mark.parametrize("kind", ["noise", "zeros", "steps"])
def test_the_estimate_is_near_what_is_written(tmp_path: Path, kind: str):
    snapshot = synthetic("all")
    rng = np.random.default_rng(0)
    arrays = {
        "noise": rng.normal(size=400_000).astype(np.float32),
        "zeros": np.zeros(4_000_000, np.float16),
        "steps": np.sort(rng.integers(0, 1000, 600_000)).astype(np.uint16),
    }
    snapshot.arrays["extra"] = arrays[kind]
    out = export_html(snapshot, tmp_path / "page.html")
    assert out.nbytes == pytest.approx(estimate_bytes([snapshot]), rel=0.2)


@pytest.fixture(scope="module")
def many():
    """A live trace of a model with more classes than a page is to carry."""
    from tiny_models import tiny_vit

    space = tiny_vit(num_classes=3000, embed_dim=96, img_size=64)
    return space.trace(
        np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), attention=True, heads=True
    )


@pytest.fixture
def captured(monkeypatch):
    """How often a pass was read for a page, and for which payload."""
    from classspace_widgets.capture import live

    taken = []
    again = live.LiveSource.recapture

    def recapture(source, snapshot, **options):
        taken.append(options["payload"])
        return again(source, snapshot, **options)

    monkeypatch.setattr(live.LiveSource, "recapture", recapture)
    monkeypatch.setattr("classspace_widgets.capture.payload.ALL_LIMIT", 0)
    return taken


SIZES = {
    "every class": {},
    "some classes": {"classes": list(range(40))},
    "one class": {"classes": [7]},
    "a payload": {"payload": "classes"},
    "some streams": {"classes": list(range(40)), "payload": Payload(streams=["residual"])},
    "ranks alone": {"classes": list(range(40)), "payload": Payload(ranks_only=True)},
    "a pinned state": {"pins": "one"},
    "a pinned state of some classes": {"pins": "one", "classes": list(range(40))},
}


@pytest.mark.parametrize("what", SIZES)
def test_the_size_is_known_within_a_fifth_before_anything_is_computed(many, captured, tmp_path, what):
    """The refusal tells the size that was foreseen; nothing was read for it, and no pass was run."""
    from classspace_widgets.interventions import KnockOutAttention

    options = dict(SIZES[what])
    if "pins" in options:
        options["pins"] = {"self only": KnockOutAttention("self_only")}
    snapshot = many.snapshot()
    written = export_html(snapshot, tmp_path / "page.html", **options).nbytes
    captured.clear()
    payload = options.pop("payload", Payload())
    payload = replace(payload if isinstance(payload, Payload) else Payload(payload), max_bytes=1000)
    options["payload"] = payload
    with pytest.raises(ValueError, match="the page would be about") as refused:
        export_html(snapshot, tmp_path / "small.html", **options)
    foreseen = float(re.search(r"about ([\d.]+) MB", str(refused.value)).group(1)) * 1e6
    assert foreseen == pytest.approx(written, rel=0.2, abs=60_000)
    assert captured == []
    assert not (tmp_path / "small.html").exists()


def test_a_page_of_too_many_classes_carries_those_that_fit_and_says_which(many, captured, tmp_path, monkeypatch):
    from classspace_widgets.widgets import Explorer

    for module in ("session", "views"):
        monkeypatch.setattr(f"classspace_widgets.widgets.{module}.script", lambda name: "export default {}")
    snapshot = many.snapshot()
    whole = export_html(snapshot, tmp_path / "whole.html")
    assert captured == ["increments"]
    assert "every one of the 3000 classes" in whole.notes[0]
    captured.clear()
    kept = snapshot.meta["classes"]["kept"]
    some = export_html(snapshot, tmp_path / "some.html", payload=Payload(max_bytes=whole.nbytes // 2))
    assert captured == [], "what the view carries already is not read again"
    found = page_of(some.path)
    assert some.nbytes <= whole.nbytes // 2
    assert sorted(found.meta["classes"]["kept"]) == sorted(kept)
    assert f"{len(kept)} of 3000 classes travel with this page" in some.notes[0]
    assert f"max_bytes={whole.nbytes // 2 / 1e6:.1f} MB" in some.notes[0]
    assert all(many.class_names[c] in some.notes[0] for c in kept)
    for c in kept:
        np.testing.assert_array_equal(found.ranks(c), snapshot.ranks(c))
    # What is looked at goes along, and comes first where there is room for few.
    other = next(c for c in range(3000) if c not in kept)
    explorer = Explorer(snapshot, class_index=other, compare_index=kept[-1])
    out = export_html(explorer, tmp_path / "looked.html", payload=Payload(max_bytes=whole.nbytes // 2))
    assert {other, *kept} == set(page_of(out.path).meta["classes"]["kept"])
    assert state_of(out.path)["class_index"] == other
    assert captured == ["classes"]
    room = 2 * export_html(snapshot, tmp_path / "six.html", classes=kept[:6]).nbytes
    small = export_html([explorer, "text", [snapshot]], tmp_path / "few.html", payload=Payload(max_bytes=room))
    assert small.nbytes <= room
    first = page_of(small.path).meta["classes"]["kept"]
    assert first[:2] == [other, kept[-1]]
    assert len(first) < len(kept)
    # What was asked for is not changed.
    limit = Payload(max_bytes=room)
    for asked in ({"payload": replace(limit, mode="increments")}, {"payload": limit, "classes": list(range(1000))}):
        with pytest.raises(ValueError, match=r"pass classes=\[...\] to carry only some classes"):
            export_html(snapshot, tmp_path / "asked.html", **asked)
    with pytest.raises(ValueError, match="more than max_bytes"):
        export_html(snapshot, tmp_path / "none.html", payload=Payload(max_bytes=30_000))


def test_a_file_of_every_class_is_narrowed_to_what_fits(many, captured, tmp_path):
    whole = Snapshot.load(many.snapshot(payload="increments", classes=[17]).save(tmp_path / "x.csnap"))
    all_of_it = export_html(whole, tmp_path / "whole.html")
    some = export_html(whole, tmp_path / "some.html", payload=Payload(max_bytes=all_of_it.nbytes // 2))
    assert some.nbytes <= all_of_it.nbytes // 2
    found = page_of(some.path)
    assert 1 <= len(found.meta["classes"]["kept"]) <= 6
    assert "increments" not in found.arrays
    assert "would be larger than max_bytes" in some.notes[0]


def test_narrowing_keeps_exact_ranks_and_names_what_is_lost():
    whole = synthetic("all")
    part = select_classes(whole, [3, 0])
    assert part.meta["classes"]["kept"] == [3, 0]
    for c in (3, 0):
        np.testing.assert_array_equal(part.ranks(c), whole.ranks(c))
        np.testing.assert_allclose(part.logits(c), whole.logits(c))
    logits = np.stack([whole.logits(c) for c in range(7)], axis=-1)
    best = np.argsort(-logits, axis=-1, kind="stable")[..., :5]
    np.testing.assert_array_equal(part.arrays["top"], best)
    np.testing.assert_allclose(part.arrays["top_logits"], np.take_along_axis(logits, best, axis=-1), atol=1e-6)
    np.testing.assert_allclose(part.arrays["lse"], np.log(np.exp(logits).sum(axis=-1)), atol=1e-5)
    with pytest.raises(ValueError, match="does not carry fish, and has no model behind it"):
        portable(synthetic("classes"), ["fish"])
    with pytest.raises(ValueError, match="close matches: fish"):
        portable(whole, ["fisch"])


def test_narrowing_takes_every_array_of_a_class_along():
    """Each by name, in the order asked for: no array may stay that of another class."""
    whole = synthetic("all")
    rng = np.random.default_rng(1)
    whole.arrays["attention_bias_raw"] = rng.normal(size=(7, 2)).astype(np.float32)
    whole.arrays["ranks"] = np.stack([whole.ranks(c) for c in range(7)]).astype(np.uint16)
    names = ("raw", "ranks", "head_raw", "value_raw", "attention_bias_raw")
    for asked in ([3, 0], [6], [1, 5, 2]):
        part = select_classes(whole, asked)
        for name in names:
            assert part.arrays[name].shape == (len(asked), *whole.arrays[name].shape[1:])
            for row, c in enumerate(asked):
                np.testing.assert_array_equal(part.arrays[name][row], whole.arrays[name][c])
        again = select_classes(part, asked[-1:])
        for name in names:
            np.testing.assert_array_equal(again.arrays[name][0], whole.arrays[name][asked[-1]])
    assert set(names) <= set(whole.arrays)


def test_head_values_travel_where_they_are_small(monkeypatch):
    whole = synthetic("all")
    part = portable(whole, [3, 0])
    np.testing.assert_array_equal(part.arrays["value_raw"], whole.arrays["value_raw"][[3, 0]])
    size = part.arrays["value_raw"].nbytes
    for limit, there in ((size, True), (size - 1, False)):
        monkeypatch.setattr("classspace_widgets.export.portable.VALUES_LIMIT", limit)
        made = portable(whole, [3, 0])
        assert ("value_raw" in made.arrays) == there
        assert "head_raw" in made.arrays
    monkeypatch.setattr("classspace_widgets.export.portable.VALUES_LIMIT", 0)
    assert "value_raw" in portable(whole).arrays  # every class travels as it is


def test_increments_are_narrowed_to_any_class():
    whole = synthetic("increments")
    kept = whole.meta["classes"]["kept"]
    other = next(c for c in range(7) if c not in kept)
    part = select_classes(whole, [other, kept[0]])
    assert "increments" not in part.arrays
    for c in (other, kept[0]):
        np.testing.assert_array_equal(part.logits(c), whole.logits(c))
    np.testing.assert_array_equal(part.ranks(other), whole.ranks(other))
    np.testing.assert_array_equal(part.arrays["top"], whole.arrays["top"])
    assert part.meta["classes"]["kept"] == [other, kept[0]]


def test_a_page_of_a_file_does_not_promise_a_kernel(tmp_path: Path):
    kept = synthetic("classes")
    kept.meta["payload"]["note"] = "2 of 7 classes travel with this view; the others are fetched from the kernel."
    page = export_html(Snapshot.load(kept.save(tmp_path / "x.csnap")), tmp_path / "x.html")
    assert page.notes[0] == "2 of 7 classes travel with this page."


def test_what_cannot_be_exported_is_refused(tmp_path: Path):
    with pytest.raises(TypeError, match=r"expected an Explorer, .* got int"):
        export_html(3, tmp_path / "page.html")


def test_the_still_picture_shows_the_map():
    snapshot = synthetic("all", pooled=True)
    values = identifiability(snapshot, 4, -1)
    assert values.shape == (2, 3)
    np.testing.assert_allclose(values.ravel(), 1 - snapshot.ranks(4)[-1, 1:7] / 7)
    del snapshot.arrays["image"]
    picture = np.asarray(still(snapshot, 4, size=30))
    assert picture.shape == (20, 68, 4)
    np.testing.assert_array_equal(picture[5, 38 + 5, :3], viridis(values[0, 0]))
    assert snapshot.class_names[4] in caption(snapshot, 4)


def test_pinning_needs_a_model(tmp_path: Path):
    with pytest.raises(ValueError, match="the model must be at hand"):
        export_html(synthetic("all"), tmp_path / "page.html", pins={"cut": []})
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("classes", [None, ["fish", "key"]])
def test_pinned_states_are_the_intervened_passes(tmp_path: Path, classes):
    import torch
    from tiny_models import tiny_vit

    from classspace_widgets.interventions import KnockOutAttention, RemoveTokens, trace_with

    torch.manual_seed(0)
    space = tiny_vit(img_size=64)
    space.class_names = ("fish", "boat", "cactus", "shell", "snowman", "rocket", "key")
    trace = space.trace(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    pins = {"self only": KnockOutAttention("self_only"), "no <corner>": [RemoveTokens([1, 2])]}
    out = export_html([trace.snapshot(), [trace.snapshot()]], tmp_path / "page.html", pins=pins, classes=classes)
    reader = Reader(out.path.read_text())
    data = {a["id"]: text for a, text in reader.scripts if a.get("type") == "application/x-classspace"}
    mounts = [a for tag, a in reader.tags if tag == "div" and a.get("class") == "csw-mount"]
    assert len(mounts) == 2
    for mount in mounts:
        states = [Snapshot.unpack(container(data[i])) for i in mount["data-pinned"].split()]
        assert [s.meta["intervention"]["label"] for s in states] == list(pins)
        for state, asked in zip(states, pins.values(), strict=True):
            again = trace_with(space, trace, asked if isinstance(asked, list) else [asked])
            np.testing.assert_allclose(state.arrays["output_logits"], again.output[0].numpy(), atol=1e-5)
            np.testing.assert_allclose(
                state.logits(6)[-1], again.logits("residual", again.n_blocks)[0, :, 6].numpy(), atol=1e-4
            )
            assert type(asked[0] if isinstance(asked, list) else asked).__name__ in state.meta["intervention"]["code"]


def test_pins_of_an_explorer_go_into_its_page(tmp_path: Path, monkeypatch):
    from tiny_models import tiny_vit

    from classspace_widgets.interventions import KnockOutAttention, RemoveTokens
    from classspace_widgets.widgets import Explorer

    for module in ("session", "views"):
        monkeypatch.setattr(f"classspace_widgets.widgets.{module}.script", lambda name: "export default {}")
    space = tiny_vit(img_size=64)
    explorer = Explorer(space.trace(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)))
    explorer.pins = {"alone": KnockOutAttention("self_only")}
    out = export_html(explorer, tmp_path / "page.html", pins={"less": RemoveTokens([2])})
    reader = Reader(out.path.read_text())
    data = {a["id"]: text for a, text in reader.scripts if a.get("type") == "application/x-classspace"}
    (mount,) = (a for tag, a in reader.tags if tag == "div" and a.get("class") == "csw-mount")
    states = [Snapshot.unpack(container(data[i])) for i in mount["data-pinned"].split()]
    assert [s.meta["intervention"]["label"] for s in states] == ["alone", "less"]


def page_of(path: Path) -> Snapshot:
    reader = Reader(path.read_text())
    return Snapshot.unpack(container(next(t for a, t in reader.scripts if a.get("type") == "application/x-classspace")))


def test_streams_and_ranks_alone_make_smaller_pages_and_say_so(tmp_path: Path):
    whole = synthetic("classes")
    full = export_html(whole, tmp_path / "full.html")
    some = export_html(whole, tmp_path / "some.html", payload=Payload(streams=["attention", "residual"]))
    least = export_html(whole, tmp_path / "least.html", payload=Payload(streams=["residual"], ranks_only=True))
    assert least.nbytes < some.nbytes < full.nbytes
    assert "these streams alone: attention, residual" in str(some)
    assert "Ranks and top classes alone" in str(least)
    back, bare = page_of(some.path), page_of(least.path)
    points = [0, 1, 4, 5, 8]  # the embedding, then attention output and residual of both blocks
    for c in (1, 4):
        np.testing.assert_array_equal(back.ranks(c)[points], whole.ranks(c)[points])
        assert (np.delete(back.ranks(c), points, axis=0) == -1).all()
        np.testing.assert_array_equal(bare.ranks(c)[[0, 4, 8]], whole.ranks(c)[[0, 4, 8]])
        np.testing.assert_allclose(back.logits(c), whole.logits(c))
        with pytest.raises(KeyError, match="no readings"):
            bare.logits(c)
    np.testing.assert_array_equal(back.arrays["top"], whole.arrays["top"][points])


def test_stream_points_by_hand():
    assert synthetic("classes").points.of_streams(["mid"]) == [2, 6]
    assert synthetic("all", layout="parallel").points.of_streams("block") == [1, 3]
    assert synthetic("all", layout="parallel").points.of_streams(["residual"]) == [0, 2, 4]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"streams": ["head"]}, "streams must be some of"),
        ({"streams": []}, "streams must be some of"),
        ({"streams": ["residual"], "mode": "all"}, r"pass classes=\[...\] too"),
        ({"ranks_only": True, "mode": "increments"}, r"pass classes=\[...\] too"),
    ],
)
def test_streams_that_cannot_be_are_refused(tmp_path: Path, options, words):
    mode = options.pop("mode", "classes")
    with pytest.raises(ValueError, match=words):
        export_html(synthetic(mode), tmp_path / "page.html", payload=Payload(**options))
    assert list(tmp_path.iterdir()) == []
    once = select_streams(synthetic("classes"), ranks_only=True)
    with pytest.raises(ValueError, match="made smaller already"):
        select_streams(once, streams=["residual"])
