"""Images of every form, constructors, and what happens with bad input."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from classspace_widgets import ClassSpace
from classspace_widgets import metrics as m
from classspace_widgets.images import read_picture
from core.families import SMALL, build, perturbed, pixels


@pytest.fixture(scope="module")
def plain():
    return ClassSpace(build("ViT"))


def gradient(height=40, width=60):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 4, y * 6, 255 - x * 4], axis=-1).astype(np.uint8)


@pytest.mark.parametrize(
    ("mode", "values", "colour"),
    [
        ("L", 200, (200, 200, 200)),
        ("1", 1, (255, 255, 255)),
        ("P", 3, (9, 10, 11)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (76, 85, 255), (254, 0, 0)),
        ("HSV", (85, 255, 200), (0, 200, 0)),
        ("LAB", (255, 128, 128), (255, 255, 255)),
    ],
)
def test_modes(mode, values, colour):
    source = Image.new(mode, (60, 40), values)
    if mode == "P":
        source.putpalette(list(range(12)))
    picture, _ = read_picture(source)
    assert picture.mode == "RGB"
    assert picture.size == (60, 40)
    assert np.abs(np.asarray(picture, int) - colour).max() <= 1


def test_transparency_is_laid_on_white():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert read_picture(clear)[0].getpixel((0, 0)) == (255, 255, 255)
    half, _ = read_picture(Image.new("LA", (4, 4), (0, 128)))
    assert half.getpixel((0, 0)) == (127, 127, 127)
    palette = Image.new("P", (4, 4), 0)
    palette.info["transparency"] = 0
    assert read_picture(palette)[0].getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_and_floats(tmp_path):
    # 65535 is 255 times 257: a division by 256 would give 201 for the second.
    values = np.array([[0, 1 + 257 * 200, 257 * 100 + 129, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    for source in (tmp_path / "deep.png", values, values / 65535):
        assert [read_picture(source)[0].getpixel((i, 0))[0] for i in range(4)] == [0, 200, 101, 255]


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient()).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg")[0].size == (40, 60)


def test_all_forms_give_the_same_pixels(plain, tmp_path):
    array = gradient()
    Image.fromarray(array).save(tmp_path / "one.png")
    expected, pictures, _ = plain.preprocess(Image.fromarray(array))
    forms = [
        tmp_path / "one.png",
        str(tmp_path / "one.png"),
        (tmp_path / "one.png").read_bytes(),
        array,
        torch.from_numpy(array).permute(2, 0, 1),
        array[None],
    ]
    for form in forms:
        got, shown, _ = plain.preprocess(form)
        assert torch.equal(got, expected)
        assert np.array_equal(shown, pictures)
    assert plain.preprocess([tmp_path / "one.png", array])[2] == ("one.png", "")
    again, shown, _ = plain.preprocess(expected)
    assert torch.equal(again, expected)
    assert np.array_equal(shown, pictures)
    assert pictures.shape == (1, 32, 32, 3)


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ("nothing/here.png", FileNotFoundError, "no image file"),
        (b"not an image at all", ValueError, "not an image"),
        (3, TypeError, "got int"),
        ([], ValueError, "at least one image"),
        (np.zeros((3, 40, 60), np.uint8), ValueError, "transpose"),
        (np.zeros((0, 5, 3), np.uint8), ValueError, "no pixels"),
        (np.full((4, 4, 3), np.nan), ValueError, "NaN"),
        (np.full((4, 4, 3), 200.0), ValueError, "divide by 255"),
        (torch.full((1, 3, 32, 32), float("nan")), ValueError, "NaN"),
        (torch.zeros(1, 32, 32, 3), ValueError, "permute"),
        (torch.zeros(1, 3, 20, 32), ValueError, r"\[B, 3, 32, 32\]"),
        (torch.zeros(32, 32), ValueError, "shape"),
        ([torch.zeros(2, 3, 32, 32), torch.zeros(2)], ValueError, r"got \(2,\); of a batch of images and labels"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), ValueError, "int64"),
    ],
)
def test_bad_images(plain, bad, error, words):
    with pytest.raises(error, match=words):
        plain.trace(bad)


def test_ready_input_is_checked_however_it_comes(plain):
    with pytest.raises(ValueError, match=r"\[B, 3, 32, 32\], got \(3, 20, 32\)"):
        plain.trace_pixels(torch.zeros(3, 20, 32))
    with pytest.raises(TypeError, match=r"must be a tensor .* got ndarray"):
        plain.trace_pixels(np.zeros((1, 3, 32, 32)))
    assert plain.trace_pixels(torch.zeros(3, 32, 32)).n_images == 1
    with pytest.warns(UserWarning, match=r"normalised to -\d.*holds 0\.\.255; pass pictures of 0..255 as uint8"):
        plain.trace(torch.linspace(0, 255, 3 * 32 * 32).reshape(1, 3, 32, 32))


@pytest.mark.parametrize(("chunk", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)])
def test_a_chunk_is_a_number_of_images(plain, chunk, error):
    with pytest.raises(error, match=r"chunk .* at least 1, got"):
        plain.trace(pixels(plain), chunk=chunk)


def test_truncated_and_gigantic_files(plain, tmp_path, monkeypatch):
    Image.fromarray(gradient(400, 600)).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    with pytest.raises(ValueError, match="damaged or cut short"):
        plain.trace(data[: len(data) // 2])
    monkeypatch.setattr("classspace_widgets.images.read.MAX_PIXELS", 200_000)
    with pytest.raises(ValueError, match=r"too narrow: 1 x 501 pixels, at most 1 : 500"):
        plain.trace(Image.new("RGB", (1, 501)))
    with pytest.raises(ValueError, match="too large: 600 x 400"):
        plain.trace(tmp_path / "whole.jpg")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="too large"):
        plain.trace(tmp_path / "whole.jpg")


def test_classes_by_name_and_number(plain):
    trace = plain.trace(pixels(plain))
    assert plain.class_index("class 3") == 3
    for bad in (12, -1, "klass 3"):
        with pytest.raises(ValueError, match=r"class"):
            trace.logits(classes=bad)
    with pytest.raises(ValueError, match="close matches: class 3"):
        plain.class_index("clas 3")


def test_unknown_models_and_missing_weights(monkeypatch):
    with pytest.raises(TypeError, match="no option 'num_clases'; close matches: num_classes"):
        ClassSpace.from_timm("test_vit", pretrained=False, num_clases=3)
    with pytest.raises(ValueError, match="close matches: vit_base_patch16_224"):
        ClassSpace.from_timm("vit_bse_patch16_224")

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(RuntimeError, match=r"checkpoint=.*bundled"):
        ClassSpace.from_timm("vit_base_patch16_224")


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without CUDA")
def test_cuda_asked_for_and_absent():
    with pytest.raises(RuntimeError, match="no CUDA device"):
        ClassSpace(build("ViT"), device="cuda")


def test_out_of_memory_is_met_with_smaller_chunks(plain):
    sizes = []

    def run(some):
        sizes.append(len(some))
        if len(some) > 1:
            raise torch.OutOfMemoryError("out")
        return len(some)

    with pytest.warns(UserWarning, match="going on with") as said:
        assert plain.in_chunks(pixels(plain, 4), run) == [1, 1, 1, 1]
    assert [str(one.message).rpartition(" ")[2] for one in said] == ["2", "1"]
    assert sizes == [4, 2, 1, 1, 1, 1]

    def never(some):
        raise torch.OutOfMemoryError("out")

    with pytest.warns(UserWarning, match="going on with 1"), pytest.raises(RuntimeError, match="one image at a time"):
        plain.in_chunks(pixels(plain), never)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_checkpoints(tmp_path, suffix):
    from safetensors.torch import save_file

    model = build("ViT")
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        # As a module around a model, some of whose blocks were compiled, is saved.
        named = {k.replace("blocks.1.", "blocks.1._orig_mod."): v for k, v in model.state_dict().items()}
        torch.save({"state_dict": {f"module.model.{k}": v for k, v in named.items()}}, path)
    else:
        save_file(model.state_dict(), path)
    options = {k: v for k, v in SMALL.items() if k != "num_classes"}
    space = ClassSpace.from_timm("vit_base_patch16_224", checkpoint=path, device="cpu", **options)
    assert space.n_classes == 12
    assert torch.equal(space.lens.folded, ClassSpace(model).lens.folded)
    with pytest.raises(ValueError, match="does not fit"):
        ClassSpace.from_timm("vit_base_patch16_224", checkpoint=path, **{**options, "depth": 3})


def test_checkpoints_that_would_run_code_are_refused(tmp_path):
    torch.save({"state_dict": timm.data.ImageNetInfo}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match="not unpickled because that runs code"):
        ClassSpace.from_timm("vit_base_patch16_224", checkpoint=tmp_path / "code.pth")


def test_foreign_class_embeddings():
    tower = perturbed(timm.create_model("vit_base_patch16_clip_224", **{**SMALL, "num_classes": 16}))
    text = torch.randn(5, 16)
    space = ClassSpace(tower, class_embedding=text, class_names=list("abcde"))
    trace = space.trace(pixels(space))
    with torch.inference_mode():
        features = tower(pixels(space))
    assert torch.allclose(trace.output, features @ text.T, atol=1e-5)
    assert tower.head.bias is not None
    shift = torch.randn(5)
    biased = ClassSpace(tower, class_embedding=text, class_bias=shift).trace(pixels(space))
    assert torch.allclose(biased.output, features @ text.T + shift, atol=1e-5)
    headless = perturbed(timm.create_model("vit_base_patch16_siglip_224", **{**SMALL, "num_classes": 0}))
    own = ClassSpace(headless, class_embedding=torch.randn(5, 32), class_bias=torch.randn(5), class_norm="none")
    vectors = own.trace(pixels(own)).stream("residual", 2)
    expected = vectors @ own.adapter.embedding.T + own.adapter.bias
    assert torch.allclose(own.trace(pixels(own)).logits(), expected, atol=1e-5)
    for bad in (torch.randn(5, 7), torch.randn(5), torch.full((5, 32), float("nan"))):
        with pytest.raises(ValueError, match="class_embedding"):
            ClassSpace(headless, class_embedding=bad)


@pytest.mark.parametrize("family", ["ViT", "DeiT, distilled"])
def test_a_model_that_goes_on_learning_is_read_as_it_is_now(family):
    model = build(family).double()
    space = ClassSpace(model)
    images = pixels(space)

    def lens_is_the_models_own_output():
        return torch.allclose(space.trace(images).readout(), model(images).detach(), atol=1e-9)

    before = space.lens
    assert space.lens is before
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    torch.nn.functional.cross_entropy(model(images), torch.tensor([3, 5])).backward()
    optimizer.step()
    assert space.lens is not before
    assert lens_is_the_models_own_output()
    weights = build(family).double().state_dict()
    weights["head.weight"] += 1
    for assign in (False, True):
        model.load_state_dict({name: weight.clone() for name, weight in weights.items()}, assign=assign)
        assert lens_is_the_models_own_output()
        weights["norm.weight"] *= 2
    torch.nn.utils.parametrizations.weight_norm(model.head)
    with torch.no_grad():
        model.head.parametrizations.weight.original0 *= 3
    assert lens_is_the_models_own_output()
    model.head = torch.nn.Linear(space.adapter.width, 7).double()
    with pytest.raises(ValueError, match="had 12 classes when this ClassSpace was made, now its classifier has 7"):
        space.stream_readings(images, 0)


@pytest.mark.parametrize("options", [{}, {"final_norm": False}])
def test_a_trace_keeps_the_lens_it_was_taken_with(options):
    space = ClassSpace(build("ViT", **options))
    trace = space.trace(pixels(space))
    before = trace.logits().clone()
    with torch.no_grad():
        for parameter in space.model.parameters():
            parameter.mul_(2)
    assert torch.equal(trace.logits(), before)
    assert not torch.allclose(space.trace(pixels(space)).logits(), before)


def test_a_copy_of_a_space_reads_its_own_model():
    space = ClassSpace(build("ViT"))
    for other in (copy.deepcopy(space), pickle.loads(pickle.dumps(space))):
        with torch.no_grad():
            other.model.head.weight.mul_(2)
        assert torch.allclose(other.lens.folded, 2 * space.lens.folded)


def test_random_twins():
    space = ClassSpace(build("ViT"))
    one, same, other = space.random_twin(1), space.random_twin(1), space.random_twin(2)
    assert torch.equal(one.lens.folded, same.lens.folded)
    assert not torch.equal(one.lens.folded, other.lens.folded)
    for (name, fresh), (_, trained) in zip(one.model.named_parameters(), space.model.named_parameters(), strict=True):
        assert not torch.equal(fresh, trained), name
    assert one.trace(pixels(one)).logits().shape == space.trace(pixels(space)).logits().shape


def test_a_model_elsewhere_is_copied_not_moved():
    model = build("ViT")
    space = ClassSpace(model, dtype=torch.float64)
    assert next(model.parameters()).dtype == torch.float32
    assert space.dtype == torch.float64
    assert ClassSpace(model).model is model


def test_names():
    space = ClassSpace(timm.create_model("test_vit"))
    assert space.class_names[1] == "goldfish"
    assert len(set(space.class_names)) == 1000
    with pytest.raises(ValueError, match="1000 classes, got 2"):
        ClassSpace(timm.create_model("test_vit"), class_names=["a", "b"])


def test_not_a_model():
    with pytest.raises(TypeError, match="from_timm"):
        ClassSpace("vit_base_patch16_224")


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda t: t.logits(block=1.5), TypeError, "whole number in 0..2, got 1.5"),
        (lambda t: t.logits(block="1"), TypeError, "whole number"),
        (lambda t: t.logits(block=[]), ValueError, "block is empty"),
        (lambda t: t.logits(tokens=[True, False]), TypeError, "whole number"),
        (lambda t: t.logits(tokens=1.5), TypeError, "whole number"),
        (lambda t: t.logits(classes=True), TypeError, "index or a name, got bool"),
        (lambda t: t.logits(classes=3.0), TypeError, "index or a name, got float"),
        (lambda t: t.top_k(2.5), TypeError, "k must be a whole number"),
        (lambda t: t.stream("mlp", 0.5), TypeError, "whole number"),
        (lambda t: m.contributions(t, None), TypeError, "by index or name, got None"),
        (lambda t: m.direct_by_head(t, 0, 1), ValueError, "block must be in 1..2"),
        (lambda t: m.direct_by_source(t, 1, 1, [-1]), ValueError, "token must be in"),
        (lambda t: t.space.trace(t.pictures[0], attention=[1.5]), TypeError, "attention: a block"),
        (lambda t: t.space.trace(t.pictures[0], heads=2), TypeError, "heads must be True, False or blocks"),
        (lambda t: t.space.stream_readings(t.pictures[0], []), ValueError, "classes is empty"),
        (lambda t: t.save("none/trace.safetensors"), FileNotFoundError, "create it first"),
    ],
)
def test_numbers_and_names_are_checked(plain, ask, error, words):
    trace = plain.trace(gradient(), attention=True, heads=True)
    with pytest.raises(error, match=words):
        ask(trace)


def test_numpy_and_torch_numbers_are_numbers(plain):
    trace = plain.trace(gradient(), attention=True, heads=True)
    expected = trace.logits("mlp", 2, classes=[3], tokens=[4])
    for kind in (np.int64, torch.tensor):
        assert torch.equal(trace.logits("mlp", kind(2), classes=kind(3), tokens=kind(4)), expected)
    assert trace.logits("mlp", np.array([1, 2])).shape[0] == 2
    assert m.direct_by_source(trace, np.int64(1), 3, 0).shape == m.direct_by_source(trace, 1, 3, [0]).shape
    assert trace.snapshot(classes="class 3", payload="classes").meta["classes"]["kept"] == [3]


def test_class_names_as_given():
    model = build("ViT", num_classes=3)
    expected = ("cat", "dog", "owl")
    for names in (np.array(expected), dict(enumerate(expected)), {"2": "owl", "0": "cat", "1": "dog"}, iter(expected)):
        assert ClassSpace(model, class_names=names, check=False).class_names == expected
    assert ClassSpace(model, class_names=["a", "a", "a (2)"], check=False).class_names == ("a", "a (3)", "a (2)")
    for names, error, words in (
        ("cat", TypeError, "the text 'cat'"),
        ({0: "cat", 2: "owl"}, ValueError, r"classes 0\.\.2"),
        (["cat", None, "owl"], ValueError, "class 1 has None"),
    ):
        with pytest.raises(error, match=words):
            ClassSpace(model, class_names=names)
    with pytest.raises(ValueError, match="class_bias goes with class_embedding"):
        ClassSpace(model, class_bias=torch.zeros(3))


def test_one_channel_and_one_class():
    grey = ClassSpace(build("ViT", in_chans=1))
    trace = grey.trace(gradient())
    assert trace.pictures.shape[-1] == 3
    assert grey.trace(pixels(grey)[:, :1]).n_images == 2
    assert trace.snapshot().arrays["image"].size
    many = ClassSpace(build("ViT", in_chans=5))
    with pytest.raises(ValueError, match=r"give a tensor \[B, 5"):
        many.trace(gradient())
    with pytest.warns(UserWarning, match="has one class"):
        lone = ClassSpace(build("ViT", num_classes=1))
    assert lone.identities["output"] < 1e-4


def test_sizes_that_do_not_fit_the_patches():
    space = ClassSpace(build("ViT", dynamic_img_size=True))
    with pytest.raises(ValueError, match="multiples of"):
        space.trace(torch.zeros(1, 3, 33, 64))


def test_models_by_name_are_checked():
    with pytest.raises(TypeError, match="ClassSpace takes a model"):
        ClassSpace.from_timm(build("ViT"))
    with pytest.raises(ValueError, match="no weights 'nope' for 'test_vit'; there are"):
        ClassSpace.from_timm("test_vit.nope", pretrained=False)
    with pytest.raises(TypeError, match=r"torch\.bfloat16"):
        ClassSpace(build("ViT"), dtype="bfloat16")
