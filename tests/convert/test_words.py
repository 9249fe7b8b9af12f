"""Classes in words: against what the models of the other libraries say themselves about picture and text."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from classspace_widgets import ClassSpace
from classspace_widgets.models import UnsupportedModelError
from convert.originals import BACKBONES, answer, open_clip_pair, perturbed, pixels

NAMES = ("cat", "dog", "owl")
TEMPLATES = ("a photo of a {}", "a drawing of a {}.")
WORDS = ["a", "photo", "drawing", "of", "on", "tree", "cat", "dog", "owl", "zebra", ".", "striped", "horse"]


def letters(text, first=1, last=2, length=8):
    """Word numbers of a text, between a start and an end: the tokenizer of the tests."""
    found = [3 + WORDS.index(word) for word in re.findall(r"\w+|\.", text)]
    return [first, *found, last]


class OpenClipTokenizer:
    """As those of open_clip are called: a list of texts to numbers ``[n, length]``."""

    def encode(self, text):
        return letters(text)[1:-1]

    def __call__(self, texts, context_length=8):
        out = torch.zeros(len(texts), context_length, dtype=torch.long)
        for row, text in zip(out, texts, strict=True):
            found = letters(text, last=49)  # open_clip reads the text at its largest number
            row[: len(found)] = torch.tensor(found)
        return out


@pytest.fixture(scope="module")
def transformers_tokenizer(tmp_path_factory):
    """A tokenizer of transformers, built from a vocabulary of words in a file."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"<pad>": 0, "<start>": 1, "<end>": 2} | {word: 3 + i for i, word in enumerate(WORDS)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<start>", eos_token="<end>"
    )


def made(family, tokenizer, **options):
    if family == "open_clip":
        return open_clip_pair(), OpenClipTokenizer()
    return BACKBONES[family](), tokenizer


def text_features(model, tokenizer, texts):
    """What the library's own code makes of texts."""
    if hasattr(model, "encode_text"):
        return model.encode_text(tokenizer(texts), normalize=True)
    numbers = tokenizer(texts, padding="max_length", max_length=8, return_tensors="pt")["input_ids"]
    found = model.get_text_features(input_ids=numbers)
    found = getattr(found, "pooler_output", found)
    return torch.nn.functional.normalize(found, dim=-1)


@pytest.mark.parametrize("family", ["open_clip", "CLIP", "SigLIP"])
@pytest.mark.parametrize("templates", [("{}",), TEMPLATES], ids=["as typed", "templates"])
def test_the_order_of_classes_is_the_models_own(family, templates, transformers_tokenizer):
    model, tokenizer = made(family, transformers_tokenizer)
    space = ClassSpace.from_words(model, NAMES, tokenizer=tokenizer, templates=templates)
    batch = pixels(4)
    trace = space.trace(batch)
    with torch.no_grad():
        texts = torch.stack([text_features(model, tokenizer, [t.format(n) for t in templates]).mean(0) for n in NAMES])
        texts = torch.nn.functional.normalize(texts, dim=-1)
        features = answer(model, batch)
        cosines = torch.nn.functional.normalize(features, dim=-1) @ texts.T
    scale, bias = model.logit_scale.exp().item(), getattr(model, "logit_bias", None)
    bias = 0.0 if bias is None else bias.item()
    assert space.class_names == NAMES
    # A picture's logits are the model's, times one number of that picture: the length of its features.
    noise = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        lengths = features.norm(dim=-1, keepdim=True) / answer(model, noise).norm()
    assert torch.allclose(trace.output, scale * cosines * lengths + bias, rtol=1e-3, atol=1e-4)
    assert torch.equal(trace.output.argsort(), cosines.argsort())


def test_what_transformers_says_of_text_and_picture_has_the_same_order(transformers_tokenizer):
    model, tokenizer = made("CLIP", transformers_tokenizer)
    space = ClassSpace.from_words(model, NAMES, tokenizer=tokenizer)
    numbers = tokenizer(list(NAMES), padding=True, return_tensors="pt")
    with torch.no_grad():
        own = model(pixel_values=pixels(3), input_ids=numbers["input_ids"], attention_mask=numbers["attention_mask"])
    assert torch.equal(space.trace(pixels(3)).output.argsort(), own.logits_per_image.argsort())


@pytest.mark.parametrize("family", ["open_clip", "SigLIP"])
def test_a_typed_class_is_the_same_as_one_from_the_start(family, transformers_tokenizer):
    model, tokenizer = made(family, transformers_tokenizer)
    space = ClassSpace.from_words(model, NAMES, tokenizer=tokenizer, templates=["a photo of a {}"])
    more = space.with_words(["zebra", "cat", " striped horse "])
    whole = ClassSpace.from_words(
        model, [*NAMES, "zebra", "striped horse"], tokenizer=tokenizer, templates=["a photo of a {}"]
    )
    assert more.class_names == whole.class_names
    assert space.class_names == NAMES
    assert more.model is space.model
    assert more.with_words(["zebra"]) is more
    trace = space.trace(pixels())
    read = more.reread(trace)
    expected = whole.trace(pixels())
    assert read.increments[3] is trace.increments[3]
    assert torch.allclose(read.output, expected.output, atol=1e-5)
    for stream in ("attention", "residual"):
        assert torch.equal(read.ranks(stream, 2), expected.ranks(stream, 2))
    assert torch.allclose(
        read.logits("mlp", 1, classes=["zebra"]), expected.logits("mlp", 1, classes=["zebra"]), atol=1e-5
    )
    assert read.space is more


def test_a_folder_with_its_tokenizer(transformers_tokenizer, tmp_path):
    model, tokenizer = made("CLIP", transformers_tokenizer)
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"there is no tokenizer beside the model .*tokenizer\.save_pretrained"):
        ClassSpace.from_words(tmp_path, NAMES)
    tokenizer.save_pretrained(tmp_path)
    space = ClassSpace.from_words(tmp_path, NAMES, device="cpu", name="mine")
    expected = ClassSpace.from_words(model, NAMES, tokenizer=tokenizer)
    assert torch.allclose(space.trace(pixels()).output, expected.trace(pixels()).output, atol=1e-5)
    assert space.name == "mine"
    assert "CLIPModel of transformers" in space.origin


def test_clips_own_tokenizer_is_found_for_open_clip():
    open_clip = pytest.importorskip("open_clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1}
    tower = {"layers": 2, "width": 32, "head_width": 8, "patch_size": 8, "image_size": 32}
    torch.manual_seed(0)
    model = perturbed(open_clip.model.CLIP(12, tower, text))
    space = ClassSpace.from_words(model, NAMES)
    with torch.no_grad():
        tokens = open_clip.SimpleTokenizer(context_length=77)(list(NAMES))
        own = model.get_logits(pixels(), tokens)[0]
    assert torch.equal(space.trace(pixels()).output.argsort(), own.argsort())
    with pytest.raises(ValueError, match="is too long: 82 tokens, the text tower reads at most 77"):
        space.with_words(["cat " * 80])


def test_everything_of_a_space_is_there_for_words(transformers_tokenizer):
    model, tokenizer = made("CLIP", transformers_tokenizer)
    space = ClassSpace.from_words(model, NAMES, tokenizer=tokenizer, mean=0.5, std=0.5, crop=1.0).with_words(["zebra"])
    picture = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    trace = space.trace(picture, attention=True, heads=True)
    assert tuple(trace.snapshot().class_names) == (*NAMES, "zebra")
    twin = space.random_twin()
    assert twin.class_names == space.class_names
    with pytest.raises(ValueError, match=r"has no text tower.*ClassSpace\.from_words"):
        twin.with_words(["horse"])


@pytest.mark.parametrize(
    ("names", "options", "error", "words"),
    [
        ("cat", {}, TypeError, r"must be a list of texts, got the text 'cat'; write \['cat'\]"),
        ([], {}, ValueError, "no class was given"),
        (["cat", " "], {}, ValueError, "a text of 1 to 1000 letters, got ' '"),
        (["cat", 3], {}, TypeError, "a class must be a text, got int"),
        (["cat", "cat "], {}, ValueError, "'cat' is given twice"),
        (["cat"], {"templates": ["a photo"]}, ValueError, "a template must be a text with {}"),
        (["cat"], {"templates": []}, ValueError, "templates is empty"),
        (["a photo of a cat on a tree"], {}, ValueError, "too long: 10 tokens, the text tower reads at most 8"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*one logit")
def test_words_that_cannot_be_classes(names, options, error, words):
    with pytest.raises(error, match=words):
        ClassSpace.from_words(open_clip_pair(), names, tokenizer=OpenClipTokenizer(), **options)


def test_models_without_a_text_tower(transformers_tokenizer):
    with pytest.raises(UnsupportedModelError, match=r"CLIPVisionModel has no text tower.*CLIPModel and SiglipModel"):
        ClassSpace.from_words(BACKBONES["CLIP, vision tower"](), NAMES)
    with pytest.raises(ValueError, match="has no text tower to read words with"):
        ClassSpace.bundled().with_words(["zebra"])
    with pytest.raises(ValueError, match=r"pass tokenizer=open_clip\.get_tokenizer"):
        ClassSpace.from_words(open_clip_pair(), NAMES)
    with pytest.raises(ValueError, match=r"pass tokenizer=transformers\.AutoTokenizer"):
        ClassSpace.from_words(BACKBONES["CLIP"](), NAMES)


def test_a_trace_of_another_model_is_refused():
    first, second = (ClassSpace.bundled(variant) for variant in ("default", "contrast"))
    trace = first.trace(torch.zeros(1, 3, 96, 96))
    with pytest.raises(ValueError, match="the trace is of another model than bundled/contrast"):
        second.reread(trace)
    assert torch.allclose(first.reread(trace).output, trace.output, atol=1e-4)
