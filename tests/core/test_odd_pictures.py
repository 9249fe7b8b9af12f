"""Pictures as they are met: each kind gives the right values, or is refused in words that say what to do."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from classspace_widgets import ClassSpace
from classspace_widgets.data.sets import IMAGE_SUFFIXES
from classspace_widgets.images import Prepared, read_picture
from classspace_widgets.pictures import FORMATS
from core.families import build

# Four flat colours, in blocks of 8 x 16 pixels: what survives lossy formats.
COLOURS = np.array([[[200, 40, 60], [20, 180, 90]], [[10, 20, 230], [250, 240, 200]]], np.uint8)
PAINTED = COLOURS.repeat(8, axis=0).repeat(16, axis=1)
GREY = PAINTED[..., 0]
"""One channel: 200 and 20 above 10 and 250."""


@pytest.fixture(scope="module")
def plain():
    return ClassSpace(build("ViT"))


def rgb(grey):
    return np.stack([grey] * 3, axis=-1)


def picture(mode="RGB"):
    return Image.fromarray(PAINTED).convert(mode)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def with_alpha(alpha):
    """The picture with one opacity all over, and what it is on white, worked out by hand."""
    image = picture().convert("RGBA")
    image.putalpha(alpha)
    return image, PAINTED * (alpha / 255) + 255 * (1 - alpha / 255)


def flat(mode, values):
    return Image.new(mode, (4, 2), values)


def palette(transparency=None):
    """The left colours of the picture, from a palette of 0: red, 1: blue."""
    image = Image.fromarray(np.array([[0], [1]], np.uint8).repeat(8, axis=0).repeat(16, axis=1)).convert("P")
    image.putpalette([200, 40, 60, 10, 20, 230])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def frames():
    first, second = Image.fromarray(PAINTED), Image.fromarray(255 - PAINTED)
    return first, {"save_all": True, "append_images": [second], "duration": 50}


def clear(*coloured):
    """The left half of the picture in two rows of flat colours."""
    return np.array(coloured, np.float64)[:, None].repeat(8, axis=0).repeat(16, axis=1)


class PathLike:
    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


def saved(folder, name="a.png", data=None):
    path = Path(folder) / name
    path.write_bytes(encoded(picture(), "PNG") if data is None else data)
    return path


def png(width, height, bits, rows):
    """A PNG in colours, written by hand: Pillow writes none of 16 bits."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_png(array):
    return png(array.shape[1], array.shape[0], 16, b"".join(b"\0" + row.astype(">u2").tobytes() for row in array))


def bomb():
    """A PNG that says it has 60,000 x 60,000 pixels, in a few bytes."""
    return png(60_000, 60_000, 8, bytes(100))


half_image, half_colours = with_alpha(128)

# Source (from a folder), what it shows, and how far values may be off.
SHOWN = {
    "PNG": (lambda _: encoded(picture(), "PNG"), PAINTED, 0),
    "JPEG": (lambda _: encoded(picture(), "JPEG", quality=98, subsampling=0), PAINTED, 4),
    "JPEG, progressive": (lambda _: encoded(picture(), "JPEG", quality=98, subsampling=0, progressive=True), PAINTED, 4),
    "JPEG, grey": (lambda _: encoded(Image.fromarray(GREY), "JPEG", quality=98), rgb(GREY), 4),
    "JPEG, several pictures (MPO)": (lambda _: encoded(picture(), "MPO", quality=98, subsampling=0, save_all=True, append_images=[flat("RGB", 0)]), PAINTED, 4),
    "JPEG 2000": (lambda _: encoded(picture(), "JPEG2000"), PAINTED, 0),
    "WebP": (lambda _: encoded(picture(), "WEBP", lossless=True), PAINTED, 0),
    "BMP": (lambda _: encoded(picture(), "BMP"), PAINTED, 0),
    "TIFF": (lambda _: encoded(picture(), "TIFF", compression="tiff_lzw"), PAINTED, 0),
    "TIFF, several pages": (lambda _: encoded(frames()[0], "TIFF", **{k: v for k, v in frames()[1].items() if k != "duration"}), PAINTED, 0),
    "PPM": (lambda _: encoded(picture(), "PPM"), PAINTED, 0),
    "PGM": (lambda _: encoded(Image.fromarray(GREY), "PPM"), rgb(GREY), 0),
    "PBM": (lambda _: encoded(Image.fromarray(GREY > 100), "PPM"), rgb((GREY > 100) * 255), 0),
    "GIF, animated": (lambda _: encoded(frames()[0].quantize(4), "GIF", save_all=True, append_images=[flat("P", 0).resize((32, 16))]), PAINTED, 0),
    "WebP, animated": (lambda _: encoded(frames()[0], "WEBP", lossless=True, **frames()[1]), PAINTED, 0),
    "PNG, animated": (lambda _: encoded(frames()[0], "PNG", **frames()[1]), PAINTED, 0),
    "PNG, interlaced by name only": (lambda d: saved(d, "A.PNG"), PAINTED, 0),
    "PNG called JPEG": (lambda d: saved(d, "a.jpg"), PAINTED, 0),
    "no suffix": (lambda d: saved(d, "picture"), PAINTED, 0),
    "greyscale": (lambda _: Image.fromarray(GREY), rgb(GREY), 0),
    "greyscale, transparent": (lambda _: Image.merge("LA", [Image.fromarray(GREY), flat("L", 128).resize((32, 16))]), rgb(GREY * (128 / 255) + 127), 1),
    "greyscale, one shade transparent": (lambda _: encoded(Image.fromarray(GREY), "PNG", transparency=200), rgb(np.where(GREY == 200, 255, GREY)), 0),
    "greyscale, premultiplied": (lambda _: Image.merge("LA", [Image.fromarray(GREY), flat("L", 128).resize((32, 16))]).convert("La"), rgb(GREY * (128 / 255) + 127), 3),
    "transparent": (lambda _: half_image, half_colours, 1),
    "transparent, premultiplied": (lambda _: half_image.convert("RGBa"), half_colours, 3),
    "transparent PNG": (lambda _: encoded(half_image, "PNG"), half_colours, 1),
    "colour that is transparent": (lambda _: encoded(picture(), "PNG", transparency=(200, 40, 60)), np.where((PAINTED == [200, 40, 60]).all(-1, keepdims=True), 255, PAINTED), 0),
    "palette": (lambda _: palette(), clear([200, 40, 60], [10, 20, 230]), 0),
    "palette, one entry transparent": (lambda _: palette(1), clear([200, 40, 60], [255] * 3), 0),
    "palette, opacity by entry": (lambda _: encoded(palette(b"\x80\xff"), "PNG"), clear([227, 147, 157], [10, 20, 230]), 1),
    "palette GIF": (lambda _: encoded(palette(), "GIF"), clear([200, 40, 60], [10, 20, 230]), 0),
    "bits": (lambda _: Image.fromarray(GREY > 100), rgb((GREY > 100) * 255), 0),
    "CMYK": (lambda _: flat("CMYK", (0, 255, 255, 0)), np.full((2, 4, 3), [255, 0, 0]), 0),
    "CMYK with black": (lambda _: flat("CMYK", (0, 0, 0, 200)), np.full((2, 4, 3), 55), 1),
    "CMYK JPEG": (lambda _: encoded(flat("CMYK", (0, 255, 255, 0)), "JPEG", quality=98), np.full((2, 4, 3), [255, 0, 0]), 6),
    "YCbCr": (lambda _: flat("YCbCr", (76, 85, 255)), np.full((2, 4, 3), [255, 0, 0]), 2),
    "HSV": (lambda _: flat("HSV", (85, 255, 200)), np.full((2, 4, 3), [0, 200, 0]), 1),
    "LAB": (lambda _: flat("LAB", (255, 128, 128)), np.full((2, 4, 3), 255), 1),
    "16 bits": (lambda _: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), rgb(GREY), 0),
    "16 bits, TIFF": (lambda _: encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "TIFF"), rgb(GREY), 0),
    "16 bits, other byte order": (lambda _: Image.frombytes("I;16B", (32, 16), (GREY.astype(">u2") * 257).tobytes()), rgb(GREY), 0),
    "16 bits, in colours": (lambda _: deep_png(PAINTED.astype(np.uint16) * 257), PAINTED, 0),
    "32 bits holding 16": (lambda _: Image.fromarray(GREY.astype(np.int32) * 257), rgb(GREY), 0),
    "32 bits holding 8": (lambda _: Image.fromarray(GREY).convert("I"), rgb(GREY), 0),
    "floats in 0..1, TIFF": (lambda _: encoded(Image.fromarray((GREY / 255).astype(np.float32)), "TIFF"), rgb(GREY), 0),
    "floats in 0..255": (lambda _: Image.fromarray(GREY).convert("F"), rgb(GREY), 0),
    "one pixel": (lambda _: Image.new("RGB", (1, 1), (3, 2, 1)), np.array([[[3, 2, 1]]]), 0),
    "panorama": (lambda _: Image.fromarray(np.tile(PAINTED[:1], (1, 15, 1))), np.tile(PAINTED[:1], (1, 15, 1)), 0),
    "array": (lambda _: PAINTED, PAINTED, 0),
    "array, grey": (lambda _: GREY, rgb(GREY), 0),
    "array, one channel": (lambda _: GREY[..., None], rgb(GREY), 0),
    "array, four channels": (lambda _: np.asarray(half_image), half_colours, 1),
    "array, bool": (lambda _: GREY > 100, rgb((GREY > 100) * 255), 0),
    "array, bool in colours": (lambda _: PAINTED > 100, (PAINTED > 100) * 255, 0),
    "array, uint16": (lambda _: PAINTED.astype(np.uint16) * 257, PAINTED, 0),
    "array, uint16, other byte order": (lambda _: (GREY.astype(np.uint16) * 257).astype(">u2"), rgb(GREY), 0),
    "array, uint16 between two shades": (lambda _: GREY.astype(np.uint16) * 257 + 1, rgb(GREY), 0),
    "array, float64": (lambda _: PAINTED / 255, PAINTED, 0),
    "array, float32": (lambda _: (PAINTED / 255).astype(np.float32), PAINTED, 0),
    "array, float16": (lambda _: (PAINTED / 255).astype(np.float16), PAINTED, 0),
    "array, upside down": (lambda _: PAINTED[::-1], PAINTED[::-1], 0),
    "array, columns first": (lambda _: np.asfortranarray(PAINTED), PAINTED, 0),
    "bytes": (lambda d: saved(d).read_bytes(), PAINTED, 0),
    "bytearray": (lambda d: bytearray(saved(d).read_bytes()), PAINTED, 0),
    "memoryview": (lambda d: memoryview(saved(d).read_bytes()), PAINTED, 0),
    "file in memory": (lambda d: io.BytesIO(saved(d).read_bytes()), PAINTED, 0),
    "text path": (lambda d: str(saved(d)), PAINTED, 0),
    "path": (lambda d: saved(d), PAINTED, 0),
    "anything that is a path": (lambda d: PathLike(saved(d)), PAINTED, 0),
    "picture not yet decoded": (lambda d: Image.open(saved(d)), PAINTED, 0),
    "name with spaces and accents": (lambda d: saved(d, "Küken & Möwe #1.png"), PAINTED, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHOWN)
def test_the_right_values(kind, tmp_path):
    make, expected, tolerance = SHOWN[kind]
    found, _ = read_picture(make(tmp_path))
    assert found.mode == "RGB"
    values = np.asarray(found, np.float64)
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= tolerance


def tiff(array):
    return encoded(Image.fromarray(array), "TIFF")


REFUSED = {
    "nothing": (lambda _: b"", "the data is not an image of a known format"),
    "zero bytes": (lambda _: bytes(1000), "not an image of a known format"),
    "text": (lambda _: b"not an image at all", "not an image of a known format"),
    "vector graphics": (lambda _: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image of a known format"),
    "PostScript": (lambda d: saved(d, "a.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "a.png is not an image"),
    "a format that is not opened": (lambda _: encoded(picture(), "PCX"), r"not an image .*\(PNG, JPEG, "),
    "PNG cut short": (lambda _: encoded(picture(), "PNG")[:70], "damaged or cut short"),
    "JPEG cut in its header": (lambda _: encoded(picture(), "JPEG")[:30], "damaged or cut short"),
    "JPEG cut short": (lambda _: encoded(Image.effect_noise((99, 99), 90), "JPEG")[:2000], "damaged or cut short"),
    "GIF cut short": (lambda _: encoded(Image.effect_noise((99, 99), 90), "GIF")[:3000], "damaged or cut short"),
    "WebP cut short": (lambda _: encoded(Image.effect_noise((99, 99), 90), "WEBP")[:500], "damaged or cut short"),
    "TIFF cut short": (lambda _: encoded(Image.effect_noise((99, 99), 90), "TIFF")[:2000], "damaged|cut short|not an image"),
    "BMP cut short": (lambda _: encoded(picture(), "BMP")[:200], "damaged or cut short"),
    "PNG with a flipped bit": (lambda _: encoded(picture(), "PNG").replace(b"IDAT", b"IDAT\x01", 1), "damaged or cut short"),
    "a bomb": (lambda _: bomb(), r"too large: .*make it smaller"),
    "no file": (lambda d: d / "none.png", "no image file at .*none.png"),
    "folder": (lambda d: d, "it is a folder; give its files"),
    "URL": (lambda _: "https://example.org/a.png", "no image file at https.*; download it first"),
    "empty array": (lambda _: np.zeros((0, 5, 3), np.uint8), "has no pixels: its size is 5 x 0"),
    "array, no axes": (lambda _: np.array(3, np.uint8), r"got \(\)"),
    "array, channels first": (lambda _: PAINTED.transpose(2, 0, 1), r"got \(3, 16, 32\); try array.transpose\(1, 2, 0\)"),
    "array, two channels": (lambda _: PAINTED[..., :2], r"1, 3 or 4\], got \(16, 32, 2\)"),
    "array, NaN": (lambda _: np.full((4, 4), np.nan), "NaN or infinite"),
    "array, infinite": (lambda _: np.full((4, 4), np.inf), "NaN or infinite"),
    "array, floats below 0": (lambda _: np.linspace(-1, 1, 16).reshape(4, 4), r"must lie in 0..1, got -1..1"),
    "array, floats to 255": (lambda _: GREY.astype(np.float32), "got 10..250; divide by 255"),
    "array, int64": (lambda _: GREY.astype(np.int64), r"got int64; if it holds 0..255, try array.astype\(np.uint8\)"),
    "array, int8": (lambda _: np.zeros((4, 4), np.int8), "got int8"),
    "array, uint32": (lambda _: np.zeros((4, 4), np.uint32), "got uint32"),
    "array, complex": (lambda _: np.zeros((4, 4), complex), "got complex128"),
    "array, text": (lambda _: np.array([["a", "b"]]), "got <U1"),
    "array of pictures": (lambda _: np.array([PAINTED, GREY, None], dtype=object), r"of objects; give a list of pictures: list\(array\)"),
    "float picture below 0": (lambda _: tiff(GREY.astype(np.float32) * 8 - 1000), r"holds -920..1000; a picture of 32 bits must"),
    "float picture to 4095": (lambda _: tiff(GREY.astype(np.float32) * 16), r"holds 160..4000; .* make \(array - array.min"),
    "float picture with NaN": (lambda _: tiff(np.full((4, 4), np.nan, np.float32)), "NaN or infinite"),
    "32 bits below 0": (lambda _: Image.fromarray(GREY.astype(np.int32) - 100), r"holds -90..150"),
    "32 bits above 65535": (lambda _: Image.fromarray(GREY.astype(np.int32) * 1000), r"holds 10000..250000"),
    "too narrow": (lambda _: Image.new("RGB", (501, 1)), "too narrow: 501 x 1 pixels, at most 1 : 500"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_in_words(kind, tmp_path):
    make, words = REFUSED[kind]
    error = FileNotFoundError if kind in ("no file", "folder", "URL") else ValueError
    with pytest.raises(error, match=words) as raised:
        read_picture(make(tmp_path))
    assert type(raised.value) is error


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (3, "got int$"),
        (None, "got NoneType"),
        ({"image": PAINTED}, r"got dict; try list\(images\)"),
        (io.StringIO("text"), r"open\(path, 'rb'\), but it gave str"),
    ],
)
def test_what_is_no_picture(source, words):
    with pytest.raises(TypeError, match=words):
        read_picture(source)


def test_an_open_file_keeps_its_name(tmp_path):
    with saved(tmp_path, "a.png").open("rb") as file:
        found, name = read_picture(file)
    assert name == "a.png"
    assert np.array_equal(found, PAINTED)


# Orientation, and the picture that is stored for it, as EXIF defines: where the shown top row and left column lie.
TURNED = {
    1: PAINTED,
    2: PAINTED[:, ::-1],
    3: PAINTED[::-1, ::-1],
    4: PAINTED[::-1],
    5: PAINTED.transpose(1, 0, 2),
    6: PAINTED.transpose(1, 0, 2)[::-1],
    7: PAINTED[::-1, ::-1].transpose(1, 0, 2),
    8: PAINTED.transpose(1, 0, 2)[:, ::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(Image.fromarray(np.ascontiguousarray(TURNED[orientation])), "PNG", exif=exif)
    assert np.array_equal(read_picture(stored)[0], PAINTED)
    assert np.array_equal(read_picture(stored, upright=False)[0], TURNED[orientation])


DARK = "nearly black; .* divide by it"
GREYISH = "nearly all in one grey; to stretch it"
SLIVERS = {
    "12 bits of 16": (GREY.astype(np.uint16) * 16, DARK),
    "14 bits of 16": (GREY.astype(np.uint16) * 64, DARK),
    "8 bits of 16": (GREY.astype(np.uint16), DARK),
    "12 bits of 16, PNG": (encoded(Image.fromarray(GREY.astype(np.uint16) * 16), "PNG"), DARK),
    "12 bits of 16, PNG in colours": (deep_png(PAINTED.astype(np.uint16) * 16), DARK),
    "8 bits of 16, PNG in colours": (deep_png(PAINTED.astype(np.uint16)), DARK),
    "9 bits of 32": (Image.fromarray(GREY.astype(np.int32) + 6), DARK),
    "12 bits of 32": (Image.fromarray(GREY.astype(np.int32) * 16), DARK),
    "12 bits, as floats of 16": (GREY * 16 / 65535, DARK),
    "divided by 255 twice": (GREY / 255 / 255, DARK),
    "floats to a little more than 1": (Image.fromarray((GREY / 240).astype(np.float32)), DARK),
    "a narrow window of 16 bits": (30_000 + GREY.astype(np.uint16), GREYISH),
    "a narrow window of floats": (0.5 + GREY / 65535, GREYISH),
    "0 and 1 of 255": ((GREY > 100).astype(np.uint8), r"only 0 and 1, .*give \(array \* 255\)"),
}


@pytest.mark.parametrize("kind", SLIVERS)
def test_a_sliver_of_the_range_is_told(kind):
    source, words = SLIVERS[kind]
    with pytest.warns(UserWarning, match=words):
        read_picture(source)


def test_what_is_said_to_do_about_slivers_helps():
    deep = GREY.astype(np.uint16) * 16
    for stretched in (
        deep / 4000,
        (deep - deep.min()) / (deep.max() - deep.min()),
        (GREY > 100).astype(np.uint8) * 255,
    ):
        assert read_picture(stretched)[0].getextrema()[0][1] == 255


@pytest.mark.parametrize("source", [np.zeros((4, 4), np.uint16), np.full((4, 4), 99, np.uint16), np.full((4, 4), 0.01),
                                    np.zeros((4, 4), np.uint8), np.ones((4, 4), np.uint8),
                                    GREY.astype(np.uint16) * 66, GREY / 255 / 3])  # fmt: skip
def test_one_colour_and_dim_pictures_are_not_warned_about(source):
    read_picture(source)  # warnings are errors here


def test_one_warning_for_all_dark_pictures_of_a_data_set():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        for scale in (15, 16):
            read_picture(GREY.astype(np.uint16) * scale)
    assert len(said) == 1


def test_no_program_is_started(tmp_path):
    """PostScript under whatever name: Pillow would hand it to Ghostscript."""
    evil = saved(tmp_path, "evil.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{} loop\n")
    script = f"""
import subprocess, sys
import classspace_widgets.images as images
def spy(self, args, *rest, **more): raise SystemExit(f"started {{args}}")
subprocess.Popen.__init__ = spy
try:
    images.read_picture({str(evil)!r})
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert "not an image of a known format" in done.stdout
    assert done.returncode == 0, done.stderr


def test_every_suffix_that_folders_are_searched_for_is_opened():
    Image.init()
    known = Image.registered_extensions()
    assert {known[suffix] for suffix in IMAGE_SUFFIXES} <= set(FORMATS)
    assert not {"EPS", "WMF", "FITS", "PSD", "FPX"} & set(FORMATS)


def test_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    saved(tmp_path)
    assert np.array_equal(read_picture("~/a.png")[0], PAINTED)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="file names are Unicode there")
def test_a_name_that_is_no_unicode(plain, tmp_path):
    path = os.fsencode(tmp_path) + b"/fisch_\xfc.png"
    with open(path, "wb") as file:
        file.write(encoded(picture(), "PNG"))
    trace = plain.trace(os.fsdecode(path))
    assert trace.image_names == ("fisch_\N{REPLACEMENT CHARACTER}.png",)
    trace.save(tmp_path / "trace.safetensors")
    trace.snapshot().save(tmp_path / "picture.csnap")
    with pytest.raises(FileNotFoundError, match="no image file"):
        read_picture(os.fsdecode(path).replace(".png", ".jpg"))


def test_pictures_are_read_in_several_threads():
    """Warning filters belong to all threads: reading pictures leaves them as they were."""
    data, before = encoded(picture(), "PNG"), list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_picture(data) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


# Batches: whatever they come as, each picture is the same input.
ONE = torch.from_numpy(PAINTED).permute(2, 0, 1)
BATCHES = {
    "list": ([PAINTED, GREY], 2),
    "tuple": ((PAINTED,), 1),
    "generator": (lambda: (one for one in [PAINTED, GREY]), 2),
    "iterator": (lambda: iter([PAINTED, GREY]), 2),
    "map": (lambda: map(np.asarray, [PAINTED, GREY]), 2),
    "array": (np.stack([PAINTED, rgb(GREY)]), 2),
    "array, one channel": (np.stack([PAINTED[..., :1], GREY[..., None]]), 2),
    "tensor": (ONE, 1),
    "tensor of several": (torch.stack([ONE, ONE]), 2),
    "grey tensor": (ONE[:1], 1),
    "list of tensors": ([ONE, ONE.flip(0)], 2),
    "tensors of several in a list": ([torch.stack([ONE, ONE]), ONE], 3),
    "mixed": ([ONE, picture(), PAINTED, encoded(picture(), "PNG")], 4),
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches(plain, kind):
    images, count = BATCHES[kind]
    pixels, pictures, names = plain.preprocess(images() if callable(images) else images)
    assert pixels.shape == (count, 3, 32, 32)
    assert pictures.shape == (count, 32, 32, 3)
    assert len(names) == count
    first = GREY if "one channel" in kind or "grey" in kind else PAINTED
    assert torch.equal(pixels[0], plain.preprocess(first)[0][0])
    assert torch.equal(plain.pixels(images() if callable(images) else images), pixels)


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        ([], ValueError, "at least one image, got none"),
        ((), ValueError, "at least one image"),
        (iter([]), ValueError, "at least one image"),
        (torch.zeros(0, 3, 8, 8, dtype=torch.uint8), ValueError, r"got \(0, 3, 8, 8\)"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.uint8), ValueError, r"\[B, 3, height, width\], got \(2, 2, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), ValueError, r"\[3, height, width\], got \(8, 8\)"),
        (torch.zeros(3, 8, 8, dtype=torch.int32), ValueError, r"floats \(ready input\) or uint8 \(pictures\), got torch.int32"),
        (torch.zeros(3, 8, 8, dtype=torch.bool), ValueError, r"got torch.bool"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, r"got \(2, 3, 8, 8\); try array.transpose\(0, 2, 3, 1\)"),
        (np.zeros((2, 8, 8, 5), np.uint8), ValueError, r"\[B, height, width, 1, 3 or 4\], got \(2, 8, 8, 5\)$"),
        ([[PAINTED]], TypeError, "got list"),
        ([PAINTED, None], TypeError, "got NoneType"),
        ([PAINTED, torch.zeros(3, 8, 8)], ValueError, r"\[B, 3, 32, 32\], got \(3, 8, 8\)"),
        ([PAINTED, torch.full((3, 32, 32), torch.nan)], ValueError, "NaN"),
    ],
)  # fmt: skip
def test_batches_that_are_refused(plain, images, error, words):
    with pytest.raises(error, match=words):
        plain.preprocess(images)


def test_ready_input_in_a_list_is_what_it_is_alone(plain):
    ready = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    alone, together = plain.preprocess(ready)[0], plain.preprocess([ready, PAINTED, ready[0]])[0]
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[2], alone[0])
    assert torch.equal(together[1], plain.preprocess(PAINTED)[0][0])


def test_sizes_in_a_list_must_agree():
    space = ClassSpace(build("ViT, dynamic image size"))
    with pytest.raises(ValueError, match=r"come to one shape, got \[\(3, 32, 32\), \(3, 32, 64\)\]"):
        space.preprocess([PAINTED, torch.randn(3, 32, 64)])


def unit(*shape):
    return torch.linspace(0, 1, int(np.prod(shape))).reshape(shape)


def test_ready_input_that_was_not_normalised_is_told(plain):
    words = r"normalised to -\d.*all values lie in 0..1 as in a picture that is not; pass pictures as uint8"
    not_normalised = unit(2, 3, 32, 32)
    for ask in (
        lambda: plain.trace(not_normalised),
        lambda: plain.trace([not_normalised[0], PAINTED]),
        lambda: plain.trace_pixels(not_normalised),
        lambda: plain.stream_readings(not_normalised, 0),
    ):
        with pytest.warns(UserWarning, match=words):
            ask()
    as_pictures = (not_normalised * 255).round().to(torch.uint8)
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (plain.preprocessing.mean, plain.preprocessing.std))
    for remedy in (as_pictures, (not_normalised - mean) / std):
        plain.trace(remedy)  # warnings are errors here
    with pytest.warns(UserWarning, match=words):  # resized after it was made floats
        plain.trace(not_normalised * 1.08 - 0.04)
    plain.trace(torch.zeros(1, 3, 32, 32))
    plain.trace(torch.cat([not_normalised, -not_normalised]))
    for ask in (plain.trace_pixels, plain.trace, plain.pixels):
        ask(Prepared(not_normalised))


@pytest.mark.parametrize("sign", [1, -1])
def test_ready_input_that_is_far_out_is_told(plain, sign):
    with pytest.warns(UserWarning, match=r"this one holds .*; pass pictures of 0..255 as uint8"):
        plain.trace(sign * torch.linspace(0, 255, 3 * 32 * 32).reshape(1, 3, 32, 32))


def test_models_that_take_pictures_as_they_are_do_not_warn():
    model = build("ViT")
    model.pretrained_cfg = {**model.pretrained_cfg, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    ClassSpace(model).trace(unit(1, 3, 32, 32))


def test_what_the_model_saw_is_kept_within_the_colours(plain):
    """Values beyond white and black are shown as these, not turned round."""
    mean, std = plain.preprocessing.mean, plain.preprocessing.std
    wanted = torch.tensor([300.0, 200.0, -40.0]) / 255
    pixels = ((wanted - torch.tensor(mean)) / torch.tensor(std)).view(1, 3, 1, 1).expand(1, 3, 32, 32)
    shown = plain.trace(pixels.contiguous()).pictures
    assert (shown == [255, 200, 0]).all()
