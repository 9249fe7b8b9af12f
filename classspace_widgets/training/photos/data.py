"""Small labelled photographs for training: class folders, read into one array, packed into one small file, or as a data set.

The data folder has one folder for each class, with pictures of one size, and for lenses the table of boxes of `data.box_folder`.
``python -m classspace_widgets.training.photos.data pack FOLDER OUT`` writes them as one file of WebP pictures, small enough to
copy to another machine.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from classspace_widgets.data import box_folder
from classspace_widgets.data.coco import OutlinedPictures

SUFFIXES = {".jpeg", ".jpg", ".png", ".webp"}


@dataclass(frozen=True)
class Photographs:
    """Pictures of one size with their classes.

    Attributes
    ----------
    pixels : NDArray
        [N, 3, S, S], uint8.
    labels : NDArray
        [N], int64, indices into `folders`.
    folders : tuple of str
        Names of the class folders, sorted.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    folders: tuple[str, ...]

    def split(self, held_back: int) -> tuple[Photographs, Photographs]:
        """The training part, and the validation part: the last `held_back` pictures of each class by file name."""
        last = np.zeros(len(self.labels), bool)
        for label in range(len(self.folders)):
            last[np.flatnonzero(self.labels == label)[-held_back:]] = True
        return self._select(~last), self._select(last)

    def _select(self, chosen: NDArray[np.bool_]) -> Photographs:
        return Photographs(self.pixels[chosen], self.labels[chosen], self.folders)


def picture_files(folder: Path, per_class: int | None = None) -> list[tuple[str, Path]]:
    """(class folder, file) of every picture, sorted by name; at most the first `per_class` of each class."""
    found = []
    for part in sorted(part for part in folder.iterdir() if part.is_dir()):
        files = sorted(file for file in part.iterdir() if file.suffix.lower() in SUFFIXES)
        found += [(part.name, file) for file in files[:per_class]]
    return found


def data_set(
    folder: Path, classes: Mapping[str, str], *, held_back: int, validation: bool, each: int
) -> OutlinedPictures:
    """Some photographs of some classes, with the insides of their objects' boxes as masks.

    Parameters
    ----------
    folder : Path
        Of class folders, with ``boxes.csv``.
    classes : mapping of str to str
        Names of the classes, by their folders.
    held_back : int
        How many photographs of each class, the last by file name, are the validation part.
    validation : bool
        Whether to take them, or others.
    each : int
        How many of each class, the first by file name.
    """
    every = box_folder(folder, classes=list(classes))
    labels, chosen = np.array(every.labels), []  # type: NDArray[np.int64], list[int]
    for label in range(len(classes)):
        own = np.flatnonzero(labels == label)
        chosen += (own[-held_back:] if validation else own[:-held_back])[:each].tolist()
    paths, outlines = [every.paths[i] for i in chosen], [every.outlines[i] for i in chosen]
    return OutlinedPictures(paths, labels[chosen].tolist(), tuple(classes.values()), outlines, name="photographs")


def read(source: Path) -> Photographs:
    """Every photograph of a folder of class folders, or of a file written by `pack`."""
    if source.is_file():
        return _unpack(source)
    found = picture_files(source)
    if not found:
        raise ValueError(f"expected class folders with pictures in {source}, found none")
    names = tuple(sorted({name for name, _ in found}))
    pixels = []
    for _, file in tqdm(found, desc="reading photographs", mininterval=2):
        with Image.open(file) as picture:
            pixels.append(np.asarray(picture.convert("RGB")).transpose(2, 0, 1))
    return Photographs(np.stack(pixels), np.array([names.index(name) for name, _ in found]), names)


def pack(source: Path, out: Path, *, per_class: int | None = None, quality: int = 35) -> int:
    """Write the photographs of `source`, at most `per_class` of each class, into one .npz file of WebP pictures.

    Returns its size in bytes: about 0.85 kB for a picture of 64 x 64 pixels at the default quality.
    """
    found = picture_files(source, per_class)
    names = sorted({name for name, _ in found})
    parts = []
    for _, file in tqdm(found, desc="packing", mininterval=2):
        with Image.open(file) as picture:
            encoded = io.BytesIO()
            picture.convert("RGB").save(encoded, "WEBP", quality=quality, method=6)
            parts.append(encoded.getvalue())
    np.savez(
        out,
        data=np.frombuffer(b"".join(parts), np.uint8),
        ends=np.cumsum([len(part) for part in parts]),
        labels=np.array([names.index(name) for name, _ in found]),
        folders=np.array(names),
    )
    return out.stat().st_size


def _unpack(file: Path) -> Photographs:
    with np.load(file) as packed:
        data, ends = packed["data"].tobytes(), packed["ends"]
        labels, folders = packed["labels"].astype(np.int64), tuple(str(name) for name in packed["folders"])

    def decoded(start: int, end: int) -> NDArray[np.uint8]:
        with Image.open(io.BytesIO(data[start:end]), formats=["WEBP"]) as picture:
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)

    with ThreadPoolExecutor() as threads:
        pixels = list(threads.map(decoded, [0, *ends[:-1]], ends))
    return Photographs(np.stack(pixels), labels, folders)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["pack"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--per-class", type=int, help="most photographs of each class")
    given = parser.parse_args()
    print(pack(given.folder, given.out, per_class=given.per_class), "bytes")
