"""`Preprocessing`: how pictures become a model's input."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.images.crop import WHOLE, Crop, Photograph, cut, seen, within
from classspace_widgets.images.read import read_picture
from classspace_widgets.images.ready import Prepared, check_values, checked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor, nn

    from classspace_widgets.images.read import Pixels


def input_channels(embed: nn.Module) -> int:
    """Channels of the pictures that a patch embedding takes: those of its first convolution, where it has any.

    Parameters
    ----------
    embed : nn.Module
        A model's ``patch_embed``.

    Returns
    -------
    int
        3 where there is no convolution.

    Examples
    --------
    >>> input_channels(ClassSpace.bundled().model.patch_embed)
    3
    """
    convolutions = (module for module in embed.modules() if isinstance(module, torch.nn.Conv2d))
    return next((module.in_channels for module in convolutions), 3)


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become a model's input, as timm's configuration says.

    Made by `Preprocessing.of`; a space's own is ``space.preprocessing``.

    Attributes
    ----------
    size : tuple of int
        Height and width of the input, in pixels.
    mean, std : tuple of float
        Normalisation of every channel.
    transform : callable
        PIL image to tensor ``[channels, height, width]``.
    fixed : bool
        Whether the model takes only this size.
    multiple : tuple of int
        Where it takes others: what their height and width must be multiples of.
    crop : float
        Share of the resized picture's sides that the centre crop keeps, in (0, 1].
    crop_mode, interpolation : str
        As timm has them.
    assumed : tuple of str
        Which of ``mean``, ``std`` and ``crop`` neither the caller nor the model's configuration says: they are
        ImageNet's, and the first picture is met with a warning.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    transform: Any
    fixed: bool
    multiple: tuple[int, int] = (1, 1)
    crop: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    assumed: tuple[str, ...] = ()
    _warned: list[bool] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        model: nn.Module,
        *,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        crop: float | None = None,
        image_size: int | Sequence[int] | None = None,
    ) -> Preprocessing:
        """What a model's timm configuration says, or the caller; the size is the one the model was built with.

        Parameters
        ----------
        model : nn.Module
        mean, std : float, or one for each channel, optional
            Normalisation of pixels in 0..1: ``(pixel - mean) / std``.
        crop : float, optional
            Share of the resized picture's sides that the centre crop keeps, in (0, 1].
        image_size : int, or height and width, optional
            In pixels, for a model that takes several sizes (``dynamic_img_size``); others know theirs.

        Returns
        -------
        Preprocessing

        Raises
        ------
        ValueError
            For values out of range, or a size that the model does not take.

        Examples
        --------
        >>> import timm
        >>> how = Preprocessing.of(timm.create_model("test_vit"), mean=0.5, std=0.25, crop=1.0)
        >>> how.mean, how.std, how.crop, how.size
        ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), 1.0, (160, 160))
        """
        from timm.data import create_transform, resolve_data_config

        embed: Any = model.patch_embed
        channels = input_channels(embed)
        built: Any = getattr(embed, "img_size", None)
        # A fine-tuned model may come without a configuration; ImageNet's defaults are timm's own choice then.
        config = resolve_data_config({}, model=model)
        known: Any = getattr(model, "pretrained_cfg", None) or {}
        given = {
            "mean": None if mean is None else _channel_values("mean", mean, channels),
            "std": None if std is None else _channel_values("std", std, channels),
            "crop_pct": None if crop is None else _crop_share(crop),
        }
        assumed = tuple(
            "crop" if part == "crop_pct" else part
            for part, value in given.items()
            if value is None and not known.get(part)
        )
        config |= {part: value for part, value in given.items() if value is not None}
        fixed = not bool(getattr(model, "dynamic_img_size", False))
        if image_size is not None:
            built = _given_size(image_size, built, fixed, type(model).__name__)
        if built is not None:
            config["input_size"] = (channels, int(built[0]), int(built[1]))
        if len(config["mean"]) != channels:
            # timm's own configuration stays that of three channels, whatever in_chans the model was built with.
            config |= {part: (sum(config[part]) / len(config[part]),) * channels for part in ("mean", "std")}
        transform = _resizing(create_transform(**config, is_training=False), config["interpolation"])
        patch: Any = (1, 1) if fixed or getattr(embed, "dynamic_img_pad", True) else embed.patch_size
        _, height, width = config["input_size"]
        size, multiple = (int(height), int(width)), (int(patch[0]), int(patch[1]))
        if any(side % of for side, of in zip(size, multiple, strict=True)):
            raise ValueError(f"image_size must be a multiple of {multiple}, got {size}")
        return cls(
            size,
            tuple(config["mean"]),
            tuple(config["std"]),
            transform,
            fixed,
            multiple,
            float(config["crop_pct"]),
            str(config["crop_mode"]),
            str(config["interpolation"]),
            assumed,
        )

    def for_picture(self) -> Preprocessing:
        """This preprocessing, about to be used for a picture: warns, once, about what is assumed in it."""
        if self.assumed and not self._warned:
            self._warned.append(True)
            values = {"mean": _rounded(self.mean), "std": _rounded(self.std), "crop": self.crop}
            listed = ", ".join(f"{part}={values[part]}" for part in self.assumed)
            warnings.warn(
                f"the model has no configuration that says how its pictures are to be prepared, so ImageNet's is assumed: "
                f"{listed}; say what it was trained with (or that this is it): ClassSpace(model, {listed})",
                stacklevel=3,
            )
        return self

    def of_channels(self, picture: Image) -> Image:
        """An RGB picture with as many channels as the model takes."""
        if len(self.mean) not in (1, 3):
            raise ValueError(
                f"the model takes {len(self.mean)} channels, pictures have 1 or 3; "
                f"give a tensor [B, {len(self.mean)}, {self.size[0]}, {self.size[1]}]"
            )
        return picture if len(self.mean) == 3 else picture.convert("L")

    def pixels(self, source: Any, crop: Crop | None = None) -> tuple[Tensor, str, Photograph | None]:
        """Input ``[3, height, width]``, name, and the picture as it was given, of one picture or of a part of it.

        Of a part, the model sees as much as has its input's shape, and all of its shorter side. There is no third where it
        is unknown how the preprocessing cuts.
        """
        self.for_picture()
        picture, name = read_picture(source)
        picture.info.clear()  # EXIF and the like: it is kept for display, not for what a camera wrote into it.
        part, place = (picture, WHOLE) if crop is None else cut(picture, crop)
        how = self if crop is None else self._of_parts()
        tensor: Tensor = how.transform(how.of_channels(part))
        if how.crop_mode not in ("center", "squash", "border"):
            return tensor, name, None
        return tensor, name, Photograph(picture, within(place, seen(how, *part.size)))

    def _of_parts(self) -> Preprocessing:
        """The same for a part that a person chose: nothing more is cut from its shorter side."""
        from timm.data import create_transform

        mode = "squash" if self.crop_mode == "squash" else "center"
        if self.crop == 1.0 and mode == self.crop_mode:
            return self
        shape = (len(self.mean), *self.size)
        parts = {"mean": self.mean, "std": self.std, "interpolation": self.interpolation}
        transform = create_transform(shape, is_training=False, crop_pct=1.0, crop_mode=mode, **parts)
        return replace(self, transform=_resizing(transform, self.interpolation), crop=1.0, crop_mode=mode)

    def ready(self, tensor: Tensor | Prepared) -> Tensor:
        """A tensor that is input already, checked: ``[B, channels, height, width]``, also from a single picture's."""
        if isinstance(tensor, Prepared):
            return checked(tensor.pixels, self)
        batch = checked(tensor, self)
        check_values([batch], self)
        return batch

    def pictures(self, pixels: Tensor) -> Pixels:
        """What the model saw: uint8 ``[B, height, width, 3]`` from its input ``[B, 3, height, width]``."""
        mean = pixels.new_tensor(self.mean).view(1, -1, 1, 1)
        std = pixels.new_tensor(self.std).view(1, -1, 1, 1)
        shown = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        shown = shown[..., [min(channel, shown.shape[-1] - 1) for channel in range(3)]]
        return np.asarray(shown.cpu().numpy())


def _resizing(transform: Any, interpolation: str) -> Any:
    """A transform that resizes as it should: older timm is bilinear in one place, whatever its configuration says."""
    from timm.data.transforms import ResizeKeepRatio, str_to_interp_mode

    for part in transform.transforms:
        if isinstance(part, ResizeKeepRatio):
            part.interpolation = str_to_interp_mode(interpolation)
    return transform


def _channel_values(what: str, values: Any, channels: int) -> tuple[float, ...]:
    """A mean or standard deviation of every channel, for pixels in 0..1."""
    listed = [values] * channels if isinstance(values, (int, float)) else list(values)
    numbers = tuple(float(value) for value in listed)
    if len(numbers) != channels:
        raise ValueError(f"{what} must be one number, or one for each of the {channels} channels, got {len(numbers)}")
    low = 0.0 if what == "mean" else 1e-6
    if not all(low <= number <= 1 for number in numbers):
        hint = "; it is about pixels in 0..1: divide by 255" if max(numbers) > 1 else ""
        raise ValueError(f"{what} must lie in {'0..1' if what == 'mean' else '(0, 1]'}, got {numbers}{hint}")
    return numbers


def _crop_share(crop: Any) -> float:
    share = float(crop)
    if not 0 < share <= 1:
        hint = f"; in per cent: try {share / 100:g}" if 1 < share <= 100 else ""
        raise ValueError(f"crop must be a share in (0, 1] of the resized picture's sides, got {crop!r}{hint}")
    return share


def _given_size(image_size: Any, built: Any, fixed: bool, name: str) -> tuple[int, int]:
    """Height and width as the caller gives them, if the model takes them."""
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(int(side) for side in image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"image_size must be a number of pixels, or (height, width), got {image_size!r}")
    if fixed and built is not None and sides != tuple(int(side) for side in built):
        raise ValueError(
            f"{name} was built for pictures of {built[0]} x {built[1]} and takes no others, got image_size={sides}; build it "
            "with img_size=, or dynamic_img_size=True (ClassSpace.from_timm(name, image_size=...) does)"
        )
    return sides[0], sides[1]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in values)
