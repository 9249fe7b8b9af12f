"""Token importance for any class, with one function and one shape for all methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.explain import methods
from classspace_widgets.explain.reading import check_loss, linear_readout
from classspace_widgets.explain.result import TokenImportance
from classspace_widgets.images import Prepared
from classspace_widgets.interventions.run import pixels_of
from classspace_widgets.lookup import chosen_classes, whole_number
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.progress import over_blocks
from classspace_widgets.space.space import ClassSpace, space_of
from classspace_widgets.trace import Trace

if TYPE_CHECKING:
    from torch import Tensor

    Labels = int | str | Sequence[int | str] | Tensor | None
    Classes = Labels | Sequence[Sequence[int | str]]


def importance(
    source: ClassSpace | Trace,
    classes: Classes = None,
    *,
    labels: Labels = None,
    images: Any = None,
    method: str = "gradient",
    loss: str = "logit",
    token: int | None = None,
    block: int | None = None,
    heads: bool = False,
    fallback: str | None = None,
) -> TokenImportance:
    """Importance of every token for some classes.

    Parameters
    ----------
    source : ClassSpace or Trace
        A model (with ``images``), or a trace with its model, whose pass is resumed from its embedding.
    classes : class, sequence of K, or [B, K], optional
        By index or name: K classes for all images, or in two dimensions K for each; by default the class predicted for
        each. ``range(n_classes)`` takes all classes at once.
    labels : sequence of B classes, optional
        Instead of ``classes``: one class for each image (K = 1). Passed as ``classes``, they would be B classes for every image.
    images : Any
        With a `ClassSpace`: as in `ClassSpace.trace`.
    method : str
        ``"gradient"``: the paper's gradient of the attention output's class reading with respect to attention weights, in
        closed form. ``"direct"``: the direct contribution of a source token to the class logit. ``"flow"``: what each token
        of the residual stream after a block brings to the logit, exactly additive (`metrics.flow`). ``"chefer"``,
        ``"rollout"``, ``"attention"``: baselines from the literature.
    loss : str
        For ``"gradient"``: ``"logit"``, ``"cross_entropy"`` (its negative gradient, so that larger is more important) or
        ``"paper"`` (as in the authors' code: cross-entropy of the probabilities).
    token : int, optional
        The token whose reading is explained; by default that of the model's own output: [CLS], or for models that pool,
        the mean token (or the mean of the tokens' readings, if the model's norm comes before its mean).
    block : int, optional
        For ``"flow"``: after which block, 0..L; by default 0, the embedding.
    heads : bool
        Also return importance by head (memory: B K L H T numbers).
    fallback : str, optional
        ``"autograd"``: differentiate if the closed form does not hold, instead of raising an error.

    Returns
    -------
    TokenImportance

    Raises
    ------
    TypeError, ValueError
        For a class that does not exist, or a wrong number of images.
    UnsupportedModelError
        If a model's attention cannot be split (gates, scale norm, differential attention).

    Examples
    --------
    >>> from classspace_widgets import ClassSpace
    >>> space = ClassSpace.from_timm("test_vit", pretrained=False)
    >>> found = importance(space, [3, 7], images=torch.zeros(1, 3, 160, 160))
    >>> found.image_maps.shape  # [B, K, rows, columns]
    torch.Size([1, 2, 10, 10])
    """
    check_loss(loss)
    if method not in methods.METHODS:
        raise ValueError(f"method must be one of {tuple(methods.METHODS)}, got {method!r}")
    if loss != "logit" and method != "gradient":
        raise ValueError(f"loss={loss!r} belongs to method='gradient', not to {method!r}")
    if heads and method not in ("gradient", "direct"):
        raise ValueError(f"method {method!r} has no importance by head; use 'gradient' or 'direct'")
    if block is not None and method != "flow":
        raise ValueError(f"block={block} belongs to method='flow', not to {method!r}")
    if token is not None and method == "flow":
        raise ValueError("token= does not go with method='flow', which explains the model's own answer")
    if fallback not in (None, "autograd"):
        raise ValueError(f"fallback must be None or 'autograd', got {fallback!r}")
    space, images = _model_of(source, images)
    function, signed = methods.METHODS[method]
    # Some methods differentiate, also if the caller is in inference mode.
    with torch.inference_mode(False), pixels_of(space, images) as pixels:
        pixels = pixels.clone() if pixels.is_inference() else pixels
        grid = space.adapter.grid_of(*pixels.shape[2:])
        tokens = len(space.adapter.prefix) + grid[0] * grid[1]
        readout = linear_readout(space.adapter, tokens, token)
        depth = 0 if block is None else whole_number(block, "block", 0, len(space.adapter.blocks))
        request = methods.Request(
            space, pixels, lambda output: _classes(space, classes, labels, output), readout, loss, heads, depth
        )
        if isinstance(images, Trace):
            pictures = images.pictures
        else:
            pictures = None if isinstance(images, Prepared) else space.preprocessing.pictures(pixels.float())
        with over_blocks(space.adapter.blocks, len(pixels), "forward pass"):
            try:
                shares, wanted = function(request)
            except UnsupportedModelError:
                if fallback != "autograd" or method != "gradient":
                    raise
                shares, wanted = methods.gradient_by_autograd(request)
    shares = shares.detach().clone()
    by_head = shares if heads else None
    by_block = shares.sum(dim=3) if heads else shares if shares.dim() == 4 else None
    return TokenImportance(
        maps=shares if by_block is None else by_block.sum(dim=2),
        classes=wanted.clone(),
        method=method,
        signed=signed,
        prefix=len(space.adapter.prefix),
        grid=grid,
        by_block=by_block,
        by_head=by_head,
        class_names=tuple(space.class_names),
        pictures=pictures,
    )


def _model_of(source: ClassSpace | Trace, images: Any) -> tuple[ClassSpace, Any]:
    if isinstance(source, Trace):
        if images is not None:
            raise ValueError("a Trace contains its own images; pass the ClassSpace to explain others")
        return space_of(source), source
    if not isinstance(source, ClassSpace):
        raise TypeError(f"importance takes a ClassSpace (with images=) or a Trace, got {type(source).__name__}")
    if images is None:
        raise ValueError("importance needs images= with a ClassSpace")
    return source, images


def _classes(space: ClassSpace, classes: Classes, labels: Labels, output: Tensor) -> Tensor:
    """Class indices ``[B, K]``."""
    found = chosen_classes(space.class_names, classes, labels=labels, images=output.shape[0])
    if found is None:
        return output.argmax(dim=1, keepdim=True)
    wanted = torch.tensor(found, dtype=torch.long, device=output.device)
    return wanted if wanted.dim() == 2 else wanted.expand(output.shape[0], -1)
