"""From a `Trace` (torch, on the device) to a `Snapshot` (numpy, compact): what of it travels, by size."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from classspace_widgets.lookup import class_index
from classspace_widgets.models import UnsupportedModelError
from classspace_widgets.snapshot import Array, Snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from classspace_widgets.trace import Trace

ALL_LIMIT = 6_000_000
"""Bytes of float32 readings up to which a snapshot carries every class."""
ATTENTION_LIMIT = 2_500_000
"""Bytes of attention weights up to which a snapshot carries the rows of every token."""
SCAN_LIMIT = 200_000_000
"""Bytes of class readings held at once while ranks are counted."""
TOP = 5


def capture(
    trace: Trace,
    *,
    image: int = 0,
    classes: Sequence[int | str] | None = None,
    payload: str = "auto",
    mask: Array | None = None,
    objects: Sequence[int | str | None] = (),
    label: int | str | None = None,
    title: str = "",
) -> Snapshot:
    """Reduce one image of a trace to the arrays that views need.

    Parameters
    ----------
    trace : Trace
    image : int
        Which image of the batch.
    classes : sequence of int or str, optional
        Classes to carry besides the predicted ones; with ``payload="classes"`` given explicitly, only these.
    payload : str
        ``"all"``: the readings of every class (exact; for models of few classes).  ``"classes"``: exact readings and
        ranks of the classes that matter, the rest on request.  ``"increments"``: the increments and the class
        embedding in float16, so that every class can be read with no kernel; ranks are then approximate.
        ``"auto"``: ``"all"`` up to 6 MB of readings, else ``"classes"``.
    mask : ndarray [height, width], optional
        Object mask in the displayed picture's pixels: 0 background, i the i-th of ``objects``.
    objects : sequence, optional
        Class (index or name) of every object in the mask.
    label : int or str, optional
        The picture's true class.

    Returns
    -------
    Snapshot
    """
    n_images = trace.output.shape[0]
    if not 0 <= image < n_images:
        raise ValueError(f"image must be in 0..{n_images - 1}, got {image}")
    if payload not in ("auto", "all", "classes", "increments"):
        raise ValueError(f"payload must be 'auto', 'all', 'classes' or 'increments', got {payload!r}")
    with torch.inference_mode():
        reader = Reader(trace, image)
        size = reader.n_classes * len(trace.increments) * reader.n_tokens * 4
        if payload == "auto":
            payload = "all" if size <= ALL_LIMIT else "classes"
        asked = [class_index(trace.class_names, c) for c in classes or ()]
        arrays: dict[str, Array] = {
            "output_logits": _float(trace.output[image]),
            "offset": _float(trace.lens.offset),
            "sigma": _float(reader.sigma()),
        }
        meta = _meta(trace, image, reader)
        if payload == "all":
            kept = list(range(reader.n_classes))
        else:
            top, top_logits, lse = reader.summary()
            arrays |= {"top": top, "top_logits": _fitting(top_logits), "lse": lse}
            kept = asked if payload == "classes" and asked else _classes_that_matter(arrays, asked, payload)
            arrays["ranks"] = reader.ranks(kept)
        arrays["raw"] = reader.raw(kept)
        if payload == "increments":
            arrays |= reader.increments(meta)
        meta["classes"] |= {"kept": kept, "all": payload == "all"}
        meta["payload"] = {"mode": payload, "note": _payload_note(payload, kept, reader.n_classes)}
        meta["exactness"] = _exactness(payload)
        arrays |= reader.attention(meta, kept)
    _add_picture(meta, arrays, trace, image, title)
    if label is not None:
        meta["image"]["label"] = class_index(trace.class_names, label)
    if mask is not None:
        _add_mask(meta, arrays, mask, objects, trace.class_names)
    return Snapshot(meta, arrays)


@dataclass
class Reader:
    """Reads one image of a trace at every stream point, with the pooled token where the model has one."""

    trace: Trace
    image: int

    def __post_init__(self) -> None:
        self.lens = self.trace.lens
        self.vectors = [increment[self.image].float() for increment in self.trace.increments]
        self.n_classes = int(self.lens.offset.shape[0])
        self.pooled = self.trace.pooling in ("mean_norm", "norm_mean")
        self.weights: Tensor | None = None
        if self.pooled:
            self.weights = self._pooling_weights()
            self.vectors = [torch.cat([v, self._pool(v).unsqueeze(0)]) for v in self.vectors]
        self.n_tokens = self.vectors[0].shape[0]
        self.output_token = self.n_tokens - 1 if self.pooled else 0

    def _pool(self, vectors: Tensor) -> Tensor:
        """Weighted sum over tokens; removed tokens are NaN and weigh nothing."""
        assert self.weights is not None
        return self.weights @ torch.where(self.weights.unsqueeze(1) == 0, 0.0, vectors)

    def _pooling_weights(self) -> Tensor:
        """Weights ``[T]`` whose sum over tokens is what the model's output is read from."""
        first = self.vectors[0]
        weights = first.new_zeros(first.shape[0])
        prefix = 0 if self.trace.pool_prefix else len(self.trace.prefix)
        kept = self.trace.kept_tokens or range(first.shape[0])
        pooled = [token for token in kept if token >= prefix]
        weights[pooled] = 1.0 / len(pooled)
        if self.trace.pooling == "norm_mean":
            weights = weights / self.lens.sigma(torch.stack(self.vectors).sum(dim=0)).nan_to_num(1.0)
        return weights

    def points(self) -> Iterator[Tensor]:
        """Vectors ``[T', D]`` of every stream point, in order."""
        residual = self.vectors[0]
        yield residual
        for increment in self.vectors[1:]:
            yield increment
            residual = residual + increment
            yield residual

    def sigma(self) -> Tensor:
        """Scale of the final norm at every stream point, ``[S, T']``."""
        sigma = torch.stack([self.lens.sigma(point) for point in self.points()])
        if self.trace.pooling == "norm_mean":
            sigma[:, -1] = 1.0
        return sigma

    def raw(self, classes: Sequence[int]) -> Array:
        """Folded readings ``[K, N, T']`` float32."""
        wanted = torch.as_tensor(list(classes), device=self.vectors[0].device, dtype=torch.long)
        return _float(torch.stack([self.lens.raw(v, wanted) for v in self.vectors]).permute(2, 0, 1))

    def scan(self) -> Iterator[tuple[int, slice, Tensor]]:
        """Class logits ``[t, C]`` of every stream point, for chunks of tokens: ``(point, tokens, logits)``."""
        sigma = self.sigma()
        step = max(1, min(self.n_tokens, SCAN_LIMIT // (4 * self.n_classes)))
        for start in range(0, self.n_tokens, step):
            tokens = slice(start, min(start + step, self.n_tokens))
            residual = self.lens.raw(self.vectors[0][tokens])
            yield 0, tokens, residual / sigma[0, tokens, None] + self.lens.offset
            for n, vectors in enumerate(self.vectors[1:], start=1):
                raw = self.lens.raw(vectors[tokens])
                residual = residual + raw
                for point, reading in ((2 * n - 1, raw), (2 * n, residual)):
                    yield point, tokens, reading / sigma[point, tokens, None] + self.lens.offset

    def summary(self) -> tuple[Array, Array, Array]:
        """Top classes, their logits ``[S, T', 5]`` and the log-sum-exp over classes ``[S, T']``."""
        n_points = 2 * len(self.vectors) - 1
        small = np.uint16 if self.n_classes <= 65_535 else np.uint32
        k = min(TOP, self.n_classes)
        top = np.zeros((n_points, self.n_tokens, k), small)
        values = np.zeros((n_points, self.n_tokens, k), np.float32)
        lse = np.zeros((n_points, self.n_tokens), np.float32)
        for point, tokens, logits in self.scan():
            best = logits.topk(k, dim=-1)
            top[point, tokens] = best.indices.cpu().numpy()
            values[point, tokens] = _float(best.values)
            lse[point, tokens] = _float(logits.logsumexp(dim=-1))
        return top, values, lse

    def ranks(self, classes: Sequence[int]) -> Array:
        """Exact ranks ``[K, S, T']`` of some classes."""
        small = np.uint16 if self.n_classes <= 65_535 else np.uint32
        ranks = np.zeros((len(classes), 2 * len(self.vectors) - 1, self.n_tokens), small)
        for point, tokens, logits in self.scan():
            for k, wanted in enumerate(classes):
                ranks[k, point, tokens] = (logits > logits[:, wanted, None]).sum(dim=-1).cpu().numpy()
        return ranks

    def increments(self, meta: dict[str, Any]) -> dict[str, Array]:
        """The increments and the class embedding in float16, each scaled to fit."""
        stacked = torch.stack(self.vectors)
        scale = stacked.abs().amax(dim=(1, 2)).clamp_min(1e-12) / 1024.0
        peak = float(self.lens.folded.abs().max().clamp_min(1e-12)) / 1024.0
        meta["embedding_scale"] = peak
        return {
            "increments": _float(stacked / scale[:, None, None]).astype(np.float16),
            "increment_scale": _float(scale),
            "embedding": _float(self.lens.folded / peak).astype(np.float16),
        }

    def attention(
        self, meta: dict[str, Any], classes: Sequence[int], rows: Sequence[int] | None = None
    ) -> dict[str, Array]:
        """Attention weights, and every head's readings, at some rows (None: as many as the size rule allows)."""
        trace = self.trace
        blocks = range(1, trace.n_blocks + 1)
        if not all(block in trace.attention_weights for block in blocks):
            return {}
        weights = torch.stack([trace.attention_weights[b][self.image].float() for b in blocks])
        if self.weights is not None:
            pooling = self.weights / self.weights.sum()
            weights = torch.cat([weights, torch.einsum("t,lhts->lhs", pooling, weights).unsqueeze(2)], dim=2)
        if rows is None:
            rows = list(range(self.n_tokens)) if weights.numel() <= ATTENTION_LIMIT else [self.output_token]
        meta["attention"] = {"rows": list(rows), "encoding": "sqrt-u8"}
        shown = weights[:, :, list(rows)].clamp(0, 1).sqrt() * 255
        arrays: dict[str, Array] = {"attention": shown.round().byte().cpu().numpy()}
        if all(block in trace.head_inputs for block in blocks):
            try:
                arrays |= self._heads(classes, rows)
            except UnsupportedModelError as error:
                meta.setdefault("caveats", []).append(f"Attention heads cannot be read one by one: {error}")
        return arrays

    def _heads(self, classes: Sequence[int], rows: Sequence[int]) -> dict[str, Array]:
        """Folded readings of every head's output at some rows, of its values, and of the output projection's bias."""
        trace, chosen = self.trace, list(classes)
        heads, values, biases = [], [], []
        for block in range(1, trace.n_blocks + 1):
            weight, bias = trace.out_projection(block)
            read = (self.lens.folded[chosen] @ weight.float()).view(len(chosen), trace.heads, -1)
            inputs = trace.head_inputs[block][self.image].float()
            if self.weights is not None:
                inputs = torch.cat([inputs, self._pool(inputs).unsqueeze(0)])
            inputs = inputs[list(rows)].view(len(rows), trace.heads, -1)
            heads.append(torch.einsum("khd,rhd->khr", read, inputs))
            values.append(torch.einsum("khd,hsd->khs", read, trace.values(block)[self.image].float()))
            biases.append(self.lens.folded[chosen] @ bias.float())
        return {
            "head_raw": _half(torch.stack(heads, dim=1)),
            "value_raw": _half(torch.stack(values, dim=1)),
            "attention_bias_raw": _float(torch.stack(biases, dim=1)),
        }


def _classes_that_matter(arrays: dict[str, Array], asked: Sequence[int], payload: str) -> list[int]:
    """Predicted and asked classes, then those that are most often on top over depth and tokens."""
    kept = list(dict.fromkeys([*asked, *np.argsort(-arrays["output_logits"], kind="stable")[:TOP].tolist()]))
    if payload == "classes":
        common = Counter(arrays["top"][:, :, 0].ravel().tolist())
        kept += [c for c, _ in common.most_common(TOP + len(kept)) if c not in kept][:TOP]
    return [int(c) for c in kept]


def _payload_note(payload: str, kept: Sequence[int], n_classes: int) -> str:
    if payload == "all":
        return f"All {n_classes} classes travel with this view: every class, block and token is live without a kernel."
    if payload == "classes":
        return f"{len(kept)} of {n_classes} classes travel with this view; the others are fetched from the kernel."
    return (
        f"All increments and the class embedding travel with this view in float16: every one of the {n_classes} classes "
        f"is live without a kernel; ranks are exact for {len(kept)} classes and approximate for the others."
    )


def _exactness(payload: str) -> dict[str, str]:
    if payload == "increments":
        return {
            "logits": "approximate",
            "ranks": "approximate",
            "note": "read from float16 increments; near ties between classes may come out in another order",
        }
    return {"logits": "exact", "ranks": "exact", "note": "float32 readings"}


def _meta(trace: Trace, image: int, reader: Reader) -> dict[str, Any]:
    last = trace.n_blocks
    caveats, unreachable = [], []
    if trace.pooling in ("token", "distilled") and trace.layout == "sequential":
        unreachable = list(range(4 * last - 3, 4 * last + 1))
        caveats.append(
            f"The output is read from {trace.prefix[0]}: what the last block adds to the image tokens cannot reach it."
        )
    if trace.pooling == "norm_mean":
        caveats.append(
            "This model averages normalised tokens: before the last block, the pooled token is read with the final "
            "norm's scale."
        )
    return {
        "kind": "snapshot",
        "model": {
            "name": trace.model_name,
            "blocks": trace.n_blocks,
            "heads": trace.heads,
            "width": int(trace.increments[0].shape[-1]),
            "layout": trace.layout,
            "description": "",
        },
        "tokens": {
            "count": trace.n_tokens,
            "prefix": list(trace.prefix),
            "grid": list(trace.grid),
            "pooled": reader.pooled,
            "output": reader.output_token,
            "removed": [
                t for t in range(trace.n_tokens) if trace.kept_tokens is not None and t not in trace.kept_tokens
            ],
        },
        "classes": {"count": reader.n_classes, "names": [str(n) for n in trace.class_names]},
        "objects": [],
        "caveats": caveats,
        "unreachable": unreachable,
        "intervention": None,
    }


def _add_picture(meta: dict[str, Any], arrays: dict[str, Array], trace: Trace, image: int, title: str) -> None:
    name = title or (trace.image_names[image] if image < len(trace.image_names) else "")
    meta["image"] = {"width": 0, "height": 0, "mime": "", "name": name, "label": None}
    if trace.pictures is None:
        return
    from PIL import Image

    picture = Image.fromarray(np.asarray(trace.pictures[image]))
    buffer = io.BytesIO()
    if picture.width * picture.height <= 40_000:
        picture.save(buffer, "PNG", optimize=True)
        mime = "image/png"
    else:
        picture.save(buffer, "WEBP", quality=90, method=4)
        mime = "image/webp"
    meta["image"] |= {"width": picture.width, "height": picture.height, "mime": mime}
    arrays["image"] = np.frombuffer(buffer.getvalue(), np.uint8)


def _add_mask(
    meta: dict[str, Any],
    arrays: dict[str, Array],
    mask: Array,
    objects: Sequence[int | str | None],
    names: Sequence[str],
) -> None:
    expected = (meta["image"]["height"], meta["image"]["width"])
    mask = np.asarray(mask)
    if mask.shape != expected:
        raise ValueError(f"mask must have the displayed picture's shape {expected}, got {mask.shape}")
    count = int(mask.max(initial=0))
    indices = [None if c is None else class_index(names, c) for c in objects] or [None] * count
    if len(indices) < count or mask.min(initial=0) < 0 or count > 255:
        raise ValueError(
            f"mask values must be 0 (background) or 1..{len(indices)} (the objects given), got up to {count}"
        )
    arrays["mask"] = mask.astype(np.uint8)
    meta["objects"] = [{"class": i, "name": "object" if i is None else names[i]} for i in indices]


def _float(tensor: Tensor) -> Array:
    return tensor.detach().float().cpu().numpy()


def _half(tensor: Tensor) -> Array:
    """Float16 where it fits, float32 otherwise."""
    return _fitting(_float(tensor))


def _fitting(array: Array) -> Array:
    """Float16 where it fits, float32 otherwise."""
    return array if float(np.nanmax(np.abs(array), initial=0)) > 3e4 else array.astype(np.float16)
