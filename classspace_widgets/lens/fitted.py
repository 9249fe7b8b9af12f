"""`FittedLens`: affine maps from every point of the residual stream to class scores, fitted on pictures.

The logit lens reads every token with the classifier's own map.  A fitted lens has a map of its own for every residual
stream point and for every kind of token: one for each prefix token, one for all image tokens.  Three lenses answer three
questions:

``logit``
    What the classifier would read here.
``translator`` (and ``probe``)
    What can be decoded here.
``jacobian``
    What of this token the answer goes on to use.
"""

from __future__ import annotations

import hashlib
import weakref
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lens.lens import full_precision, to_be_kept
from classspace_widgets.points import Points

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from torch import Tensor

    from classspace_widgets.lens.lens import ClassLens
    from classspace_widgets.lens.readout import Readout
    from classspace_widgets.points import Point

QUESTIONS = {
    "logit": "what the classifier would read here",
    "jacobian": "what of this token the answer goes on to use",
    "translator": "what can be decoded here",
    "probe": "what can be decoded here, by someone who knows the labels",
}
"""The question that each kind of lens answers."""

FITTED = tuple(kind for kind in QUESTIONS if kind != "logit")
"""Kinds of fitted lenses."""


class LensMismatchError(ValueError):
    """A lens was fitted on another model than the one it is asked to read."""


_moved: weakref.WeakKeyDictionary[FittedLens, dict[torch.device, FittedLens]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class FittedLens:
    """Affine maps from residual stream points to class scores, one for each kind of token.

    Made by `ClassSpace.fit_lens` and `FittedLens.load`.  A token's class score at point n is
    ``weights[n, kind] @ v + offsets[n, kind]``, and where `classifier` says so, at the points where the answer itself is
    read, the classifier's own reading.

    Attributes
    ----------
    kind : str
        ``"jacobian"``, ``"translator"`` or ``"probe"``.
    weights : Tensor [N, Q, K, D], float32
        N residual stream points (the embedding, then the stream after each increment), Q kinds of tokens (the prefix
        tokens one by one, then the image tokens), K classes.
    offsets : Tensor [N, Q, K], float32
    defined : Tensor [N, Q], bool
        False where no map exists, because nothing in the model reads those tokens there: scores are NaN.
    classifier : Tensor [N, Q], bool
        Where the classifier itself reads these tokens: the score is the logit lens's.
    logit : ClassLens or None
        The model's own lens; None where its head pools tokens by a module.
    classes : tuple of int
        Indices of the K classes.
    class_names : tuple of str
        Names of all C classes of the model.
    prefix : tuple of str
        Names of the prefix tokens.
    layout : str
        As in `Points`.
    n_pictures : int
        Number of pictures that it was fitted on.
    error : Tensor [N, Q], float32
        Standard error of each map over pictures, as a share of the map's own length (Frobenius norm); NaN where not known.
    model_name, fingerprint : str
        The model, and a hash of its weights.
    trust : dict of str to tuple of float
        How far it can be trusted at each block 0..L, by measure, where that was measured (`LensReport.attached`); those of
        the logit lens, for comparison, begin with ``"logit: "``. NaN where there is no value.
    """

    __repr__ = short_repr

    kind: str
    weights: Tensor = field(repr=False)
    offsets: Tensor = field(repr=False)
    defined: Tensor = field(repr=False)
    classifier: Tensor = field(repr=False)
    logit: ClassLens | None = field(repr=False)
    classes: tuple[int, ...]
    class_names: tuple[str, ...]
    prefix: tuple[str, ...]
    layout: str
    n_pictures: int
    error: Tensor = field(repr=False)
    model_name: str = ""
    fingerprint: str = ""
    trust: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False)

    @property
    def question(self) -> str:
        """What the lens answers, in words."""
        return QUESTIONS[self.kind]

    @property
    def points(self) -> Points:
        """The model's stream points."""
        return Points.of_increments(len(self.weights), self.layout)

    @property
    def n_classes(self) -> int:
        """Number of classes C of the model, of which the lens reads ``len(classes)``."""
        return len(self.class_names)

    @property
    def complete(self) -> bool:
        """Whether the lens reads all classes in their order, so that its ranks are defined."""
        return self.classes == tuple(range(self.n_classes))

    def require_complete(self, what: str) -> None:
        """Raise where the lens reads some classes only, and something needs all of them."""
        if not self.complete:
            raise ValueError(
                f"{what} need a lens of all {self.n_classes} classes, this one was fitted for {len(self.classes)}; fit it without "
                f"classes=: space.fit_lens({self.kind!r}, pictures)"
            )

    def kinds(self, tokens: Sequence[int]) -> list[int]:
        """Kinds of tokens, in ``0..Q-1``, of their indices: the prefix tokens one by one, then the image tokens."""
        return [min(token, len(self.prefix)) for token in tokens]

    def columns(self, classes: Sequence[int]) -> list[int]:
        """Places of classes, given by index, among those that the lens reads.

        Raises
        ------
        ValueError
            For a class that the lens was not fitted for.
        """
        place = {index: n for n, index in enumerate(self.classes)}
        missing = [self.class_names[c] for c in classes if c not in place]
        if missing:
            raise ValueError(
                f"this {self.kind} lens was fitted for {len(self.classes)} of {self.n_classes} classes, "
                f"{', '.join(missing[:3])} not among them; fit it for all: space.fit_lens({self.kind!r}, pictures)"
            )
        return [place[c] for c in classes]

    def logits(
        self, vectors: Tensor, point: Point, tokens: Sequence[int], classes: Sequence[int] | Tensor | None = None
    ) -> Tensor:
        """Class scores of vectors at a stream point.

        What a sublayer adds is read with the map of the residual stream point that it is added to, without the offset; where
        the classifier itself reads, as the logit lens reads it.

        Parameters
        ----------
        vectors : Tensor [..., n, D]
        point : Point
            Where they are in the stream.
        tokens : sequence of n int
            Which tokens they are, 0..T-1.
        classes : sequence of int, or Tensor [K], optional
            Only these classes.

        Returns
        -------
        Tensor [..., n, K], float32
            NaN where no map is defined.

        Raises
        ------
        ValueError
            For a class that the lens was not fitted for.
        """
        number = self.points.increment(point.stream, point.block)
        whole = self.points.is_sum(point.stream)
        if isinstance(classes, torch.Tensor) and self.complete:
            columns: Sequence[int] | Tensor | None = classes  # as they are: to look at them might be to wait for a GPU
        else:
            columns = None if classes is None else self.columns([int(c) for c in classes])
        vectors = vectors.to(self.weights.dtype)
        count = len(self.classes if classes is None else classes)
        scores = vectors.new_full((*vectors.shape[:-1], count), torch.nan)
        kinds = self.kinds(tokens)
        classifier: Tensor | None = None
        with full_precision(vectors):
            for kind in sorted(set(kinds)):
                if not bool(self.defined[number, kind]):
                    continue
                chosen = _as_slice([place for place, other in enumerate(kinds) if other == kind])
                if self.logit is not None and bool(self.classifier[number, kind]):
                    # Of all tokens at once, so that readings are the logit lens's bit for bit.
                    if classifier is None:
                        asked = self.classes if classes is None else classes
                        every = classes is None and self.complete
                        index = None if every else torch.as_tensor(asked, device=vectors.device)
                        classifier = self.logit.logits(vectors, index)
                    scores[..., chosen, :] = classifier[..., chosen, :]
                    continue
                weights, offsets = self.weights[number, kind], self.offsets[number, kind]
                if columns is not None:
                    weights, offsets = weights[columns], offsets[columns]
                found = vectors[..., chosen, :] @ weights.T
                scores[..., chosen, :] = found + offsets if whole else found
        return scores

    def answer(self, vectors: Tensor, point: Point, readout: Readout) -> Tensor:
        """Class scores ``[B, K]`` of the answer, if the residual stream ``[B, T, D]`` at a point were the last one.

        Where the answer is read from many tokens, each is read as an image token.

        Parameters
        ----------
        vectors : Tensor [B, T, D]
        point : Point
        readout : Readout
            How the model reads its answer.
        """
        read, weights = readout.vectors(vectors)
        tokens = [len(self.prefix) if readout.pools else readout.tokens[0]] * read.shape[1]
        return torch.einsum("n,bnc->bc", weights, self.logits(read, point, tokens))

    def at(self, point: Point, tokens: Sequence[int]) -> PointLens:
        """The lens at one stream point, for some tokens: it reads vectors as a `ClassLens` does."""
        return PointLens(self, point, tuple(tokens))

    @property
    def identity(self) -> str:
        """A short hash of the maps, by which what was measured through the lens knows it again."""
        digest = hashlib.sha256(f"{self.kind} {self.classes} {self.fingerprint}".encode())
        for part in (self.weights, self.offsets, self.defined, self.classifier):
            digest.update(part.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def undefined(self, point: Point) -> tuple[str, ...]:
        """Kinds of tokens that the lens cannot read at a stream point: names of prefix tokens, and ``"image"``."""
        number = self.points.increment(point.stream, point.block)
        names = (*self.prefix, "image")
        return tuple(name for name, known in zip(names, self.defined[number].tolist(), strict=True) if not known)

    def to(self, device: torch.device | str) -> FittedLens:
        """The same lens on another device, moved once; itself where it is there already."""
        device = torch.empty(0, device=device).device  # "cuda" is a numbered one
        if self.weights.device == device:
            return self
        moved = _moved.setdefault(self, {})
        if device not in moved:
            with to_be_kept():
                moved[device] = self._to(device)
        return moved[device]

    def _to(self, device: torch.device) -> FittedLens:
        logit = self.logit
        if logit is not None:
            logit = replace(logit, folded=logit.folded.to(device), offset=logit.offset.to(device))
        return replace(self, weights=self.weights.to(device), offsets=self.offsets.to(device), logit=logit)

    def check(self, class_names: Sequence[str], prefix: Sequence[str], points: Points, fingerprint: str = "") -> None:
        """Raise where the lens is not of a model with these classes, prefix tokens, points and weights.

        Raises
        ------
        LensMismatchError
            With what the lens was fitted on, and what it is asked to read.
        """
        own = f"this {self.kind} lens was fitted on {self.model_name or 'another model'}"
        remedy = f"fit one: space.fit_lens({self.kind!r}, pictures)"
        if (self.points.n_blocks, self.layout) != (points.n_blocks, points.layout):
            raise LensMismatchError(
                f"{own} with {self.points.n_blocks} {self.layout} blocks, this model has {points.n_blocks} {points.layout} ones; "
                f"{remedy}"
            )
        if self.prefix != tuple(prefix):
            raise LensMismatchError(
                f"{own} with the prefix tokens {list(self.prefix)}, this model has {list(prefix)}; {remedy}"
            )
        if self.class_names != tuple(class_names):
            different = [a for a, b in zip(self.class_names, class_names, strict=False) if a != b]
            raise LensMismatchError(
                f"{own} with {self.n_classes} classes{f' ({different[0]}, ...)' if different else ''}, this model has "
                f"{len(class_names)} others; {remedy}"
            )
        if fingerprint and self.fingerprint and fingerprint != self.fingerprint:
            raise LensMismatchError(
                f"{own} with other weights than this model's (hash {self.fingerprint}, now {fingerprint}): it has been trained on, "
                f"changed or loaded in another precision since; {remedy}"
            )

    def save(self, path: str | PathLike[str]) -> None:
        """Write the lens to a safetensors file, replaced whole.

        Parameters
        ----------
        path : path
            By habit ``.safetensors``.
        """
        from classspace_widgets.lens.file import save_lens

        save_lens(self, path)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: str = "cpu") -> FittedLens:
        """Read a lens that `save` wrote.

        Parameters
        ----------
        path : path
        device : str

        Returns
        -------
        FittedLens

        Raises
        ------
        FileNotFoundError, ValueError
            For a file that is not there, is damaged, is no lens, or is of a newer version.
        """
        from classspace_widgets.lens.file import load_lens

        return load_lens(path).to(device)


@dataclass(frozen=True, eq=False)
class PointLens:
    """A fitted lens at one stream point, for some tokens.

    Made by `FittedLens.at`.

    Attributes
    ----------
    lens : FittedLens
    point : Point
    tokens : tuple of n int
    """

    lens: FittedLens
    point: Point
    tokens: tuple[int, ...]

    def logits(self, vectors: Tensor, classes: Tensor | None = None) -> Tensor:
        """Class scores ``[..., n, D] -> [..., n, C]`` (or only ``classes`` ``[K]``)."""
        return self.lens.logits(vectors, self.point, self.tokens, classes)


def _as_slice(places: list[int]) -> slice | list[int]:
    """Places as a slice where they are next to each other: a view instead of a copy."""
    first, last = places[0], places[-1]
    return slice(first, last + 1) if last - first + 1 == len(places) else places
