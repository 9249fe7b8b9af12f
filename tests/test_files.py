"""Files: written whole or not at all, whoever writes; damage of any kind ends in the documented error."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_fixtures import CASES, synthetic
from study_helpers import Pictures
from tiny_models import images_for, tiny_vit

from classspace_widgets import Trace, files
from classspace_widgets.cli import main
from classspace_widgets.export import export_html
from classspace_widgets.files import deflated, inflated, parsed, readable, replacing, write_whole
from classspace_widgets.memories import memory_atlas
from classspace_widgets.plots import write_report
from classspace_widgets.snapshot import Snapshot, SnapshotError
from classspace_widgets.snapshot.atlas import MemoryAtlas
from classspace_widgets.snapshot.container import pack, unpack
from classspace_widgets.snapshot.still import still
from classspace_widgets.studies import StudyResults, run_study
from classspace_widgets.studies.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from classspace_widgets.studies.results import StudyResult

IDENTITY = {"model": "tiny", "seed": 0}
STATE = {"done": np.array([True, False, True]), "trained/accuracy/over": np.arange(6.0).reshape(2, 3)}


@pytest.fixture(scope="module")
def made():
    """One of everything that can be written."""
    space = tiny_vit()
    results = run_study(space, Pictures(5, broken=(2,)), ["accuracy", "identifiability"], progress=False)
    return {
        "snapshot": synthetic("classes"),
        "trace": space.trace(images_for(space), attention=True, heads=True, keys=True),
        "atlas": memory_atlas(space, Pictures(3), classes=3, neurons=4, patches=2, progress=False),
        "results": results,
        "result": results["accuracy"],
    }


def _figure(_, path):
    from bokeh.plotting import figure

    from classspace_widgets.plots import save_figure

    plot = figure()
    plot.line([1, 2], [3, 4])
    return save_figure(plot, path)


WRITERS = {
    "snapshot": lambda made, path: made["snapshot"].save(path),
    "atlas": lambda made, path: made["atlas"].save(path),
    "trace": lambda made, path: made["trace"].save(path),
    "page": lambda made, path: export_html(made["snapshot"], path),
    "results": lambda made, path: made["results"].save(path),
    "result": lambda made, path: made["result"].save(path),
    "report": lambda made, path: write_report(made["results"], path),
    "checkpoint": lambda made, path: save_checkpoint(path, IDENTITY, {"skipped": []}, STATE),
    "figure": _figure,
    "bytes": lambda made, path: write_whole(path, b"new"),
}
needs_permissions = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")


@pytest.fixture(autouse=True)
def built_front_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("classspace_widgets.export.front_end.script_text", lambda name: f"/* {name} */")


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("failing", ["os.fsync", "os.replace", "os.chmod"])
def test_an_error_leaves_the_old_file_and_nothing_else(made, kind, failing, tmp_path, monkeypatch):
    target = tmp_path / "old.html"
    target.write_bytes(b"OLD")

    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(failing, full)
    with pytest.raises(OSError, match="No space left"):
        WRITERS[kind](made, target)
    assert target.read_bytes() == b"OLD"
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]


FULL_DISK = """
import resource, signal, sys, numpy as np
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_files
target = Path({target!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
for name, write in test_files.WRITERS.items():
    if name in {kinds!r}:
        try:
            write({{"snapshot": test_files.synthetic("classes")}}, target)
            print(name, "was written")
        except OSError as error:
            print(name, "refused" if target.read_bytes() == b"OLD" else "damaged")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    target = tmp_path / "old.html"
    target.write_bytes(b"OLD")
    kinds = ("snapshot", "checkpoint")
    code = FULL_DISK.format(tests=str(Path(__file__).parent), target=str(target), kinds=kinds)
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split("\n")[:-1] == [f"{kind} refused" for kind in kinds]
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]


@needs_permissions
@pytest.mark.parametrize("kind", WRITERS)
def test_permissions_and_links(made, kind, tmp_path):
    """New files are as any program's; existing ones keep what they had; a link goes on pointing where it did."""
    before = os.umask(0o027)
    try:
        WRITERS[kind](made, tmp_path / "new.html")
        assert stat.S_IMODE((tmp_path / "new.html").stat().st_mode) == 0o666 & ~0o027
        kept = tmp_path / "kept.html"
        for mode in (0o600, 0o644, 0o664):
            kept.write_bytes(b"OLD")
            kept.chmod(mode)
            WRITERS[kind](made, kept)
            assert kept.read_bytes() != b"OLD"
            assert stat.S_IMODE(kept.stat().st_mode) == mode
    finally:
        os.umask(before)
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.html"
    real.write_bytes(b"OLD")
    for name, points_to in (("link.html", "elsewhere/real.html"), ("link2.html", "link.html")):
        (tmp_path / name).symlink_to(points_to)
    WRITERS[kind](made, tmp_path / "link2.html")
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "link2.html").is_symlink()
    assert real.read_bytes() != b"OLD"
    (tmp_path / "open.html").symlink_to("elsewhere/to come.html")
    WRITERS[kind](made, tmp_path / "open.html")
    assert (tmp_path / "elsewhere" / "to come.html").is_file()
    assert sorted(p.name for p in (tmp_path / "elsewhere").iterdir()) == ["real.html", "to come.html"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everything")
def test_a_protected_file_stays(tmp_path):
    (tmp_path / "kept").write_bytes(b"OLD")
    (tmp_path / "kept").chmod(0o444)
    with pytest.raises(PermissionError, match="write-protected"):
        write_whole(tmp_path / "kept", b"new")


def test_protection_is_asked_for(tmp_path, monkeypatch):
    (tmp_path / "kept").write_bytes(b"OLD")
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(PermissionError, match="kept is write-protected; make it writable"):
        write_whole(tmp_path / "kept", b"new")
    assert (tmp_path / "kept").read_bytes() == b"OLD"


@pytest.mark.parametrize("kind", WRITERS)
def test_folders_are_no_files(made, kind, tmp_path):
    folder = tmp_path / "folder.html"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="is a folder; name the file"):
        WRITERS[kind](made, folder)
    assert list(folder.iterdir()) == []
    assert list(tmp_path.iterdir()) == [folder]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no does not exist; create it first"):
        write_whole(tmp_path / "no" / "x", b"")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_pipe_is_written_to_as_it_is(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    write_whole(tmp_path / "pipe", b"through")
    reader.join(10)
    assert found == [b"through"]
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_an_interruption_leaves_nothing(tmp_path):
    def interrupted():
        with replacing(tmp_path / "x") as place:
            place.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_two_writers_never_give_a_torn_read(tmp_path):
    target = tmp_path / "shared"
    whole = [bytes([value]) * 200_000 for value in (1, 2, 3)]
    write_whole(target, whole[0])
    stop, torn = threading.Event(), []

    def read():
        while not stop.is_set():
            if (found := target.read_bytes()) not in whole:
                torn.append(len(found))

    def write(data):
        for _ in range(30):
            write_whole(target, data)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(data,)) for data in whole]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    reader.join()
    assert torn == []
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


def test_long_names_and_names_that_are_no_text_are_written(tmp_path):
    for name in ("x" * 255, "ü" * 120, os.fsdecode(b"fisch_\xfc.csnap"), "with space 🐟"):
        try:
            (tmp_path / name).touch()
        except (OSError, UnicodeError):
            continue  # this file system cannot
        assert write_whole(tmp_path / name, b"new").read_bytes() == b"new"
    assert not list(tmp_path.glob("*.part"))


# -- names that are not UTF-8 ------------------------------------------------------------------------------------------


def test_a_picture_whose_name_is_no_text_is_shown_saved_and_exported(tmp_path, monkeypatch):
    from PIL import Image

    from classspace_widgets.widgets import Explorer

    for module in ("session", "views"):
        monkeypatch.setattr(f"classspace_widgets.widgets.{module}.script", lambda name: "export default {}")
    path = tmp_path / os.fsdecode(b"fisch_\xfc.png")
    try:
        Image.new("RGB", (32, 32), "teal").save(path, "PNG")
    except (OSError, UnicodeError):
        pytest.skip("this file system has no such names")
    space = tiny_vit()
    trace = space.trace(str(path))
    snapshot = trace.snapshot()
    assert snapshot.meta["image"]["name"] == "fisch_\ufffd.png"
    again = Snapshot.load(snapshot.save(path.with_suffix(".csnap")))
    assert again.meta == snapshot.meta
    page = export_html([Explorer(trace)], path.with_suffix(".html"))
    page.path.read_text("utf-8")
    folder = tmp_path / os.fsdecode(b"\xfc")
    folder.mkdir()
    for place in (path.with_suffix(".safetensors"), folder / "trace"):
        trace.save(place)
        back = Trace.load(place)
        assert back.image_names == trace.image_names
        assert torch.equal(back.output, trace.output)
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        Trace.load(path)
    results = run_study(space, Pictures(2, broken=(0,)), "accuracy", progress=False)
    results = StudyResults(results.results, ((0, f"OSError: {path}"),), {"data": str(path)})
    assert StudyResults.load(results.save(path.with_suffix(".gz"))).skipped == results.skipped
    write_report(results, path.with_suffix(".htm"), title=str(path)).read_text("utf-8")


@given(st.text(st.characters(codec=None), max_size=8))
def test_any_text_travels(text):
    meta, _ = unpack(pack({"name": text}, {"a": np.zeros(1, np.uint8)}))
    assert meta["name"] == text
    assert len(readable(text)) == len(text)
    readable(text).encode()


# -- damage ------------------------------------------------------------------------------------------------------------


def test_gzip_goes_both_ways_and_is_bounded(monkeypatch):
    for data in (b"", b"x", bytes(1000), os.urandom(5000)):
        assert inflated(deflated(data)) == data == gzip.decompress(deflated(data))
    assert inflated(gzip.compress(b"one") + gzip.compress(b"two")) == b"onetwo"
    monkeypatch.setattr(files, "MIN_INFLATED_LIMIT", 10_000)
    even = bytes(1_000_000)
    assert inflated(deflated(even)) == even  # what is written can be read, however even it is
    with pytest.raises(ValueError, match="would unpack to more than"):
        inflated(gzip.compress(even))
    with pytest.raises(ValueError, match="would unpack to more than"):
        inflated(gzip.compress(bytes(9_000)) * 200)
    with pytest.raises(ValueError, match="cut short"):
        inflated(gzip.compress(os.urandom(100))[:-9])
    with pytest.raises(ValueError, match="not gzip"):
        inflated(b"PNG")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"[" * 200_000, "64 deep"),
        (b"[" * 65 + b"]" * 65, "64 deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "64 deep"),
        (b"[Infinity]", "Infinity is not a number"),
        (b"[1e999]", "1e999 is not a number"),
        (b"[NaN]", "NaN is not a number"),
        (b"\xff", "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_json_is_bounded(text, words):
    with pytest.raises(ValueError, match=words):
        parsed(text)


def test_json_up_to_the_limit_is_read():
    assert parsed(b"[" * 64 + b"]" * 64)
    assert parsed(b'{"a": [1, 2.5, "x", null, true]}') == {"a": [1, 2.5, "x", None, True]}


BOMB = 300_000_000


@pytest.mark.parametrize(
    ("load", "error"),
    [(Snapshot.load, SnapshotError), (MemoryAtlas.load, SnapshotError), (StudyResults.load, ValueError)],
)
def test_a_file_that_would_fill_the_memory_is_refused(load, error, tmp_path):
    squeeze = io.BytesIO()
    with gzip.GzipFile(fileobj=squeeze, mode="wb", compresslevel=9) as packed:
        for _ in range(BOMB // 1_000_000):
            packed.write(b" " * 1_000_000)
    (tmp_path / "bomb").write_bytes(squeeze.getvalue())
    with pytest.raises(error, match="would unpack to more than"):
        load(tmp_path / "bomb")


def container(header, body=b"", *, raw=None) -> bytes:
    text = json.dumps(header).encode() if raw is None else raw
    return struct.pack("<6sHI", b"CSNAP\0", 1, len(text)) + text + body


def entry(**change):
    return {"meta": {}, "arrays": [{"name": "a", "dtype": "f4", "shape": [1], "offset": 0, "nbytes": 4, **change}]}


@pytest.mark.parametrize(
    "data",
    [
        container(None, raw=b"[" * 200_000),
        container(entry(shape=[2**64])),
        container(entry(shape=[True])),
        container(entry(shape="1")),
        container(entry(shape=[2**31, 2**31, 0], nbytes=0)),
        container(entry(offset=float("inf"))),
        container(entry(offset=-4)),
        container(entry(offset=0.5)),
        container(entry(nbytes="4")),
        container(entry(nbytes=None)),
        container(entry(dtype=["f4"])),
        container({"meta": {"kind": "snapshot", "payload": "x"}, "arrays": []}),
        container({"meta": [], "arrays": []}),
        container({"meta": {}, "arrays": {"a": 1}}),
        container({"meta": {}, "arrays": 3}),
        container([1]),
        # Many arrays over the same bytes would take many times the file's memory.
        container({"meta": {}, "arrays": entry(shape=[500])["arrays"] * 50}, bytes(2000)),
        container({"meta": {}, "arrays": entry()["arrays"] * 2}, bytes(8)),
    ],
)
def test_a_header_that_cannot_be_is_refused(data):
    for read in (Snapshot.unpack, MemoryAtlas.unpack):
        with pytest.raises(SnapshotError):
            read(data)


def rewritten(path: Path, change) -> None:
    """Change meta data and arrays of a container file, and write it again, whole."""
    meta, arrays = unpack(inflated(path.read_bytes()))
    change(meta, arrays)
    path.write_bytes(deflated(pack(meta, arrays)))


SNAPSHOTS = {
    "no kept class": lambda m, a: m["classes"].update(kept=[]),
    "a class twice": lambda m, a: m["classes"].update(kept=[1, 1]),
    "a class beyond": lambda m, a: m["classes"].update(kept=[1, 7]),
    "true for one": lambda m, a: m["classes"].update(kept=[True, 4]),
    "a name that is a number": lambda m, a: m["classes"]["names"].__setitem__(0, 3),
    "a name too few": lambda m, a: m["classes"]["names"].pop(),
    "another grid": lambda m, a: m["tokens"].update(grid=[3, 3]),
    "an output that is no token": lambda m, a: m["tokens"].update(output=7),
    "a removed token beyond": lambda m, a: m["tokens"].update(removed=[7]),
    "more blocks": lambda m, a: m["model"].update(blocks=3),
    "more heads": lambda m, a: m["model"].update(heads=3),
    "another layout": lambda m, a: m["model"].update(layout="parallel"),
    "an unknown payload": lambda m, a: m["payload"].update(mode="some"),
    "all classes that are two": lambda m, a: m["payload"].update(mode="all"),
    "increments that are not there": lambda m, a: m["payload"].update(mode="increments"),
    "no readings": lambda m, a: a.pop("raw"),
    "no ranks": lambda m, a: a.pop("ranks"),
    "ranks beyond": lambda m, a: a["ranks"].fill(7),
    "top classes beyond": lambda m, a: a["top"].fill(7),
    "short readings": lambda m, a: a.update(raw=a["raw"][:, :, :-1]),
    "short scales": lambda m, a: a.update(sigma=a["sigma"][:-1]),
    "whole numbers for scales": lambda m, a: a.update(sigma=a["sigma"].astype(np.uint8)),
    "short heads": lambda m, a: a.update(head_raw=a["head_raw"][:, :1]),
    "short values": lambda m, a: a.update(value_raw=a["value_raw"][..., :1]),
    "short biases": lambda m, a: a.update(attention_bias_raw=a["attention_bias_raw"][:1]),
    "fewer rows": lambda m, a: m["attention"].update(rows=[0]),
    "a row beyond": lambda m, a: m["attention"]["rows"].__setitem__(0, 7),
    "points of another model": lambda m, a: m["payload"].update(points=[0, 9]),
    "a mask of another size": lambda m, a: a.update(mask=np.ones((2, 1), np.uint8)),
    "an object that is not named": lambda m, a: a["mask"].fill(2),
    "maps without words": lambda m, a: a.update(maps=np.zeros((1, 7), np.float32)),
    "an intervention that is a number": lambda m, a: m.update(intervention=3),
    "no picture's name": lambda m, a: m["image"].pop("name"),
}


@pytest.mark.parametrize("what", SNAPSHOTS)
def test_snapshots_whose_parts_do_not_fit_are_refused(what, tmp_path):
    path = synthetic("classes").save(tmp_path / "x.csnap")
    Snapshot.load(path)
    rewritten(path, SNAPSHOTS[what])
    with pytest.raises(SnapshotError, match="damaged snapshot"):
        Snapshot.load(path)


def test_a_damaged_picture_is_named():
    snapshot = synthetic("all")
    for data in (b"no picture", snapshot.arrays["image"].tobytes()[:40], b"%!PS-Adobe-3.0 EPSF-3.0"):
        snapshot.arrays["image"] = np.frombuffer(data, np.uint8)
        with pytest.raises(SnapshotError, match="the picture of this snapshot is damaged"):
            still(snapshot)
    snapshot = synthetic("all")
    snapshot.meta["image"]["width"] = 9
    with pytest.raises(SnapshotError, match="expected 9 x 1 pixels"):
        still(snapshot)


ATLASES = {
    "more blocks": lambda m, a: m["model"].update(blocks=4),
    "one width": lambda m, a: m["widths"].pop(),
    "a class too few": lambda m, a: m["classes"]["names"].pop(),
    "classes beyond": lambda m, a: a["top"].fill(7),
    "neurons beyond": lambda m, a: a["values"].fill(10_000),
    "other cosines": lambda m, a: a.update(top_cosine=a["top_cosine"][:-1]),
    "patches beyond": lambda m, a: a["patch"].fill(3 * 16),
    "pictures that end early": lambda m, a: a.update(picture_bytes=a["picture_bytes"][:-1]),
    "pictures that end before they begin": lambda m, a: a["picture_ends"].__setitem__(0, 2**31),
    "a label too few": lambda m, a: m["pictures"]["labels"].pop(),
}


@pytest.mark.parametrize("what", ATLASES)
def test_atlases_whose_parts_do_not_fit_are_refused(made, what, tmp_path):
    path = made["atlas"].save(tmp_path / "atlas")
    rewritten(path, ATLASES[what])
    with pytest.raises(SnapshotError, match="damaged memory atlas"):
        MemoryAtlas.load(path)


def test_a_missing_file_is_named(tmp_path):
    for load, what in ((Snapshot.load, "snapshot"), (MemoryAtlas.load, "memory atlas"), (Trace.load, "trace")):
        with pytest.raises(FileNotFoundError, match=f"there is no {what} at "):
            load(tmp_path / "none")
    for load in (StudyResult.load, StudyResults.load):
        with pytest.raises(FileNotFoundError):
            load(tmp_path / "none")


def used_snapshot(snapshot: Snapshot) -> None:
    """What is read must also work: no error may wait in it."""
    repr(snapshot)
    for c in snapshot.meta["classes"]["kept"]:
        snapshot.ranks(c)
        if not snapshot.meta["payload"].get("ranks_only"):
            snapshot.logits(c), snapshot.direct(c)
    if snapshot.meta["payload"]["mode"] == "increments":
        snapshot.counted_ranks(range(3))
    try:
        still(snapshot, size=8)
    except SnapshotError:
        del snapshot.arrays["image"]
        still(snapshot, size=8)
    assert Snapshot.unpack(snapshot.pack()).meta == snapshot.meta


def used_atlas(atlas: MemoryAtlas) -> None:
    repr(atlas)
    for c in range(len(atlas.class_names)):
        atlas.for_class(c)


def used_trace(trace: Trace) -> None:
    repr(trace)
    if trace.n_images:
        trace.ranks(trace.points.streams[-1], None, 0), trace.readout()
        trace.snapshot()


def used_results(results: StudyResults) -> None:
    repr(results), results._repr_html_()


def used_checkpoint(_) -> None:
    """Its arrays are compared with those of the run."""


def read_checkpoint(path: Path):
    return load_checkpoint(path, IDENTITY, like=STATE)


FORMATS = {
    **{f"snapshot, {name}": ("csnap", Snapshot.load, SnapshotError, used_snapshot) for name in CASES},
    "atlas": ("csnap", MemoryAtlas.load, SnapshotError, used_atlas),
    "trace": ("safetensors", Trace.load, ValueError, used_trace),
    "results": ("json", StudyResults.load, ValueError, used_results),
    "checkpoint": ("zip", read_checkpoint, CheckpointError, used_checkpoint),
}
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-2, 9)
    | st.sampled_from([2**31, 2**63, 2**64, -(2**63), 1e300, 0.5])
    | st.text(max_size=3)
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=3), scalars, max_size=2)


def places(value, path=()):
    """Every place inside JSON data."""
    inner = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


def changed(data, document) -> bytes:
    """JSON with one place taken out or replaced; big lists are changed near their start."""
    document = json.loads(document)
    at = data.draw(st.sampled_from(list(places(document))))
    parent = document
    for key in at[:-1]:
        parent = parent[key]
    if data.draw(st.booleans()):
        parent[at[-1]] = data.draw(values)
    else:
        del parent[at[-1]]
    return json.dumps(document).encode()


def spoiled(data, content: bytes) -> bytes:
    """Some bytes of a file changed, put in, taken out or cut off."""
    out = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(out)))
        what = data.draw(st.sampled_from(["change", "cut", "put", "take"]))
        if what == "change":
            out[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
        elif what == "put":
            out[at:at] = data.draw(st.binary(max_size=9))
        elif what == "take":
            del out[at : at + data.draw(st.integers(1, 9))]
        else:
            del out[at:]
    return bytes(out)


def damaged(data, kind: str, content: bytes) -> bytes:
    """A file with bytes spoiled, or written whole with something else in it, so that no checksum tells."""
    if data.draw(st.integers(0, 3)) == 0:
        return spoiled(data, content)
    if kind == "json":
        return deflated(changed(data, inflated(content)))
    if kind == "csnap":
        inner = inflated(content)
        length = int.from_bytes(inner[8:12], "little")
        header = inner[12 : 12 + length]
        if data.draw(st.booleans()):
            return deflated(inner[:8] + spoiled(data, inner[8:]))
        header = changed(data, header)
        # Arrays stay where they are: the header may be shorter, and is padded where it can be.
        header = header.ljust(length) if len(header) <= length else header
        return deflated(inner[:8] + len(header).to_bytes(4, "little") + header + inner[12 + length :])
    if kind == "safetensors":
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        if data.draw(st.booleans()):
            header["__metadata__"]["trace"] = changed(data, header["__metadata__"]["trace"]).decode()
            text = json.dumps(header).encode()
        else:
            text = changed(data, content[8 : 8 + length])
        return len(text).to_bytes(8, "little") + text + content[8 + length :]
    parts = dict(np.load(io.BytesIO(content)))
    name = data.draw(st.sampled_from(sorted(parts)))
    if name == "header":
        parts[name] = np.array(changed(data, str(parts[name])).decode())
    else:
        way = data.draw(st.sampled_from(["short", "twice", "kind", "other", "gone"]))
        own = parts.pop(name)
        other = {"short": own[:-1], "twice": np.concatenate([own, own]), "kind": own.astype("c16"), "other": own + 1}
        parts |= {name: other[way]} if way in other else {}
    out = io.BytesIO()
    (np.savez_compressed if data.draw(st.booleans()) else np.savez)(out, **parts)
    return out.getvalue()


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    """A file of every format, whole."""
    folder = tmp_path_factory.mktemp("whole")
    out = {name: synthetic(**CASES[name]).save(folder / name) for name in CASES}
    out = {f"snapshot, {name}": path for name, path in out.items()}
    out |= {kind: folder / kind for kind in ("atlas", "trace", "results", "checkpoint")}
    made["atlas"].save(out["atlas"])
    made["trace"].save(out["trace"])
    made["results"].save(out["results"])
    save_checkpoint(out["checkpoint"], IDENTITY, {"skipped": [[1, "OSError: x"]]}, STATE)
    return {kind: path.read_bytes() for kind, path in out.items()}


@pytest.mark.filterwarnings("ignore::UserWarning:numpy")
@pytest.mark.filterwarnings("ignore::UserWarning:zipfile")
@pytest.mark.parametrize("kind", FORMATS)
def test_damage_ends_in_the_documented_error(written, kind, tmp_path):
    way, load, error, use = FORMATS[kind]
    path = tmp_path / "file"
    path.write_bytes(written[kind])
    use(load(path))

    @given(st.data())
    @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
    def damage(data):
        path.write_bytes(damaged(data, way, written[kind]))
        try:
            found = load(path)
        except error:
            return
        with np.errstate(all="ignore"):
            use(found)

    damage()


@pytest.mark.parametrize("command", [["report"]])
def test_the_command_line_says_it_in_a_line(written, command, tmp_path, capsys):
    whole = written["results"]
    for at in (0, 30, len(whole) // 2, len(whole) - 6):
        data = bytearray(whole)
        data[at] ^= 0xFF
        (tmp_path / "bad.json.gz").write_bytes(data)
        assert main([*command, str(tmp_path / "bad.json.gz"), "--out", str(tmp_path / "page.html")]) == 1
        assert "is not a file of study results" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"done": STATE["done"][:-1]}, r"done must have shape \(3,\) of bool, got \(2,\)"),
        ({"done": np.tile(STATE["done"], 3)}, r"got \(9,\)"),
        ({"done": np.zeros(0, bool)}, r"got \(0,\)"),
        ({"done": STATE["done"] * 0.0}, "of float64"),
        ({"done": ~STATE["done"]}, "its arrays do not match their fingerprint"),
        ({"trained/accuracy/over": np.zeros((2, 3))}, "its arrays do not match their fingerprint"),
        ({"trained/accuracy/over": np.zeros(5)}, r"must have shape \(2, 3\)"),
        ({"trained/accuracy/over": np.zeros((2, 3), complex)}, "of complex128"),
        ({"trained/accuracy/more": np.zeros(1)}, "it must contain the arrays done, trained/accuracy/over"),
    ],
)
def test_counts_that_are_not_those_of_the_run_are_refused(change, words, tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, IDENTITY, {"skipped": []}, STATE)
    stored = dict(np.load(path))
    with path.open("wb") as file:
        np.savez(file, **{**stored, **change})
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "counts",
    [
        np.zeros((2, 3)),
        np.array([[0, 255.0, 0], [0, 1, 0]]),
        np.array([[0, 2.0**53, 7], [0, 1, 0]]),
        np.array([[-1.0, 2, 3], [4, -(2.0**40), 6]]),
        np.array([[0.5, 0, 1e-9], [0, 0, 1e300]]),
        np.array([[np.nan, 0, -np.inf], [0, 0, -0.0]]),
    ],
)
def test_counts_come_back_as_they_were_in_as_few_bytes_as_they_need(counts, tmp_path):
    state = {**STATE, "trained/accuracy/over": counts}
    save_checkpoint(tmp_path / "run", IDENTITY, {"skipped": []}, state)
    found = read_checkpoint(tmp_path / "run")[1]["trained/accuracy/over"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, counts)
    many = np.tile([0.0, 3.0, 0.0, 0.0], (50_000, 1))
    save_checkpoint(tmp_path / "large", IDENTITY, {"skipped": []}, {"a": many})
    assert (tmp_path / "large").stat().st_size < many.nbytes / 32 + 2000


def test_a_checkpoint_of_another_format_or_that_unpacks_is_refused(tmp_path):
    path = tmp_path / "run"
    save_checkpoint(path, IDENTITY, {"skipped": []}, STATE)
    stored = dict(np.load(path))
    header = json.loads(str(stored["header"]))
    with path.open("wb") as file:
        np.savez(file, **{**stored, "header": np.array(json.dumps({**header, "format": 99}))})
    with pytest.raises(CheckpointError, match="has format 99, this version writes 1; remove it"):
        read_checkpoint(path)
    with path.open("wb") as file:
        np.savez_compressed(file, **stored)
    with pytest.raises(CheckpointError, match="its parts are compressed"):
        read_checkpoint(path)


def test_a_trace_of_a_newer_version_is_refused(made, tmp_path):
    from safetensors.torch import load_file, save_file

    made["trace"].save(tmp_path / "one")
    tensors = load_file(tmp_path / "one")
    save_file(tensors, tmp_path / "two", metadata={"format": "classspace trace", "version": "2", "trace": "{}"})
    with pytest.raises(ValueError, match=r"trace version 2, this package reads up to 1; update"):
        Trace.load(tmp_path / "two")
    shutil.copy(tmp_path / "one", tmp_path / "three")
    assert torch.equal(Trace.load(tmp_path / "three").output, made["trace"].output)


def test_no_two_test_files_have_one_name():
    """Folders of tests are no packages, so a name that is taken twice would hide one of the files."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)
