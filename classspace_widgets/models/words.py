"""Words as class embeddings: the text towers of open_clip and of CLIP and SigLIP in transformers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.describe import short_repr
from classspace_widgets.lens.lens import full_precision
from classspace_widgets.models.adapter import unwrapped
from classspace_widgets.models.convert.preprocessor import HUB_NAME
from classspace_widgets.models.convert.wrapped import in_evaluation
from classspace_widgets.models.offline import cache_alone_where_cut_off
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

KINDS = {"open_clip": ("CLIP", "CustomTextCLIP"), "transformers": ("CLIPModel", "SiglipModel")}
"""By library: the classes that have a tower for pictures and one for text."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "spiece.model")
"""Files of which a tokenizer of CLIP or SigLIP has at least one."""

MAX_LETTERS = 1000
"""Letters of a class in words: a text tower reads some 77 tokens."""


@dataclass(frozen=True)
class Words:
    """A text tower: from words to the space that pictures share with them.

    Made by `words_of`; a space's own is ``space.words``.

    Attributes
    ----------
    templates : tuple of str
        Texts with ``{}`` in the place of the words; the mean of their features is a class.
    scale : float
        What the model multiplies cosines by.
    bias : float or None
        What it then adds (SigLIP).
    encode : callable
        From texts to features ``[n, D']``, as the tower makes them.
    projection : nn.Linear or None
        The last map of the picture tower ``[D', D]``, where its features are not yet in the shared space.
    """

    __repr__ = short_repr

    templates: tuple[str, ...]
    scale: float
    bias: float | None
    encode: Callable[[list[str]], Tensor]
    projection: nn.Linear | None = None

    def features(self, names: Sequence[str]) -> Tensor:
        """Features of classes, one row of length 1 each.

        With several templates: the mean of the features of every text, each of length 1, made length 1 again.

        Parameters
        ----------
        names : sequence of str
            Class names, or whole sentences where the template is ``"{}"``.

        Returns
        -------
        Tensor [n, D'], float32
        """
        texts = [template.replace("{}", name) for name in names for template in self.templates]
        found = torch.nn.functional.normalize(self.encode(texts).float(), dim=-1)
        if not bool(torch.isfinite(found).all()):
            raise ValueError(f"the text tower gives NaN or infinite features for {names[0]!r}; use it in float32")
        mean = found.view(len(names), len(self.templates), -1).mean(dim=1)
        return torch.nn.functional.normalize(mean, dim=-1)

    def embedding(self, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Class embedding ``[n, D]`` and bias ``[n]`` of classes in words, for vectors behind the picture tower's norm.

        Parameters
        ----------
        names : sequence of str

        Returns
        -------
        tuple of Tensor
            Features times ``scale``, taken through the projection; float32.
        """
        features = self.scale * self.features(names)
        bias = features.new_full((len(features),), self.bias or 0.0)
        if self.projection is None:
            return features, bias
        weight = self.projection.weight.detach().to(features)
        with full_precision(features):
            if self.projection.bias is not None:
                bias = bias + features @ self.projection.bias.detach().to(features)
            return features @ weight, bias


def words_of(model: nn.Module, tokenizer: Any = None, templates: Sequence[str] = ("{}",)) -> Words:
    """The text tower of a model that has one.

    Parameters
    ----------
    model : nn.Module
        ``CLIP`` or ``CustomTextCLIP`` of open_clip, ``CLIPModel`` or ``SiglipModel`` of transformers.
    tokenizer : callable, optional
        The model's own: what ``open_clip.get_tokenizer`` or ``transformers.AutoTokenizer.from_pretrained`` return.  By default
        CLIP's for open_clip, and for transformers the one beside the model's weights.
    templates : sequence of str
        See `Words`.

    Returns
    -------
    Words

    Raises
    ------
    UnsupportedModelError
        For a model without a text tower.
    ValueError
        For a template without ``{}``, or where the tokenizer is not known.
    """
    model = unwrapped(model)
    library = _library(model)
    owner: Any = model
    if tokenizer is None:
        tokenizer = _clip_tokenizer(owner) if library == "open_clip" else _tokenizer_beside(owner)
    scale = getattr(owner, "logit_scale", None)
    bias = getattr(owner, "logit_bias", None)
    encode = _open_clip if library == "open_clip" else _transformers
    return Words(
        checked_templates(templates),
        1.0 if scale is None else math.exp(float(scale.detach())),
        None if bias is None else float(bias.detach()),
        lambda texts: encode(owner, tokenizer, texts),
    )


def checked_templates(templates: Sequence[str]) -> tuple[str, ...]:
    """Templates as a tuple, each with a place for the words."""
    found = (templates,) if isinstance(templates, str) else tuple(templates)
    for template in found:
        if not isinstance(template, str) or "{}" not in template:
            raise ValueError(f"a template must be a text with {{}} in the place of the words, got {template!r}")
    if not found:
        raise ValueError("templates is empty; expected texts such as 'a photo of a {}'")
    return found


def checked_words(names: Sequence[str]) -> tuple[str, ...]:
    """Words of classes as a tuple: texts, none of them empty or given twice."""
    if isinstance(names, str):
        raise TypeError(f"the classes must be a list of texts, got the text {names!r}; write [{names!r}]")
    found = tuple(names)
    if not found:
        raise ValueError("no class was given; expected words such as ['a photo of a cat', 'a photo of a dog']")
    for name in found:
        if not isinstance(name, str):
            raise TypeError(f"a class must be a text, got {type(name).__name__}")
        if not name.strip() or len(name) > MAX_LETTERS:
            raise ValueError(f"a class must be a text of 1 to {MAX_LETTERS} letters, got {name[:60]!r}")
    stripped = tuple(name.strip() for name in found)
    twice = next((name for i, name in enumerate(stripped) if name in stripped[:i]), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is given twice; every class needs words of its own")
    return stripped


def _library(model: nn.Module) -> str:
    for kind in type(model).__mro__:
        library = kind.__module__.partition(".")[0]
        if kind.__name__ in KINDS.get(library, ()):
            return library
    known = "; ".join(f"{library}'s {' and '.join(names)}" for library, names in KINDS.items())
    raise UnsupportedModelError(
        f"{type(model).__name__} has no text tower that is known, which words need: expected {known}; for another one pass the "
        "features of its texts: ClassSpace(model, class_embedding=features, class_names=[...])"
    )


def _clip_tokenizer(model: Any) -> Any:
    import open_clip

    made = open_clip.SimpleTokenizer(context_length=model.context_length)
    if made.vocab_size != model.vocab_size:
        raise ValueError(
            f"the text tower knows {model.vocab_size} tokens and CLIP's tokenizer has {made.vocab_size}, so it has another one: "
            "pass tokenizer=open_clip.get_tokenizer(name)"
        )
    return made


def _tokenizer_beside(model: Any) -> Any:
    source = str(getattr(model.config, "_name_or_path", "") or "")
    if not source or not (Path(source).is_dir() or HUB_NAME.fullmatch(source)):
        raise ValueError(
            "the model does not say where its tokenizer is; pass "
            "tokenizer=transformers.AutoTokenizer.from_pretrained(folder or name)"
        )
    from transformers import AutoTokenizer

    beside = (
        f"there is no tokenizer beside the model in {source}; save it there with tokenizer.save_pretrained(folder), or pass "
        "tokenizer="
    )
    # transformers would make one without a vocabulary.
    if Path(source).is_dir() and not any((Path(source) / file).is_file() for file in TOKENIZER_FILES):
        raise ValueError(beside)
    try:
        with cache_alone_where_cut_off():
            return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{beside} ({type(error).__name__})") from error


def _open_clip(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    if hasattr(tokenizer, "encode"):
        for text in texts:
            _check_length(len(tokenizer.encode(text)) + 2, int(model.context_length), text)
    tokens = tokenizer(texts).to(next(model.parameters()).device)
    with in_evaluation(model), full_precision(tokens):
        features: Tensor = model.encode_text(tokens)
    return features.detach()


def _transformers(model: Any, tokenizer: Any, texts: list[str]) -> Tensor:
    limit = int(model.config.text_config.max_position_embeddings)
    for text in texts:
        _check_length(len(tokenizer(text)["input_ids"]), limit, text)
    # SigLIP was trained with texts filled up to their full length; for CLIP it makes no difference.
    tokens = tokenizer(texts, padding="max_length", max_length=limit, return_tensors="pt")
    tokens = {name: value.to(next(model.parameters()).device) for name, value in tokens.items() if name in INPUTS}
    if "Siglip" in type(model).__name__:
        tokens.pop("attention_mask", None)
    with in_evaluation(model), full_precision(tokens["input_ids"]):
        output = model.text_model(**tokens)
        features: Tensor = output[1] if isinstance(output, tuple) else output.pooler_output
        projection = getattr(model, "text_projection", None)
        return (features if projection is None else projection(features)).detach()


INPUTS = ("input_ids", "attention_mask")
"""What a text tower of transformers takes of a tokenizer's answer."""


def _check_length(tokens: int, limit: int, text: str) -> None:
    if tokens > limit:
        raise ValueError(f"{text[:60]!r} is too long: {tokens} tokens, the text tower reads at most {limit}")
