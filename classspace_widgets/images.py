"""Images of every common form, to pixels for the model and to pictures of what it saw."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL.Image import Image
    from torch import Tensor, nn

MOST_PIXELS = 150_000_000
"""Pictures with more pixels are refused before they are decoded."""

MOST_UNEQUAL = 500
"""Narrower pictures are refused: resized to the model's size by their shorter side they would fill the memory."""

FAR = 30
"""How many times further out than any picture a ready tensor may lie before that is warned about."""

ACCEPTED = "a path, a PIL image, a NumPy array, a tensor, or a list of them"


def read_picture(source: Any, *, upright: bool = True) -> tuple[Image, str]:
    """An upright RGB picture, and its name, from a path, file bytes, a PIL image or an array.

    EXIF orientation is applied, transparency is laid on white, and greyscale, palette, CMYK and 16-bit pictures are
    converted; of an animation the first frame is taken.

    Parameters
    ----------
    source : str, path, bytes, PIL.Image.Image or ndarray
        Arrays: ``[height, width]`` or ``[height, width, 1, 3 or 4]``, uint8, uint16, bool, or floats in 0..1.
    upright : bool
        Apply EXIF orientation; a picture with a mask stays as it is stored, as its mask does.

    Returns
    -------
    tuple of PIL.Image.Image and str

    Raises
    ------
    FileNotFoundError, TypeError, ValueError
        With what was expected, what came and what to do.

    Examples
    --------
    >>> picture, name = read_picture(np.zeros((4, 6), np.uint8))
    >>> picture.mode, picture.size
    ('RGB', (6, 4))
    """
    from PIL import Image, UnidentifiedImageError

    if isinstance(source, np.ndarray):
        return _from_array(source), ""
    if isinstance(source, Image.Image):
        # `filename` may be there without a file behind it, or not be there at all.
        name = Path(str(getattr(source, "filename", "") or "")).name
        return _decoded(source, name, upright), name
    if isinstance(source, (bytes, bytearray)):
        name, file = "", io.BytesIO(source)
    elif isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no image file at {source}{_elsewhere(str(source), path)}")
        name, file = path.name, io.BytesIO(path.read_bytes())
    else:
        raise TypeError(f"images must be {ACCEPTED}, got {type(source).__name__}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return _decoded(Image.open(file), name, upright), name
    except Image.DecompressionBombError as error:
        raise ValueError(f"{name or 'the image'} is too large: {error}; make it smaller first") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name or 'the data'} is not an image that Pillow can read") from None


def _elsewhere(source: str, path: Path) -> str:
    """What to do about something that is no file."""
    if "://" in source:
        return "; download it first"
    return " (it is a folder; give its files)" if path.is_dir() else ""


def _decoded(picture: Image, name: str, upright: bool) -> Image:
    from PIL import ImageOps

    _check_size(picture.width, picture.height, name)
    try:
        picture.load()
        return _rgb(ImageOps.exif_transpose(picture) if upright else picture)
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        raise ValueError(f"{name or 'the image'} is damaged or cut short: {error}") from error


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


def _rgb(picture: Image) -> Image:
    from PIL import Image

    if picture.mode.startswith("I;16") or picture.mode in ("I", "F"):
        return _from_array(_eight_bits(np.asarray(picture)))
    if picture.mode == "P" and "transparency" not in picture.info:
        return picture.convert("RGB")
    if picture.mode in ("P", "LA", "PA", "La", "RGBa", "RGBA") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Grey values of a 16-bit, 32-bit or float picture as uint8."""
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the image contains NaN or infinite pixels")
    high = float(values.max(initial=0.0))
    if array.dtype == np.uint16 or high > 255:
        values = values / 257.0
    elif np.issubdtype(array.dtype, np.floating) and high <= 1.0:
        values = values * 255.0
    return values.clip(0, 255).round().astype(np.uint8)


def _from_array(array: np.ndarray[Any, Any]) -> Image:
    from PIL import Image

    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ValueError(
            "an image array must have shape [height, width] or [height, width, 1, 3 or 4], "
            f"got {array.shape}" + _transposed_hint(array.shape)
        )
    _check_size(array.shape[1], array.shape[0], "")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise ValueError("the image contains NaN or infinite pixels")
        if array.min() < 0 or array.max() > 1:
            raise ValueError(
                f"an image array of floats must lie in 0..1, got {array.min():.3g}..{array.max():.3g}; "
                "divide by 255, or convert to uint8"
            )
        array = (array * 255.0).round().astype(np.uint8)
    elif array.dtype == np.uint16:
        array = _eight_bits(array)
    elif array.dtype != np.uint8:
        raise ValueError(
            f"an image array must be uint8, uint16, bool or float in 0..1, got {array.dtype}; "
            "if it holds 0..255, try array.astype(np.uint8)"
        )
    return _rgb(Image.fromarray(np.ascontiguousarray(array)))


def _transposed_hint(shape: tuple[int, ...]) -> str:
    return "; try array.transpose(1, 2, 0)" if len(shape) == 3 and shape[0] in (1, 3, 4) else ""


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

    def ready(self, tensor: Tensor) -> Tensor:
        """A tensor that is input already, checked: ``[B, channels, height, width]``, also from a single picture's."""
        return _ready(tensor, self)

    def pictures(self, pixels: Tensor) -> np.ndarray[Any, Any]:
        """What the model saw: uint8 ``[B, height, width, 3]`` from its input ``[B, 3, height, width]``."""
        mean = pixels.new_tensor(self.mean).view(1, -1, 1, 1)
        std = pixels.new_tensor(self.std).view(1, -1, 1, 1)
        shown = ((pixels * std + mean).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        shown = shown[..., [min(channel, shown.shape[-1] - 1) for channel in range(3)]]
        return np.asarray(shown.cpu().numpy())


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


def prepare(images: Any, how: Preprocessing) -> tuple[Tensor, np.ndarray[Any, Any], tuple[str, ...]]:
    """Input of a model from images of any form.

    Float tensors ``[3, height, width]`` or ``[B, 3, height, width]`` are taken as input that is ready (resized and
    normalised); uint8 tensors of these shapes, and everything else, are pictures and are preprocessed.

    Parameters
    ----------
    images : path, PIL image, ndarray, tensor, or list of them
    how : Preprocessing

    Returns
    -------
    tuple
        Pixels ``[B, 3, height, width]``, float32; pictures ``[B, height, width, 3]``, uint8; names of the B images.

    Examples
    --------
    >>> space = ClassSpace.bundled()
    >>> pixels, pictures, names = prepare(np.zeros((48, 64, 3), np.uint8), space.preprocessing)
    >>> pixels.shape, pictures.shape
    (torch.Size([1, 3, 96, 96]), (1, 96, 96, 3))
    """
    if isinstance(images, torch.Tensor):
        if images.dtype == torch.uint8:
            batch = _as_batch(images)
            if batch.shape[1] not in (1, 3, 4):
                raise ValueError(f"a uint8 tensor must have shape [B, 3, height, width], got {tuple(images.shape)}")
            return prepare([one.permute(1, 2, 0).cpu().numpy() for one in batch], how)
        pixels = _ready(images, how)
        return pixels, how.pictures(pixels.float()), ("",) * pixels.shape[0]
    if isinstance(images, np.ndarray) and images.ndim == 4:
        images = list(images)
    if not isinstance(images, (list, tuple)):
        images = [images]
    if not images:
        raise ValueError("expected at least one image, got an empty list")
    if all(isinstance(one, torch.Tensor) and one.dtype != torch.uint8 for one in images):
        parts = [_ready(one, how) for one in images]
        sizes = {tuple(part.shape[1:]) for part in parts}
        if len(sizes) > 1:
            raise ValueError(f"tensors in a list must have one shape, got {sorted(sizes)}")
        return prepare(torch.cat(parts), how)
    made = [how.pixels(one.permute(1, 2, 0).cpu().numpy() if isinstance(one, torch.Tensor) else one) for one in images]
    pixels = torch.stack([tensor for tensor, _ in made])
    return pixels, how.pictures(pixels), tuple(name for _, name in made)


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
    """A tensor that goes to the model as it is, checked: ``[B, channels, height, width]``."""
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
    if batch.device.type == "cpu":  # Elsewhere, to look at values is to wait for the device.
        _check_values(batch, how)
    return batch


def _check_values(batch: Tensor, how: Preprocessing) -> None:
    """Pixels are finite, and not far from where normalised ones lie."""
    if not bool(torch.isfinite(batch).all()):
        raise ValueError("images contain NaN or infinite pixels")
    usual = [(edge - mean) / std for mean, std in zip(how.mean, how.std, strict=True) for edge in (0, 1)]
    low, high = batch.min().item(), batch.max().item()
    if max(-low, high) > FAR * max(map(abs, usual)):
        warnings.warn(
            f"a float tensor is taken as input that is ready, normalised to {min(usual):.1f}..{max(usual):.1f}, and this "
            f"one holds {low:.3g}..{high:.3g}; pass pictures of 0..255 as uint8: tensor.to(torch.uint8)",
            stacklevel=3,
        )
