"""Applying interventions: one context manager, whose hooks and replaced methods are removed on leaving.

Interventions become changes at four places. Tokens are masked, patched at block 0 and removed by a hook in front of block 1.
Attention edges and heads are changed inside the scaled dot product of a block, which is replaced for the pass (see
`attention`). Sublayer outputs are changed by hooks on what each sublayer adds to the residual stream, and the residual stream
by hooks on a block's output. Rows of the class embedding are replaced in the classifier and in the lens. With removed tokens,
everything that is computed for the full sequence (rotary positions, position biases, sources) is reduced to the kept tokens.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from classspace_widgets.interventions.attention import (
    attention_module,
    explicit_weights,
    masked,
    replaced_product,
)
from classspace_widgets.interventions.base import Intervention
from classspace_widgets.interventions.classifier import replaced_classifier
from classspace_widgets.interventions.plan import Plan
from classspace_widgets.interventions.spec import (
    Ablate,
    AddVector,
    MaskTokens,
    PatchResidual,
)
from classspace_widgets.interventions.tokens import select_heads
from classspace_widgets.models import Adapter, UnsupportedModelError
from classspace_widgets.models.sublayers import on_added
from classspace_widgets.points import SUBLAYERS
from classspace_widgets.trace.hooks import exclusive, is_part_of_batch, rows_of_this_pass

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn

    from classspace_widgets.interventions.attention import Drop
    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace


@contextmanager
def intervene(
    space: ClassSpace | Adapter,
    interventions: Intervention | Sequence[Intervention] = (),
    *,
    sources: Mapping[str, Trace] | None = None,
) -> Iterator[Plan]:
    """Apply interventions to every forward pass of a model inside the context.

    Parameters
    ----------
    space : ClassSpace or Adapter
    interventions : Intervention, or several
        Applied together; token numbers are those of the full sequence, also if some are removed.
    sources : mapping of str to Trace, optional
        Traces that interventions refer to by name.

    Yields
    ------
    Plan
        The checked plan; ``plan.kept`` lists the tokens that are kept.

    Raises
    ------
    ValueError
        If an intervention does not fit the model (checked before anything runs).
    UnsupportedModelError
        If the model's attention cannot be intervened on.

    Notes
    -----
    On leaving, the model is as before, also after an exception. Without interventions nothing is changed, so the result
    is bit-identical.

    Examples
    --------
    >>> from classspace_widgets.interventions import Ablate
    >>> space = ClassSpace.bundled()
    >>> with intervene(space, [Ablate("mlp", blocks=[7, 8])]):
    ...     output = space.trace(torch.zeros(1, 3, 96, 96)).output
    >>> output.shape
    torch.Size([1, 24])
    """
    adapter = adapter_of(space)
    several = [interventions] if isinstance(interventions, Intervention) else interventions
    plan = Plan.build(adapter, several, sources or {})
    with ExitStack() as stack:
        stack.enter_context(exclusive(adapter.model))
        _change_embedding(plan, stack)
        for block in range(1, plan.sizes.blocks + 1):
            _change_attention(plan, block, stack)
            _change_increments(plan, block, stack)
        _keep_states(plan, stack)
        if plan.classifier:
            stack.enter_context(replaced_classifier(space, plan.classifier))
        yield plan


def adapter_of(space: ClassSpace | Adapter) -> Adapter:
    """The adapter of a space, or the adapter itself."""
    return space if isinstance(space, Adapter) else space.adapter


def _hook(stack: ExitStack, handle: Any) -> None:
    stack.callback(handle.remove)


def _on_added(stack: ExitStack, block: nn.Module, sublayer: str, call: Any) -> None:
    for handle in on_added(block, sublayer, call):
        _hook(stack, handle)


def _change_embedding(plan: Plan, stack: ExitStack) -> None:
    """Overwrite and remove tokens before block 1, and reduce rotary positions to the kept tokens."""

    def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x = args[0]
        if x.shape[1] != plan.sizes.tokens:
            raise ValueError(f"interventions were made for {plan.sizes.tokens} tokens, the model runs on {x.shape[1]}")
        for one in plan.embedding:
            x = x.clone()
            if isinstance(one, MaskTokens):
                mean = x[:, plan.sizes.prefix :].mean(dim=1, keepdim=True)
                chosen = list(one.select(plan.sizes))
                x[:, chosen] = mean if one.mode == "mean" else 0.0
            else:
                tokens = list(range(plan.sizes.tokens) if one.tokens is None else one.tokens)
                x[:, tokens] = _patch(plan, one, x, 0, tokens)
        return (plan.at_kept(x), *args[1:]), kwargs

    def shorten(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args, kept_positions(kwargs, plan.kept, plan.sizes.prefix)

    if plan.kept is not None:
        for block in plan.adapter.blocks:
            _hook(stack, block.register_forward_pre_hook(shorten, with_kwargs=True, prepend=True))
    if plan.embedding or plan.kept is not None:
        first = plan.adapter.blocks[0]
        _hook(stack, first.register_forward_pre_hook(enter, with_kwargs=True, prepend=True))


def _keep_states(plan: Plan, stack: ExitStack) -> None:
    """Keep the residual streams that later blocks are patched with, as the other interventions leave them."""

    def entered(_module: nn.Module, args: tuple[Any, ...]) -> None:
        plan.states[0] = args[0]

    def left(block: int) -> Any:
        def keep(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
            plan.states[block] = output

        return keep

    for block in plan.states:
        if block == 0:
            _hook(stack, plan.adapter.blocks[0].register_forward_pre_hook(entered))
        else:
            _hook(stack, plan.adapter.blocks[block - 1].register_forward_hook(left(block)))


def kept_positions(kwargs: dict[str, Any], kept: Tensor | None, prefix: int) -> dict[str, Any]:
    """Block arguments whose rotary positions are those of the kept tokens; ``kept`` is ``[T']`` or ``[B, T']``."""
    if kept is None:
        return kwargs
    if kwargs.get("attn_mask") is not None:
        raise UnsupportedModelError("tokens cannot be removed from a pass with its own attention mask")
    rope = kwargs.get("rope")
    if rope is None:
        return kwargs
    if not isinstance(rope, torch.Tensor):
        raise UnsupportedModelError(f"tokens cannot be removed: rotary positions of type {type(rope).__name__}")
    image = kept.to(rope.device)[..., prefix:] - prefix
    if image.dim() == 1:
        return kwargs | {"rope": rope.index_select(-2, image)}
    if rope.dim() == 2:
        return kwargs | {"rope": rope[image].unsqueeze(1)}
    if rope.dim() == 3:
        return kwargs | {"rope": rope[:, image].transpose(0, 1)}
    raise UnsupportedModelError("tokens cannot be removed picture by picture from a model with batched positions")


def _change_attention(plan: Plan, block: int, stack: ExitStack) -> None:
    """Replace the scaled dot product of a block if edges or heads change, or its bias must be shortened."""
    edges, heads = plan.edges.get(block), plan.heads.get(block)
    owner = plan.adapter.blocks[block - 1]
    shorten = plan.kept is not None and has_position_bias(owner)
    if not (edges or heads or shorten):
        return
    module = attention_module(owner)
    before, after = plan.cuts(block)

    def product(
        query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float, drop: Drop | None
    ) -> Tensor:
        if bias is not None and plan.kept is not None and bias.shape[-1] != key.shape[-2]:
            bias = bias.index_select(-1, plan.kept).index_select(-2, plan.kept)
        bias = masked(bias, before, query.dtype)
        if after is not None:
            result = after(query, key, value, bias, scale, drop)
        elif drop is not None:
            result = drop(explicit_weights(query, key, bias, scale)) @ value
        else:
            result = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale)
        return _change_heads(plan, block, heads, result) if heads else result

    stack.enter_context(replaced_product(module, product))


def has_position_bias(block: nn.Module) -> bool:
    """Whether a block's attention adds a relative position bias ``[T, T]`` to its scores."""
    module = getattr(block, "attn", block)
    names = ("relative_position_bias_table", "rel_pos", "shared_rel_pos")
    # BEiT and RelPos models may share one bias between blocks: then only the module's class shows it.
    return any(getattr(module, n, None) is not None for n in names) or (
        type(module).__module__.rsplit(".", 1)[-1] in ("beit", "vision_transformer_relpos")
    )


def _change_heads(plan: Plan, block: int, ablations: Sequence[Ablate], heads: Tensor) -> Tensor:
    """Ablate heads of ``[B, H, T', D_head]``."""
    heads = heads.clone()
    for one in ablations:
        chosen = list(select_heads(one.heads, plan.sizes, "Ablate"))
        source = plan.source(one.source)
        if source is not None:
            inputs = plan.at_kept(source.head_inputs[block]).to(heads)
            split = inputs.view(*inputs.shape[:2], plan.sizes.heads, -1).transpose(1, 2)[:, chosen]
            heads[:, chosen] = _across(split, one.mode, heads.shape[0])
        elif one.mode == "mean":
            heads[:, chosen] = heads[:, chosen].mean(dim=2, keepdim=True)
        else:
            heads[:, chosen] = 0.0
    return heads


def _across(values: Tensor, mode: str, batch: int) -> Tensor:
    """A source's values for a batch: their mean over pictures, or those of each picture (of a single one for all)."""
    if mode == "mean":
        return values.mean(dim=0, keepdim=True)
    values = rows_of_this_pass(values)
    if values.shape[0] not in (1, batch):
        raise ValueError(f"a source must have 1 image or as many as the batch ({batch}), got {values.shape[0]}")
    return values


def _change_increments(plan: Plan, block: int, stack: ExitStack) -> None:
    """Ablate what a block's sublayers add, and patch the residual stream after it."""
    owner: Any = plan.adapter.blocks[block - 1]
    patches = plan.residuals.get(block)
    seen: dict[str, Tensor] = {}

    def ablate(ablations: Sequence[Ablate], sublayer: str) -> Any:
        def hook(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
            for one in ablations:
                source = plan.source(one.source)
                if source is not None:
                    values = plan.at_kept(source.stream(sublayer, block)).to(output)
                    output = _across(values, one.mode, output.shape[0]).expand_as(output)
                elif one.mode == "mean":
                    output = output.mean(dim=1, keepdim=True).expand_as(output)
                else:
                    output = torch.zeros_like(output)
            return output

        return hook

    def entered(_module: nn.Module, args: tuple[Any, ...]) -> None:
        seen["mid"] = args[0]

    def first_added(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> None:
        seen["mid"] = seen["mid"] + output

    def last_added(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        # The last increment is changed by the patch, so that increments still sum to the residual stream.
        seen["after"] = target = patched(seen["mid"] + output)
        return torch.where(target == seen["mid"] + output, output, target - seen["mid"])

    def left(_module: nn.Module, _args: tuple[Any, ...], output: Tensor) -> Tensor:
        # What the increments were changed to lead to, to the last bit; patched here where no increment could be changed.
        return seen.pop("after") if "after" in seen else patched(output)

    def patched(output: Tensor) -> Tensor:
        output = output.clone()
        for one in patches or ():
            places = plan.local(one.tokens, type(one).__name__)
            output[:, places] = _patch(plan, one, output, block, one.tokens)
        return output

    for sublayer in SUBLAYERS:
        if ablations := plan.sublayers.get((block, sublayer)):
            _on_added(stack, owner, sublayer, ablate(ablations, sublayer))
    if patches:
        _hook(stack, owner.register_forward_pre_hook(entered))
        if plan.adapter.points.sequential:
            _on_added(stack, owner, "attention", first_added)
            _on_added(stack, owner, "mlp", last_added)
        elif hasattr(owner, "drop_path"):
            _hook(stack, owner.drop_path.register_forward_hook(last_added))
        _hook(stack, owner.register_forward_hook(left))


def _patch(plan: Plan, one: PatchResidual | AddVector, x: Tensor, block: int, tokens: Sequence[int] | None) -> Tensor:
    """Vectors ``[B or 1, n or 1, D]`` to write to the chosen tokens of the residual stream after a block."""
    if isinstance(one, AddVector):
        return x[:, plan.local(tokens, "AddVector") if block else list(tokens or ())] + x.new_tensor(one.vector)
    if one.same_pass:
        state = x if one.from_block == block else plan.states[one.from_block]
        assert state is not None
        assert one.from_token is not None
        whole = block == 0  # tokens are removed afterwards
        place = one.from_token if whole else plan.local([one.from_token], "PatchResidual source")[0]
        if one.source is None:
            return state[:, place : place + 1].clone()
        if is_part_of_batch():
            raise ValueError("PatchResidual from (image, token) needs the whole batch in one pass: leave chunk out")
        image = one.source[0]
        if not 0 <= image < x.shape[0]:
            raise ValueError(f"PatchResidual: image must be in 0..{x.shape[0] - 1}, got {image}")
        return state[image, place].clone()
    source = plan.source(one.source)
    assert source is not None
    values = source.stream("residual", one.from_block).to(x)
    if one.from_token is not None:
        tokens = [one.from_token]
    elif tokens is None:
        tokens = range(plan.sizes.tokens) if plan.kept is None else plan.kept_numbers
    return _across(values[:, list(tokens)], "resample", x.shape[0])
