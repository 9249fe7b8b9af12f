"""From trace to snapshot: every array against the trace it came from, and what a live kernel answers."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from core.families import build, pixels
from PIL import Image
from tiny_models import images_for, tiny_vit

from classspace_widgets import ClassSpace, Trace
from classspace_widgets.capture import capture
from classspace_widgets.capture.reader import Reader, fitting, rounding_error
from classspace_widgets.capture.requests import MAX_CLASSES
from classspace_widgets.causal import sweep_heads, sweep_tokens
from classspace_widgets.export import export_html
from classspace_widgets.export.portable import portable
from classspace_widgets.interventions import RemoveTokens, from_spec, trace_with
from classspace_widgets.lens import Readout
from classspace_widgets.metrics import direct_by_head
from classspace_widgets.snapshot.container import unpack
from classspace_widgets.snapshot.source import Answer

MODELS = {
    "vit": lambda: tiny_vit(reg_tokens=2),
    "gap": lambda: tiny_vit(global_pool="avg", class_token=False, fc_norm=True),
    "gap after norm": lambda: tiny_vit(global_pool="avg", fc_norm=False),
}


@pytest.fixture(params=MODELS, scope="module")
def space(request):
    return MODELS[request.param]()


@pytest.fixture(scope="module")
def trace(space):
    return space.trace(images_for(space), attention=True, heads=True)


def stream_points(trace, image, class_index):
    """Logits and ranks of all tokens at every stream point, straight from the trace."""
    points = [("residual", 0)]
    for block in range(1, trace.n_blocks + 1):
        points += [(stream, block) for stream in ("attention", "mid", "mlp", "residual")]
    logits = [trace.logits(s, b)[image] for s, b in points]
    own = torch.stack([x[:, class_index] for x in logits])
    ranks = torch.stack([(x > x[:, class_index, None]).sum(-1) for x in logits])
    return own.numpy(), ranks.numpy()


@pytest.mark.parametrize("payload", ["all", "classes", "increments"])
def test_logits_and_ranks_equal_the_traces(trace, payload):
    snapshot = capture(trace, image=1, payload=payload, classes=[0, 3])
    n_tokens = trace.n_tokens
    tolerance = 2e-2 if payload == "increments" else 2e-4
    for c in snapshot.meta["classes"]["kept"]:
        logits, ranks = stream_points(trace, 1, c)
        np.testing.assert_allclose(snapshot.logits(c)[:, :n_tokens], logits, atol=tolerance, rtol=tolerance)
        np.testing.assert_array_equal(snapshot.ranks(c)[:, :n_tokens], ranks)


def test_a_class_read_from_float16_increments_is_near(trace):
    exact, half = capture(trace, payload="all"), capture(trace, payload="increments", classes=[0])
    missing = next(c for c in range(7) if c not in half.meta["classes"]["kept"])
    assert np.abs(half.logits(missing) - exact.logits(missing)).max() < 2e-2
    assert half.meta["exactness"]["ranks"] == "approximate"


def test_the_float16_error_is_measured_and_told(trace):
    """Against the snapshots' own readings: those of float32 and those that a page without a kernel would compute."""
    exact, half = capture(trace, payload="all"), capture(trace, payload="increments", classes=[0])
    del half.arrays["raw"], half.arrays["ranks"]
    half.meta["classes"]["kept"] = []
    n = exact.meta["classes"]["count"]
    wanted, found = (np.stack([s.logits(c) for c in range(n)]).astype(np.float64) for s in (exact, half))
    error = half.meta["exactness"]["error"]
    assert error["largest"] == pytest.approx(np.nanmax(np.abs(wanted - found)), rel=0.05)
    assert error["mean"] == pytest.approx(np.nanmean(np.abs(wanted - found)), rel=0.05)
    ranks = [(x[None] > x[:, None]).sum(axis=1) for x in (wanted, found)]
    valid = ~np.isnan(wanted[0])
    apart = np.abs(ranks[0] - ranks[1])[:, valid]
    assert error["exact_ranks"] == pytest.approx((apart == 0).mean(), abs=2e-3)
    assert abs(error["largest_rank"] - int(apart.max())) <= 1
    assert "differ from float32 by" in half.meta["exactness"]["note"]
    assert "error" not in exact.meta["exactness"]


def test_the_output_token_reads_as_the_model_says(trace):
    snapshot = capture(trace)
    output = snapshot.meta["tokens"]["output"]
    for c in range(7):
        own = float(snapshot.arrays["output_logits"][c])
        assert own == pytest.approx(float(trace.output[0, c]))
        assert snapshot.logits(c)[-1, output] == pytest.approx(own, abs=2e-4)
        assert snapshot.direct(c)[:, output].sum() + snapshot.arrays["offset"][c] == pytest.approx(own, abs=2e-4)


def test_heads_and_bias_sum_to_the_attention_increment(trace):
    snapshot = capture(trace)
    rows = snapshot.meta["attention"]["rows"]
    heads = snapshot.arrays["head_raw"].astype(np.float64).sum(axis=2)
    attention = snapshot.arrays["raw"][:, 1::2][:, :, rows].astype(np.float64)
    bias = snapshot.arrays["attention_bias_raw"][:, :, None].astype(np.float64)
    pooled = snapshot.meta["tokens"]["pooled"]
    keep = slice(None, -1) if pooled and trace.pooling == "norm_mean" else slice(None)
    np.testing.assert_allclose((heads + bias)[..., keep], attention[..., keep], atol=2e-2, rtol=5e-3)


def test_attention_and_values_give_the_heads(trace):
    snapshot = capture(trace)
    weights = (snapshot.arrays["attention"] / 255.0) ** 2
    direct = np.stack([trace.attention_weights[b][0].numpy() for b in (1, 2, 3)])
    np.testing.assert_allclose(weights[:, :, : trace.n_tokens], direct, atol=5e-3)
    values = snapshot.arrays["value_raw"].astype(np.float64)
    heads = np.einsum("lhts,klhs->klht", direct, values)
    stored = snapshot.arrays["head_raw"][..., : trace.n_tokens].astype(np.float64)
    np.testing.assert_allclose(heads, stored, atol=2e-2, rtol=1e-2)


def test_summaries_equal_slow_counting(trace):
    snapshot = capture(trace, payload="classes", classes=[2])
    assert snapshot.meta["classes"]["kept"] == [2]
    full = capture(trace, payload="all")
    logits = np.stack([full.logits(c) for c in range(7)], axis=-1)
    np.testing.assert_array_equal(snapshot.arrays["top"][..., 0], logits.argmax(axis=-1))
    np.testing.assert_allclose(snapshot.arrays["lse"], np.log(np.exp(logits).sum(axis=-1)), atol=2e-4)
    np.testing.assert_allclose(snapshot.arrays["top_logits"], np.sort(logits, axis=-1)[..., ::-1][..., :5], atol=1e-2)


@pytest.mark.parametrize("limit", ["SCAN_LIMIT", "CACHED"])
def test_counting_in_small_chunks_changes_nothing(trace, monkeypatch, limit):
    whole = capture(trace, payload="classes")
    monkeypatch.setattr(f"classspace_widgets.capture.reader.{limit}", 200)
    chunked = capture(trace, payload="classes")
    for name in ("ranks", "top"):
        np.testing.assert_array_equal(chunked.arrays[name], whole.arrays[name])


def _class_products(monkeypatch):
    """Vectors that are read for all classes from now on, as a list of their shapes."""
    read, plain = [], type(tiny_vit().lens).raw

    def counting(lens, vectors, classes=None):
        if classes is None:
            read.append(tuple(vectors.shape))
        return plain(lens, vectors, classes)

    monkeypatch.setattr(type(tiny_vit().lens), "raw", counting)
    return read


def test_nothing_is_computed_twice(trace, tmp_path, monkeypatch):
    """Every increment is read once for all classes, and not again where a page carries classes that are at hand."""
    monkeypatch.setattr("classspace_widgets.capture.payload.ALL_LIMIT", 10)
    read = _class_products(monkeypatch)
    snapshot = trace.snapshot()
    assert len(read) == len(trace.increments)
    read.clear()
    export_html(snapshot, tmp_path / "page.html", classes=snapshot.meta["classes"]["kept"][:2])
    assert not read
    few, fresh = (trace.snapshot(classes=[c], payload="classes") for c in (2, 3))
    monkeypatch.setattr(Reader, "summary", None)  # the top classes are known, whichever classes are kept
    other = portable(few, [3])
    for name in ("top", "top_logits", "lse", "ranks", "raw"):
        np.testing.assert_array_equal(other.arrays[name], fresh.arrays[name])


def test_the_payload_follows_the_size(trace, monkeypatch):
    assert capture(trace).meta["payload"]["mode"] == "all"
    monkeypatch.setattr("classspace_widgets.capture.payload.ALL_LIMIT", 10)
    live = capture(trace, classes=["class 6"])
    assert live.meta["payload"]["mode"] == "classes"
    monkeypatch.setattr("classspace_widgets.capture.reader.ATTENTION_LIMIT", 10)
    small = capture(trace)
    assert small.meta["attention"]["rows"] == [small.meta["tokens"]["output"]]


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("Residual post-norm (rpn), GAP", "a norm acts on what attention adds"),
        ("Parallel attention and MLP", "adds attention and MLP together"),
        ("Differential attention", "subtracts two attention maps"),
    ],
)
def test_a_model_without_heads_says_why(family, reason):
    space = ClassSpace(build(family))
    snapshot = capture(space.trace(pixels(space), attention=True, heads=True))
    assert "head_raw" not in snapshot.arrays
    assert reason in snapshot.meta["model"]["heads_refused"]


def test_a_trace_from_a_file_shows_all_but_its_heads_and_says_what_brings_them_back(tmp_path):
    space = ClassSpace(build("ViT"))
    trace = space.trace(pixels(space), attention=True, heads=True)
    trace.save(tmp_path / "trace.safetensors")
    alone, whole = (capture(Trace.load(tmp_path / "trace.safetensors", space=s)) for s in (None, space))
    assert "space=space" in alone.meta["model"]["heads_refused"]
    assert set(whole.arrays) - set(alone.arrays) == {"head_raw", "value_raw", "attention_bias_raw"}
    np.testing.assert_array_equal(alone.arrays["attention"], whole.arrays["attention"])
    assert "heads_refused" not in whole.meta["model"]


def test_heads_that_cannot_be_taken_apart_are_named_and_the_rest_stands():
    space = tiny_vit(scale_attn_norm=True)
    trace = space.trace(images_for(space), attention=True, heads=True)
    snapshot = capture(trace)
    assert "head_raw" in snapshot.arrays
    assert "value_raw" not in snapshot.arrays
    assert "heads_refused" not in snapshot.meta["model"]
    assert "a norm acts on the heads' outputs" in snapshot.meta["model"]["sources_refused"]
    shares = direct_by_head(trace, 2, [2])[0][0, :, 0, 0]
    sigma = snapshot.arrays["sigma"][-1, 0]
    at = snapshot.meta["classes"]["kept"].index(2)
    assert snapshot.arrays["head_raw"][at, 1, :, 0] / sigma == pytest.approx(shares.numpy(), abs=2e-3)
    output = snapshot.meta["tokens"]["output"]
    assert snapshot.logits(2)[-1, output] == pytest.approx(float(trace.output[0, 2]), abs=2e-4)


def test_a_trace_with_attention_but_without_heads_says_how_to_take_them():
    """And is not asked for them again and again: a view asks for heads only where they are not refused."""
    space = tiny_vit()
    trace = space.trace(images_for(space, 1), attention=True)
    meta = trace.snapshot().meta
    assert "take it with heads=True" in meta["model"]["heads_refused"]
    assert meta["attention"]["rows"]
    assert "heads_refused" not in space.trace(images_for(space, 1)).snapshot().meta["model"]
    assert "heads_refused" not in space.trace(images_for(space, 1), attention=True, heads=True).snapshot().meta["model"]


def test_attention_of_some_blocks_alone_is_left_out():
    space = tiny_vit()
    assert "attention" not in capture(space.trace(images_for(space), attention=[2])).arrays


def test_a_pickled_snapshot_leaves_its_model_behind():
    snapshot = tiny_vit().trace(Image.new("RGB", (32, 32), "teal")).snapshot()
    data = pickle.dumps(snapshot)
    assert len(data) < snapshot.nbytes + 10_000
    back = pickle.loads(data)
    assert snapshot.source is not None
    assert back.source is None
    assert back.meta == snapshot.meta
    assert back.pack() == snapshot.pack()


def test_masks_of_editors_and_data_sets_hold_the_objects_that_are_meant():
    space = tiny_vit()
    trace = space.trace(images_for(space))
    size = trace.pictures.shape[1:3]
    one, two = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    one[:8, :8], two[8:16, :8] = 1, 1

    def taken(mask, **options):
        made = capture(trace, mask=mask, **options)
        return made.arrays["mask"], len(made.meta["objects"])

    for same in (one, one == 1, one * 255, one.astype(float), one.astype(np.int64)):
        mask, count = taken(same)
        assert np.array_equal(mask, one)
        assert mask.dtype == np.uint8
        assert count == 1
    mask, count = taken(one + 2 * two)
    assert np.array_equal(mask, one + 2 * two)
    assert count == 2
    mask, count = taken(np.where(two, 255, one))  # undecided pixels are no object
    assert np.array_equal(mask, one)
    assert count == 1
    assert taken(2 * two, objects=[1, 3])[1] == 2  # a hidden main object
    assert taken(np.zeros(size))[1] == 0
    for wrong, said in {
        7: r"this one holds 7; for one object give mask == 7; objects=\[None\] \* 7 keeps",
        0.7: r"whole numbers, got 0.7; for probabilities pass mask > 0.5",
        -1: "must not contain -1",
        300: r"1..254 for objects, got 300",
    }.items():
        with pytest.raises(ValueError, match=said):
            taken(one * np.array(wrong))
    with pytest.raises(
        ValueError, match=r"1..2 of its objects, the main one first, this one holds 1, 3; objects=\[None\] \* 3"
    ):
        taken(one + 3 * two)
    assert taken(one + 3 * two, objects=[None] * 3)[1] == 3
    with pytest.raises(ValueError, match=r"1..1 of its objects, the main one first, this one holds 1, 2; objects="):
        taken(one + 2 * two, objects=[1])


def test_masks_labels_and_bad_input():
    space = tiny_vit()
    trace = space.trace(Image.new("RGB", (32, 32), "teal"))
    mask = np.zeros(trace.pictures.shape[1:3], np.uint8)
    mask[:8, :8] = 1
    snapshot = capture(trace, mask=mask, objects=[3], label="class 3", title="<b>.png")
    assert snapshot.meta["objects"] == [{"class": 3, "name": "class 3"}]
    assert (snapshot.meta["image"]["label"], snapshot.meta["image"]["name"]) == (3, "<b>.png")
    assert Image.open(io.BytesIO(snapshot.arrays["image"].tobytes())).size == mask.shape[::-1]
    with pytest.raises(ValueError, match=r"displayed picture's shape .* got \(4, 4\); space\.place_mask\(mask\)"):
        capture(trace, mask=np.zeros((4, 4), np.uint8))
    with pytest.raises(ValueError, match="a mask must hold 0"):
        capture(trace, mask=mask * 3, objects=[3])
    with pytest.raises(ValueError, match="must not contain -1"):
        capture(trace, mask=mask.astype(int) - 1)
    with pytest.raises(TypeError, match=r"image must be a whole number in 0\.\.0, got 0\.5"):
        capture(trace, image=0.5)
    with pytest.raises(ValueError, match=r"image must be in 0\.\.0, got 1"):
        capture(trace, image=1)
    with pytest.raises(ValueError, match="payload must be"):
        capture(trace, payload="some")
    with pytest.raises(ValueError, match="close matches: class 6"):
        capture(trace, classes=["class 66"])


# -- what a live kernel answers ----------------------------------------------------------------------------------------


def ask(snapshot, kind, /, *buffers, **params) -> Answer:
    steps = snapshot.source.answer(kind, params, buffers)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def test_more_classes_on_request(trace):
    part = trace.snapshot(payload="classes", classes=[1], image=1)
    meta, arrays = unpack(ask(part, "classes", classes=[5, 0]).part)
    assert meta["classes"]["kept"] == [5, 0]
    full = capture(trace, image=1, payload="all")
    np.testing.assert_allclose(arrays["raw"], full.arrays["raw"][[5, 0]], atol=1e-5)
    np.testing.assert_array_equal(arrays["ranks"][0], full.ranks(5))
    assert arrays["head_raw"].shape[:3] == (2, 3, 3)
    with pytest.raises(ValueError, match=r"classes must be in 0\.\.6, got 7"):
        ask(part, "classes", classes=[7])


def test_attention_rows_on_request(trace):
    meta, arrays = unpack(ask(trace.snapshot(), "attention", rows=[4, 2], classes=[1]).part)
    full = capture(trace)
    assert meta["attention"]["rows"] == [4, 2]
    np.testing.assert_array_equal(arrays["attention"], full.arrays["attention"][:, :, [4, 2]])
    np.testing.assert_array_equal(arrays["head_raw"][0], full.arrays["head_raw"][1][:, :, [4, 2]])


def test_a_new_picture_on_request():
    space = tiny_vit()
    snapshot = space.trace(Image.new("RGB", (40, 40), "teal"), attention=True, heads=True).snapshot()
    buffer = io.BytesIO()
    Image.new("RGB", (50, 30), "crimson").save(buffer, "PNG")
    answer = ask(snapshot, "image", memoryview(buffer.getvalue()), name="red.png")
    assert answer.snapshot.meta["image"]["name"] == "red.png"
    direct = space.trace(Image.new("RGB", (50, 30), "crimson")).output[0]
    np.testing.assert_allclose(answer.snapshot.arrays["output_logits"], direct, atol=1e-5)
    assert answer.snapshot.source is snapshot.source
    assert "attention" in answer.snapshot.arrays


def test_steps_of_an_intervened_pass_have_short_names(trace):
    mask = np.zeros(trace.pictures[0].shape[:2], bool)
    mask[:8, :8] = True
    source = trace.snapshot(image=1).source
    spec = [RemoveTokens(mask=mask).to_dict()]
    asked = ask(trace.snapshot(image=1), "whatif", spec=spec, label="no corner").intervened
    for made in (source.intervened(RemoveTokens(mask=mask)), asked):
        rows, columns = mask.shape
        assert made.meta["intervention"]["labels"] == [f"RemoveTokens(mask=bool [{rows}, {columns}])"]


def test_an_intervention_on_request(space, trace):
    snapshot = trace.snapshot(image=1)
    spec = [{"type": "KnockOutAttention", "kind": "self_only"}]
    answer = ask(snapshot, "whatif", spec=spec, label="each for itself", labels=["alone"])
    told = answer.intervened.meta["intervention"]
    assert told["label"] == "each for itself"
    # A view that opens later shows the same steps.
    assert (told["spec"], told["labels"]) == (spec, ["alone"])
    assert "KnockOutAttention" in told["code"]
    passed = trace_with(space, snapshot.source.trace, from_spec(spec), attention=True, heads=True)
    # Attention of the token that is answered from; that of others is fetched when it is looked at.
    rows = [answer.intervened.meta["tokens"]["output"]]
    assert answer.intervened.meta["attention"]["rows"] == rows
    again = capture(passed, rows=rows)
    assert set(answer.intervened.arrays) == set(again.arrays)
    for name, array in again.arrays.items():
        np.testing.assert_array_equal(answer.intervened.arrays[name], array)
    assert not np.allclose(answer.intervened.arrays["output_logits"], snapshot.arrays["output_logits"], atol=1e-3)


def test_the_intervened_pass_is_read_for_more_classes(space, trace):
    """As if the pass had been captured with them; the baseline's are left alone."""
    prefix = len(trace.prefix)
    snapshot = trace.snapshot(payload="classes", classes=[1], image=1)
    with pytest.raises(RuntimeError, match="apply the intervention again"):
        ask(snapshot, "intervened classes", classes=[3])
    spec = [{"type": "RemoveTokens", "tokens": [prefix + 5]}]
    ask(snapshot, "whatif", spec=spec)
    removed = trace_with(space, snapshot.source.trace, from_spec(spec), attention=True, heads=True)
    whole = capture(removed, payload="classes", classes=[3, 0])
    meta, arrays = unpack(ask(snapshot, "intervened classes", classes=[3, 0]).part)
    assert meta["intervened"] is True
    for name in ("raw", "ranks"):
        np.testing.assert_array_equal(arrays[name], whole.arrays[name])
    baseline, other = unpack(ask(snapshot, "classes", classes=[3, 0]).part)
    assert "intervened" not in baseline
    assert not np.array_equal(other["raw"], arrays["raw"], equal_nan=True)
    meta, arrays = unpack(ask(snapshot, "intervened attention", rows=[prefix], classes=[3]).part)
    np.testing.assert_array_equal(arrays["attention"], whole.arrays["attention"][:, :, [prefix]])
    # Another picture has no intervened pass yet.
    snapshot.source.show(Image.new("RGB", (32, 32), "teal"))
    with pytest.raises(RuntimeError, match="apply the intervention again"):
        ask(snapshot, "intervened classes", classes=[3])


def test_removed_tokens_are_named_and_weigh_nothing(space, trace):
    prefix = len(trace.prefix)
    spec = [{"type": "RemoveTokens", "tokens": [prefix, prefix + 5]}]
    intervened = ask(trace.snapshot(), "whatif", spec=spec).intervened
    assert intervened.meta["tokens"]["removed"] == [prefix, prefix + 5]
    output = intervened.meta["tokens"]["output"]
    for c in range(7):
        assert intervened.logits(c)[-1, output] == pytest.approx(float(intervened.arrays["output_logits"][c]), abs=2e-4)
    assert np.isnan(intervened.logits(0)[-1, prefix])


@pytest.mark.parametrize("kind", ["heads", "tokens"])
@pytest.mark.parametrize("mode", [None, "mean"])
def test_a_sweep_on_request(space, trace, kind, mode):
    """The same numbers as the sweep from Python, of the picture that is shown: effect and baseline, sign and all."""
    if mode and kind == "tokens":
        mode = "remove"
    asked = {"kind": kind, "class": 2} | ({"mode": mode} if mode else {})
    answer = ask(trace.snapshot(image=1), "sweep", **asked)
    meta, arrays = unpack(answer.part)
    sweep = (sweep_heads if kind == "heads" else sweep_tokens)(
        space, trace.snapshot(image=1).source.trace, 2, progress=False, **({"mode": mode} if mode else {})
    )
    np.testing.assert_allclose(arrays["grid"], sweep.effect[0].numpy(), atol=1e-6)
    assert np.nanmax(np.abs(arrays["grid"])) > 1e-4
    assert answer.result["baseline"] == pytest.approx(float(trace.output[1, 2]), abs=1e-4)
    assert arrays["grid"].shape == (3, 3 if kind == "heads" else len(sweep.places))
    assert (meta["grid"]["rows"], meta["grid"]["columns"]) == ([1, 2, 3], list(sweep.places))
    assert (meta["grid"]["class"], meta["grid"]["mode"], meta["grid"]["kind"]) == (2, sweep.mode, kind)


@pytest.mark.parametrize("method", ["gradient", "direct", "rollout"])
def test_importance_on_request(trace, method):
    from classspace_widgets.explain import importance

    meta, arrays = unpack(ask(trace.snapshot(image=1), "importance", method=method, **{"class": 2}).part)
    assert meta["maps"][0]["class"] == 2
    expected = importance(trace, [2], method=method).maps[1, 0]
    np.testing.assert_allclose(arrays["maps"][0][: trace.n_tokens], expected, atol=1e-5, rtol=1e-4)
    assert arrays["maps"].shape[1] == trace.snapshot().arrays["sigma"].shape[1]


ODD = {
    "unknown": ("dance", {}, "unknown request 'dance'; expected one of attention, classes"),
    "a long name": ("x" * 10_000, {}, f"unknown request '{'x' * 60}'"),
    "no classes": ("classes", {}, r"classes must be a list of whole numbers in 0\.\.6, got None"),
    "an empty list": ("classes", {"classes": []}, "classes must be a list"),
    "one class": ("classes", {"classes": 3}, "classes must be a list"),
    "a text": ("classes", {"classes": "12"}, "classes must be a list"),
    "a class beyond": ("classes", {"classes": [0, 7]}, r"classes must be in 0\.\.6, got 7"),
    "a class before": ("classes", {"classes": [-1]}, "got -1"),
    "half a class": ("classes", {"classes": [0.5]}, r"classes must be a whole number in 0\.\.6, got 0.5"),
    "true for one": ("classes", {"classes": [True]}, "got True"),
    "a name": ("classes", {"classes": ["fish"]}, "got 'fish'"),
    "nothing": ("classes", {"classes": [None]}, "got None"),
    "a huge number": ("classes", {"classes": [2**70]}, r"in 0\.\.6"),
    "a row beyond": ("classes", {"classes": [0], "rows": [10_000]}, r"rows must be in 0\.\."),
    "rows that are none": ("attention", {"rows": {"a": 1}}, "rows must be a list"),
    "no rows": ("attention", {}, "rows must be a list"),
    "a row of text": ("attention", {"rows": ["1"]}, "rows must be a whole number"),
    "another class beyond": ("attention", {"rows": [0], "classes": [7]}, r"classes must be in 0\.\.6"),
    "no class to sweep": ("sweep", {}, "the request must name a class"),
    "a class to sweep": ("sweep", {"class": 7}, r"class must be in 0\.\.6, got 7"),
    "half a class to sweep": ("sweep", {"class": "2"}, "class must be a whole number"),
    "places": ("sweep", {"class": 2, "kind": "rooms"}, "kind must be 'heads' or 'tokens', got 'rooms'"),
    "a kind that is none": ("sweep", {"class": 2, "kind": ["heads"]}, "kind must be a text"),
    "a mode that is none": ("sweep", {"class": 2, "mode": 3}, "mode must be a text"),
    "a mode": ("sweep", {"class": 2, "mode": "dance"}, "mode must be"),
    "no class to explain": ("importance", {}, "the request must name a class"),
    "no classes to explain": ("importance", {"classes": []}, "classes must be a list"),
    "a class to explain": ("importance", {"classes": [7]}, r"classes must be in 0\.\.6"),
    "a method": ("importance", {"class": 1, "method": "magic"}, "method"),
    "a method that is none": ("importance", {"class": 1, "method": {}}, "method must be a text"),
    "no intervention": ("whatif", {}, "spec must be a list of 1 to 100 interventions"),
    "not one": ("whatif", {"spec": []}, "spec must be a list of 1 to 100"),
    "too many": ("whatif", {"spec": [{"type": "RemoveTokens", "tokens": [2]}] * 101}, "1 to 100"),
    "another kind": ("whatif", {"spec": [{"type": "Dance"}]}, "intervention 1 of 1"),
    "a number": ("whatif", {"spec": [3]}, "intervention 1 of 1"),
    "labels": ("whatif", {"spec": [{"type": "RemoveTokens", "tokens": [2]}], "labels": []}, "a label for each of 1"),
    "labels of numbers": (
        "whatif",
        {"spec": [{"type": "RemoveTokens", "tokens": [2]}], "labels": [3]},
        "list of texts",
    ),
    "a long label": (
        "whatif",
        {"spec": [{"type": "RemoveTokens", "tokens": [2]}], "label": "x" * 1001},
        "1000 letters",
    ),
    "no picture": ("image", {}, "no picture came with the request"),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_requests_are_refused_in_words(trace, what):
    kind, params, words = ODD[what]
    snapshot = trace.snapshot()
    with pytest.raises((ValueError, TypeError), match=words):
        ask(snapshot, "x" if kind == "x" else kind, **params)


@pytest.mark.parametrize("params", [None, [], "classes", 3])
def test_what_is_asked_for_is_an_object(trace, params):
    with pytest.raises(TypeError, match="must be a JSON object"):
        trace.snapshot().source.answer("classes", params)


def test_what_is_asked_for_twice_is_read_once_and_there_is_a_limit(trace):
    snapshot = trace.snapshot()
    once = ask(snapshot, "classes", classes=[5, 0], rows=[3])
    often = ask(snapshot, "classes", classes=[5, 0, 5] * 10_000, rows=[3] * 10_000)
    assert often.part == once.part
    assert often.result == {"classes": [5, 0]}
    assert ask(snapshot, "attention", rows=[2, 2, 4] * 1000).result == {"rows": [2, 4]}
    meta, arrays = unpack(ask(snapshot, "importance", classes=[1, 1, 2]).part)
    assert meta["importance"]["classes"] == [1, 2]
    assert arrays["importance"].shape[0] == 2
    many = tiny_vit(num_classes=MAX_CLASSES + 1)
    wide = many.trace(images_for(many, 1)).snapshot(payload="classes")
    assert len(ask(wide, "classes", classes=list(range(MAX_CLASSES))).result["classes"]) == MAX_CLASSES
    with pytest.raises(ValueError, match=f"at most {MAX_CLASSES} classes can be asked for at once"):
        ask(wide, "classes", classes=list(range(MAX_CLASSES + 1)))


def test_rows_of_attention_need_no_class(trace):
    meta, arrays = unpack(ask(trace.snapshot(), "attention", rows=[4, 2]).part)
    assert (meta["classes"]["kept"], meta["attention"]["rows"]) == ([], [4, 2])
    np.testing.assert_array_equal(arrays["attention"], capture(trace).arrays["attention"][:, :, [4, 2]])
    assert list(arrays) == ["attention"]


def test_a_picture_taken_again_keeps_what_was_said_of_it():
    space = tiny_vit()
    trace = space.trace(Image.new("RGB", (32, 32), "teal"))
    mask = np.zeros(trace.pictures.shape[1:3], np.uint8)
    mask[:8, :8] = 1
    live = trace.snapshot(payload="classes", mask=mask, objects=[3], label="class 3", title="a fish")
    for classes in (None, ["class 1"]):
        made = portable(live, classes)
        assert made.meta["image"] == live.meta["image"]
        assert made.meta["image"]["label"] == 3
        assert made.meta["objects"] == [{"class": 3, "name": "class 3"}]
        np.testing.assert_array_equal(made.arrays["mask"], mask)


def test_classes_named_twice_are_carried_once(trace):
    assert capture(trace, classes=[3, "class 3", 1], payload="classes").meta["classes"]["kept"] == [3, 1]
    assert portable(trace.snapshot(), [3, "class 3", 1]).meta["classes"]["kept"] == [3, 1]
    alone = capture(trace)  # with no model behind it, so that it can only be narrowed
    assert portable(alone, [3, "class 3", 1]).meta["classes"]["kept"] == [3, 1]


def test_the_best_classes_are_exact_in_increments(trace):
    snapshot = capture(trace, payload="increments", classes=[6])
    best = np.argsort(-trace.output[0].numpy(), kind="stable")[:5].tolist()
    assert snapshot.meta["classes"]["kept"] == list(dict.fromkeys([6, *best]))


def test_some_classes_are_the_likeliest_and_those_that_are_first_most_often():
    space = tiny_vit(num_classes=60)
    snapshot = capture(space.trace(images_for(space)), payload="classes")
    best = np.argsort(-snapshot.arrays["output_logits"], kind="stable")[:5].tolist()
    kept = snapshot.meta["classes"]["kept"]
    assert kept[:5] == best
    firsts = snapshot.arrays["top"][..., 0].ravel()
    often = {c: int((firsts == c).sum()) for c in set(firsts.tolist()) - set(best)}
    assert len(often) > 5
    assert len(kept) == len(set(kept)) == 10
    assert [often[c] for c in kept[5:]] == sorted(often.values(), reverse=True)[:5]


def test_a_picture_has_its_own_name():
    space = tiny_vit()
    trace = space.trace(images_for(space))
    trace = replace(trace, image_names=("one.png", "two.png"))
    assert [capture(trace, image=i).meta["image"]["name"] for i in (0, 1)] == ["one.png", "two.png"]
    assert capture(trace, image=1, title="mine").meta["image"]["name"] == "mine"
    live = trace.snapshot(image=1)
    assert live.meta["image"]["name"] == "two.png"
    assert live.source.intervened(RemoveTokens([3])).meta["image"]["name"] == "two.png"


def test_what_the_output_cannot_reach_is_the_last_block(trace):
    snapshot = capture(trace)
    reached = trace.pooling != "token"
    # The last block's attention output, mid, MLP output and residual, of 1 + 4 * 3 points.
    assert snapshot.meta["unreachable"] == ([] if reached else [9, 10, 11, 12])


def test_the_pooled_row_of_attention_is_the_mean_that_the_output_reads():
    space = MODELS["gap after norm"]()
    trace = space.trace(images_for(space), attention=True, heads=True)
    snapshot = capture(trace)
    shown = (snapshot.arrays["attention"][:, :, -1] / 255.0) ** 2
    np.testing.assert_allclose(shown.sum(axis=-1), 1.0, atol=0.02)
    final = torch.stack(trace.increments).sum(dim=0)[0]
    weights = np.zeros(trace.n_tokens)
    pooled = list(Readout.of_pass(trace).tokens)
    weights[pooled] = 1 / np.asarray(trace.lens.sigma(final))[pooled]
    weights /= weights.sum()
    for block in (1, 2, 3):
        expected = np.einsum("t,hts->hs", weights, trace.attention_weights[block][0].numpy())
        np.testing.assert_allclose(shown[block - 1], expected, atol=5e-3)


def test_more_classes_than_sixteen_bits_can_count():
    count = 70_000
    space = tiny_vit(num_classes=count, depth=1)
    trace = space.trace(images_for(space, 1))
    logits = trace.logits("residual", 1)[0, 0]
    order = logits.argsort(descending=True)
    worst, best = int(order[-1]), int(order[0])
    snapshot = capture(trace, payload="classes", classes=[worst, best])
    assert snapshot.ranks(worst)[-1, 0] == int((logits > logits[worst]).sum()) > 65_535
    assert snapshot.arrays["top"][-1, 0, 0] == best
    numbers = Reader(trace.image(0)).ranks([worst])
    assert numbers.dtype == np.uint32
    assert numbers[0, -1, 0] == snapshot.ranks(worst)[-1, 0]
    assert int(snapshot.arrays["top"].max()) > 65_535


def test_readings_beyond_sixteen_bits_stay_finite():
    space = tiny_vit()
    small = capture(space.trace(images_for(space), attention=True, heads=True))
    with torch.no_grad():
        space.model.head.weight *= 1e6
    space = ClassSpace(space.model)
    large = capture(space.trace(images_for(space), attention=True, heads=True))
    for name in ("head_raw", "value_raw"):
        assert np.isfinite(large.arrays[name]).all()
        assert np.abs(large.arrays[name]).max() > 65_504
        np.testing.assert_allclose(large.arrays[name] / 1e6, small.arrays[name], atol=2e-3)
    part = capture(space.trace(images_for(space)), payload="classes")
    assert np.isfinite(part.arrays["top_logits"]).all()
    assert fitting(np.array([1e5, np.nan], np.float32)).dtype == np.float32
    assert fitting(np.array([1.0, np.nan], np.float32)).dtype == np.float16


def test_the_largest_rank_error_is_that_of_all_points_and_chunks(monkeypatch):
    """Against loops over every stream point, class and token, whatever is held at a time."""
    space = tiny_vit(num_classes=300)
    trace = space.trace(images_for(space, 1))
    arrays = capture(trace, payload="increments").arrays
    noise = np.random.default_rng(0).normal(size=arrays["increments"][1].shape) * 100
    arrays["increments"][1] += noise.astype(np.float16)  # what the first attention adds is read worst
    scale = float(Reader(trace.image(0)).lens.folded.abs().max()) / 1024
    folded = torch.from_numpy(arrays["embedding"].astype(np.float32)) * scale
    rough = torch.from_numpy(arrays["increments"].astype(np.float32) * arrays["increment_scale"][:, None, None])
    exact, found, largest, sample = None, None, [], sorted({round(c) for c in np.linspace(0, 299, 20)})
    sigma = torch.from_numpy(arrays["sigma"])
    for n in range(len(rough)):
        both = [trace.increments[n][0] @ trace.lens.folded.T, rough[n] @ folded.T]
        exact, found = (both[0], both[1]) if n == 0 else (exact + both[0], found + both[1])
        for point, pair in ((2 * n - 1, both), (2 * n, (exact, found))):
            if point >= 0:
                own, other = (x / sigma[point][:, None] + trace.lens.offset for x in pair)
                for c in sample:
                    ranks = [(x > x[:, c, None]).sum(dim=-1) for x in (own, other)]
                    largest.append(int((ranks[0] - ranks[1]).abs().max()))
    assert max(largest) > max(largest[-len(sample) :]), "the last point must not be the worst, or it tells nothing"
    for limit in (200_000_000, 4 * 300 * 5, 4 * 300):
        monkeypatch.setattr("classspace_widgets.capture.reader.SCAN_LIMIT", limit)
        error = rounding_error(Reader(trace.image(0)), arrays, scale)
        assert error.largest_rank == max(largest)


def test_increments_of_a_pass_without_some_tokens():
    space = tiny_vit()
    whole = space.trace(images_for(space, 1))
    removed = trace_with(space, whole, RemoveTokens(tokens=[3, 8])).snapshot(payload="increments")
    lost = np.isnan(removed.arrays["increments"]).all(axis=(0, 2))
    assert np.flatnonzero(lost).tolist() == [3, 8]
    assert np.isfinite(removed.arrays["increments"][:, ~lost]).all()
    assert np.isfinite(removed.arrays["increment_scale"]).all()
    assert removed.meta["exactness"]["error"]["mean"] < 0.01
    again, _ = unpack(removed.pack())
    assert again["exactness"] == removed.meta["exactness"]


def test_what_reaches_no_output_is_said_of_every_token_that_is_read():
    space = ClassSpace(build("DeiT, distilled"), device="cpu")
    caveats = capture(space.trace(pixels(space, 1))).meta["caveats"]
    assert (
        "The output is read from [CLS] and [DIST]: what the last block adds to the image tokens cannot reach it."
        in caveats
    )


def test_lengths_of_tokens_are_those_of_the_stream(trace):
    norms = trace.snapshot(image=1).arrays["norms"]
    for number, point in enumerate(p for p in trace.points if trace.points.is_sum(p.stream)):
        expected = trace.stream(point.stream, point.block)[1].norm(dim=-1)
        np.testing.assert_allclose(norms[number, : trace.n_tokens], expected, rtol=2e-3)


def test_attention_received_is_that_of_the_metric(space, trace):
    from classspace_widgets.metrics import token_norms

    found = trace.snapshot(image=1).arrays["received"]
    expected = token_norms(trace).received[:, 1].numpy()
    np.testing.assert_allclose(found[:, : trace.n_tokens], expected, rtol=1e-5)
    np.testing.assert_allclose(np.nansum(found, axis=1), 1, rtol=1e-5)
    assert np.isnan(found[:, trace.n_tokens :]).all()
    assert "received" not in space.trace(trace.pictures[0]).snapshot().arrays
