"""Images of every common form, to pixels for the model and to pictures of what it saw."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.pictures import open_picture, shown_name, unreadable

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

MOST_PIXELS = 150_000_000
"""Pictures with more pixels are refused before they are decoded."""

MOST_UNEQUAL = 500
"""Narrower pictures are refused: resized to the model's size by their shorter side they would fill the memory."""

FAR = 30
"""How many times further out than any picture a ready tensor may lie before that is warned about."""

OVER = 0.05
"""How far a picture of 0..1 may go beyond it and is still taken for one: to resize it may do that."""

DARK, FLAT = 1 / 4, 1 / 16
"""A picture of 16 bits or floats that goes up to less of its range, or varies by less of it, is warned about."""

ACCEPTED = "a path, the bytes of a file, an open file, a PIL image, a NumPy array, a tensor, or a list of them"


def read_picture(source: Any, *, upright: bool = True) -> tuple[Image, str]:
    """An upright RGB picture, and its name, from a path, a file, its bytes, a PIL image or an array.

    EXIF orientation is applied, transparency is laid on white, and greyscale, palette, CMYK and 16-bit pictures are
    converted; of an animation the first frame is taken.

    Parameters
    ----------
    source : str, path, bytes, binary file, PIL.Image.Image or ndarray
        Files of the formats in `picture_files.FORMATS`. Arrays: ``[height, width]`` or ``[height, width, 1, 3 or 4]``,
        uint8, uint16 (0..65535), bool, or floats in 0..1. PIL images of 32 bits hold 0..255, 0..65535, or floats in 0..1.
    upright : bool
        Apply EXIF orientation; a picture with a mask stays as it is stored, as its mask does.

    Returns
    -------
    tuple of PIL.Image.Image and str

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        With what was expected, what came and what to do.

    Warns
    -----
    UserWarning
        Where the picture uses so little of its range that the model sees one shade: 12 bits of 16, for instance.

    Examples
    --------
    >>> picture, name = read_picture(np.zeros((4, 6), np.uint8))
    >>> picture.mode, picture.size
    ('RGB', (6, 4))
    """
    from PIL import Image

    if isinstance(source, np.ndarray):
        return _from_array(source), ""
    if isinstance(source, Image.Image):
        # `filename` may be there without a file behind it, or not be there at all.
        name = shown_name(Path(str(getattr(source, "filename", "") or "")).name)
        return _decoded(source, name, upright), name
    data, name = _file_of(source)
    return _decoded(open_picture(data, name), name, upright), name


def _file_of(source: Any) -> tuple[bytes, str]:
    """The bytes and the name of a file: from its path, from itself, or from its bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), ""
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no image file at {source}{_elsewhere(str(source), path)}")
        return path.read_bytes(), shown_name(path.name)
    if hasattr(source, "read"):
        data = source.read()
        if not isinstance(data, bytes):
            raise TypeError(
                f"an image file must be opened for bytes, open(path, 'rb'), but it gave {type(data).__name__}"
            )
        name = getattr(source, "name", "")
        return data, shown_name(Path(name).name) if isinstance(name, str) else ""
    hint = "; try list(images)" if isinstance(source, Iterable) else ""
    raise TypeError(f"images must be {ACCEPTED}, got {type(source).__name__}{hint}")


def _elsewhere(source: str, path: Path) -> str:
    """What to do about something that is no file."""
    if "://" in source:
        return "; download it first"
    return " (it is a folder; give its files)" if path.is_dir() else ""


def _decoded(picture: Image, name: str, upright: bool) -> Image:
    from PIL import ImageOps

    _check_size(picture.width, picture.height, name)
    # Colours of 16 bits are cut to 8 by Pillow itself, so that only the file tells.
    deep = any("16" in str(tile[3]) for tile in getattr(picture, "tile", ()))
    try:
        picture.load()
        if upright:
            picture = ImageOps.exif_transpose(picture)
    except Exception as error:  # a decoder may raise anything
        raise unreadable(name, error) from error
    shown = _rgb(picture, name)
    if deep and not picture.mode.startswith("I"):
        high = max(high for _, high in shown.getextrema())
        if high < DARK * 255:
            _warn_dark(high / 255, 65535)
    return shown


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"{name or 'the image'} has no pixels: its size is {width} x {height}")
    if width * height > MOST_PIXELS:
        raise ValueError(
            f"{name or 'the image'} is too large: {width} x {height} pixels, at most {MOST_PIXELS:,}; "
            "make it smaller first"
        )
    if max(width, height) > MOST_UNEQUAL * min(width, height):
        raise ValueError(
            f"{name or 'the image'} is too narrow: {width} x {height} pixels, at most 1 : {MOST_UNEQUAL}; crop it first"
        )


def _rgb(picture: Image, name: str) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return Image.fromarray(_grey(np.asarray(picture), name)).convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layer = picture.convert("LA" if picture.mode == "La" else "RGBA").convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")


def _grey(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """Grey values of a PIL image of 16 or 32 bits as uint8."""
    low, high = _limits(array, name)
    if array.dtype.itemsize == 2 or (array.dtype.kind == "f" and low >= 0 and high <= 1):
        return _eight_bits(array, name)
    deep = array.dtype.kind != "f" and high > 255
    if low < 0 or high > (65535 if deep else 255):
        raise ValueError(
            f"{name or 'the image'} holds {low:.6g}..{high:.6g}; a picture of 32 bits must hold 0..255, whole numbers in "
            "0..65535, or floats in 0..1; of its array make (array - array.min()) / (array.max() - array.min())"
        )
    if deep:
        return _eight_bits(array.astype(np.uint16), name)
    _warn_of_one_shade(array, 255)
    return array.round().astype(np.uint8)


def _eight_bits(array: np.ndarray[Any, Any], name: str) -> np.ndarray[Any, Any]:
    """An array of one of the accepted kinds as uint8."""
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind == "u" and size == 1:
        if array.max() == 1 and array.min() == 0:
            warnings.warn(
                "an image array of uint8 holds 0 and 1 alone, of 0..255, so the model sees it black; if these are a mask's "
                "values, or 0..1 cut to whole numbers, give (array * 255), or the floats",
                stacklevel=2,
            )
        return array
    if kind == "u" and size == 2:
        _warn_of_one_shade(array, 65535)
        return (array / 257.0).round().astype(np.uint8)
    if kind != "f":
        raise ValueError(
            f"an image array must be uint8, uint16, bool or float in 0..1, got {array.dtype}; "
            "if it holds 0..255, try array.astype(np.uint8)"
        )
    low, high = _limits(array, name)
    if low < 0 or high > 1:
        raise ValueError(
            f"an image array of floats must lie in 0..1, got {low:.3g}..{high:.3g}; divide by 255, or convert to uint8"
        )
    _warn_of_one_shade(array, 1)
    return (array.astype(np.float64) * 255.0).round().astype(np.uint8)


def _limits(array: np.ndarray[Any, Any], name: str) -> tuple[float, float]:
    if not np.isfinite(array).all():
        raise ValueError(f"{name or 'the image'} contains NaN or infinite pixels")
    return float(array.min()), float(array.max())


def _warn_of_one_shade(array: np.ndarray[Any, Any], full: int) -> None:
    """Warn of a picture that uses a sliver of its range ``0..full``; not of one that is all one colour."""
    low, high = float(array.min()), float(array.max())
    # No name and few digits, so that one warning is shown for all pictures of a data set.
    if low < high < DARK * full:
        _warn_dark(high / full, full)
    elif low < high and high - low < FLAT * full:
        warnings.warn(
            f"an image varies by less than a sixteenth of its range 0..{full}, so the model sees it nearly all in one grey; "
            "to stretch it: (array - lowest) / (largest - lowest), floats in 0..1",
            stacklevel=3,
        )


def _warn_dark(share: float, full: int) -> None:
    warnings.warn(
        f"an image goes up to about {share:.0e} of its range 0..{full}, so the model sees it nearly black; if that "
        "is as bright as such pictures get, divide by it: array / largest, floats in 0..1",
        stacklevel=4,
    )


def _from_array(array: np.ndarray[Any, Any]) -> Image:
    from PIL import Image

    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            "an image array must have shape [height, width] or [height, width, 1, 3 or 4], "
            f"got {array.shape}" + _array_hint(array)
        )
    _check_size(array.shape[1], array.shape[0], "")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return _rgb(Image.fromarray(np.ascontiguousarray(_eight_bits(array, ""))), "")


def _array_hint(array: np.ndarray[Any, Any]) -> str:
    if array.dtype == object:
        return " of objects; give a list of pictures: list(array)"
    return "; try array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""


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
    _told: list[str] = field(default_factory=list, repr=False, compare=False)

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
        from timm.data.transforms import ResizeKeepRatio, str_to_interp_mode

        embed: Any = model.patch_embed
        channels = input_channels(embed)
        built: Any = getattr(embed, "img_size", None)
        # A fine-tuned model may come without a configuration; ImageNet's defaults are timm's own choice then.
        config = resolve_data_config({}, model=model)
        said: Any = getattr(model, "pretrained_cfg", None) or {}
        given = {
            "mean": None if mean is None else _channel_values("mean", mean, channels),
            "std": None if std is None else _channel_values("std", std, channels),
            "crop_pct": None if crop is None else _crop_share(crop),
        }
        assumed = tuple(
            "crop" if part == "crop_pct" else part
            for part, value in given.items()
            if value is None and not said.get(part)
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
        transform: Any = create_transform(**config, is_training=False)
        for part in transform.transforms:
            if isinstance(part, ResizeKeepRatio):
                # Older timm resizes bilinearly here, whatever the configuration says.
                part.interpolation = str_to_interp_mode(config["interpolation"])
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
        if self.assumed and not self._told:
            self._told.append("warned")
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

    def pixels(self, source: Any) -> tuple[Tensor, str]:
        """Input ``[3, height, width]`` and name of one picture."""
        self.for_picture()
        picture, name = read_picture(source)
        tensor: Tensor = self.transform(self.of_channels(picture))
        return tensor, name

    def ready(self, tensor: Tensor | Prepared) -> Tensor:
        """A tensor that is input already, checked: ``[B, channels, height, width]``, also from a single picture's."""
        if isinstance(tensor, Prepared):
            return _ready(tensor.pixels, self)
        batch = _ready(tensor, self)
        check_values([batch], self)
        return batch

    def pictures(self, pixels: Tensor) -> np.ndarray[Any, Any]:
        """What the model saw: uint8 ``[B, height, width, 3]`` from its input ``[B, 3, height, width]``."""
        mean = pixels.new_tensor(self.mean).view(1, -1, 1, 1)
        std = pixels.new_tensor(self.std).view(1, -1, 1, 1)
        shown = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        shown = shown[..., [min(channel, shown.shape[-1] - 1) for channel in range(3)]]
        return np.asarray(shown.cpu().numpy())


@dataclass(frozen=True)
class Prepared:
    """Input of a model that was made or looked at before: taken as it is, and no picture is made of it for display.

    Attributes
    ----------
    pixels : Tensor [B, 3, height, width]

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> space.trace(Prepared(space.pixels(np.zeros((48, 64, 3), np.uint8)))).pictures is None
    True
    """

    pixels: Tensor


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


def prepare(images: Any, how: Preprocessing) -> tuple[Tensor, np.ndarray[Any, Any] | None, tuple[str, ...]]:
    """Input of a model from images of any form, and pictures of what it will see.

    Float tensors ``[3, height, width]`` or ``[B, 3, height, width]`` are taken as input that is ready (resized and
    normalised); uint8 tensors of these shapes, and everything else, are pictures and are preprocessed. In a list each
    means what it means alone.

    Parameters
    ----------
    images : path, bytes, file, PIL image, ndarray, tensor, or list (or iterator) of them
    how : Preprocessing

    Returns
    -------
    tuple
        Pixels ``[B, 3, height, width]``, float32; pictures ``[B, height, width, 3]``, uint8 (None of `Prepared` input);
        names of the B images.

    Warns
    -----
    UserWarning
        For ready tensors that look like pictures that were not normalised, and pictures that use a sliver of their range.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> pixels, pictures, names = prepare(np.zeros((48, 64, 3), np.uint8), space.preprocessing)
    >>> pixels.shape, pictures.shape
    (torch.Size([1, 3, 96, 96]), (1, 96, 96, 3))
    """
    pixels, names = prepare_input(images, how)
    return pixels, None if isinstance(images, Prepared) else how.pictures(pixels.float()), names


def prepare_input(images: Any, how: Preprocessing) -> tuple[Tensor, tuple[str, ...]]:
    """`prepare` without pictures for display: pixels ``[B, 3, height, width]`` and names of the B images.

    Parameters
    ----------
    images, how
        As in `prepare`.

    Returns
    -------
    tuple of Tensor [B, 3, height, width] and tuple of str

    Examples
    --------
    >>> pixels, names = prepare_input(["tests/none.png"], ClassSpace.bundled().preprocessing)
    Traceback (most recent call last):
    FileNotFoundError: there is no image file at tests/none.png
    """
    if isinstance(images, Prepared):
        return how.ready(images), ("",) * len(images.pixels)
    parts: list[Tensor] = []
    ready: list[Tensor] = []
    names: list[str] = []
    for one in _listed(images):
        if isinstance(one, torch.Tensor) and one.dtype != torch.uint8:
            parts.append(_ready(one, how))
            ready.append(parts[-1])
            names += [""] * len(parts[-1])
            continue
        for picture in _as_arrays(one) if isinstance(one, torch.Tensor) else [one]:
            tensor, name = how.pixels(picture)
            parts.append(tensor.unsqueeze(0))
            names.append(name)
    check_values(ready, how)
    sizes = {tuple(part.shape[1:]) for part in parts}
    if len(sizes) > 1:
        raise ValueError(f"tensors and pictures in a list must come to one shape, got {sorted(sizes)}")
    return torch.cat([part.to(parts[0].device) for part in parts]), tuple(names)


def _listed(images: Any) -> list[Any]:
    """Images one by one (tensors may hold several)."""
    if isinstance(images, np.ndarray) and images.ndim == 4:
        if images.shape[3] not in (1, 3, 4):
            hint = "; try array.transpose(0, 2, 3, 1)" if images.shape[1] in (1, 3, 4) else ""
            raise ValueError(
                f"an array of images must have shape [B, height, width, 1, 3 or 4], got {images.shape}{hint}"
            )
        images = list(images)
    elif isinstance(images, Iterator) and not hasattr(images, "read"):
        images = list(images)
    listed = list(images) if isinstance(images, (list, tuple)) else [images]
    if not listed:
        raise ValueError("expected at least one image, got none: the list is empty")
    return listed


def _as_arrays(pictures: Tensor) -> list[np.ndarray[Any, Any]]:
    """The pictures of a uint8 tensor as arrays ``[height, width, channels]``."""
    batch = _as_batch(pictures)
    if batch.shape[1] not in (1, 3, 4) or len(batch) < 1:
        raise ValueError(f"a uint8 tensor must have shape [B, 3, height, width], got {tuple(pictures.shape)}")
    return [one.permute(1, 2, 0).cpu().numpy() for one in batch]


def _as_batch(tensor: Tensor) -> Tensor:
    batch = tensor.unsqueeze(0) if tensor.ndim == 3 else tensor
    if batch.ndim != 4:
        hint = "; of a batch of images and labels give the images alone" if tensor.ndim <= 1 else ""
        raise ValueError(
            "a tensor of images must have shape [B, 3, height, width] or [3, height, width], "
            f"got {tuple(tensor.shape)}{hint}"
        )
    return batch


def _ready(tensor: Tensor, how: Preprocessing) -> Tensor:
    """A tensor that goes to the model as it is, its shape checked: ``[B, channels, height, width]``."""
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"ready input must be a tensor [B, channels, height, width], got {type(tensor).__name__}")
    batch = _as_batch(tensor)
    if not batch.is_floating_point():
        raise ValueError(f"a tensor of images must hold floats (ready input) or uint8 (pictures), got {batch.dtype}")
    channels, (height, width) = len(how.mean), how.size
    given = tuple(batch.shape[2:])
    if batch.shape[0] < 1 or batch.shape[1] != channels or 0 in given or (how.fixed and given != how.size):
        hint = "; try tensor.permute(0, 3, 1, 2)" if batch.shape[-1] == channels else ""
        expected = f"[B, {channels}, {height}, {width}]" if how.fixed else f"[B, {channels}, height, width]"
        raise ValueError(f"images must have shape {expected}, got {tuple(tensor.shape)}{hint}")
    if any(n % of for n, of in zip(given, how.multiple, strict=True)):
        raise ValueError(f"height and width of images must be multiples of {how.multiple}, got {given}")
    return batch


def check_values(batches: Sequence[Tensor], how: Any) -> None:
    """Ready pixels are finite, and lie where normalised ones lie; what is not on the CPU is not looked at.

    Parameters
    ----------
    batches : sequence of Tensor
        What was given together.
    how : Preprocessing, or anything else with a ``mean`` and ``std`` by channel

    Returns
    -------
    None
        It raises ``ValueError`` for values that are not finite, and warns about those that are far out or all in 0..1.

    Examples
    --------
    >>> how = ClassSpace.bundled().preprocessing
    >>> check_values([torch.full((3, 96, 96), torch.nan)], how)
    Traceback (most recent call last):
    ValueError: images contain NaN or infinite pixels
    """
    # Elsewhere, to look at values is to wait for the device.
    batches = [batch for batch in batches if batch.device.type == "cpu"]
    if not batches:
        return
    if not all(bool(torch.isfinite(batch).all()) for batch in batches):
        raise ValueError("images contain NaN or infinite pixels")
    usual = [(edge - mean) / std for mean, std in zip(how.mean, how.std, strict=True) for edge in (0, 1)]
    low, high = min(batch.min().item() for batch in batches), max(batch.max().item() for batch in batches)
    taken = f"a float tensor is taken as input that is ready, normalised to {min(usual):.1f}..{max(usual):.1f}"
    if max(-low, high) > FAR * max(map(abs, usual)):
        warnings.warn(
            f"{taken}, and this one holds {low:.3g}..{high:.3g}; pass pictures of 0..255 as uint8: tensor.to(torch.uint8)",
            stacklevel=3,
        )
    elif -OVER <= low < high <= 1 + OVER and (min(usual) < -2 * OVER or max(usual) > 1 + 2 * OVER):
        # No numbers here, so that one warning is shown for all pictures of a data set.
        warnings.warn(
            f"{taken}, and all values lie in 0..1 as in a picture that is not; pass pictures as uint8, "
            "(tensor * 255).round().to(torch.uint8), or normalise with the mean and std of space.preprocessing",
            stacklevel=3,
        )
