"""Photographs that come with the package."""

from __future__ import annotations

import pytest
from PIL import Image

from classspace_widgets.images import sample_photo, samples


def test_samples_are_small_and_hold_no_metadata():
    files = sorted(samples._FOLDER.glob("*.jpg"))
    assert [file.stem for file in files] == ["cat", "espresso"]
    table = (samples._FOLDER / "README.md").read_text(encoding="utf-8")
    for file in files:
        assert sample_photo(file.stem) == file
        assert file.stat().st_size < 60_000
        assert f"| `{file.name}` |" in table
        assert "CC0" in table
        with Image.open(file) as picture:
            assert not picture.getexif()
            assert min(picture.size) >= 300


def test_another_name_is_refused_with_the_names():
    with pytest.raises(KeyError, match="there are cat, espresso; close matches: espresso"):
        sample_photo("expresso")
