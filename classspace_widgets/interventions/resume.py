"""Resuming a forward pass at any block, with changed vectors, fewer tokens or changed attention.

`Resumable.record` runs the model once and stores every block's input, together with the other arguments of the call, such as
rotary positions. Later passes call the blocks themselves, from any block on, and then the model's own norm and head. Models
that do more after their last block are refused: the recorded pass must give the model's output again.
"""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from classspace_widgets.interventions.attention import attention_module, explicit_weights, replaced_product
from classspace_widgets.interventions.engine import has_position_bias, kept_positions
from classspace_widgets.lens import ClassLens, Readout
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.trace.hooks import evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from classspace_widgets.interventions.attention import Drop, Product
    from classspace_widgets.models import Adapter


_compared: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Models whose recorded pass has given their output: on a GPU, where comparing waits, that is looked at once."""


@dataclass(frozen=True)
class Resumable:
    """A forward pass that was run once and can be resumed at any block.

    Attributes
    ----------
    adapter : Adapter
    inputs : tuple of Tensor [B, T, D]
        The input of every block, and the last block's output: ``x_0 .. x_L``.
    arguments : tuple of dict
        The other arguments of every block (rotary positions, a shared bias).
    output : Tensor [B, C]
        The model's own logits; with a class embedding of the user's, the pooled lens of the last block's output.
    lens : ClassLens or None
        The lens of the user's class embedding; None if the model's own classifier is read.
    """

    adapter: Adapter
    inputs: tuple[Tensor, ...]
    arguments: tuple[dict[str, Any], ...]
    output: Tensor
    lens: ClassLens | None = None

    @classmethod
    def record(cls, adapter: Adapter, pixels: Tensor) -> Resumable:
        """Run the model on pixels ``[B, 3, height, width]`` and store what resuming needs."""
        inputs: list[Tensor] = []
        arguments: list[dict[str, Any]] = []

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if len(args) != 1:
                raise UnsupportedModelError("blocks are called with more than one positional argument")
            inputs.append(args[0])
            arguments.append(kwargs)

        def leave(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
            inputs.append(output)

        with ExitStack() as stack, evaluating(adapter.model), torch.inference_mode():
            for block in adapter.blocks:
                stack.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
            stack.callback(adapter.blocks[-1].register_forward_hook(leave).remove)
            output = adapter.model(pixels)
        if not adapter.own_output:
            lens = adapter.make_lens()()
            with torch.inference_mode():
                foreign = _foreign_logits(adapter, lens, inputs[-1])
            return cls(adapter, tuple(inputs), tuple(arguments), foreign, lens)
        recorded = cls(adapter, tuple(inputs), tuple(arguments), output)
        if output.device.type != "cpu" and adapter.model in _compared:
            return recorded
        with evaluating(adapter.model), torch.inference_mode():
            if not torch.allclose(recorded.finish(inputs[-1]), output, rtol=1e-4, atol=1e-4):
                raise UnsupportedModelError(
                    f"{type(adapter.model).__name__} does more between its last block and its output than norm and "
                    "head, so a pass cannot be resumed at a block"
                )
        _compared.add(adapter.model)
        return recorded

    def finish(self, x: Tensor) -> Tensor:
        """Logits ``[V, C]`` from the last block's output ``[V, T', D]``."""
        if self.lens is not None:
            return _foreign_logits(self.adapter, self.lens, x)
        model: Any = self.adapter.model
        output: Tensor = model.forward_head(model.norm(x))
        return output

    def run(
        self, x: Tensor, block: int, *, kept: Tensor | None = None, products: dict[int, Product] | None = None
    ) -> Tensor:
        """Logits from block ``block`` on.

        Parameters
        ----------
        x : Tensor [V, T', D]
            The block's input, for any number V of passes.
        block : int
            1..L; with L + 1 only norm and classifier are run.
        kept : Tensor [T'] or [V, T'], int64, optional
            The tokens of the full sequence that are present.
        products : dict, optional
            Replacements for the scaled dot product of some blocks.

        Returns
        -------
        Tensor [V, C]
        """
        with evaluating(self.adapter.model), torch.inference_mode():
            return self.finish(self.run_blocks(x, products or {}, block=block, kept=kept))

    def run_blocks(
        self, x: Tensor, products: dict[int, Product], *, block: int = 1, kept: Tensor | None = None
    ) -> Tensor:
        """The last block's output ``[V, T', D]`` from the input of block ``block``; see `run`."""
        prefix = len(self.adapter.prefix)
        for number in range(block, self.adapter.points.n_blocks + 1):
            owner = self.adapter.blocks[number - 1]
            arguments = kept_positions(self.arguments[number - 1], kept, prefix)
            product = products.get(number)
            if kept is not None and (has_position_bias(owner) or product is not None):
                product = _Shortened(kept, product)
            with ExitStack() as stack:
                if product is not None:
                    stack.enter_context(replaced_product(attention_module(owner), product))
                x = owner(x, **arguments)
        return x


def _foreign_logits(adapter: Adapter, lens: ClassLens, x: Tensor) -> Tensor:
    """Pooled lens ``[V, C]`` of a last block's output ``[V, T', D]`` through the user's class embedding."""
    return Readout.of(adapter, x.shape[1]).logits(lens, x)


class _Shortened:
    """A product whose position bias ``[1, H, T, T]`` is reduced to the tokens that are present."""

    def __init__(self, kept: Tensor, inner: Product | None) -> None:
        self.kept = kept
        self.inner = inner or plain_product

    def __call__(
        self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        if bias is not None and bias.shape[-1] != key.shape[-2]:
            if self.kept.dim() == 1:
                bias = bias.index_select(-1, self.kept).index_select(-2, self.kept)
            else:
                # [1, H, T, T] -> [V, H, T', T']: one selection for every pass.
                bias = bias[0].transpose(0, 1).transpose(1, 2)
                bias = bias[self.kept[:, :, None], self.kept[:, None, :]].permute(0, 3, 1, 2)
        return self.inner(query, key, value, bias, scale, drop)


def plain_product(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
) -> Tensor:
    """The unchanged scaled dot product."""
    if drop is not None:
        return drop(explicit_weights(query, key, bias, scale)) @ value
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
