"""Make everything anew that shows numbers or pictures of the bundled model: ``python docs/regenerate.py``.

1. ``demo``: run demo.ipynb from top to bottom and store its outputs, without the state of its widgets.
2. ``pictures``: film the explorer for the README and the first page, light and dark (needs Chromium, playwright).
3. ``study``: every study of the bundled models on held-out scenes, docs/study.md and its report in docs/reports.
4. ``lenses``: the paper's comparison of places under each lens, a section of docs/study.md.
5. ``evidence``: token importance put to the test, docs/evidence.md and its report in docs/reports.
6. ``photos``: the studies of the photo model, docs/photos.md; only with ``--data FOLDER``, see docs/photos.py.

Give names to make only some of them.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

from photos import write
from tables import best, curve_rows, findings_table, place_rows, scores_table, verdict

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "demo.ipynb"
LIMIT = 4_000_000


def demo() -> None:
    """Run the notebook in a folder of its own and store what its cells gave."""
    import nbformat
    from nbclient import NotebookClient

    os.environ["TQDM_DISABLE"] = "1"  # bars are for who waits
    notebook = nbformat.read(NOTEBOOK, 4)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=300,
            store_widget_state=False,
            record_timing=False,
            resources={"metadata": {"path": folder}},
        )
        client.execute()
    notebook.metadata.pop("widgets", None)
    # With the ending of its files, so that nbconvert writes scripts as .py.
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            cell.outputs = [_lean(output, number) for output in cell.outputs]
    nbformat.validate(notebook)
    text = nbformat.writes(notebook) + "\n"
    if len(text) > LIMIT:
        raise SystemExit(f"the notebook would have {len(text) / 1e6:.1f} MB, more than {LIMIT / 1e6:.0f}")
    NOTEBOOK.write_text(text, encoding="utf-8")
    print(f"demo.ipynb: {time.monotonic() - began:.0f} s, {len(text) / 1e6:.2f} MB")


def _lean(output, cell: int):  # type: ignore[no-untyped-def]
    """An output without what no reader sees."""
    if output.output_type == "error":
        raise SystemExit(f"the notebook failed: {output.evalue}")
    if output.output_type == "stream" and output.name == "stderr":
        raise SystemExit(f"the notebook wrote to stderr: {output.text[:500]}")
    data = output.get("data", {})
    if "image/png" in data:
        data.pop("image/jpeg", None)  # Pillow gives both.
    if "text/html" in data and "image/png" not in data:
        # pandas draws new ids for every run: number them instead, so that a run that changes nothing changes nothing. Styles
        # act on the whole page, so no two cells may share an id.
        ids = dict.fromkeys(re.findall(r"T_[0-9a-f]{5}", data["text/html"]))
        for n, name in enumerate(ids):
            data["text/html"] = data["text/html"].replace(name, f"T_{16 * cell + n:05x}")
        if data.get("text/plain", "").startswith("<pandas"):
            data["text/plain"] = "a table"
    return output


def pictures() -> None:
    """The explorer on a photograph, from end to end of the model, for its answer and for the next class."""
    from playwright.sync_api import sync_playwright

    from classspace_widgets import ClassSpace, Explorer, export_html
    from classspace_widgets.images import sample_photo

    space = ClassSpace.bundled("photos", device="cpu")
    trace = space.trace(sample_photo(), attention=True, heads=True)
    explorer = Explorer(trace, lenses=[space.bundled_lens("jacobian")], lens="jacobian", block=4, sublayer="attention")
    names = trace.predictions(k=2)["class_name"].tolist()
    browser_path = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
    if browser_path is None:
        raise SystemExit("no Chromium on the path; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_path = export_html(explorer, Path(folder) / "page.html").path
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])

        for theme in ("light", "dark"):
            page = browser.new_page(color_scheme=theme, viewport={"width": 1240, "height": 900})
            page.goto(page_path.as_uri())
            view = page.locator(".csw-explorer").first
            view.locator("canvas").first.wait_for()
            page.wait_for_timeout(1000)
            page.evaluate("() => document.querySelector('body > button')?.remove()")  # the theme's, which floats
            _move(page, view, names, ROOT / "docs" / f"explorer_{theme}.webp")
            page.close()
        browser.close()


def _move(page, view, names: list[str], target: Path) -> None:  # type: ignore[no-untyped-def]
    """An animation: the slider goes from the embedding to the last block, for one class and then for the next."""
    import io

    from PIL import Image

    frames, shown = [], []
    slider = view.locator("input[type=range]").first
    last = int(slider.get_attribute("max"))
    picker = view.locator("input[role=combobox]").first
    # Views do not change their height.
    box = view.bounding_box()
    margin = 14
    box = {
        "x": box["x"] - margin,
        "y": box["y"] - margin,
        "width": box["width"] + 2 * margin,
        "height": box["height"] + margin,
    }
    for name in names[:2]:
        picker.fill(name)
        picker.press("Enter")
        picker.blur()
        for position in range(last + 1):
            # Not with the keyboard: its focus ring would be in the picture.
            slider.evaluate("(s, p) => { s.valueAsNumber = p; s.dispatchEvent(new Event('input')); }", position)
            page.wait_for_timeout(120)
            picture = Image.open(io.BytesIO(page.screenshot(clip=box, full_page=True))).convert("RGB")
            frames.append(picture)
            shown.append(900 if position == 0 else 1800 if position == last else 260)
    frames[0].save(target, save_all=True, append_images=frames[1:], duration=shown, loop=0, quality=60, method=6)
    print(f"{target.name}: {len(frames)} pictures, {frames[0].size}, {target.stat().st_size / 1e3:.0f} kB")


# Model, held-out scenes and random twins: every twin costs as much as the model itself.
STUDIED = {
    "default": ("bundled", 300, 5),
    "gap": ("bundled/gap", 300, 5),
    "contrast": ("bundled/contrast", 300, 5),
}
MEASURED = [
    "accuracy", "identifiability", "identifiability_change", "place_difference", "similarity_change",
    "residual_composition", "class_value_agreement", "key_value_agreement", "memory_compositionality",
    "attention_perturbation", "token_removal",
]  # fmt: skip


def study() -> None:
    """Every study of every bundled model on held-out scenes, by the command line: docs/study.md and a report."""
    from classspace_widgets.cli import main as classspace
    from classspace_widgets.studies import StudyResults, findings

    seed = 11
    sections, rows = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, scenes, twins) in STUDIED.items():
            out = Path(folder) / name
            given = ["--model", model, "--data", f"scenes:{scenes}:{seed}", "--twin", str(twins), "--out", str(out)]
            classspace(["study", *given, "--studies", *MEASURED])
            results = StudyResults.load(out / "results.json.gz")
            if name == "default":
                target = ROOT / "docs" / "reports" / "study_default.html"
                classspace(
                    ["report", str(out), "--out", str(target), "--title", "The bundled model on held-out scenes"]
                )
                print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB")
            held = findings(results)
            missed = [f for f in held if not f.holds]
            top = results["accuracy"].where(measure="top-1").set_index("weights")
            fresh = top.loc["random"]
            sections.append(
                f"## `ClassSpace.bundled({name!r})`\n\n{scenes} scenes. Top-1 {top.loc['trained', 'value']:.3f}, its {twins} random twins "
                f"{fresh['value']:.3f} ({fresh['low']:.3f} to {fresh['high']:.3f}). "
                f"{len(held) - len(missed)} of {len(held)} findings hold"
                + (
                    "."
                    if not missed
                    else "; " + "; ".join(f"**not:** {f.claim[0].lower()}{f.claim[1:]}" for f in missed) + "."
                )
                + "\n\n"
                + findings_table(held)
            )
            rows.append(curve_rows(results, name))
    intro = """# A study of the bundled models

Every measurement of the paper, over held-out scenes with 0 to 2 smaller objects, with 95 % bootstrap intervals over pictures
(2,000 resamples), compared with several random twins: the same architecture with fresh weights, drawn several times, because
one draw may be unusual. Each twin costs as much as the model itself.

A finding is a difference with a direction. Measurements of the same pictures are compared on the same resamples of them; a
claim about random weights must hold for every twin; a rise must exceed the rise of every twin. The p values of a model's
findings are corrected together by Holm's method, and a finding *holds* if the corrected p is at most 0.05. A p at the smallest
value that its test can give is written as a bound. `classspace_widgets.studies.findings` makes the sentences from the numbers.

In the default model and its GAP twin, tokens name what they show because this was **trained in** (token labelling, see the
models' cards); the contrast model was trained with one label per picture. Its training scenes have one object; the scenes here
have more, which lowers its accuracy.

The whole run of the default model, with figures and tables: <a href="study_default.html">report</a> (one offline file).
Made by `python docs/regenerate.py study`, which calls `classspace study` and `classspace report`.
"""
    curves = (
        "## Identifiability of the label after every block\n\nMean over image tokens: on the object and on its context; for the "
        "random twins their mean. A model that answers from [CLS] (default, contrast) does not use its image tokens "
        "after the last block.\n\n" + "".join(rows)
    )
    text = "\n\n".join([intro, *sections, curves])
    _write_study(re.sub(r"\n{3,}", "\n\n", text), _lens_section())


LENSES_FROM = "## The object under each lens"
"""Heading of the last section of docs/study.md, which is made by itself."""
LENS_SCENES = {"measured": 80, "jacobian": 48, "translator": 192}
"""Held-out scenes, and those that the lenses of random twins are fitted on."""
LENS_TWINS = 3


def lenses() -> None:
    """Class tokens against context tokens through every lens, with random twins that have lenses of their own."""
    from classspace_widgets import ClassSpace
    from classspace_widgets.scenes import ScenesDataset
    from classspace_widgets.studies import PlaceDifference, run_study

    data = ScenesDataset(LENS_SCENES["measured"], seed=13, distractors=(0, 2))
    parts = []
    for name in ("contrast", "default"):
        space = ClassSpace.bundled(name, device="cpu")
        rows = []
        for kind in ("logit", "jacobian", "translator"):

            def fitted(model, kind=kind, space=space):  # type: ignore[no-untyped-def]
                if model is space:
                    return space.bundled_lens(kind)
                return model.fit_lens(kind, ScenesDataset(LENS_SCENES[kind], seed=14))

            began = time.monotonic()
            found = run_study(
                space,
                data,
                PlaceDifference(),
                random_twin=LENS_TWINS,
                lens=None if kind == "logit" else fitted,
                progress=False,
            )
            result = found["place_difference"]
            tables = {"trained": result.tables["by_picture"], "twins": result.tables["twins"]}
            rows += place_rows(kind, tables)
            print(f"{name}, {kind}: {time.monotonic() - began:.0f} s")
        head = "| " + name + ": lens | block | object | context | difference | p | twins |"
        parts.append("\n".join([head, "|---|---|---|---|---|---|---|", *rows]))
        _write_study(_study_before_lenses(), _about_lenses() + "\n\n".join(parts))


def _about_lenses() -> str:
    return f"""{LENSES_FROM}

The paper's finding, that tokens of the object name the class better than those of its context, through each
[lens](lenses.md): the logit lens (what the classifier would read), the Jacobian (what of the token the answer goes on to use) and the
translator (what can be decoded). Mean identifiability of the label over the pictures' own means of image tokens of the residual
stream, on the object and on its context, in {LENS_SCENES["measured"]} held-out scenes with 0 to 2 smaller objects; the difference with a 95 % interval over
pictures, and p of its sign by flipped signs. *Twins*: the least and greatest difference (over tokens) of {LENS_TWINS} random twins,
each with lenses of its own, fitted on {LENS_SCENES["jacobian"]} (Jacobian) and {LENS_SCENES["translator"]} scenes (translator). Blocks where a lens has no map are missing.
Made by `python docs/regenerate.py lenses`.

"""


def _study_before_lenses() -> str:
    """docs/study.md without its section on lenses."""
    return (ROOT / "docs" / "study.md").read_text(encoding="utf-8").partition(LENSES_FROM)[0]


def _lens_section() -> str:
    """The section on lenses as it is."""
    _, heading, rest = (ROOT / "docs" / "study.md").read_text(encoding="utf-8").partition(LENSES_FROM)
    return heading + rest


def _write_study(text: str, section: str) -> None:
    (ROOT / "docs" / "study.md").write_text(f"{text.rstrip()}\n\n{section}".rstrip() + "\n", encoding="utf-8")


def evidence() -> None:
    """Tests of every method of token importance on held-out scenes: docs/evidence.md and a report."""
    from classspace_widgets import ClassSpace
    from classspace_widgets.plots import write_report
    from classspace_widgets.probing import LensScores, ProbeScores, fit_probes, probe_accuracy
    from classspace_widgets.scenes import ScenesDataset
    from classspace_widgets.studies import ExplanationStudy, findings, run_study

    count, seed, orders = 150, 12, 3
    parts = []
    for name in ("default", "contrast"):
        space = ClassSpace.bundled(name, device="cpu")
        learned = ScenesDataset(240, seed=21, distractors=(1, 2))
        probes = fit_probes(space, learned, k_shot=10)
        accuracy = probe_accuracy(space, probes, ScenesDataset(120, seed=22, distractors=(1, 2)))
        image = accuracy[accuracy["tokens"] == "image"].pivot_table(index="block", columns="reading", values="value")
        # A model that answers from [CLS] does not use the last block's image tokens.
        unused = {image.index.max()} if space.adapter.pooling == "token" else set()
        block = int(image["probe"].idxmax())
        tested = run_study(
            space,
            ScenesDataset(count, seed=seed, distractors=(1, 2)),
            ExplanationStudy(
                methods=(
                    "gradient",
                    "gradient:cross_entropy",
                    "gradient:paper",
                    "direct",
                    "flow:0",
                    "flow:1",
                    "flow:2",
                    "attention",
                    "chefer",
                    "rollout",
                ),
                scorers={
                    f"probe of block {block}": ProbeScores(probes, block),
                    f"lens at block {block}": LensScores(block),
                },
                steps=9,
                random_orders=orders,
            ),
        )
        result = tested["explanation"]
        notes = "".join(f"\n{note}\n" for note in result.notes)
        readings = "; ".join(
            f"block {b} {r['probe']:.3f} and {r['lens']:.3f}"
            + (" (the model does not use these)" if b in unused else "")
            for b, r in image.iterrows()
        )
        parts.append(
            f"## `ClassSpace.bundled({name!r})`\n\n"
            + scores_table(result)
            + notes
            + f"\n{verdict(findings(tested))}{best(result)}\n\nLinear probes (ridge, 10 pictures a class, one for every token) "
            f"and the lens, top-1 of image tokens: {readings}.\n"
        )
        if name == "default":
            target = ROOT / "docs" / "reports" / "evidence_default.html"
            write_report(tested, target, title="Where is the evidence?")
            print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB")
    intro = f"""# Where is the evidence: methods of token importance, tested

{count} held-out scenes with 1 or 2 smaller objects; scores for the picture's own label. Image tokens are removed after the
position embedding, the least important first (*negative*: area under the accuracy curve, higher is better) or the most
important first (*positive*: lower is better); `random` is the control (random orders, {orders} for each picture). Areas are given in two
definitions: by the trapezoid rule over the share of kept tokens, and *(paper)* as in the authors' code, the sum of the curve
divided by its largest value times the number of steps. The paper's table for ViT-B/32 on ImageNet-S has the second:
negative .836 (its gradient), .845 (Chefer), .739 (probe), .716 (random); positive .413, .393, .683, .716. Against the object's
mask: pointing game, IoU at each picture's best threshold, average precision, share of positive importance inside. 95 %
bootstrap intervals over pictures (2,000 resamples). Two methods are compared on the same resamples of the same pictures, by the
trapezoid areas, and the p values of all comparisons of a model corrected together by Holm's method, at 0.05. `gradient` is the
gradient of the class logit; `gradient:paper` is the paper's. Figures and tables of the default model:
<a href="evidence_default.html">report</a>. Made by `python docs/regenerate.py evidence`; the sentences are made from
the numbers.
"""
    (ROOT / "docs" / "evidence.md").write_text("\n".join([intro, *parts]).rstrip() + "\n", encoding="utf-8")


def photos() -> None:
    """The paper on photographs: docs/photos.md."""
    if given.data is None:
        print("photos: left out, because it needs --data FOLDER with labelled photographs and their boxes")
        return
    write(given.data, given.work, ROOT / "docs" / "photos.md")


PARTS = {"demo": demo, "pictures": pictures, "study": study, "lenses": lenses, "evidence": evidence, "photos": photos}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; by default all")
    parser.add_argument("--data", type=Path, help="for photos: class folders with boxes.csv")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "photos", help="for photos: where runs are kept")
    given = parser.parse_args()
    unknown = [name for name in given.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    for name in given.parts or PARTS:
        PARTS[name]()
