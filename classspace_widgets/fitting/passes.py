"""One pass with the residual stream at every point, as autograd sees it, and the answer that follows from it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import torch

from classspace_widgets.lens import Readout
from classspace_widgets.models.device import counting
from classspace_widgets.models.sublayers import on_added
from classspace_widgets.trace.hooks import evaluating, hook

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from classspace_widgets.lens import ClassLens
    from classspace_widgets.models import Adapter


class FittedSpace(Protocol):
    """What fitting needs of a `ClassSpace`."""

    name: str
    adapter: Adapter
    class_names: tuple[str, ...]
    device: torch.device

    @property
    def model(self) -> nn.Module:
        """The model."""
        ...

    @property
    def lens(self) -> ClassLens:
        """Its logit lens."""
        ...

    @property
    def second_lens(self) -> ClassLens | None:
        """That of a distilled model's second classifier."""
        ...

    def pixels(self, images: Any) -> Tensor:
        """Pixels ``[B, 3, height, width]`` for the model."""
        ...

    def in_chunks(self, pixels: Tensor, run: Callable[[Tensor], None]) -> list[None]:
        """Run something over pictures; where a GPU's memory runs out, over fewer at a time."""
        ...


def adding() -> AbstractContextManager[None]:
    """Around what adds to the sums of a lens."""
    return counting("the sums of a lens", "start it anew with a smaller batch_size, fewer classes=, or on the CPU")


def residual_points(space: FittedSpace, pixels: Tensor, *, gradients: bool = False) -> list[Tensor]:
    """The residual stream ``[B, T, D]`` at its N points: the embedding, then after every increment.

    Parameters
    ----------
    space : FittedSpace
    pixels : Tensor [B, 3, height, width]
    gradients : bool
        Whether what follows in the model can be differentiated by each of them.

    Returns
    -------
    list of Tensor [B, T, D]
        With ``gradients``, after attention (mid) it is what attention added: a gradient by it is a gradient by the residual
        stream that it is added to, which is no tensor of its own inside a block.  Use `values_of` for the values.
    """
    adapter = space.adapter
    points: list[Tensor] = []

    def first(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        start = args[0].detach().requires_grad_(gradients)
        points.append(start)
        return (start, *args[1:])

    with ExitStack() as stack:
        stack.enter_context(evaluating(space.model))
        stack.enter_context(torch.set_grad_enabled(gradients))
        hook(stack, adapter.blocks[0].register_forward_pre_hook(first))
        for block in adapter.blocks:
            if adapter.points.sequential:
                for handle in on_added(block, "attention", lambda _m, _a, output: points.append(output)):
                    hook(stack, handle)
            hook(stack, block.register_forward_hook(lambda _m, _a, output: points.append(output)))
        space.model(pixels)
    return points


def stream_values(points: list[Tensor], *, sequential: bool) -> list[Tensor]:
    """Values of the residual stream at its N points, without gradients, of what `residual_points` gave with gradients."""
    if not sequential:
        return [point.detach() for point in points]
    values = [points[0].detach()]
    for attention, after in zip(points[1::2], points[2::2], strict=True):
        values += [values[-1] + attention.detach(), after.detach()]
    return values


class Target:
    """What the maps of a lens lead to: the class logits, or the normalised state in front of the classifier.

    A classifier is linear in that state, so a map to the state (D rows) gives the map to all C classes; rows are what
    fitting costs, so the smaller of the two is taken.

    Parameters
    ----------
    space : FittedSpace
    classes : tuple of int
        The classes that the lens reads.
    by_class : bool
        Lead to one number for each class, whatever the cost.
    """

    def __init__(self, space: FittedSpace, classes: tuple[int, ...], *, by_class: bool = False) -> None:
        adapter = space.adapter
        self.classes = classes
        self.by_state = (
            not by_class and len(classes) > adapter.width and adapter.pooling in ("token", "mean_norm", "norm_mean")
        )
        self.rows = adapter.width if self.by_state else len(classes)

    def of(self, space: FittedSpace, last: Tensor) -> Tensor:
        """Target ``[B, R]`` of the last residual stream ``[B, T, D]``; autograd sees through it."""
        readout, lens = Readout.of(space.adapter, last.shape[1]), space.lens
        if not self.by_state:
            logits = readout.logits(lens, last, space.second_lens)
            return logits if self.classes == tuple(range(logits.shape[1])) else logits[:, list(self.classes)]
        vectors, weights = readout.vectors(last.to(lens.dtype))
        centred = vectors - vectors.mean(dim=-1, keepdim=True) if lens.centred else vectors
        return torch.einsum("n,bnd->bd", weights, centred / lens.sigma(vectors).unsqueeze(-1))

    def of_labels(self, labels: Tensor) -> Tensor:
        """Targets ``[B, K]`` of labels ``[B]``: 1 for a picture's own class, 0 for every other one."""
        return (labels.unsqueeze(1) == torch.tensor(self.classes, device=labels.device)).double()

    def to_classes(self, space: FittedSpace, maps: Tensor, answers: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``[..., R, D]`` and targets ``[..., R]`` as maps to the classes ``[..., K, D]`` and logits ``[..., K]``."""
        if not self.by_state:
            return maps, answers
        chosen = list(self.classes)
        rows = space.lens.folded[chosen].to(maps)
        return rows @ maps, answers @ rows.T + space.lens.offset[chosen].to(answers)


def kinds_read(adapter: Adapter) -> list[bool]:
    """Which kinds of tokens ``[Q]`` (the prefix tokens one by one, then the image tokens) the answer is read from."""
    prefix = len(adapter.prefix)
    tokens = Readout.of(adapter, prefix + 1).tokens
    if adapter.pooling == "distilled":
        tokens = (0, 1)
    return [kind in tokens for kind in range(prefix + 1)]
