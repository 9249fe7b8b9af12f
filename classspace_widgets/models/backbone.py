"""What a space's model was made from, so that a file of its class embedding can say so and another session can make it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.models.build import build_timm
from classspace_widgets.models.bundled import load_bundled
from classspace_widgets.models.checkpoint import read_checkpoint
from classspace_widgets.models.convert.pretrained import load_pretrained

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn

SOURCES = ("timm", "pretrained", "bundled", "object")
"""A name of timm; a folder, file or name as `ClassSpace.from_pretrained` takes it; a bundled model; a model that was given."""


@dataclass(frozen=True)
class Backbone:
    """What a model was made from.

    Made by the functions of `ClassSpace` that build models; a space's own is ``space.backbone``.

    Attributes
    ----------
    source : str
        One of `SOURCES`.
    name : str
        By which ``source`` knows it; of a model that was given, the name of its class or configuration.
    options : dict
        Of timm, such as ``depth``.
    pretrained : bool
        Whether timm's published weights were loaded.
    checkpoint : str
        Name of the file of weights, without its folder; empty where there was none.
    image_size : tuple of int, or None
        Height and width that were asked for.
    """

    source: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    pretrained: bool = False
    checkpoint: str = ""
    image_size: tuple[int, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; options that JSON has no words for are left out and named, so that loading asks for the model."""
        found = asdict(self)
        found["image_size"] = None if self.image_size is None else list(self.image_size)
        plain = {name: value for name, value in self.options.items() if _is_plain(value)}
        found |= {"options": plain, "left_out": sorted(set(self.options) - set(plain))}
        return found

    def build(self, checkpoint: str | PathLike[str] | None = None) -> nn.Module:
        """Make the model again.

        Parameters
        ----------
        checkpoint : path, optional
            Of the weights, where the model was made with a file of them.

        Returns
        -------
        nn.Module
            With whatever classifier its source gives it.

        Raises
        ------
        ValueError
            Where the model or its weights have to be given.
        """
        if self.checkpoint and checkpoint is None:
            raise ValueError(
                f"it was made with {self.name} and weights from {self.checkpoint}; say where they are: "
                f"ClassSpace.load(path, checkpoint={self.checkpoint!r})"
            )
        if self.source == "timm":
            return headless_timm(self.name, self.pretrained, checkpoint, self.options, self.image_size)
        if self.source == "bundled":
            bundled: nn.Module = load_bundled(self.name)
            return bundled
        if self.source == "pretrained":
            return load_pretrained(self.name, **self.options)
        raise ValueError(
            f"it was made with a model that was given, a {self.name}; give it again: ClassSpace.load(path, backbone=model)"
        )


def headless_timm(
    name: str,
    pretrained: bool,
    checkpoint: str | PathLike[str] | None,
    options: dict[str, Any],
    image_size: tuple[int, ...] | None,
) -> nn.Module:
    """A timm model whose classifier does not matter, from a checkpoint with or without one."""
    if image_size is not None:
        options = {**options, "img_size": image_size[0] if len(set(image_size)) == 1 else image_size}
    if checkpoint is None or read_checkpoint(checkpoint)[0].classes is None:
        options = {"num_classes": 0, **options}
    model: nn.Module = build_timm(name, pretrained=pretrained, checkpoint=checkpoint, options=options)
    return model.eval()


def backbone_named(
    name: str | PathLike[str],
    *,
    pretrained: bool,
    checkpoint: str | PathLike[str] | None,
    image_size: tuple[int, ...] | None,
    options: dict[str, Any],
) -> tuple[nn.Module, Backbone]:
    """A model by the name that a person gives it: of timm, or as `ClassSpace.from_pretrained` takes it."""
    text = str(name)
    kind, _, variant = text.partition("/")
    bundled = kind == "bundled" and not Path(text).exists()
    if bundled or is_pretrained(text):
        known = () if bundled else ("num_heads",)
        given = {"checkpoint": checkpoint, **options}
        extra = [option for option, value in given.items() if value is not None and option not in known]
        if extra:
            raise TypeError(f"{extra[0]}= goes with the name of a timm model; {text} is taken as it is")
    if bundled:
        made = Backbone("bundled", variant or "default")
        return made.build(), made
    if is_pretrained(text):
        made = Backbone("pretrained", text, options)
        return made.build(), made
    made = Backbone("timm", text, options, pretrained and not checkpoint, _name(checkpoint), image_size)
    return made.build(checkpoint), made


def is_pretrained(name: str) -> bool:
    """Whether a name is one for `ClassSpace.from_pretrained`: a folder or file that is there, or a name of the hub."""
    of_hub = "/" in name and not name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    return of_hub or Path(name).expanduser().exists()


def _name(path: str | PathLike[str] | None) -> str:
    return "" if path is None else Path(path).name


def _is_plain(value: Any) -> bool:
    try:
        return bool(json.loads(json.dumps(value)) == (list(value) if isinstance(value, tuple) else value))
    except (TypeError, ValueError):
        return False
