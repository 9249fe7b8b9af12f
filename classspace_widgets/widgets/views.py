"""Views on a `Session`; each is usable by itself and in any ipywidgets layout."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets as t

from classspace_widgets.snapshot.snapshot import Snapshot
from classspace_widgets.tours import as_tours
from classspace_widgets.widgets._assets import script
from classspace_widgets.widgets._base import Widget
from classspace_widgets.widgets.session import CAPTURED, Session, not_of_a_snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from classspace_widgets.export import ExportedPage
    from classspace_widgets.export.page import Mount
    from classspace_widgets.interventions.base import Intervention
    from classspace_widgets.tours import Tour


class View(Widget):
    """A view on a session.

    The views are `Explorer` and its parts; this is what they have in common.

    Parameters
    ----------
    data : picture, Trace, Snapshot, Session or View
        What to show. A picture alone (a path, a PIL image, an array) is traced with the bundled model of photographs; another
        model traces it itself: ``ClassSpace.from_timm("vit_base_patch16_224").trace("photo.jpg", attention=True, heads=True)``. A
        picture, a trace or a snapshot gets a session of its own; give several views the same session (or one another) to link
        them.
    options : dict, optional
        Options of the view: ``{"bare": True}`` shows a `PatchHeatmap` without its controls; other views have none.
    **state
        Where a new session starts, by the names of its attributes: ``class_name="fish"``, ``block=4``,
        ``sublayer="attention"``, ``reading="logit"``, ``tokens=[66]``, ``head=[5, 2]`` and so on (see `Session`);
        ``pins={"no sky": RemoveTokens(...)}``, what-if states by name; and of a trace, ``image=1``, which of its
        pictures, and how it is captured: ``mask``, ``objects``, ``label``, ``title``, ``lenses``, ``bank`` and
        ``flow`` of `Trace.snapshot`; ``other=trace``, a second picture whose states can be dragged onto this one's patches;
        ``live=True`` keeps the model at hand for when the kernel is gone.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> from classspace_widgets.widgets import LayerSlider, PatchHeatmap, Session
    >>> session = Session(ClassSpace.bundled().trace(gallery()[0].picture))
    >>> slider, heatmap = LayerSlider(session), PatchHeatmap(session)  # linked: they share the session
    >>> heatmap.session.block = 3
    >>> slider.session.block
    3
    """

    saved_form: ClassVar[str] = "page"
    """What a saved notebook keeps beside the live view, for readers without a kernel: ``"page"`` (the working view, up
    to 2 MB), ``"picture"`` (a still picture and a line of text), or ``"none"`` (small notebooks)."""

    known_options: ClassVar[frozenset[str]] = frozenset()

    view = t.Unicode().tag(sync=True)
    options = t.Dict().tag(sync=True)
    _session = anywidget.WidgetTrait().tag(sync=True)

    def __init_subclass__(cls, **options: Any) -> None:
        """Every view says what it takes: the parameters stand once, in the docstring above."""
        super().__init_subclass__(**options)
        own, shared = inspect.cleandoc(cls.__doc__ or ""), inspect.cleandoc(View.__doc__ or "")
        head = "Parameters\n----------\n"
        if head in shared:
            parameters = shared.partition(head)[2].partition("\n\n")[0]
            before, _, more = own.partition(head)
            cls.__doc__ = f"{before.rstrip()}\n\n{head}{parameters}\n{more}"

    def __init__(self, data: Any, *, options: dict[str, Any] | None = None, **state: Any) -> None:
        """Make the view; the class says what can be given."""
        if unknown := set(options or {}) - self.known_options:
            known = ", ".join(sorted(self.known_options)) or "none"
            raise ValueError(f"{type(self).__name__} has no option {sorted(unknown)[0]!r}; it has {known}")
        self._esm = script("view.js")
        data = data.session if isinstance(data, View) else data
        self._owns_session = not isinstance(data, Session)
        if not self._owns_session and (captured := [name for name in CAPTURED if name in state]):
            raise TypeError(not_of_a_snapshot(captured))
        if state and not self._owns_session:
            raise TypeError(f"this view shares a session: set {', '.join(state)} there, not on one of its views")
        self.session: Session = data if isinstance(data, Session) else Session(data, **state)
        super().__init__(view=type(self).__name__, options=options or {}, _session=self.session)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.session!r})"

    @property
    def image(self) -> Any:
        """The picture; assign a path, PIL image or array to trace another with the same model."""
        return self.session.image

    @image.setter
    def image(self, picture: Any) -> None:
        self.session.image = picture

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that is shown."""
        return self.session.snapshot

    @property
    def class_names(self) -> list[str]:
        """Names of all C classes of the model."""
        return self.session.class_names

    @property
    def pins(self) -> dict[str, list[Intervention]]:
        """What-if states kept with the panel's Pin button; see `Session.pins`."""
        return self.session.pins

    @pins.setter
    def pins(self, pins: Mapping[str, Any]) -> None:
        self.session.pins = pins

    @property
    def other(self) -> Session | None:
        """The second picture, whose states can be dragged onto this one's patches; see `Session.other`."""
        return self.session.other

    @other.setter
    def other(self, data: Any) -> None:
        self.session.other = data

    @property
    def interventions(self) -> list[Intervention]:
        """The interventions of the pass that is shown beside the model's own; see `Session.interventions`."""
        return self.session.interventions

    @interventions.setter
    def interventions(self, given: Intervention | Sequence[Intervention]) -> None:
        self.session.interventions = given

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], **state: Any) -> View:
        """Open a ``.csnap`` file; needs no torch.

        Parameters
        ----------
        path : path
        **state
            Initial state (see `Session`).
        """
        return cls(Snapshot.load(path), **state)

    def to_html(self, path: str | os.PathLike[str], **options: Any) -> ExportedPage:
        """Write this view as one offline HTML file; options as in `export.export_html`.

        Parameters
        ----------
        path : path
        **options
            As in `export.export_html`.

        Returns
        -------
        ExportedPage
        """
        from classspace_widgets.export import export_html

        return export_html(self, path, **options)

    def _as_mount(self) -> Mount:
        """What of the view an exported page shows."""
        return replace(self.session._as_mount(), view=self.view, options=dict(self.options))

    def _ipython_display_(self) -> None:
        """Show the live view, and store beside it a form that outlives the kernel (hidden while the view lives)."""
        from IPython.display import display

        if self.comm is None:
            text = f"{self!r} is closed; make it again to show it."
            display({"text/plain": text}, raw=True)
            return
        data, metadata = self._repr_mimebundle_()  # the metadata tells Colab whose front end to load
        display(data, metadata=metadata, raw=True)
        if self.saved_form != "none":
            from classspace_widgets.export.saved import saved_form

            for data in saved_form(self, self.saved_form):
                display(data, raw=True)

    def close(self) -> None:
        """Close the view, and its session if no other view has it."""
        super().close()
        # Also called for a view whose construction failed half way.
        session = getattr(self, "session", None)
        if session is not None and self._owns_session:
            session.close()


class LayerSlider(View):
    """Steps through the embedding, then attention and MLP of every block; a sparkline shows the class over depth."""


class PatchHeatmap(View):
    """The picture under a map of any reading, patch by patch; click, shift-click or drag to select tokens."""

    known_options = frozenset({"bare"})


class ContributionBars(View):
    """What attention and MLP of every block contribute to the class, in three readings."""


class ClassPicker(View):
    """Search among all classes; pick one to read and one to compare."""


class TopClasses(View):
    """Top classes of the selected tokens where the slider stands."""


class TokenTrajectories(View):
    """Rank or logit of the class over depth, for the output token, the selected tokens, and inside/outside a mask."""


class HeadGrid(View):
    """Direct contribution of every attention head to the class; click one to see its source patches."""


class Explorer(View):
    """All views of a session in one responsive widget.

    Parameters
    ----------
    tour : str, path, Tour, or a list of them, optional
        Guided tours that it offers: names of those of the package (`tours.BUNDLED`), or Markdown files (see
        `tours.read_tour`).

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> scene = gallery()[0]
    >>> trace = ClassSpace.bundled().trace(scene.picture, attention=True, heads=True)
    >>> Explorer(trace.snapshot(**scene.annotations), tour="four-ways").tours
    (Tour('Does this patch matter? Four ways to ask', 8 steps),)
    """

    tours: tuple[Tour, ...] = ()

    def __init__(self, data: Any, *, tour: Any = None, options: dict[str, Any] | None = None, **state: Any) -> None:
        """Make the explorer; the class says what can be given."""
        tours = as_tours(tour)
        super().__init__(data, options=options, **state)
        self.tours = tours
        if tours:
            snapshot = self.session.snapshot
            live = snapshot.source is not None
            try:
                travelling = [one.for_snapshot(snapshot, live=live) for one in tours]
            except ValueError:
                self.close()
                raise
            self.options = {**self.options, "tours": travelling}

    def _as_mount(self) -> Mount:
        """What of the explorer an exported page shows; the page makes its tours anew."""
        mount = super()._as_mount()
        options = {name: value for name, value in mount.options.items() if name != "tours"}
        return replace(mount, options=options, tours=self.tours)
