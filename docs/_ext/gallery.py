"""Exported pages of the bundled model beside the site, made anew with every build, each with a picture of what it shows."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def write_first_page(folder: Path) -> Any:
    """The page that the site opens with: the default model itself, a scene, and the guided tours."""
    from classspace_widgets import ClassSpace, export_html
    from classspace_widgets.scenes import gallery
    from classspace_widgets.tours import BUNDLED

    scene = gallery()[0]
    trace = ClassSpace.bundled(device="cpu").trace(scene.picture, attention=True, heads=True)
    snapshot = trace.snapshot(title=f"{scene.class_name}: {scene.context}", **scene.annotations)
    title = "Watch a vision transformer make up its mind"
    return export_html(snapshot, folder / "try.html", title=title, live=True, tour=BUNDLED, progress=False)


def write_pages(folder: Path) -> None:
    """Four pages: a scene with pinned interventions, several scenes, a model beside its random twin, and a study's report."""
    from classspace_widgets import ClassSpace, export_html
    from classspace_widgets.interventions import KnockOutAttention, RemoveTokens
    from classspace_widgets.plots import write_report
    from classspace_widgets.scenes import ScenesDataset, gallery
    from classspace_widgets.snapshot.filmstrip import filmstrip
    from classspace_widgets.studies import run_study

    folder.mkdir(parents=True, exist_ok=True)
    write_first_page(folder)
    space, scenes = ClassSpace.bundled(device="cpu"), gallery()
    traces = [space.trace(s.picture, attention=True, heads=True) for s in scenes]

    def named(i: int) -> Any:
        scene = scenes[i]
        return traces[i].snapshot(title=f"{scene.class_name}: {scene.context}", **scene.annotations)

    def pictured(name: str, snapshot: Any, classes: Any = None) -> None:
        filmstrip(snapshot, classes, blocks=range(0, 9, 2), size=160).save(folder / f"{name}.webp", quality=80)

    scene, trace = scenes[6], traces[6]
    inside = scene.patch_mask(trace.grid)[0] >= 0.5
    export_html(
        ["# One scene, with pinned interventions", named(6)],
        folder / "scene.html",
        title="One scene",
        pins={
            "image tokens read only themselves": KnockOutAttention("self_only"),
            "the object is removed": RemoveTokens(mask=inside),
            "all but the object is removed": RemoveTokens(mask=inside, outside=True),
        },
    )
    pictured("scene", named(6))
    export_html(
        ["# Four scenes, at home and out of place", [named(i) for i in (0, 4, 5, 7)]],
        folder / "scenes.html",
        title="Four scenes",
    )
    pictured("scenes", named(4))
    twin = space.random_twin().trace(scene.picture, attention=True, heads=True)
    export_html(
        [
            "# The same scene in a model with random weights\n\nSame architecture, fresh weights: its curves do not rise.",
            [named(6), twin.snapshot(**scene.annotations)],
        ],
        folder / "twin.html",
        title="A model and its random twin",
    )
    pictured("twin", twin.snapshot(), classes=scene.class_name)
    results = run_study(space, ScenesDataset(48, seed=5), random_twin=3, progress=False)
    write_report(results, folder / "report.html", title="The standard studies over 48 drawn scenes")


def _finished(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        write_pages(Path(app.outdir) / "gallery")


def setup(app: Any) -> dict[str, Any]:
    """Connect."""
    app.connect("build-finished", _finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
