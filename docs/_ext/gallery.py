"""Exported pages of the bundled models beside the site, made anew with every build, each with a picture of what it shows.

The photographs are those that come with the package. Those in the folder ``CLASSSPACE_PHOTOGRAPHS`` are shown after them, on a
site that is built for oneself: nothing of them is stored in the project.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MOST = 10
"""Photographs of one's own on a page: each adds about half a megabyte."""


def photographs() -> list[Path]:
    """Those that come with the package, and the first in the folder of one's own."""
    from classspace_widgets.images import sample_photo

    own = os.environ.get("CLASSSPACE_PHOTOGRAPHS")
    added = (
        []
        if not own
        else sorted(file for file in Path(own).iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    )
    return [sample_photo(), sample_photo("cat"), *added[:MOST]]


def write_photographs(folder: Path) -> None:
    """A page of photographs, read by the photo model."""
    from classspace_widgets import ClassSpace, Explorer, export_html
    from classspace_widgets.snapshot.filmstrip import filmstrip

    space, snapshots = ClassSpace.bundled("photos", device="cpu"), []
    for file in photographs():
        snapshots.append(space.trace(file, attention=True).snapshot(title=file.stem))
    export_html(
        ["# Photographs", *(Explorer(snapshot, block=6) for snapshot in snapshots)],
        folder / "photographs.html",
        title="Photographs",
    )
    filmstrip(snapshots[0], blocks=range(0, 10, 3), size=160).save(folder / "photographs.webp", quality=80)


def write_live_photograph(folder: Path) -> Any:
    """A photograph in a page that carries the photo model, and takes others."""
    from classspace_widgets import ClassSpace, export_html
    from classspace_widgets.images import sample_photo

    trace = ClassSpace.bundled("photos", device="cpu").trace(sample_photo(), attention=True, heads=True)
    return export_html(
        ["# A photograph, and yours", trace.snapshot(title=sample_photo().stem)],
        folder / "photograph.html",
        title="A photograph, and yours",
        live=True,
        progress=False,
    )


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
    """Scenes with pinned interventions, in several contexts, beside the random twin; a study's report; photographs."""
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
    write_photographs(folder)
    write_live_photograph(folder)


def _finished(app: Any, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        write_pages(Path(app.outdir) / "gallery")


def setup(app: Any) -> dict[str, Any]:
    """Connect."""
    app.connect("build-finished", _finished)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
