"""What a live kernel answers to its views: more classes, attention rows, new pictures, interventions, sweeps.

Every answer is a generator, so that a long computation can report its progress and be cancelled between its steps: it
yields `Progress` and returns an `Answer`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.capture import capture
from classspace_widgets.capture.reader import Reader
from classspace_widgets.files import readable
from classspace_widgets.lens.lens import in_full
from classspace_widgets.lookup import whole_number
from classspace_widgets.snapshot.snapshot import Array, Snapshot, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

MOST_CLASSES = 50
"""Classes that may be asked for at once; views ask for the two that are looked at."""
MOST_STEPS = 100
"""Interventions of one what-if."""
MOST_LETTERS = 1000
"""Letters of a name or label."""


@dataclass(frozen=True)
class Progress:
    """How far a request is: ``fraction`` in [0, 1], and a word on what is being done."""

    fraction: float
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """What goes back to the browser: JSON data, a container of arrays, and what the session should now show."""

    result: dict[str, Any] = field(default_factory=dict)
    part: bytes | None = None
    snapshot: Snapshot | None = None
    variant: Snapshot | None = None


if TYPE_CHECKING:
    Steps = Generator[Progress, None, Answer]


class LiveSource:
    """Answers the requests of a session from a traced image and the model behind it.

    Parameters
    ----------
    trace : Trace
    image : int
        Which image of the trace the session shows.
    options : dict
        What `capture` was called with; used again for the next picture.
    """

    def __init__(self, trace: Trace, image: int = 0, *, options: dict[str, Any] | None = None) -> None:
        self.trace = trace
        self.image = image
        self.options = options or {}
        self.intervened_trace: Trace | None = None
        """The intervened pass that is shown beside ``trace``: its other classes are read from it."""

    @property
    def space(self) -> ClassSpace:
        """The model; raises where the trace was loaded from a file."""
        if self.trace.space is None:
            raise RuntimeError("this trace has no model behind it (it was loaded from a file); trace the picture again")
        space: ClassSpace = self.trace.space
        return space

    def answer(self, kind: str, params: dict[str, Any], buffers: Sequence[Any] = ()) -> Steps:
        """Start answering a request; see the module's docstring."""
        answers: dict[str, Callable[..., Steps]] = {
            "classes": self._classes,
            "attention": self._attention,
            "intervened classes": self._intervened_classes,
            "intervened attention": self._intervened_attention,
            "image": self._picture,
            "whatif": self._whatif,
            "sweep": self._sweep,
            "importance": self._importance,
        }
        if kind not in answers:
            raise ValueError(f"unknown request {kind[:60]!r}; expected one of {', '.join(sorted(answers))}")
        if not isinstance(params, dict):
            raise TypeError(f"what a request asks for must be a JSON object, got {type(params).__name__}")
        return answers[kind](params, buffers)

    def _classes(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading classes")
        return self._read_classes(Reader(self.trace, self.image), params, {})

    def _intervened_classes(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading classes of the intervened pass")
        return self._read_classes(Reader(self._intervened_trace(), 0), params, {"intervened": True})

    def _intervened_trace(self) -> Trace:
        if self.intervened_trace is None:
            raise RuntimeError("no intervened pass is at hand; apply the intervention again")
        return self.intervened_trace

    def _read_classes(self, reader: Reader, params: dict[str, Any], more: dict[str, Any]) -> Answer:
        with torch.inference_mode():
            classes = _asked(params, "classes", reader.n_classes)
            rows = _asked(params, "rows", reader.n_tokens, default=[reader.output_token])
            meta: dict[str, Any] = {"kind": "part", "classes": {"kept": classes}, **more}
            arrays: dict[str, Array] = {"raw": reader.raw(classes), "ranks": reader.ranks(classes)}
            heads = reader.attention(meta, classes, rows)
            arrays |= {name: array for name, array in heads.items() if name != "attention"}
        return Answer({"classes": classes}, pack(meta, arrays))

    def _attention(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading attention")
        self._require_attention()
        return self._read_attention(Reader(self.trace, self.image), params, {})

    def _intervened_attention(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading attention of the intervened pass")
        self._require_attention()
        return self._read_attention(Reader(self._intervened_trace(), 0), params, {"intervened": True})

    def _read_attention(self, reader: Reader, params: dict[str, Any], more: dict[str, Any]) -> Answer:
        with torch.inference_mode():
            rows = _asked(params, "rows", reader.n_tokens)
            classes = _asked(params, "classes", reader.n_classes, default=[])
            meta: dict[str, Any] = {"kind": "part", "classes": {"kept": classes}, **more}
            arrays = reader.attention(meta, classes, rows)
        return Answer({"rows": rows}, pack(meta, arrays))

    def _require_attention(self) -> None:
        if not self.trace.attention_weights:
            raise RuntimeError("this trace was taken without attention; take it with attention=True, heads=True")

    def _picture(self, params: dict[str, Any], buffers: Sequence[Any]) -> Steps:
        yield Progress(0.1, "reading the picture")
        picture = bytes(buffers[0]) if buffers else b""
        if not picture:
            raise ValueError("no picture came with the request")
        yield Progress(0.3, "running the model")
        snapshot = self.show(picture, name=_words(params, "name"))
        return Answer({"name": snapshot.meta["image"]["name"]}, snapshot=snapshot)

    def show(self, picture: Any, *, name: str = "") -> Snapshot:
        """Trace another picture with the same model and options, and show it from now on."""
        trace = self.space.trace(picture, **self._recorded())
        snapshot = capture(trace, title=name, **self.options)
        self.trace, self.image, self.intervened_trace = trace, 0, None
        snapshot.source = self
        return snapshot

    def increments(self) -> dict[str, Array]:
        """What a page of every class would carry of this picture in float16: quick to read, slow to check."""
        with torch.inference_mode(), in_full(self.trace.output):
            return Reader(self.trace, self.image).increments({})

    def recapture(self, snapshot: Snapshot, *, classes: Sequence[int] | None, payload: str) -> Snapshot:
        """The same picture with another payload; label, mask and objects are kept."""
        meta, arrays = snapshot.meta, snapshot.arrays
        made = capture(self.trace, image=self.image, classes=classes, payload=payload, title=meta["image"]["name"])
        made.meta["image"]["label"] = meta["image"]["label"]
        made.meta["objects"] = meta["objects"]
        made.arrays |= {name: arrays[name] for name in ("mask", "maps") if name in arrays}
        if "maps" in meta:
            made.meta["maps"] = meta["maps"]
        return made

    def _whatif(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        """Another pass with interventions; the session then shows it beside the baseline."""
        from classspace_widgets.interventions import from_spec, trace_with

        spec = params.get("spec")
        if not isinstance(spec, list) or not 1 <= len(spec) <= MOST_STEPS:
            raise ValueError(f"spec must be a list of 1 to {MOST_STEPS} interventions")
        interventions = from_spec(spec)
        label, payload = _words(params, "label"), params.get("payload")
        labels = params.get("labels", [repr(step) for step in interventions])
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise ValueError("labels must be a list of texts, one for each intervention")
        if len(labels) != len(interventions):
            raise ValueError(f"expected a label for each of {len(interventions)} interventions, got {len(labels)}")
        yield Progress(0.2, "running the model")
        trace = trace_with(self.space, self._alone(), interventions, **self._recorded())
        yield Progress(0.7, "reading classes")
        variant = self._variant(trace, interventions, label, payload)
        variant.meta["intervention"]["labels"] = [readable(name) for name in labels]
        self.intervened_trace = trace
        return Answer({"label": label}, variant=variant)

    def intervened(
        self, interventions: Any, *, label: str = "", payload: str | None = None, classes: Sequence[int] | None = None
    ) -> Snapshot:
        """A snapshot of the same picture under interventions, to be shown beside it."""
        from classspace_widgets.interventions import trace_with

        given = list(interventions) if isinstance(interventions, (list, tuple)) else [interventions]
        trace = trace_with(self.space, self._alone(), given, **self._recorded())
        return self._variant(trace, given, label, payload, classes)

    def _variant(
        self, trace: Trace, interventions: Any, label: str, payload: str | None, classes: Sequence[int] | None = None
    ) -> Snapshot:
        from classspace_widgets.interventions import to_code, to_spec

        options = {**self.options, "payload": payload or self.options.get("payload", "auto")}
        if classes is not None:
            options["classes"] = classes
        variant = capture(trace, **options)
        variant.meta["intervention"] = {
            "label": label,
            "code": to_code(interventions),
            "spec": to_spec(interventions),
            "labels": [repr(intervention) for intervention in interventions],
        }
        return variant

    def _alone(self) -> Trace:
        """The trace of the one picture shown."""
        if self.trace.n_images == 1:
            return self.trace
        one = slice(self.image, self.image + 1)
        return replace(
            self.trace,
            increments=[increment[one] for increment in self.trace.increments],
            output=self.trace.output[one],
            pictures=None if self.trace.pictures is None else self.trace.pictures[one],
            image_names=self.trace.image_names[one],
        )

    def _recorded(self) -> dict[str, Any]:
        """What to record again: as much as the trace at hand has."""
        return {"attention": bool(self.trace.attention_weights), "heads": bool(self.trace.head_inputs)}

    def _sweep(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        """Effect of an intervention at every (block, head) or (block, token) on the class logit."""
        from classspace_widgets.causal.sweeps import head_steps, token_steps

        kind, wanted = _words(params, "kind", "heads"), _asked_class(params, self.trace.n_classes)
        if kind not in ("heads", "tokens"):
            raise ValueError(f"kind must be 'heads' or 'tokens', got {kind!r}")
        options: dict[str, Any] = {"mode": _words(params, "mode")} if "mode" in params else {}
        steps = (head_steps if kind == "heads" else token_steps)(self.space, self._alone(), wanted, **options)
        while True:
            try:
                yield Progress(next(steps), f"sweeping {kind}")
            except StopIteration as stop:
                sweep = stop.value
                break
        grid = {
            "kind": kind,
            "mode": sweep.mode,
            "class": wanted,
            "rows": list(sweep.blocks),
            "columns": list(sweep.places),
        }
        meta = {"kind": "part", "classes": {"kept": []}, "grid": grid}
        result = {**grid, "baseline": float(sweep.baseline[0])}
        return Answer(result, pack(meta, {"grid": sweep.effect[0].float().cpu().numpy()}))

    def _importance(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        """Token importance: of one ``class`` as a map like any other, or of ``classes`` by block and head."""
        from classspace_widgets.explain import importance

        method, loss = _words(params, "method", "gradient"), _words(params, "loss", "logit")
        single, count = "classes" not in params, self.trace.n_classes
        wanted = [_asked_class(params, count)] if single else _asked(params, "classes", count)
        yield Progress(0.2, "looking for the evidence")
        heads = not single and method in ("gradient", "direct")
        found = importance(self._alone(), wanted, method=method, loss=loss, heads=heads)
        meta: dict[str, Any] = {"kind": "part", "classes": {"kept": []}}
        # The pooled token of a mean-pooling model comes last, and has no importance of its own.
        n_tokens = Reader(self.trace, self.image).n_tokens
        if single:
            entry, values = importance_map(found, self.trace.class_names[wanted[0]])
            shown = np.full((1, n_tokens), np.nan, np.float32)
            shown[0, : len(values)] = values
            return Answer({"class": wanted[0], "name": entry["name"]}, pack({**meta, "maps": [entry]}, {"maps": shown}))
        shares = _shares(found)
        told = np.full((*shares.shape[:-1], n_tokens), np.nan, np.float32)
        told[..., : shares.shape[-1]] = shares
        meta["importance"] = {"method": method, "classes": wanted, "signed": bool(found.signed)}
        return Answer({"classes": wanted, "method": method}, pack(meta, {"importance": told}))


def _shares(found: Any) -> Array:
    """A token importance by class, block and head, ``[K, L, H, T]``; L or H is 1 where a method does not split."""
    if found.by_head is not None:
        values = found.by_head[0]
    elif found.by_block is not None:
        values = found.by_block[0].unsqueeze(2)
    else:
        values = found.maps[0][:, None, None]
    shares: Array = values.float().cpu().numpy()
    return shares


def importance_map(found: Any, class_name: str, *, image: int = 0) -> tuple[dict[str, Any], Array]:
    """A token importance as a snapshot's extra map: its description, and its values ``[T']``."""
    values = found.maps[image, 0].float().cpu().numpy()
    prefix = int(found.prefix)
    entry = {
        "name": f"{found.method}:{int(found.classes[image, 0])}",
        "label": f"{found.method} importance for {class_name}",
        "class": int(found.classes[image, 0]),
        "signed": bool(found.signed),
        "note": "" if prefix == 0 else "Prefix tokens take part and are shown beside the picture.",
    }
    return entry, values


def _asked(params: dict[str, Any], name: str, count: int, *, default: list[int] | None = None) -> list[int]:
    """Numbers of classes or tokens that a request names, each once."""
    given = params.get(name)
    if given is None and default is not None:
        return default
    if not isinstance(given, list) or (not given and default is None):
        raise TypeError(f"{name} must be a list of whole numbers in 0..{count - 1}, got {str(given)[:60]}")
    found = list(dict.fromkeys(whole_number(value, name, 0, count - 1) for value in given))
    if name == "classes" and len(found) > MOST_CLASSES:
        raise ValueError(f"at most {MOST_CLASSES} classes can be asked for at once, got {len(found)}")
    return found or list(default or [])


def _asked_class(params: dict[str, Any], count: int) -> int:
    """The class that a request is about."""
    if "class" not in params:
        raise ValueError(f"the request must name a class: class must be a whole number in 0..{count - 1}")
    return whole_number(params["class"], "class", 0, count - 1)


def _words(params: dict[str, Any], name: str, default: str = "") -> str:
    """A short text in a request."""
    text = params.get(name, default)
    if not isinstance(text, str) or len(text) > MOST_LETTERS:
        raise ValueError(f"{name} must be a text of at most {MOST_LETTERS} letters")
    return readable(text)
