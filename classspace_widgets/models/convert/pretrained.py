"""Models of a local Hugging Face folder, or of the hub, with their classes and preprocessing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classspace_widgets.models.checkpoint import load_weights, read_checkpoint
from classspace_widgets.models.convert.checkpoints import load_original
from classspace_widgets.models.convert.preprocessor import FILE, fetch_preprocessing
from classspace_widgets.models.offline import cache_alone_where_cut_off

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn

WHOLE = ("ForImageClassification", "ForImageClassificationWithTeacher", "ModelWithProjection", "Model")
"""Endings of the classes that are loaded as a configuration names them; of others the backbone is."""

BLOCK, OTHER = re.compile(r"layers?\.\d+\."), re.compile(r"text|decoder")


def load_pretrained(source: str | PathLike[str], *, num_heads: int | None = None) -> nn.Module:
    """A model from a folder as ``save_pretrained`` writes it, or from the hub by its name.

    Parameters
    ----------
    source : path or str
        A folder with ``config.json`` and weights (``model.safetensors``), a name such as ``"google/vit-base-patch16-224"``,
        or a single file of weights as DINO, MAE and DeiT published them (see `checkpoints.load_original`).
    num_heads : int, optional
        For a single file of weights, which do not tell it.

    Returns
    -------
    nn.Module
        A model of transformers, or of timm where the folder is one of timm's.

    Raises
    ------
    FileNotFoundError
        For a path that does not exist, or a folder without a configuration.
    ImportError
        Where transformers is not installed.
    ValueError
        Where weights are missing in the folder, or do not belong to the model.
    RuntimeError
        Where a model of the hub cannot be loaded.
    """
    text = str(source)
    path = Path(source).expanduser()
    if path.is_file():
        return load_original(path, num_heads=num_heads)
    if not path.is_dir() and (path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1):
        raise FileNotFoundError(f"there is no folder or file at {source}; give a folder that holds config.json")
    if path.is_dir() and not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{source} holds no config.json; save the model with model.save_pretrained(folder), and its preprocessing "
            f"({FILE}) with processor.save_pretrained(folder)"
        )
    if path.is_dir() and "architecture" in json.loads((path / "config.json").read_text(encoding="utf-8")):
        return _timm_folder(path)
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{source} is a model of transformers, which is not installed: pip install transformers"
        ) from error
    return _loaded(transformers, str(path) if path.is_dir() else text)


def _timm_folder(path: Path) -> nn.Module:
    """The model of a folder that timm has written."""
    import timm

    # Weights are read here: timm 1.0.24 opens a folder's safetensors as if they were pickled.
    files = [file for pattern in ("*.safetensors", "*.bin", "*.pth", "*.pt") for file in sorted(path.glob(pattern))]
    if not files:
        raise FileNotFoundError(f"{path} holds no weights; save the model with timm.models.save_for_hf(model, folder)")
    model: nn.Module = timm.create_model(f"local-dir:{path}", pretrained=False)
    load_weights(model, read_checkpoint(files[0]), str(files[0]))
    return model.eval()


def _loaded(transformers: Any, source: str) -> nn.Module:
    try:
        with cache_alone_where_cut_off():
            config = transformers.AutoConfig.from_pretrained(source)
            kind = _kind(transformers, config)
            model, report = kind.from_pretrained(source, output_loading_info=True)
            fetch_preprocessing(source)
    except (OSError, RuntimeError, ValueError) as error:
        lines = str(error).strip().splitlines()
        raise RuntimeError(
            f"{source!r} could not be loaded ({type(error).__name__}: {lines[0][:300] if lines else 'no message'}); give a local "
            "folder that holds config.json and model.safetensors"
        ) from error
    missing = sorted(key for key in report["missing_keys"] if "pooler.dense" not in key)
    wrong = sorted(str(key[0] if isinstance(key, tuple) else key) for key in report.get("mismatched_keys", ()))
    if missing or wrong:
        found = (
            f"{len(missing)} missing ({', '.join(missing[:3])})"
            if missing
            else f"of another shape ({', '.join(wrong[:3])})"
        )
        raise ValueError(
            f"the weights in {source} are not those of the {kind.__name__} that config.json describes: {found}; "
            "transformers would put random numbers there"
        )
    # Of heads that the model does not have, and of a text tower, there may be more; of blocks there may not.
    more = sorted(key for key in report["unexpected_keys"] if BLOCK.search(key) and not OTHER.search(key))
    if more:
        raise ValueError(
            f"the weights in {source} hold more blocks than the {kind.__name__} that config.json describes: {', '.join(more[:3])}"
        )
    loaded: nn.Module = model.eval()
    return loaded


def _kind(transformers: Any, config: Any) -> Any:
    """The class of transformers that a configuration names, or the one that makes its backbone."""
    for name in getattr(config, "architectures", None) or ():
        if name.endswith(WHOLE) and hasattr(transformers, name):
            return getattr(transformers, name)
    return transformers.AutoModel
