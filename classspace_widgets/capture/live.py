"""`LiveSource`: what a live kernel answers to its views (the `Source` of a snapshot).

A view asks for more classes, attention rows, another picture, an intervention, a sweep or a token importance.  Every
answer is a generator (see `snapshot.source`): it yields `Progress` and returns an `Answer`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.capture.flows import flow_or_reason, read_flow
from classspace_widgets.capture.importance import importance_map, importance_shares
from classspace_widgets.capture.lenses import read_lenses, several_lenses
from classspace_widgets.capture.model import model_container
from classspace_widgets.capture.neighbours import neighbours_answer
from classspace_widgets.capture.payload import capture
from classspace_widgets.capture.reader import Reader
from classspace_widgets.capture.requests import MAX_NEIGHBOURS, Request
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.metrics.flow import require_flow
from classspace_widgets.models.fingerprint import known_fingerprint
from classspace_widgets.snapshot.container import pack
from classspace_widgets.snapshot.source import Answer, Progress
from classspace_widgets.space.space import space_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from classspace_widgets.images.crop import Crop
    from classspace_widgets.interventions.base import Intervention
    from classspace_widgets.lens import FittedLens
    from classspace_widgets.nearest import StateBank
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.snapshot.meta import GridMeta, PartMeta, PayloadMode
    from classspace_widgets.snapshot.snapshot import Snapshot
    from classspace_widgets.snapshot.source import Source, Steps
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace


class LiveSource:
    """Answers the requests of a session from a traced image and the model behind it.

    Parameters
    ----------
    trace : Trace
        Of the one picture that the session shows (`Trace.image`).
    options : mapping
        What `capture` was called with; used again for the next picture.
    bank : StateBank, optional
        Of other pictures, among whose patches nearest states are looked for.
    """

    def __init__(
        self, trace: Trace, *, options: Mapping[str, Any] | None = None, bank: StateBank | None = None
    ) -> None:
        self.trace = trace
        self.bank = bank
        self.options = dict(options or {})
        self.intervened_trace: Trace | None = None
        """The pass with interventions that is shown beside ``trace``: its other classes are read from it."""
        self.shown: Snapshot | None = None
        """The snapshot that views of this source show."""
        self.other: LiveSource | None = None
        """The second picture, whose states interventions may take."""

    def shows(self, snapshot: Snapshot) -> Snapshot:
        """The snapshot, which this source answers for from now on."""
        snapshot.source, self.shown = self, snapshot
        known = {"neighbours": self.bank is not None, "word": self._has_words(), "flow": self._has_flow(snapshot)}
        offers = [kind for kind, there in known.items() if there]
        if offers:
            snapshot.meta["offers"] = offers
        return snapshot

    def _has_words(self) -> bool:
        # A fitted lens reads the classes that it was fitted for.
        return not self.lenses and self.trace.space is not None and self.space.words is not None

    def _has_flow(self, snapshot: Snapshot) -> bool:
        """Whether it can be told where logits stand; where not, the snapshot says why."""
        try:
            require_flow(self.trace)
        except (ValueError, RuntimeError) as error:
            snapshot.meta["model"]["flow_refused"] = str(error)
            return False
        return True

    @property
    def space(self) -> ClassSpace:
        """The model; raises where the trace was loaded from a file."""
        return space_of(self.trace)

    @property
    def lenses(self) -> tuple[FittedLens, ...]:
        """The fitted lenses that travel."""
        return several_lenses(self.options.get("lenses", ()))

    def answer(self, kind: str, params: dict[str, Any], buffers: Sequence[Any] = ()) -> Steps:
        """Start answering a request: see `snapshot.source.Source`."""
        answers: dict[str, Callable[[Request], Steps]] = {
            "classes": self._classes,
            "attention": self._attention,
            "intervened classes": self._intervened_classes,
            "intervened attention": self._intervened_attention,
            "image": self._picture,
            "other": self._other_picture,
            "word": self._word,
            "whatif": self._whatif,
            "sweep": self._sweep,
            "importance": self._importance,
            "neighbours": self._neighbours,
            "flow": self._flow,
        }
        if kind not in answers:
            raise ValueError(f"unknown request {kind[:60]!r}; expected one of {', '.join(sorted(answers))}")
        return answers[kind](Request(params, buffers))

    # -- more of the passes that are shown -------------------------------------------------------------------------

    def _classes(self, request: Request) -> Steps:
        yield Progress(0.0, "reading classes")
        return self._read_classes(self.trace, request)

    def _flow(self, request: Request) -> Steps:
        """Where the logits of some classes stand, as the snapshot carries it with ``flow=True``."""
        yield Progress(0.0, "walking back through the blocks")
        reader = Reader(self.trace)
        classes = request.numbers("classes", reader.n_classes)
        with torch.inference_mode():
            return Answer({"classes": classes}, pack(_part(classes, False), read_flow(reader, classes)))

    def _intervened_classes(self, request: Request) -> Steps:
        yield Progress(0.0, "reading classes of the pass with interventions")
        return self._read_classes(self._intervened_trace(), request, intervened=True)

    def _read_classes(self, trace: Trace, request: Request, *, intervened: bool = False) -> Answer:
        """Readings, ranks and heads' readings of some classes, also through the lenses that travel."""
        reader = Reader(trace)
        with torch.inference_mode():
            classes = request.numbers("classes", reader.n_classes)
            rows = request.numbers("rows", reader.n_tokens, default=[reader.output_token])
            arrays: dict[str, Array] = {"raw": reader.raw(classes), "ranks": reader.ranks(classes)}
            heads, attention = reader.attention(classes, rows)
            arrays |= {name: array for name, array in heads.items() if name != "attention"}
            arrays |= read_lenses(reader, self.lenses, classes)
            if self.options.get("flow"):
                arrays |= flow_or_reason(reader, classes)[0]
        return Answer({"classes": classes}, pack({**_part(classes, intervened), **attention}, arrays))

    def _attention(self, request: Request) -> Steps:
        yield Progress(0.0, "reading attention")
        self._require_attention()
        return _read_attention(Reader(self.trace), request)

    def _intervened_attention(self, request: Request) -> Steps:
        yield Progress(0.0, "reading attention of the pass with interventions")
        self._require_attention()
        return _read_attention(Reader(self._intervened_trace()), request, intervened=True)

    def _intervened_trace(self) -> Trace:
        if self.intervened_trace is None:
            raise RuntimeError("there is no pass with interventions; apply the intervention again")
        return self.intervened_trace

    def _require_attention(self) -> None:
        if not self.trace.attention_weights:
            raise RuntimeError("this trace was taken without attention; take it with attention=True, heads=True")

    # -- another picture, another payload --------------------------------------------------------------------------

    def _picture(self, request: Request) -> Steps:
        yield Progress(0.1, "reading the picture")
        crop, given = request.params.get("crop"), bytes(request.buffers[0]) if request.buffers else b""
        if not given and crop is None:
            raise ValueError("no picture came with the request")
        picture = given or self._photograph()
        yield Progress(0.3, "running the model")
        snapshot = self.show(picture, name=request.text("name"), crop=crop)
        return Answer({"name": snapshot.meta["image"]["name"]}, snapshot=snapshot)

    def _photograph(self) -> Any:
        """The picture at hand, as it was given."""
        photograph = self.trace.photographs[0] if self.trace.photographs else None
        if photograph is None:
            raise ValueError(
                "only pixels that are ready for the model are known of this picture, so no other part of it can be shown; "
                "trace the picture's file: space.trace('photo.jpg')"
            )
        return photograph.picture

    def show(self, picture: Any, *, name: str = "", crop: Crop | None = None) -> Snapshot:
        """Trace another picture, or another part of one, with the same model and options, and show it from now on."""
        trace = self.space.trace(picture, crop=crop, **self._recorded())
        snapshot = capture(trace, title=name, **self.options)
        self.trace, self.intervened_trace = trace.image(0), None
        return self.shows(snapshot)

    def beside(self, picture: Any, *, name: str = "") -> Snapshot:
        """Trace another picture with the same model and options, for a source of its own."""
        trace = self.space.trace(picture, **self._recorded())
        made = capture(trace, title=name, **self.options)
        return LiveSource(trace.image(0), options=self.options, bank=self.bank).shows(made)

    def _other_picture(self, request: Request) -> Steps:
        """A second picture, whose states interventions may take."""
        given = bytes(request.buffers[0]) if request.buffers else b""
        if not given:
            raise ValueError("no picture came with the request")
        yield Progress(0.3, "running the model")
        other = self.beside(given, name=request.text("name"))
        return Answer({"name": other.meta["image"]["name"]}, other=other)

    def take_states_of(self, other: Source | None) -> None:
        """The second picture, whose states interventions may take; refused where they do not fit."""
        from classspace_widgets.interventions.plan import check_source

        if other is not None and not isinstance(other, LiveSource):
            raise TypeError(f"a second picture must be a Trace or a picture, got a {type(other).__name__}")
        if other is not None:
            own = self.trace
            check_source(other.trace, (own.n_blocks, own.n_tokens, int(own.increments[0].shape[-1])), own.grid)
        self.other = other

    def _sources(self, interventions: Sequence[Intervention]) -> dict[str, Trace]:
        """The traces that interventions name."""
        from classspace_widgets.interventions.spec import OTHER

        if self.other is not None:
            return {OTHER: self.other.trace}
        if any(getattr(one, "source", None) == OTHER for one in interventions):
            raise ValueError(
                "the intervention takes a state of the second picture, which is missing: choose one with the button "
                "'Second picture', or in Python explorer.other = 'photo.jpg'"
            )
        return {}

    def _word(self, request: Request) -> Steps:
        """One more class, in words: the picture is read again with it, without another pass."""
        words = request.text("words").strip()
        yield Progress(0.1, f"reading {words}")
        if self.lenses:
            raise ValueError(
                "a fitted lens reads the classes that it was fitted for; make the Explorer without lenses= to add classes"
            )
        space, before = self.space.with_words([words]), self.shown
        found = space.class_names.index(words)
        if before is None or space is self.space:
            return Answer({"class": found})
        self.trace, self.intervened_trace = space.reread(self.trace), None
        mode, kept = before.meta["payload"]["mode"], before.meta["classes"]["kept"]
        made = self.recapture(before, classes=None if mode == "all" else [found, *kept], payload=mode)
        return Answer({"class": found}, snapshot=self.shows(made))

    def model_name(self) -> str:
        """A name of the model that another model does not have: a hash of its weights."""
        return known_fingerprint(self.space.model)

    def model(self) -> bytes:
        """The model as a container, for the engine of a page; refused where a page could not run it."""
        return model_container(self.space)

    def embedding(self) -> Array:
        """The picture's embedding ``[T, D]``, from which a page's passes start."""
        start: Array = self.trace.increments[0][0].float().cpu().numpy()
        return start

    def increments(self) -> dict[str, Array]:
        """What a page of every class would carry of this picture in float16: quick to read, slow to check."""
        with torch.inference_mode(), full_precision(self.trace.output):
            return Reader(self.trace).increments()[0]

    def recapture(self, snapshot: Snapshot, *, classes: Sequence[int] | None, payload: PayloadMode) -> Snapshot:
        """The same picture with another payload; label, mask, objects and maps are kept."""
        meta, arrays = snapshot.meta, snapshot.arrays
        made = capture(
            self.trace,
            classes=classes,
            payload=payload,
            title=meta["image"]["name"],
            lenses=self.lenses,
            flow=bool(self.options.get("flow")),
            known=snapshot,
        )
        made.meta["image"]["label"] = meta["image"]["label"]
        made.meta["objects"] = meta["objects"]
        made.arrays |= {name: arrays[name] for name in ("mask", "maps") if name in arrays}
        if "maps" in meta:
            made.meta["maps"] = meta["maps"]
        return made

    # -- interventions ---------------------------------------------------------------------------------------------

    def _whatif(self, request: Request) -> Steps:
        """Another pass with interventions; the session then shows it beside the model's own pass."""
        from classspace_widgets.interventions import from_spec, trace_with

        interventions = from_spec(request.interventions())
        label, payload = request.text("label"), request.params.get("payload")
        labels = request.labels([repr(intervention) for intervention in interventions])
        yield Progress(0.2, "running the model")
        trace = trace_with(
            self.space, self.trace, interventions, sources=self._sources(interventions), **self._recorded()
        )
        yield Progress(0.7, "reading classes")
        # Attention of other tokens is fetched when it is looked at: it would be most of what the reader waits for.
        rows = [Reader(trace).output_token]
        intervened = self._captured(trace, interventions, label, labels, payload, rows=rows)
        self.intervened_trace = trace
        return Answer({"label": label}, intervened=intervened)

    def intervened(
        self,
        interventions: Any,
        *,
        label: str = "",
        payload: str | None = None,
        classes: Sequence[int] | None = None,
    ) -> Snapshot:
        """A snapshot of the same picture under interventions, to be shown beside it."""
        from classspace_widgets.interventions import trace_with

        given = list(interventions) if isinstance(interventions, (list, tuple)) else [interventions]
        trace = trace_with(self.space, self.trace, given, sources=self._sources(given), **self._recorded())
        labels = [repr(intervention) for intervention in given]
        return self._captured(trace, given, label, labels, payload, classes)

    def _captured(
        self,
        trace: Trace,
        interventions: Sequence[Intervention],
        label: str,
        labels: list[str],
        payload: str | None,
        classes: Sequence[int] | None = None,
        rows: Sequence[int] | None = None,
    ) -> Snapshot:
        """A pass with interventions as a snapshot that says what was done."""
        from classspace_widgets.interventions import to_spec
        from classspace_widgets.interventions.base import to_code

        options = {**self.options, "payload": payload or self.options.get("payload", "auto")}
        if classes is not None:
            options["classes"] = classes
        # The photograph is shown from the model's own pass.
        made = capture(replace(trace, photographs=()), rows=rows, **options)
        made.meta["intervention"] = {
            "label": label,
            "code": to_code(interventions),
            "spec": to_spec(interventions),
            "labels": labels,
        }
        return made

    def _recorded(self) -> dict[str, Any]:
        """What to record again: as much as the trace at hand has."""
        return {"attention": bool(self.trace.attention_weights), "heads": bool(self.trace.head_inputs)}

    # -- nearest states --------------------------------------------------------------------------------------------

    def _neighbours(self, request: Request) -> Steps:
        """Patches of the bank's pictures in the same state as a token, with small pictures of them."""
        from classspace_widgets.nearest import neighbours

        if self.bank is None:
            raise RuntimeError(
                "there is no state bank; take the snapshot with trace.snapshot(bank=state_bank(space, pictures))"
            )
        token = request.whole("token", 0, self.trace.n_tokens - 1)
        block = request.whole("block", 0, self.trace.n_blocks)
        yield Progress(0.1, "comparing states")
        found = neighbours(
            self.trace, token, self.bank, block=block, k=request.whole("k", 1, MAX_NEIGHBOURS, default=6)
        )
        return neighbours_answer(found)

    # -- sweeps and importance -------------------------------------------------------------------------------------

    def _sweep(self, request: Request) -> Steps:
        """Effect of an intervention at every (block, head) or (block, token) on the class logit."""
        from classspace_widgets.causal.sweeps import head_steps, token_steps

        kind, wanted = request.text("kind", "heads"), request.class_index(self.trace.n_classes)
        if kind not in ("heads", "tokens"):
            raise ValueError(f"kind must be 'heads' or 'tokens', got {kind!r}")
        options: dict[str, Any] = {"mode": request.text("mode")} if "mode" in request else {}
        steps = (head_steps if kind == "heads" else token_steps)(self.space, self.trace, wanted, **options)
        while True:
            try:
                yield Progress(next(steps), f"sweeping {kind}")
            except StopIteration as stop:
                sweep = stop.value
                break
        grid: GridMeta = {
            "kind": kind,
            "mode": sweep.mode,
            "class": wanted,
            "rows": list(sweep.blocks),
            "columns": list(sweep.places),
        }
        meta: PartMeta = {"kind": "part", "classes": {"kept": []}, "grid": grid}
        result = {**grid, "baseline": float(sweep.baseline[0])}
        return Answer(result, pack(meta, {"grid": sweep.effect[0].float().cpu().numpy()}))

    def _importance(self, request: Request) -> Steps:
        """Token importance: of one ``class`` as a map like any other, or of ``classes`` by block and head."""
        from classspace_widgets.explain import importance

        method, loss = request.text("method", "gradient"), request.text("loss", "logit")
        single, count = "classes" not in request, self.trace.n_classes
        wanted = [request.class_index(count)] if single else request.numbers("classes", count)
        yield Progress(0.2, "computing token importance")
        heads = not single and method in ("gradient", "direct")
        found = importance(self.trace, wanted, method=method, loss=loss, heads=heads)
        meta: PartMeta = {"kind": "part", "classes": {"kept": []}}
        # The pooled token of a mean-pooling model comes last, and has no importance of its own.
        n_tokens = Reader(self.trace).n_tokens
        if single:
            entry, values = importance_map(found, self.trace.class_names[wanted[0]])
            shown = np.full((1, n_tokens), np.nan, np.float32)
            shown[0, : len(values)] = values
            return Answer({"class": wanted[0], "name": entry["name"]}, pack({**meta, "maps": [entry]}, {"maps": shown}))
        shares = importance_shares(found)
        padded = np.full((*shares.shape[:-1], n_tokens), np.nan, np.float32)
        padded[..., : shares.shape[-1]] = shares
        meta["importance"] = {"method": method, "classes": wanted, "signed": bool(found.signed)}
        return Answer({"classes": wanted, "method": method}, pack(meta, {"importance": padded}))


def _read_attention(reader: Reader, request: Request, *, intervened: bool = False) -> Answer:
    """Attention weights of some rows, with the heads' readings of some classes there."""
    with torch.inference_mode():
        rows = request.numbers("rows", reader.n_tokens)
        classes = request.numbers("classes", reader.n_classes, default=[])
        arrays, attention = reader.attention(classes, rows)
    return Answer({"rows": rows}, pack({**_part(classes, intervened), **attention}, arrays))


def _part(classes: list[int], intervened: bool) -> PartMeta:
    meta: PartMeta = {"kind": "part", "classes": {"kept": classes}}
    if intervened:
        meta["intervened"] = True
    return meta
