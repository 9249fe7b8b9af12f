"""Making models: from timm by name, from a local checkpoint, and the same architecture with fresh weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.lookup import close_matches
from classspace_widgets.models.checkpoint import load_weights, read_checkpoint
from classspace_widgets.models.offline import cache_alone_where_cut_off
from classspace_widgets.models.placing import copied
from classspace_widgets.models.uninitialised import without_random_weights
from classspace_widgets.progress import progress_bar

if TYPE_CHECKING:
    from os import PathLike

    from torch import Tensor, nn

LOCAL = (
    "pass checkpoint= with a local .safetensors or .pth file, use pretrained=False for fresh weights, "
    "or ClassSpace.bundled() for the model that comes with the package"
)
OPTIONS: tuple[str, ...] = (
    "num_classes",
    "img_size",
    "patch_size",
    "in_chans",
    "global_pool",
    "class_token",
    "reg_tokens",
    "embed_dim",
)
OPTIONS += ("depth", "num_heads", "mlp_ratio", "init_values", "drop_rate", "drop_path_rate", "dynamic_img_size")
"""Options of timm's vision transformers that are offered for one that was misspelt."""


def build_timm(name: str, *, pretrained: bool, checkpoint: str | PathLike[str] | None, options: dict[str, Any]) -> Any:
    """A timm model by name, with its published weights, a local checkpoint's, or fresh ones."""
    import timm

    if not isinstance(name, str):
        raise TypeError(
            f"from_timm takes the name of a timm model, got {type(name).__name__}; ClassSpace takes a model"
        )
    if not name.startswith(("hf-hub:", "hf_hub:", "local-dir:")) and not timm.is_model(name.split(".")[0]):
        raise ValueError(f"timm {timm.__version__} has no model {name!r}{close_matches(name, timm.list_models())}")
    if checkpoint is not None:
        found = read_checkpoint(checkpoint)
        if "depth" in options:
            found = [candidate.first_blocks(options["depth"]) for candidate in found]
        if found[0].classes is not None:
            options = {"num_classes": found[0].classes, **options}
        with without_random_weights():
            model = _created(name, False, options)
        load_weights(model, found, str(checkpoint))
        return model
    _check_tag(name)
    try:
        if not pretrained:
            return _created(name, False, options)
        with cache_alone_where_cut_off():
            return _pretrained(name, options)
    except (OSError, RuntimeError, ValueError) as error:
        if not pretrained:
            raise
        raise RuntimeError(f"the weights of {name!r} could not be loaded ({_short(error)}); {LOCAL}") from error


def _pretrained(name: str, options: dict[str, Any]) -> Any:
    """With published weights, which are of all blocks: fewer are what is left of the whole model."""
    depth = options.get("depth")
    model = _created(name, True, {option: value for option, value in options.items() if option != "depth"})
    if depth is not None:
        whole = len(model.blocks)
        if not 1 <= depth <= whole:
            raise ValueError(f"{name} has {whole} blocks, so depth must be in 1..{whole}, got {depth}")
        model.blocks = torch.nn.Sequential(*list(model.blocks)[:depth])
    return model


def _created(name: str, pretrained: bool, options: dict[str, Any]) -> Any:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, **options)
    except TypeError as error:
        unknown = [option for option in options if f"unexpected keyword argument {option!r}" in str(error)]
        if not unknown:
            raise
        close = close_matches(unknown[0], OPTIONS)
        raise TypeError(f"timm's {name} takes no option {unknown[0]!r}{close}") from error


def _check_tag(name: str) -> None:
    """Refuse a tag behind the dot that names no weights, with those that there are."""
    import timm

    model, _, tag = name.partition(".")
    if ":" in name or not tag:
        return
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model}.*")]
    if tag not in tags:
        raise ValueError(f"timm has no weights {tag!r} for {model!r}; there are {', '.join(tags) or 'none'}")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no message'}"[:300]


def fresh_copy(model: nn.Module, seed: int) -> nn.Module:
    """The same architecture with freshly initialised weights; the global random state is left as it was.

    Every module's own initialisation is run.  A matrix that has none, and so comes through unchanged, is drawn from
    a normal distribution with the standard deviation of 0.02 that ViTs start from; such a bias is set to 0.

    The gains of the residual branches are kept as they are trained: LayerScale's gamma, and the weight of a norm that
    follows attention or MLP.  Where there are any, training starts from a constant such as 1e-5 to let the blocks in
    slowly; a twin with that start would be a copy of its embedding at every block.  With the trained gains the twin's
    blocks add about as much as the model's, and only what they add is random.
    """
    with torch.random.fork_rng(), torch.no_grad(), progress_bar(3, "fresh weights", "step") as bar:
        twin = copied(model)
        bar.update()
        torch.manual_seed(seed)
        for module in twin.modules():
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
        bar.update()
        initialise: Any = getattr(twin, "init_weights", None)
        if callable(initialise):
            initialise()
        bar.update()
        for (name, fresh), trained in zip(twin.named_parameters(), model.parameters(), strict=True):
            if torch.equal(fresh, trained):
                if fresh.ndim >= 2:
                    fresh.normal_(std=0.02)
                elif name.endswith("bias"):
                    fresh.zero_()
        for (_, gain), (_, kept) in zip(gains(twin), gains(model), strict=True):
            gain.copy_(kept)
    return twin


def gains(model: nn.Module) -> list[tuple[str, Tensor]]:
    """What multiplies, channel by channel, what attention and MLP add: gammas of LayerScale, weights of norms behind them.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    list of tuple of str and Tensor [D]

    Examples
    --------
    >>> import timm
    >>> [name for name, _ in gains(timm.create_model("test_vit", init_values=1e-5))][:2]
    ['blocks.0.ls1.gamma', 'blocks.0.ls2.gamma']
    """
    behind = {f"{name}." for name, module in model.named_modules() if "Post" in type(module).__name__}
    return [
        (name, parameter)
        for name, parameter in model.named_parameters()
        if parameter.ndim == 1
        and (
            name.rpartition(".")[2] in ("gamma", "gamma_1", "gamma_2")
            or any(name in (f"{block}norm1.weight", f"{block}norm2.weight") for block in behind)
        )
    ]
