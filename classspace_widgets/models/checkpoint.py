"""Weights out of checkpoints as training code writes them: nested, prefixed, beside an optimizer, a loss and settings."""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from os import PathLike

    from torch import Tensor, nn

    Weights = dict[str, Tensor]

MAX_DEPTH = 4
"""How deep weights are looked for inside dicts."""

AVERAGED = re.compile(r"ema|teacher|averag|swa(?![a-z])", re.IGNORECASE)
"""Names of averaged weights, which are those that were meant to be used, as timm has it."""

BESIDE = re.compile(r"(criterion|n_averaged|optimizer|scheduler|metrics?|(.*_)?loss(_.*)?|(train|val|test)_.*)(\.|$)")
"""Names beside a model's own that belong to training and not to a model."""

MARK = "patch_embed."
"""Every vision transformer of timm has a part of this name: what stands in front of it is a prefix."""


@dataclass(frozen=True)
class Candidate:
    """One set of weights in a checkpoint: where it stands, and the weights by the model's own names."""

    where: str
    weights: Weights

    @property
    def classes(self) -> int | None:
        """Number of classes of its classifier, if it has one."""
        head = self.weights.get("head.weight")
        return None if head is None or head.ndim != 2 else int(head.shape[0])

    def first_blocks(self, depth: int) -> Candidate:
        """The same weights without those of the blocks behind the first ``depth``."""
        numbers = {name: re.match(r"blocks\.(\d+)\.", name) for name in self.weights}
        kept = {name: self.weights[name] for name, found in numbers.items() if not found or int(found[1]) < depth}
        return Candidate(self.where, kept)


def read_checkpoint(path: str | PathLike[str]) -> list[Candidate]:
    """The sets of weights in a safetensors or torch file, averaged ones first.

    Torch files are read with ``weights_only=True``: nothing in a file is run, and objects in it that are no tensors
    (settings, callbacks, ...) are left out.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of Candidate
        At least one.

    Raises
    ------
    FileNotFoundError
    ValueError
        For a damaged file, or one without weights by name.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    found = _safetensors(path) if path.suffix == ".safetensors" else _torch_file(path)
    candidates = [one for where, weights in _sets(found) for one in _by_prefix(where, weights)]
    if not candidates:
        raise ValueError(
            f"{path.name} does not hold weights by name (a state_dict); a whole model in it is not unpickled because that runs "
            "code: save model.state_dict()"
        )
    return sorted(candidates, key=lambda one: (one.classes is None, AVERAGED.search(one.where) is None))


def load_weights(model: nn.Module, candidates: list[Candidate], source: str) -> None:
    """Load the weights that fit into a model; all of a set must fit.

    Where names or shapes differ, timm's own conversion of the model's family is tried: it resamples position
    embeddings of another grid, and knows other namings.

    Parameters
    ----------
    model : nn.Module
    candidates : list of Candidate
    source : str
        For messages.

    Raises
    ------
    ValueError
        Where no set of weights fits, with what is missing; or where several do and neither is an average of the other.
    """
    own = model.state_dict()
    fitting: list[tuple[str, Weights]] = []
    problems: list[tuple[int, str]] = []
    for candidate in candidates:
        weights = _without_training(candidate.weights, own)
        count, difference = _differences(weights, own)
        if count:
            converted = _converted(weights, model)
            if converted is not None and not _differences(converted, own)[0]:
                weights, count = converted, 0
        if count:
            problems.append((count, difference))
        else:
            fitting.append((candidate.where, weights))
    if not fitting:
        _, difference = min(problems, key=lambda one: one[0])
        headless = (
            all(not key.startswith("head.") for one in candidates for key in one.weights) and "head.weight" in own
        )
        raise ValueError(
            f"{source} does not fit {type(model).__name__}: {difference}; "
            + (
                "its classifier is not among the model's weights: pass num_classes=0, and class_embedding=[C, D]; "
                "or fit one on labelled pictures: ClassSpace.fit(name, 'pictures/', checkpoint=...)"
                if headless
                else "pass the options the model was trained with (num_classes=, img_size=, ...)"
            )
        )
    where, weights = fitting[0]
    rivals = [
        other for name, other in fitting[1:] if (AVERAGED.search(name) is None) == (AVERAGED.search(where) is None)
    ]
    if any(not torch.equal(weights[key], other[key]) for other in rivals for key in own):
        places = " and ".join(repr(name) for name, _ in fitting)
        raise ValueError(
            f"{source} holds several sets of weights that fit, {places}; save the one that you mean: "
            "torch.save(model.state_dict(), path)"
        )
    model.load_state_dict({key: weights[key] for key in own})


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path.name} is not a complete safetensors file: {error}") from error


class _Nothing:
    """Takes the place of an object that is no tensor: it is made, filled and asked nothing."""

    def __new__(cls, *_args: Any, **_options: Any) -> _Nothing:
        return object.__new__(cls)

    def __init__(self, *_args: Any, **_options: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass


class _Names:
    """Takes the place of an object that holds values by name (settings, a dict of another kind): only those are kept."""

    def __new__(cls, *_args: Any, **_options: Any) -> Any:
        return OrderedDict()


def _torch_file(path: Path) -> Any:
    first: Exception | None = None
    for stands_in in (None, _Names, _Nothing):
        try:
            unknown = [] if stands_in is None else torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
            # What holds numbers of its own making (numpy's) fits no dict.
            kinds: list[Any] = [(_Nothing if name.startswith("numpy") else stands_in, name) for name in unknown]
            with torch.serialization.safe_globals(kinds):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler raises whatever a damaged file leads it to
            first = first or error
    raise ValueError(
        f"{path.name} could not be read as plain tensors ({type(first).__name__}): it is damaged, or holds a whole "
        "model, which is not unpickled because that runs code; save model.state_dict() as safetensors"
    ) from first


def _sets(found: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, Weights]]:
    """Dicts that hold tensors by name, at any place."""
    if not isinstance(found, Mapping) or len(where) > MAX_DEPTH:
        return
    tensors = {key: value for key, value in found.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if tensors:
        yield ".".join(where), tensors
    for key, value in found.items():
        if isinstance(value, Mapping):
            yield from _sets(value, (*where, str(key)))


def _by_prefix(where: str, weights: Weights) -> Iterator[Candidate]:
    """The sets of weights in one dict, by what stands in front of the names of a vision transformer."""
    weights = {key.replace("_orig_mod.", ""): value for key, value in weights.items()}
    marked = (key.partition(MARK)[0] for key in weights if MARK in key)
    prefixes = dict.fromkeys(prefix for prefix in marked if prefix == "" or prefix.endswith("."))
    for prefix in prefixes:
        place = ".".join(part for part in (where, prefix.rstrip(".")) if part)
        yield Candidate(place, {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)})
    if not prefixes and len(weights) > 1:
        # Of another naming, which timm's conversion may know, or of another kind of model.
        while len(outer := {key.partition(".")[0] for key in weights}) == 1 and all("." in key for key in weights):
            weights = {key.removeprefix(f"{next(iter(outer))}."): value for key, value in weights.items()}
        yield Candidate(where, weights)


def _without_training(weights: Weights, own: Weights) -> Weights:
    """Weights without what training code keeps beside a model."""
    return {key: value for key, value in weights.items() if key in own or not BESIDE.match(key)}


def _converted(weights: Weights, model: nn.Module) -> Weights | None:
    """What timm's conversion makes of weights; None where it has none, or would change what the model computes."""
    convert: Any = getattr(sys.modules.get(type(model).__module__), "checkpoint_filter_fn", None)
    patches: Any = getattr(getattr(getattr(model, "patch_embed", None), "proj", None), "weight", None)
    given = weights.get("patch_embed.proj.weight")
    # It would leave out a layer in front of the classifier, and resample patches of another size.
    other_patches = given is not None and patches is not None and given.ndim == 4 and given.shape != patches.shape
    if convert is None or other_patches or any("pre_logits" in key for key in weights):
        return None
    try:
        with torch.no_grad():
            converted: Weights = convert(dict(weights), model)
    except Exception:  # it is made for the checkpoints that it knows
        return None
    return converted


def _differences(weights: Weights, own: Weights) -> tuple[int, str]:
    """How many of a model's weights are missing, unknown or of another shape, and which."""
    missing = sorted(set(own) - set(weights))
    extra = sorted(set(weights) - set(own))
    wrong = [k for k in own if k in weights and own[k].shape != weights[k].shape]
    shapes = [f"{k} {tuple(weights[k].shape)} instead of {tuple(own[k].shape)}" for k in wrong[:3]]
    parts = [
        f"{len(missing)} missing ({_first(missing)})" if missing else "",
        f"{len(extra)} unknown ({_first(extra)})" if extra else "",
        f"{len(wrong)} of another shape ({'; '.join(shapes)})" if wrong else "",
    ]
    return len(missing) + len(extra) + len(wrong), ", ".join(part for part in parts if part)


def _first(names: list[str]) -> str:
    return ", ".join(names[:3] + ["..."] * (len(names) > 3))
