"""Pictures and masks placed alike, as a model's preprocessing cuts and scales them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.images.crop import resized
from classspace_widgets.masks import DatasetError

if TYPE_CHECKING:
    from torch import Tensor

    from classspace_widgets.images.preprocessing import Preprocessing


@dataclass(frozen=True)
class PixelTransform:
    """The model's own preprocessing, applied to picture and mask alike.

    Attributes
    ----------
    size : tuple of int
        Height and width in.
    crop : float
        Share of the resized picture that the centre crop keeps.
    crop_mode : str
        ``"center"``, or ``"squash"``: resize both sides, changing the aspect ratio.
    interpolation : str
        ``"bicubic"``, ``"bilinear"``, ``"nearest"`` or ``"lanczos"``.
    mean, std : tuple of float
    """

    size: tuple[int, int] = (224, 224)
    crop: float = 1.0
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @classmethod
    def of(cls, how: Preprocessing) -> PixelTransform:
        """What a model's preprocessing asks for."""
        how = how.for_picture()
        if how.crop_mode not in ("center", "squash"):
            raise DatasetError(
                f"crop mode {how.crop_mode!r} is not supported for pictures; give pixels [3, {how.size[0]}, {how.size[1]}]"
            )
        return cls(how.size, how.crop, how.crop_mode, how.interpolation, how.mean, how.std)

    def pixels(self, image: Any) -> Tensor:
        """A PIL image as pixels ``[3, height, width]``, float32 (one channel where the model takes one)."""
        from PIL import Image

        names = {"bicubic": "BICUBIC", "bilinear": "BILINEAR", "nearest": "NEAREST", "lanczos": "LANCZOS"}
        how = Image.Resampling[names.get(self.interpolation, "BICUBIC")]
        if len(self.mean) not in (1, 3):
            raise DatasetError(
                f"the model takes {len(self.mean)} channels, pictures have 1 or 3; give pixels "
                f"[{len(self.mean)}, {self.size[0]}, {self.size[1]}]"
            )
        placed = self._place(image.convert("RGB" if len(self.mean) == 3 else "L"), how)
        array = np.asarray(placed, dtype=np.float32).reshape(*self.size, len(self.mean)) / 255
        array = (array - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))

    def mask(self, mask: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """A mask ``[height, width]`` of the picture's size, placed as the picture is: no interpolation."""
        from PIL import Image

        return np.asarray(self._place(Image.fromarray(mask.astype(np.uint8)), Image.Resampling.NEAREST))

    def _place(self, image: Any, how: Any) -> Any:
        width, height = resized(self, *image.size)
        image = image if image.size == (width, height) else image.resize((width, height), how)
        top, left = round((height - self.size[0]) / 2), round((width - self.size[1]) / 2)
        return image.crop((left, top, left + self.size[1], top + self.size[0]))
