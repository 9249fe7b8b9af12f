"""From a `Recipe` to timm's model: built without memory, given the original's own tensors, and compared with the original."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lens.lens import full_precision
from classspace_widgets.models.refusals import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor, nn

    from classspace_widgets.models.convert.recipe import Recipe

TOLERANCE = 1e-4
"""The largest difference between original and conversion, as a share of the largest number, in float32."""


def assembled(recipe: Recipe, name: str) -> nn.Module:
    """timm's model with the original's weights: tensors that are the same share the original's memory.

    Parameters
    ----------
    recipe : Recipe
    name : str
        The original's, for messages.

    Returns
    -------
    nn.Module
        In evaluation mode.

    Raises
    ------
    UnsupportedModelError
        Where names or shapes of the weights are not those of the architecture.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model = recipe.architecture(**recipe.options)
    try:
        model.load_state_dict(recipe.weights, strict=True, assign=True)
    except RuntimeError as error:
        details = "; ".join(line.strip().rstrip(".") for line in str(error).splitlines()[1:])
        raise UnsupportedModelError(
            f"{name} cannot be converted: its weights are not those of a {type(model).__name__} of timm: {details[:600]}"
        ) from None
    _fill_buffers(model, recipe)
    model.pretrained_cfg = dict(recipe.config)  # type: ignore[assignment]
    return model.eval()


def _fill_buffers(model: nn.Module, recipe: Recipe) -> None:
    """What is computed and not loaded (indices of relative positions, rotations), from a model of one block."""
    empty = [name for name, buffer in model.named_buffers() if buffer.is_meta]
    if not empty:
        return
    parameter = next(model.parameters())
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        computed = dict(recipe.architecture(**{**recipe.options, "depth": 1}).named_buffers())
    for name in empty:
        owner, _, last = name.rpartition(".")
        value = computed[re.sub(r"^blocks\.\d+\.", "blocks.0.", name)].to(parameter.device)
        value = value.to(parameter.dtype) if value.is_floating_point() else value
        model.get_submodule(owner).register_buffer(last, value.clone(), persistent=False)


def check_equal(recipe: Recipe, model: nn.Module, name: str) -> None:
    """Run original and conversion on one picture of noise, and compare residual streams and answers.

    Parameters
    ----------
    recipe : Recipe
        Of the original in float32.
    model : nn.Module
        Its conversion.
    name : str
        The original's, for messages.

    Raises
    ------
    UnsupportedModelError
        With the first place where they differ by more than `TOLERANCE` of the largest number.
    """
    blocks: Any = model.blocks
    assert recipe.run is not None
    parameter = next(model.parameters())
    size = blocks_input_size(model)
    generator = torch.Generator("cpu").manual_seed(0)
    pixels = torch.randn((1, *size), generator=generator, device="cpu").to(parameter)
    with torch.no_grad(), full_precision(pixels):
        with streams_of(recipe.blocks) as theirs:
            expected = recipe.run(pixels)
        with streams_of(list(blocks)) as ours:
            found = model(pixels)
    places = ["the embedding", *(f"block {number}" for number in range(1, len(ours)))]
    for place, before, after in zip((*places, "the answer"), (*theirs, expected), (*ours, found), strict=True):
        error = difference(before, after)
        if not error <= TOLERANCE:
            where = (
                "its residual streams are equal, but the answer after the last block"
                if place == "the answer"
                else f"after {place} the residual stream is the first thing that"
            )
            raise UnsupportedModelError(
                f"{name} cannot be converted: {where} differs from its timm equivalent by {error:.1e} of the largest number "
                f"(at most {TOLERANCE:g} is rounding), so something in it computes otherwise than the plain architecture; "
                "undo what was changed there, or write the model as timm's and pass that"
            )


def blocks_input_size(model: nn.Module) -> tuple[int, int, int]:
    """Channels, height and width of a timm model's input."""
    embed: Any = model.patch_embed
    return int(embed.proj.weight.shape[1]), int(embed.img_size[0]), int(embed.img_size[1])


def difference(before: Tensor, after: Tensor) -> float:
    """The largest difference as a share of the largest number; infinite where sizes differ."""
    if before.numel() != after.numel():
        return float("inf")
    before, after = before.double().flatten(), after.double().flatten()
    return float((before - after).abs().max() / before.abs().max().clamp_min(1e-12))


@contextmanager
def streams_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect the residual stream in front of the first block and after every block, of a pass."""
    kept: list[Tensor] = []

    def enter(_module: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        kept.append(args[0] if args else next(iter(options.values())))

    def leave(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    handles: list[Any] = [blocks[0].register_forward_pre_hook(enter, with_kwargs=True)]
    handles += [block.register_forward_hook(leave) for block in blocks]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()
