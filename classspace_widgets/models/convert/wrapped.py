"""What stands around a vision transformer: found, compared with it, and left out where the answer is the same."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import full_precision
from classspace_widgets.models.adapter import unwrapped
from classspace_widgets.models.convert.assemble import TOLERANCE, difference

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn


@dataclass(frozen=True)
class Normalisation:
    """A part of a wrapper that normalises pixels in 0..1: its dotted name ("" for the wrapper itself), and its mean and standard deviation by channel."""

    where: str
    mean: tuple[float, ...]
    std: tuple[float, ...]


def inner_models(model: nn.Module, known: Callable[[nn.Module], bool]) -> list[str]:
    """Dotted names of the modules inside another that are models of a known kind, only the outermost ones.

    Parameters
    ----------
    model : nn.Module
    known : callable
        Says of a module whether it is such a model.

    Returns
    -------
    list of str
    """
    found: list[str] = []
    seen: set[int] = set()
    for name, part in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and id(unwrapped(part)) not in seen and known(unwrapped(part)):
            found.append(name)
            seen.add(id(unwrapped(part)))
    return found


def same_answer(model: nn.Module, inner: nn.Module, where: str) -> Normalisation | str | None:
    """Whether what stands around a model changes its answer, tried on one picture of noise in 0..1.

    Parameters
    ----------
    model : nn.Module
    inner : nn.Module
        The model inside, which returns class logits (or features).
    where : str
        Its dotted name.

    Returns
    -------
    Normalisation, str or None
        None: the answer is the same.  A normalisation: it is the same behind that.  Else the reason in words.
    """
    embed: Any = inner.patch_embed
    size = tuple(embed.img_size or (224, 224))
    parameter = next(inner.parameters())
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = torch.rand((1, embed.proj.weight.shape[1], *size), generator=generator, device="cpu").to(parameter)
    with in_evaluation(model), in_evaluation(inner), full_precision(pixels):
        try:
            expected = answer_of(model(pixels))
        except Exception as error:  # its forward may raise anything
            return f"it cannot be run on a picture ({type(error).__name__})"
        if expected is None:
            return "what it returns holds no logits"
        found = inner(pixels)
        if _equal(expected, found):
            return None
        for normalisation in _normalisations(model, where, pixels.shape[1]):
            mean, std = (pixels.new_tensor(part).view(1, -1, 1, 1) for part in (normalisation.mean, normalisation.std))
            if _equal(expected, inner((pixels - mean) / std)):
                return normalisation
    return "what stands around it changes the answer"


def _equal(expected: Tensor, found: Tensor) -> bool:
    # In half precision the last digits depend on the order of the products.
    return difference(expected, found) <= max(TOLERANCE, 20 * torch.finfo(found.dtype).eps)


def answer_of(output: Any) -> Tensor | None:
    """The logits in what a model returns: a tensor, or the ``logits`` of an output of transformers."""
    if isinstance(output, torch.Tensor):
        return output
    found = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", None)
    return found if isinstance(found, torch.Tensor) else None


def _normalisations(model: nn.Module, where: str, channels: int) -> Iterator[Normalisation]:
    for name, part in model.named_modules():
        if name == where or name.startswith(f"{where}."):
            continue
        mean, std = (_numbers(getattr(part, kind, None), channels) for kind in ("mean", "std"))
        if mean is not None and std is not None and min(std) > 0:
            yield Normalisation(name, mean, std)


def _numbers(value: Any, channels: int) -> tuple[float, ...] | None:
    """One number for every channel, from a tensor of any shape or a sequence; None of anything else."""
    try:
        numbers = torch.as_tensor(value, dtype=torch.float64, device="cpu").flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        return None
    numbers = numbers * channels if len(numbers) == 1 else numbers
    return tuple(numbers) if len(numbers) == channels else None


@contextmanager
def in_evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, nothing compiled; modes go back as they were."""
    training = [module for module in model.modules() if module.training]
    compiled = any(hasattr(module, "_orig_mod") for module in model.modules())
    eager: Any = getattr(torch.compiler, "set_stance", None) if compiled else None
    model.eval()
    try:
        with torch.no_grad(), eager("force_eager") if eager else nullcontext():
            yield
    finally:
        for module in training:
            module.training = True
