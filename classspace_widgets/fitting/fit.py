"""`fit_lens`, and `LensSums` behind it: fitting that streams over pictures, can be interrupted, and merges."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.files import parsed, refusing, replacing
from classspace_widgets.fitting.batches import batch_labels, batch_of, counted, picture_hash
from classspace_widgets.fitting.jacobian import JacobianSums
from classspace_widgets.fitting.passes import Target, kinds_read, residual_points, stream_values
from classspace_widgets.fitting.translator import TranslatorSums
from classspace_widgets.lens.fitted import FittedLens, LensMismatchError
from classspace_widgets.lens.readout import pools
from classspace_widgets.lookup import at_least, chosen_classes, own_classes
from classspace_widgets.models.fingerprint import known_fingerprint
from classspace_widgets.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from torch import Tensor
    from typing_extensions import Self

    from classspace_widgets.fitting.passes import FittedSpace

FEW_PICTURES = 8
"""Fewer pictures than this are warned about: maps fitted on two such sets hardly agree."""

SAVED_EVERY = 30.0
"""Seconds between two states of an interruptible fit on disk."""

UNSTABLE = 1.0
"""Standard error of a map, as a share of its length, from which it is warned about: on other pictures it might be any other."""

_SUMS: dict[str, type[JacobianSums] | type[TranslatorSums]] = {
    "jacobian": JacobianSums,
    "translator": TranslatorSums,
    "probe": TranslatorSums,
}


@dataclass
class LensSums:
    """A lens being fitted: sums over the pictures seen so far, which can be saved, merged with others, and solved.

    Made by `LensSums.start` and `LensSums.load`; `fit_lens` does all of it in one call.

    Attributes
    ----------
    space : FittedSpace
    kind : str
        ``"jacobian"``, ``"translator"`` or ``"probe"``.
    target : Target
    sums : JacobianSums or TranslatorSums
    pictures : int
        Pictures seen so far.
    ends : tuple of Tensor or str
        The first and the last of them, or a hash of each, by which a fit that goes on knows them again; empty at the start.

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> from classspace_widgets.scenes import make_scene
    >>> space = ClassSpace.bundled()
    >>> first, second = (LensSums.start(space, "translator", classes=["boat", "fish"]) for _ in range(2))
    >>> first.update([make_scene(seed).picture for seed in range(8)])
    >>> second.update([make_scene(seed).picture for seed in range(8, 16)])
    >>> first.merge(second).lens().n_pictures
    16
    """

    space: FittedSpace
    kind: str
    target: Target
    sums: JacobianSums | TranslatorSums
    pictures: int = 0
    ends: tuple[Tensor | str, ...] = ()

    @classmethod
    def start(cls, space: FittedSpace, kind: str, *, classes: Any = None) -> Self:
        """Nothing seen yet; parameters as in `fit_lens`."""
        if kind not in _SUMS:
            raise ValueError(f"kind must be one of {tuple(_SUMS)}, got {kind!r}; space.lens is the logit lens")
        chosen = chosen_classes(space.class_names, classes)
        every = range(len(space.class_names))
        kept = tuple(every) if chosen is None else tuple(dict.fromkeys(int(c) for c in chosen))  # type: ignore[arg-type]
        target = Target(space, kept, by_class=kind == "probe")
        points = space.adapter.points
        kinds = len(space.adapter.prefix) + 1
        # On the model's device: to move sums as large as these after every batch would take longer than the pass.
        size = (points.n_increments, kinds, target.rows, space.adapter.width)
        sums = _SUMS[kind].empty(*size, device=space.device)
        return cls(space, kind, target, sums)

    def update(self, images: Any, labels: Any = None) -> None:
        """Take in one batch of pictures: anything that `ClassSpace.trace` takes; for a probe with the class of each.

        Raises
        ------
        ValueError
            For a probe without labels.
        """
        pixels = self.space.pixels(images)
        if self.kind == "probe" and labels is None:
            raise ValueError("a probe needs labels: update(pictures, labels), with the class of each picture")
        classes = own_classes(self.space.class_names, labels, len(pixels)) if self.kind == "probe" else []
        before, wanted = self.pictures, torch.tensor(classes, device="cpu")
        self.space.in_chunks(pixels, lambda some: self._add(some, wanted[self.pictures - before :][: len(some)]))

    def _add(self, pixels: Tensor, classes: Tensor) -> None:
        """Take in pictures ``[B, 3, height, width]`` of one pass; their classes ``[B]`` only count for a probe."""
        if isinstance(self.sums, JacobianSums):
            self.sums.add(self.space, self.target, pixels)
        else:
            points = stream_values(residual_points(self.space, pixels), sequential=self.space.adapter.points.sequential)
            with torch.no_grad():
                targets = self._targets(points[-1], classes)
                self.sums.add(points, targets, len(self.space.adapter.prefix), first=self.pictures)
        self.pictures += len(pixels)
        self.ends = (self.ends[0] if self.ends else pixels[0].clone(), pixels[-1].clone())

    def _targets(self, last: Tensor, classes: Tensor) -> Tensor:
        """What the maps are to give, ``[B, R]``."""
        if self.kind == "probe":
            return self.target.of_labels(classes.to(last.device))
        return self.target.of(self.space, last)

    def merge(self, other: LensSums) -> LensSums:
        """The sums of both, which must be of other pictures and of the same model, kind and classes.

        Raises
        ------
        LensMismatchError
            Where they are not of the same model, kind and classes.
        """
        mine, theirs = self._identity(), other._identity()
        if mine != theirs:
            different = next(name for name in mine if mine[name] != theirs[name])
            raise LensMismatchError(
                f"both must be of the same {different}, got {mine[different]} and {theirs[different]}"
            )
        merged: Any = self.sums.merge(other.sums)  # type: ignore[arg-type]
        return LensSums(
            self.space, self.kind, self.target, merged, self.pictures + other.pictures, self.ends[:1] + other.ends[-1:]
        )

    def lens(self) -> FittedLens:
        """The lens that follows from the pictures seen so far.

        Raises
        ------
        ValueError
            Where there were none.

        Warns
        -----
        UserWarning
            Where there were fewer than 8, or where a map's standard error is as long as the map itself.
        """
        if self.pictures == 0:
            raise ValueError(
                f"a {self.kind} lens needs pictures to be fitted on, got none; give at least {FEW_PICTURES}"
            )
        if self.pictures < FEW_PICTURES:
            warnings.warn(
                f"this {self.kind} lens was fitted on {self.pictures} pictures; its maps would be others on other pictures. "
                f"Give at least {FEW_PICTURES}, better 64",
                stacklevel=2,
            )
        space, adapter = self.space, self.space.adapter
        if isinstance(self.sums, JacobianSums):
            maps, offsets, error = self.sums.solve(space, self.target)
        else:
            fitted, bias, error = self.sums.solve()
            maps, offsets = self.target.to_classes(space, fitted, bias)
        # What is defined is asked in Python, for which it must be on the CPU.
        answering = torch.tensor(kinds_read(adapter), device="cpu")
        defined = torch.ones(error.shape, dtype=torch.bool, device="cpu")
        classifier = torch.zeros(error.shape, dtype=torch.bool, device="cpu")
        if self.kind == "jacobian":
            # After the last attention nothing but the tokens that the answer is read from goes on to it.
            points = adapter.points
            for number in points.of_block(points.n_blocks):
                if points.is_sum(points[number].stream):
                    defined[points.increment(points[number].stream, points.n_blocks)] = answering
        # Where the answer itself is read, the classifier's own reading takes the place of a map.  A translator leads to the
        # whole answer, which is no reading of a single token where many are pooled.
        linear = adapter.pooling != "pool" and self.kind != "probe"
        if linear and (self.kind == "jacobian" or not pools(adapter.pooling)):
            classifier[-1] = answering
        lens = FittedLens(
            kind=self.kind,
            weights=maps.to(space.lens.dtype),
            offsets=offsets.to(space.lens.dtype),
            defined=defined,
            classifier=classifier,
            logit=space.lens if linear else None,
            classes=self.target.classes,
            class_names=tuple(space.class_names),
            prefix=tuple(adapter.prefix),
            layout=adapter.layout,
            n_pictures=self.pictures,
            error=error.float().cpu(),
            model_name=space.name,
            fingerprint=known_fingerprint(space.model),
        )
        if self.pictures >= FEW_PICTURES:
            _warn_of_unstable(lens, answering)
        return lens

    def save(self, path: str | PathLike[str]) -> None:
        """Write the sums to a safetensors file, replaced whole.

        Parameters
        ----------
        path : path
        """
        from safetensors.torch import save_file

        tensors = {name: getattr(self.sums, name) for name in _tensors(self.sums)}
        header = {"format": _FORMAT, "identity": json.dumps(self._identity()), "pictures": str(self.pictures)}
        header["ends"] = json.dumps([_mark(end) for end in self.ends])
        with replacing(path) as place:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, place, metadata=header)

    @classmethod
    def load(cls, path: str | PathLike[str], space: FittedSpace, kind: str, *, classes: Any = None) -> Self:
        """Read sums that `save` wrote, to go on with them; parameters as in `fit_lens`.

        Raises
        ------
        LensMismatchError
            Where they are of another model, kind or classes.
        FileNotFoundError, ValueError
            Where the file is not there, is damaged, or holds no sums.
        """
        from safetensors import safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no unfinished lens at {path}")
        made = cls.start(space, kind, classes=classes)
        with refusing(ValueError, f"{path.name} holds no unfinished lens, or is damaged"):
            with safe_open(path, framework="pt", device="cpu") as file:
                header = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
            if header.get("format") != _FORMAT:
                raise ValueError("it is a file of another kind")
            identity, pictures = parsed(header["identity"].encode()), int(header["pictures"])
            ends = tuple(str(end) for end in parsed(header["ends"].encode()))
            for name in _tensors(made.sums):
                if tensors[name].shape != getattr(made.sums, name).shape:
                    identity = {**identity, "classes": "another number"}
        for name, value in made._identity().items():
            if identity.get(name) != value:
                raise LensMismatchError(
                    f"{path.name} was begun with another {name} ({_shortly(identity.get(name))}, now {_shortly(value)}); go on "
                    "as it was begun, or name another file"
                )
        for name in _tensors(made.sums):
            setattr(made.sums, name, tensors[name].to(space.device))
        made.pictures, made.ends = pictures, ends
        if isinstance(made.sums, JacobianSums):
            made.sums.pictures = pictures
        return made

    def _identity(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "model": known_fingerprint(self.space.model),
            "classes": list(self.target.classes),
        }


_FORMAT = "classspace unfinished lens"


def fit_lens(
    space: FittedSpace,
    kind: str,
    pictures: Any,
    *,
    classes: Any = None,
    labels: Sequence[Any] | None = None,
    batch_size: int = 16,
    unfinished: str | PathLike[str] | None = None,
    progress: bool = True,
) -> FittedLens:
    """Fit a lens on pictures; without labels, but for a probe.

    Parameters
    ----------
    space : ClassSpace
    kind : str
        ``"jacobian"`` (what of a token the answer goes on to use), ``"translator"`` (what of the model's answer can be decoded
        from it) or ``"probe"`` (what of the true class can be decoded from it; needs labels).
    pictures : sequence of pictures, tensor, or data set
        Anything with a length whose slices or items are pictures; of items that are tuples or rows, the picture is taken.
        Some 60 suffice for stable maps on the models tried; fewer than 8 are warned about.
    classes : sequence of class, optional
        Only these classes, by index or name; ranks need all of them.
    labels : sequence of class, optional
        For a probe, where the pictures do not bring their own: the class of each, by index or name. Numbers of a data set with
        ``class_names`` of its own are matched by name.
    batch_size : int
        Pictures a pass.
    unfinished : path, optional
        A file that keeps the sums every 30 seconds: a fit that was interrupted goes on where it was, given the same pictures
        in the same order; the first and the last of those that were seen are looked at again. It is removed at the end.
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    FittedLens

    Raises
    ------
    TypeError, ValueError
        For an unknown kind or class, or without any picture.
    LensMismatchError
        Where ``unfinished`` was begun with another model, kind or classes.
    UnsupportedModelError
        Where the model's answer cannot be differentiated.

    Notes
    -----
    The Jacobian lens costs one pass forward and one back for each class, or for each of the D coordinates of the normalised
    state where there are more classes than those.  The translator costs the forward pass, and products of D x D for every
    point.

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> lens = fit_lens(ClassSpace.bundled("contrast"), "jacobian", ScenesDataset(8, seed=5), classes=["boat"])
    >>> lens.kind, lens.n_pictures, lens.undefined(lens.points[-1])
    ('jacobian', 8, ('image',))
    """
    at_least(batch_size, "batch_size", 1)
    count = counted(pictures)
    if unfinished is not None and Path(unfinished).is_file():
        fit = LensSums.load(unfinished, space, kind, classes=classes)
    else:
        fit = LensSums.start(space, kind, classes=classes)
    if fit.pictures > count:
        raise ValueError(
            f"{unfinished} was begun with {fit.pictures} pictures or more, now there are {count}; give the same ones, or name another "
            "file"
        )
    if fit.pictures:
        _check_seen(fit, pictures, unfinished)
    if labels is not None and len(labels) != count:
        raise ValueError(f"labels must be those of all {count} pictures, got {len(labels)}")
    saved = time.monotonic()
    with progress_bar(count, f"{kind} lens", "picture", show=progress) as bar:
        bar.update(min(fit.pictures, count))
        for start in range(fit.pictures, count, batch_size):
            end = min(start + batch_size, count)
            batch, own = batch_of(pictures, start, end)
            fit.update(batch, _classes(fit, pictures, own if labels is None else labels[start:end]))
            bar.update(min(batch_size, count - start))
            if unfinished is not None and time.monotonic() - saved > SAVED_EVERY:
                fit.save(unfinished)
                saved = time.monotonic()
    lens = fit.lens()
    if unfinished is not None:
        Path(unfinished).unlink(missing_ok=True)
    return lens


def _tensors(sums: JacobianSums | TranslatorSums) -> list[str]:
    """Names of the sums that are tensors."""
    return [f.name for f in fields(sums) if isinstance(getattr(sums, f.name), torch.Tensor)]


def _classes(fit: LensSums, pictures: Any, labels: Sequence[Any]) -> list[int] | None:
    """Classes of a batch for a probe; None for a lens that needs none."""
    return batch_labels(fit.space.class_names, pictures, labels) if fit.kind == "probe" else None


def _check_seen(fit: LensSums, pictures: Any, unfinished: Any) -> None:
    """Raise where the first picture of those seen, or the last, is another one now."""
    for number, known in zip((0, fit.pictures - 1), fit.ends, strict=True):
        if picture_hash(fit.space.pixels(batch_of(pictures, number, number + 1)[0])[0]) != _mark(known):
            raise ValueError(
                f"{unfinished} was begun with other pictures, or in another order: picture {number} is not the one that was seen; give "
                "the same ones, or name another file"
            )


def _mark(end: Tensor | str) -> str:
    return end if isinstance(end, str) else picture_hash(end)


def _warn_of_unstable(lens: FittedLens, answering: Tensor) -> None:
    """Warn where the error of a map is as long as the map, of image tokens or of those that the answer is read from."""
    wanted = answering.clone()
    wanted[-1] = True
    asked = wanted & lens.defined & ~lens.classifier & (lens.error >= UNSTABLE)
    if not bool(asked.any()):
        return
    points, kinds = lens.points, (*lens.prefix, "image")
    number, kind = asked.nonzero()[0].tolist()
    place = points[points.of_increment(number)[-1]].name
    warnings.warn(
        f"{int(asked.sum())} maps of this {lens.kind} lens have a standard error as long as the map itself, such as that of {kinds[kind]} "
        f"tokens at {place} ({float(lens.error[number, kind]):.1f} of its length): on other pictures they would be others. Fit on more "
        f"than {lens.n_pictures} pictures",
        stacklevel=3,
    )


def _shortly(value: Any) -> str:
    if isinstance(value, list) and len(value) > 3:
        return f"{len(value)} of them"
    return str(value)
