"""What a live kernel answers to its views: more classes, attention rows, new pictures, interventions, sweeps.

Every answer is a generator, so that a long computation can report its progress and be cancelled between its steps: it
yields `Progress` and returns an `Answer`.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.capture import capture
from classspace_widgets.capture.reader import Reader
from classspace_widgets.snapshot import Array, Snapshot, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from classspace_widgets.space import ClassSpace
    from classspace_widgets.trace import Trace


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
            raise ValueError(f"unknown request {kind!r}; expected one of {', '.join(sorted(answers))}")
        return answers[kind](params, buffers)

    def _classes(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading classes")
        return self._read_classes(Reader(self.trace, self.image), params, {})

    def _intervened_classes(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading classes of the intervened pass")
        return self._read_classes(Reader(self._intervened_trace(), 0), params, {"variant": True})

    def _intervened_trace(self) -> Trace:
        if self.intervened_trace is None:
            raise RuntimeError("no intervened pass is at hand; apply the intervention again")
        return self.intervened_trace

    def _read_classes(self, reader: Reader, params: dict[str, Any], more: dict[str, Any]) -> Answer:
        with torch.inference_mode():
            classes = [_checked(c, reader.n_classes, "class") for c in params["classes"]]
            meta: dict[str, Any] = {"kind": "part", "classes": {"kept": classes}, **more}
            arrays: dict[str, Array] = {"raw": reader.raw(classes), "ranks": reader.ranks(classes)}
            heads = reader.attention(meta, classes, params.get("rows") or [reader.output_token])
            arrays |= {name: array for name, array in heads.items() if name != "attention"}
        return Answer({"classes": classes}, pack(meta, arrays))

    def _attention(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading attention")
        self._require_attention()
        return self._read_attention(Reader(self.trace, self.image), params, {})

    def _intervened_attention(self, params: dict[str, Any], _buffers: Sequence[Any]) -> Steps:
        yield Progress(0.0, "reading attention of the intervened pass")
        self._require_attention()
        return self._read_attention(Reader(self._intervened_trace(), 0), params, {"variant": True})

    def _read_attention(self, reader: Reader, params: dict[str, Any], more: dict[str, Any]) -> Answer:
        with torch.inference_mode():
            rows = [_checked(t, reader.n_tokens, "token") for t in params["rows"]]
            classes = [_checked(c, reader.n_classes, "class") for c in params.get("classes", [])]
            meta: dict[str, Any] = {"kind": "part", "classes": {"kept": classes}, **more}
            arrays = reader.attention(meta, classes, rows)
        return Answer({"rows": rows}, pack(meta, arrays))

    def _require_attention(self) -> None:
        if not self.trace.attention_weights:
            raise RuntimeError("this trace was taken without attention; take it with attention=True, heads=True")

    def _picture(self, params: dict[str, Any], buffers: Sequence[Any]) -> Steps:
        from PIL import Image

        yield Progress(0.1, "reading the picture")
        picture = Image.open(io.BytesIO(bytes(buffers[0]))) if buffers else None
        if picture is None:
            raise ValueError("no picture came with the request")
        yield Progress(0.3, "running the model")
        snapshot = self.show(picture, name=str(params.get("name", "")))
        return Answer({"name": snapshot.meta["image"]["name"]}, snapshot=snapshot)

    def show(self, picture: Any, *, name: str = "") -> Snapshot:
        """Trace another picture with the same model and options, and show it from now on."""
        trace = self.space.trace(picture, **self._recorded())
        snapshot = capture(trace, title=name, **self.options)
        self.trace, self.image, self.intervened_trace = trace, 0, None
        snapshot.source = self
        return snapshot

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

        interventions = from_spec(params["spec"])
        yield Progress(0.2, "running the model")
        trace = trace_with(self.space, self._alone(), interventions, **self._recorded())
        yield Progress(0.7, "reading classes")
        label = str(params.get("label", ""))
        variant = self._variant(trace, interventions, label, params.get("payload"))
        if "labels" in params:
            variant.meta["intervention"]["labels"] = [str(name) for name in params["labels"]]
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
            "labels": [intervention.to_code() for intervention in interventions],
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
        from classspace_widgets.causal import head_steps, token_steps

        kind, wanted = str(params.get("kind", "heads")), int(params["class"])
        if kind not in ("heads", "tokens"):
            raise ValueError(f"kind must be 'heads' or 'tokens', got {kind!r}")
        options = {"mode": params["mode"]} if "mode" in params else {}
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

        method, loss = str(params.get("method", "gradient")), str(params.get("loss", "logit"))
        wanted = [int(c) for c in params.get("classes") or [params["class"]]]
        single = "classes" not in params
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


def _checked(value: Any, count: int, what: str) -> int:
    index = int(value)
    if not 0 <= index < count:
        raise ValueError(f"{what} must be in 0..{count - 1}, got {index}")
    return index
