"""The container: round trips, shared fixtures, damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from make_fixtures import CASES, FOLDER, derived, expected, synthetic

from classspace_widgets.snapshot import Snapshot, SnapshotError
from classspace_widgets.snapshot.container import byte_planes, pack, unpack

DTYPES = [np.uint8, np.uint16, np.uint32, np.int32, np.float16, np.float32]
any_array = st.sampled_from(DTYPES).flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)
json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_like, max_size=4), st.dictionaries(st.text(min_size=1), any_array, max_size=4))
def test_pack_unpack_round_trip(meta, arrays):
    data = pack(meta, arrays)
    meta_back, arrays_back = unpack(data)
    assert meta_back == meta
    assert list(arrays_back) == list(arrays)
    for name, array in arrays.items():
        assert arrays_back[name].dtype == array.dtype
        assert arrays_back[name].shape == array.shape
        assert arrays_back[name].tobytes() == array.tobytes()


@given(st.integers(0, 2000), st.integers(0, 255))
def test_a_damaged_container_never_reads_past_its_end(position, value):
    data = bytearray(synthetic("classes").pack())
    data[position % len(data)] = value
    try:
        meta, arrays = unpack(data)
    except SnapshotError:
        return
    assert isinstance(meta, dict)
    assert all(isinstance(array, np.ndarray) for array in arrays.values())


@pytest.mark.parametrize("name", CASES)
def test_fixtures_are_what_this_version_writes(name):
    snapshot = synthetic(**CASES[name])
    assert (FOLDER / f"{name}.bin").read_bytes() == snapshot.pack()
    assert json.loads((FOLDER / f"{name}.json").read_text()) == expected(snapshot)


@pytest.mark.parametrize("name", derived())
def test_derived_fixtures_are_what_this_version_writes(name):
    assert (FOLDER / f"{name}.bin").read_bytes() == derived()[name]


def test_planes_hold_first_bytes_first():
    arrays = {"a": np.array([[1, 258], [3, 0x0405]], np.uint16), "b": np.array([7], np.uint8)}
    plain, planes = pack({}, arrays), byte_planes(pack({}, arrays))
    assert len(plain) == len(planes)
    start = plain.index(np.array([1, 258, 3, 0x0405], "<u2").tobytes())
    assert planes[:start] == plain[:start]
    assert list(planes[start : start + 8]) == [1, 2, 3, 5, 0, 1, 0, 4]
    assert planes[start + 8 :] == plain[start + 8 :]


@pytest.mark.parametrize("mode", ["all", "increments"])
def test_classes_that_tie_share_the_better_rank(mode):
    """Rank 0 is best: only classes with a strictly larger logit count."""
    found = synthetic(mode)
    arrays = found.arrays
    arrays["offset"][[0, 2, 5]] = arrays["offset"][5]
    if mode == "all":
        arrays["raw"][[0, 2]] = arrays["raw"][5]
    else:
        arrays["embedding"][[0, 2]] = arrays["embedding"][5]
    assert not {0, 2, 5} & set(found.meta["classes"]["kept"]) or mode == "all"
    logits = np.stack([found.logits(c) for c in range(7)])
    for c in (0, 2, 5):
        slow = sum((logits[other] > logits[c]).astype(int) for other in range(7) if other not in (0, 2, 5))
        np.testing.assert_array_equal(found.counted_ranks([c])[0], slow)
    assert (found.counted_ranks([0]) == 0).any()


def test_arrays_are_aligned_to_eight_bytes():
    data = synthetic("all").pack()
    length = int.from_bytes(data[8:12], "little")
    header = json.loads(data[12 : 12 + length])
    assert (12 + length) % 8 == 0
    assert all(entry["offset"] % 8 == 0 for entry in header["arrays"])


def test_ranks_counted_from_readings_equal_the_stored_ones():
    whole, part = synthetic("all"), synthetic("classes")
    for c in part.meta["classes"]["kept"]:
        np.testing.assert_array_equal(whole.ranks(c), part.ranks(c))


@pytest.mark.parametrize("limit", [1, 32_000_000])
def test_ranks_counted_from_increments_equal_those_counted_class_by_class(limit: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("classspace_widgets.snapshot.snapshot.SCAN_LIMIT", limit)
    found = synthetic("increments")
    logits = np.stack([found.logits(c) for c in range(7)])
    assert len(found.meta["classes"]["kept"]) < 7
    np.testing.assert_array_equal(found.counted_ranks(range(7)), [(logits > logits[c]).sum(axis=0) for c in range(7)])
    tokens, scanned = zip(*found.scan(), strict=True)
    np.testing.assert_allclose(np.concatenate(scanned, axis=1), logits.transpose(1, 2, 0), atol=1e-4)
    assert (len(tokens) > 1) == (limit == 1)


def test_a_class_read_from_increments_equals_the_stored_reading():
    whole, increments = synthetic("all"), synthetic("increments")
    np.testing.assert_allclose(increments.logits(0), whole.logits(0), atol=1e-5)
    with pytest.raises(
        KeyError, match=r"class 0 is not in this snapshot, which carries 2 classes; take it again .*classes=\['"
    ):
        synthetic("classes").raw(0)


def test_direct_contributions_and_offset_sum_to_the_output():
    snapshot = synthetic("all", pooled=True)
    output = snapshot.meta["tokens"]["output"]
    for c in range(7):
        total = snapshot.direct(c)[:, output].sum() + snapshot.arrays["offset"][c]
        assert total == pytest.approx(float(snapshot.arrays["output_logits"][c]), abs=1e-4)


def test_save_load_round_trip(tmp_path: Path):
    snapshot = synthetic("increments")
    path = snapshot.save(tmp_path / "x.csnap")
    back = Snapshot.load(path)
    assert back.meta == snapshot.meta
    assert all(np.array_equal(back.arrays[name], array) for name, array in snapshot.arrays.items())
    assert path.read_bytes() == snapshot.save(tmp_path / "y.csnap").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:5], "at least 12 bytes, got 5"),
        (lambda d: b"PNG..." + d[6:], "expected it to start with"),
        (lambda d: d[:6] + (99).to_bytes(2, "little") + d[8:], "format version 99.*pip install -U"),
        (lambda d: d[:200], "header of .* bytes reaches past the end"),
        (lambda d: d[:-400], "ends at byte"),
        (lambda d: d.replace(b'"sigma"', b'"sigmo"'), "lacks sigma"),
        (lambda d: d.replace(b'"dtype": "f4"', b'"dtype": "f9"'), "unknown dtype 'f9'"),
        (lambda d: d[:12] + b"\xff" + d[13:], "header cannot be read"),
        (lambda d: d.replace(b'"kind": "snapshot"', b'"kind": "part"    '), "whole snapshot"),
    ],
)
def test_damage_is_named(change, message):
    with pytest.raises(SnapshotError, match=message):
        Snapshot.unpack(change(synthetic("all").pack()))


def test_a_damaged_file_is_named(tmp_path: Path):
    path = synthetic("all").save(tmp_path / "x.csnap")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SnapshotError, match=r"x\.csnap is not a snapshot file, or it is damaged"):
        Snapshot.load(path)


def test_nothing_is_left_behind_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        synthetic("all").save(tmp_path / "x.csnap")
    assert list(tmp_path.iterdir()) == []


def test_unknown_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"array 'x' must be one of .*got int64"):
        pack({}, {"x": np.zeros(2, np.int64)})


def test_opening_a_snapshot_needs_no_torch(tmp_path: Path):
    path = synthetic("all").save(tmp_path / "x.csnap")
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['timm'] = None\n"
        f"from classspace_widgets import Explorer, PatchHeatmap, Snapshot, export_html, link\n"
        f"print(Snapshot.load({str(path)!r}))\n"
        f"explorer = Explorer.from_file({str(path)!r})\n"
        f"explorer.session.block = 1; link(explorer, Explorer.from_file({str(path)!r}))\n"
        f"export_html([explorer, PatchHeatmap(explorer.session)], {str(tmp_path / 'x.html')!r})"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "7 of 7 classes" in out.stdout
    assert out.returncode == 0, out.stderr
    assert (tmp_path / "x.html").is_file()
