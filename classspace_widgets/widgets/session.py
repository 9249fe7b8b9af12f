"""`Session`: a snapshot, the state of the views that show it, and the line to the kernel.

Views never talk to one another: each reads and sets the traits of its session, which the browser keeps in one store
(``js/src/core/store.ts``) and mirrors to the kernel.  Linking views therefore needs no kernel.  What a snapshot does not
carry is asked of the kernel in messages (`_requests`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import traitlets as t
from ipywidgets import widget_serialization

from classspace_widgets.export.live import needed, with_start
from classspace_widgets.export.page import Mount
from classspace_widgets.lookup import class_index, close_matches
from classspace_widgets.pictures import may_be_picture
from classspace_widgets.snapshot.snapshot import Snapshot
from classspace_widgets.snapshot.source import snapshot_of
from classspace_widgets.state import STATE
from classspace_widgets.widgets._assets import script
from classspace_widgets.widgets._base import Widget
from classspace_widgets.widgets._other import Other
from classspace_widgets.widgets._requests import IDLE, Requests
from classspace_widgets.widgets._traits import state_trait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from classspace_widgets.interventions.base import Intervention
    from classspace_widgets.trace import Trace

CAPTURED = ("classes", "payload", "mask", "objects", "label", "title", "lenses", "bank", "flow")
"""How a session that is given a trace has it captured; see `Trace.snapshot`."""


class Session(Widget):
    """The shared state of any number of views on one snapshot.

    Every trait can be read, set and observed from Python; views that share a session are linked by construction, in
    the browser, with no kernel in between.

    Parameters
    ----------
    data : Snapshot, Trace or picture
        A trace is captured first, as `Trace.snapshot` does it. A picture alone (a path, a PIL image, an array) is traced
        first, with the bundled model of photographs.
    image : int, optional
        Which image of a trace of several; by default the first.
    pins : mapping of str to intervention, or several, optional
        What-if states to begin with; see `pins`.
    other : Trace, Session, View or picture, optional
        A second picture of the same model, whose states can be dragged onto the first one's patches; see `other`.
    live : bool
        Keep the model at hand for when the kernel is gone: the views then go on with new pictures and interventions in the
        page itself, and so does the working view that a saved notebook keeps. The browser gets the weights in float16 once, and
        the notebook keeps them with every view that it saves (4 MB for the default model). For plain timm vision transformers.
    **state
        Initial values of the attributes below, such as ``class_name="fish"`` and ``block=4``; and of a trace, how it is
        captured: ``mask``, ``objects``, ``label``, ``title``, ``classes``, ``payload``, ``lenses``,
        ``bank`` and ``flow`` of `Trace.snapshot`.

    Attributes
    ----------
    class_name : str
        The class that is read, by name.
    class_index, compare_index : int, int or None
        The class that is read, and one to compare it with, by index.
    block, sublayer : int in 0..L, ``"embedding"``, ``"attention"`` or ``"mlp"``
        Where the layer slider stands; block 0 is the embedding, and setting one takes the other along.
    stream : ``"residual"`` or ``"output"``
        Read the residual stream after that sublayer, or what the sublayer adds.
    tokens : list of int
        Selected tokens; empty: the token from which the model's output is read.
    reading : str
        What the heatmap shows: one of ``state.CHOICES["reading"]``.
    lens : str
        Through which lens tokens are read: ``"logit"``, or the label of one of the snapshot's fitted lenses.
    contribution : ``"direct"``, ``"step"`` or ``"paper"``
        How attention and MLP are compared.
    head : list [block, head] or None
        The attention head whose weights or sources are shown.
    importance : ``"gradient"``, ``"direct"``, ``"flow"``, ``"chefer"``, ``"rollout"`` or ``"attention"``
        By which method token importance is read (see `explain.importance`).
    importance_of : ``"all"``, ``"block"`` or ``"head"``
        Importance through all blocks, through the block of the slider, or through the chosen attention head.
    side_by_side : bool
        Show the two classes in two maps, rather than their difference in one.
    source_block, target_block : int in 0..L or None
        After which block a state is taken that is dragged onto a token, and after which it is put there; None: where the layer
        slider stands.
    open_tour, tour_step : str, int
        The guided tour that is open, by its name (empty: none), and the step at which it is, from 1.
    status : dict
        What the kernel is doing, in words.

    Examples
    --------
    >>> from classspace_widgets.scenes import gallery
    >>> session = Session(ClassSpace.bundled().trace(gallery()[0].picture), block=4, sublayer="attention")
    >>> session.class_name, session.block
    ('fish', 4)
    >>> session.class_name = "boat"
    >>> session.class_index
    1
    """

    _snapshot = t.Bytes().tag(sync=True)
    _intervened = t.Bytes(b"").tag(sync=True, from_json=lambda value, _widget: bytes(value))
    _pins = t.List(t.Dict()).tag(sync=True)
    _links = t.List(t.Dict()).tag(sync=True)
    _linked = t.List(help="The other sessions of `_links`: whoever stores widgets finds them here.").tag(
        sync=True, **widget_serialization
    )
    _answers = t.Bool(help="Whether a model stands behind the snapshot.").tag(sync=True)
    _live = t.Unicode(help="Name of the model that views keep for when the kernel is gone; none where empty.").tag(
        sync=True
    )
    class_index = state_trait("class_index")
    compare_index = state_trait("compare_index")
    block = state_trait("block")
    sublayer = state_trait("sublayer")
    stream = state_trait("stream")
    tokens = state_trait("tokens")
    reading = state_trait("reading")
    lens = state_trait("lens")
    contribution = state_trait("contribution")
    head = state_trait("head")
    importance = state_trait("importance")
    importance_of = state_trait("importance_of")
    side_by_side = state_trait("side_by_side")
    map_name = state_trait("map_name")
    colormap = state_trait("colormap")
    opacity = state_trait("opacity")
    smooth = state_trait("smooth")
    model_input = state_trait("model_input")
    outline = state_trait("outline")
    source_block = state_trait("source_block")
    target_block = state_trait("target_block")
    shown = state_trait("shown")
    open_tour = state_trait("open_tour")
    tour_step = state_trait("tour_step")
    status = t.Dict(default_value=IDLE).tag(sync=True)

    def __init__(
        self,
        data: Any,
        *,
        image: int | None = None,
        pins: Mapping[str, Any] | None = None,
        other: Any = None,
        live: bool = False,
        **state: Any,
    ) -> None:
        """Start a session; the class says what can be given."""
        captured = {name: state.pop(name) for name in CAPTURED if name in state}
        known = (*STATE, "class_name", "image", "pins", "other", "live", *CAPTURED)
        for name in state:
            if name not in known:
                raise TypeError(f"a session has no {name!r}{close_matches(name, known)}")
        self._esm = script("widget.js")
        self._current = as_snapshot(data, image, **captured)
        self._requests = Requests(self)
        self._other = Other(self, Session)
        start: dict[str, Any] = {"class_index": self._current.predicted[0]}
        start["block"] = 0 if state.get("sublayer") == "embedding" else self._current.n_blocks
        start["sublayer"] = "mlp" if state.get("block", start["block"]) else "embedding"
        if "class_name" in state:
            state["class_index"] = class_index(self._current.class_names, state.pop("class_name"))
        self._keeps_model = live
        if live:
            needed(self._current.source).model()  # what cannot run in a page is refused here
        super().__init__(**self._travelling(), **{**start, **state})
        if pins:
            self.pins = pins
        if other is not None:
            shared = {name: captured[name] for name in ("classes", "payload", "lenses") if name in captured}
            self._other.set(other, **shared)
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        where = "embedding" if self.block == 0 else f"block {self.block} {self.sublayer}"
        return f"Session({self.class_name!r} at {where}, {self.reading}; {self._current!r})"

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        # A session has nothing to show: as a widget it would be an empty output.
        return {"text/plain": repr(self)}, {}

    def _as_mount(self) -> Mount:
        """What of the session an exported page shows: an explorer, from its present state on."""
        name = self.model_id or f"closed {id(self)}"
        links = [{**entry, "other": entry["other"].removeprefix("anywidget:")} for entry in self._links]
        state = {name: getattr(self, name) for name in STATE}
        live = bool(self._live)
        return Mount(self.snapshot, state=state, pins=self.pins, session=name, links=links, live=live)

    def _travelling(self) -> dict[str, Any]:
        """The values that follow from the snapshot."""
        current, source = self._current, self._current.source
        name = ""
        if self._keeps_model and source is not None:
            current, name = with_start(current, source), source.model_name()
        return {"_answers": source is not None, "_live": name, "_snapshot": current.pack()}

    # -- the snapshot ------------------------------------------------------------------------------------------------

    @property
    def snapshot(self) -> Snapshot:
        """What the views show; assign a `Snapshot` or a `Trace` to show another picture."""
        return self._current

    @snapshot.setter
    def snapshot(self, data: Any) -> None:
        new = as_snapshot(data)
        known = self._current.class_names
        same_classes = new.class_names[: len(known)] == known
        self._current = new
        with self.hold_sync():
            self._intervened = b""
            self.shown = "baseline"
            self.compare_index = self.compare_index if same_classes else None
            self.class_index = new.predicted[0]
            if self.block > new.n_blocks:
                self.block = new.n_blocks
            self.source_block = self.target_block = None
            self.tokens = [i for i in self.tokens if i < _token_count(new)]
            if self.head and not _has_head(new, self.head):
                self.head = None
            if self.lens not in _lens_labels(new):
                self.lens = STATE["lens"].default
            for name, value in self._travelling().items():
                setattr(self, name, value)
            self._other.refit()

    @property
    def image(self) -> Any:
        """The picture's name; assign a path, PIL image or array to trace another picture with the same model."""
        return self._current.meta["image"]["name"]

    @image.setter
    def image(self, picture: Any) -> None:
        source = self._current.source
        if source is None:
            raise RuntimeError(
                "this session has no model behind it (its snapshot came from a file); use session.snapshot = ..."
            )
        self.snapshot = source.show(picture)

    @property
    def class_names(self) -> list[str]:
        """Names of all C classes of the model."""
        return self._current.class_names

    @property
    def class_name(self) -> str:
        """Name of the class that is read; assign a name to read another."""
        return str(self._current.class_names[self.class_index])

    @class_name.setter
    def class_name(self, name: str) -> None:
        self.class_index = class_index(self._current.class_names, name)

    @property
    def pins(self) -> dict[str, list[Intervention]]:
        """What-if states kept with the panel's Pin button, by name; exported pages take them along.

        Assign a mapping of names to an intervention, or to several.
        """
        if not self._pins:  # without pins no torch is needed
            return {}
        from classspace_widgets.interventions import from_spec

        return {str(pin["label"]): from_spec([step["spec"] for step in pin["steps"]]) for pin in self._pins}

    @pins.setter
    def pins(self, pins: Mapping[str, Any]) -> None:
        made = []
        for label, given in pins.items():
            steps = list(given) if isinstance(given, (list, tuple)) else [given]
            if not steps:
                raise ValueError(f"the pinned state {label!r} has no intervention")
            # A single one gets the name of the state: its repr, of a mask or a list of tokens, would be pages of numbers.
            names = [label] if len(steps) == 1 else [repr(step) for step in steps]
            made.append(
                {
                    "label": label,
                    "steps": [{"spec": i.to_dict(), "label": name} for i, name in zip(steps, names, strict=True)],
                }
            )
        self._pins = made

    @property
    def other(self) -> Session | None:
        """The second picture, as a session of its own: its states can be dragged onto this one's patches.

        Assign a trace of the same model, a picture to trace (a path, PIL image or array), another session or view, or None.
        Interventions name it: ``PatchResidual(4, tokens=[60], source="other", source_token=17)``.
        """
        return self._other.session

    @other.setter
    def other(self, data: Any) -> None:
        self._other.set(data)

    @property
    def interventions(self) -> list[Intervention]:
        """The interventions of the pass that is shown beside the model's own; assign others to run them, or [] for none."""
        if not self._intervened:
            return []
        from classspace_widgets.interventions import from_spec

        done = Snapshot.unpack(self._intervened).meta["intervention"]
        return from_spec(done["spec"] if done else [])

    @interventions.setter
    def interventions(self, given: Intervention | Sequence[Intervention]) -> None:
        steps: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
        if not steps:
            self._intervened, self.shown = b"", "baseline"
            return
        mode = self._current.meta["payload"]["mode"]
        self._requests.run("whatif", {"spec": [step.to_dict() for step in steps], "payload": mode})
        if self.shown == "baseline":
            self.shown = "intervened"

    def _forget_states_of_other(self) -> None:
        """The second picture is another one: a pass with its states is no longer what it says."""
        if any(getattr(one, "source", None) == "other" for one in self.interventions):
            self.interventions = []

    # -- validation --------------------------------------------------------------------------------------------------

    @t.validate("class_index", "compare_index")
    def _valid_class(self, proposal: Any) -> Any:
        value, count = proposal["value"], self._current.meta["classes"]["count"]
        if value is not None and not 0 <= value < count:
            raise t.TraitError(f"{proposal['trait'].name} must be in 0..{count - 1}, got {value}")
        return value

    @t.validate("block", "source_block", "target_block")
    def _valid_block(self, proposal: Any) -> Any:
        value, name = proposal["value"], proposal["trait"].name
        if value is not None and not 0 <= value <= self._current.n_blocks:
            raise t.TraitError(f"{name} must be in 0..{self._current.n_blocks} (0 is the embedding), got {value}")
        return value

    @t.observe("block", "sublayer")
    def _move_block_and_sublayer_together(self, change: Any) -> None:
        """Block 0 and the embedding are the same place: where one of them is set, the other follows."""
        if (self.block == 0) == (self.sublayer == "embedding"):
            return
        if change["name"] == "block":
            self.sublayer = "mlp" if self.block else "embedding"
        else:
            self.block = 0 if self.sublayer == "embedding" else 1

    @t.validate("tokens")
    def _valid_tokens(self, proposal: Any) -> Any:
        count = _token_count(self._current)
        bad = [i for i in proposal["value"] if not 0 <= i < count]
        if bad:
            raise t.TraitError(f"tokens must be in 0..{count - 1}, got {bad}")
        return list(dict.fromkeys(proposal["value"]))

    @t.validate("lens")
    def _valid_lens(self, proposal: Any) -> Any:
        known = _lens_labels(self._current)
        if proposal["value"] not in known:
            hint = "" if len(known) > 1 else "; fitted lenses are given with the trace: Explorer(trace, lenses=[lens])"
            raise t.TraitError(f"lens must be {' or '.join(map(repr, known))}, got {proposal['value']!r}{hint}")
        return proposal["value"]

    @t.validate("head")
    def _valid_head(self, proposal: Any) -> Any:
        value, model = proposal["value"], self._current.meta["model"]
        if value is not None and not _has_head(self._current, value):
            raise t.TraitError(
                f"head must be [block in 1..{model['blocks']}, attention head in 0..{model['heads'] - 1}], got {value}"
            )
        return value

    # -- requests ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the session, and its second picture's."""
        super().close()
        # Also called for a session whose construction failed half way.
        if (other := getattr(self, "_other", None)) is not None:
            other.close()

    def _on_message(self, _widget: Any, content: Any, buffers: Sequence[Any]) -> None:
        self._requests.handle(content, buffers)


def as_snapshot(data: Any, image: int | None = None, **options: Any) -> Snapshot:
    """A snapshot from a snapshot, a session, anything that knows how to become one (a trace, as ``options`` say), or a picture."""
    if isinstance(data, Session):
        data = data.snapshot
    if isinstance(data, Snapshot):
        if image is not None:
            raise TypeError(f"image={image} chooses among the pictures of a trace; a snapshot holds one")
        if options:
            raise TypeError(not_of_a_snapshot(options))
        return data
    traced = _traced(data) if may_be_picture(data) else data
    found = snapshot_of(traced, image=image or 0, **options)
    if found is None:
        hint = "; trace a picture first: space.trace(picture)" if hasattr(data, "trace") else ""
        raise TypeError(
            f"expected a picture (a path, a PIL image, an array), a Trace, a Snapshot or a Session, got {type(data).__name__}{hint}"
        )
    return found


def _traced(picture: Any) -> Trace:
    """The trace of a picture that comes alone: by the bundled photo model, which says so in its description."""
    if isinstance(picture, (str, os.PathLike)) and Path(picture).suffix == ".csnap":
        raise TypeError(
            f"{Path(picture).name} is a snapshot file, no picture; open it with Explorer.from_file({str(picture)!r})"
        )
    from classspace_widgets.space.space import ClassSpace

    return ClassSpace.bundled("photos").trace(picture, attention=True, heads=True)


def not_of_a_snapshot(options: Iterable[str]) -> str:
    """Where options of a capture belong, when there is no trace to capture any more."""
    named = ", ".join(f"{name}=..." for name in options)
    return f"{named} can be given with a trace; this snapshot is made already: make it with trace.snapshot({named})"


def _token_count(snapshot: Snapshot) -> int:
    tokens = snapshot.meta["tokens"]
    return int(tokens["count"]) + int(tokens["pooled"])


def _lens_labels(snapshot: Snapshot) -> list[str]:
    """What can be read through: the logit lens and the fitted ones."""
    return [STATE["lens"].default, *(lens["label"] for lens in snapshot.meta.get("lenses", []))]


def _has_head(snapshot: Snapshot, head: Sequence[int]) -> bool:
    model = snapshot.meta["model"]
    return bool(1 <= head[0] <= model["blocks"] and 0 <= head[1] < model["heads"])
