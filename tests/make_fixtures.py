"""Write the containers that the Python and the TypeScript tests share: ``python tests/make_fixtures.py``."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np

from classspace_widgets.points import LAYOUTS, Points
from classspace_widgets.snapshot import Snapshot
from classspace_widgets.snapshot.container import Array, byte_planes
from classspace_widgets.snapshot.lenses import lens_array, missing, summary
from classspace_widgets.snapshot.select import select_streams

FOLDER = Path(__file__).parent / "fixtures"
# A PNG of one pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
EMBEDDING_SCALE = 0.37
LENSES = (
    ("jacobian", "jacobian", "what of this token the answer goes on to use", None),
    ("translator", "translator", "what can be decoded here", None),
    ("jacobian", "jacobian 2", "what of this token the answer goes on to use", [1, 4]),
)
"""Kind, label, question and classes (None: all) of the lenses of a fixture."""


def synthetic(
    mode: str, *, pooled: bool = False, layout: str = "sequential", seed: int = 0, lenses: bool = False
) -> Snapshot:
    """A random snapshot of 2 blocks, 2 heads, a grid of 2x3 and 7 classes, consistent in all its arrays."""
    rng = np.random.default_rng(seed)
    n_blocks, n_heads, n_classes, width, tokens = 2, 2, 7, 5, 7
    n_increments = 1 + n_blocks * (2 if layout == "sequential" else 1)
    shown = tokens + int(pooled)
    increments = rng.normal(size=(n_increments, shown, width))
    if pooled:
        increments[:, -1] = increments[:, 1:-1].mean(axis=1)
    # As they travel: in float16, divided by factors of which none is 1, so that a reader that misses one is found out.
    increment_scale = (1.25 ** np.arange(1, n_increments + 1)).astype(np.float32)
    stored_increments = (increments / increment_scale[:, None, None]).astype(np.float16)
    stored_embedding = rng.normal(size=(n_classes, width)).astype(np.float16)
    increments = stored_increments.astype(np.float64) * increment_scale[:, None, None]
    embedding = stored_embedding.astype(np.float64) * EMBEDDING_SCALE
    offset = rng.normal(size=n_classes).astype(np.float32)
    residual = increments.cumsum(axis=0)
    points = [residual[0]]
    for n in range(1, n_increments):
        points += [increments[n], residual[n]]
    sigma = np.sqrt((np.stack(points) ** 2).mean(axis=-1) + 1e-6).astype(np.float32)
    logits = np.stack(points) @ embedding.T / sigma[..., None] + offset
    ranks = (logits[..., None, :] > logits[..., :, None]).sum(axis=-1)
    raw = np.moveaxis(increments @ embedding.T, -1, 0).astype(np.float32)
    output = shown - 1 if pooled else 0
    kept = list(range(n_classes)) if mode == "all" else [4, 1]
    attention = rng.dirichlet(np.ones(tokens), size=(n_blocks, n_heads, shown))
    value_raw = rng.normal(size=(len(kept), n_blocks, n_heads, tokens)).astype(np.float16)
    arrays: dict[str, Array] = {
        "image": np.frombuffer(PNG, np.uint8),
        "output_logits": logits[-1, output].astype(np.float32),
        "offset": offset,
        "sigma": sigma,
        "raw": raw[kept],
        "attention": np.round(255 * np.sqrt(attention)).astype(np.uint8),
        "value_raw": value_raw,
        "head_raw": np.einsum("lhts,klhs->klht", attention, value_raw.astype(np.float64)).astype(np.float32),
        "attention_bias_raw": np.zeros((len(kept), n_blocks), np.float32),
        "mask": np.array([[1]], np.uint8),
    }
    arrays |= flow(arrays, (len(kept), n_increments, tokens), kept)
    if mode != "all":
        order = np.argsort(-logits, axis=-1, kind="stable")[..., :5]
        arrays |= {
            "ranks": np.moveaxis(ranks, -1, 0)[kept].astype(np.uint16),
            "top": order.astype(np.uint16),
            "top_logits": np.take_along_axis(logits, order, axis=-1).astype(np.float32),
            "lse": np.log(np.exp(logits).sum(axis=-1)).astype(np.float32),
        }
    if mode == "increments":
        arrays |= {
            "increments": stored_increments,
            "increment_scale": increment_scale,
            "embedding": stored_embedding,
        }
    names = ["fish", "boat", "cactus", "<img src=x onerror=alert(1)>", "clé « ü »", "rocket", "snow\u2028man"]
    meta: dict[str, Any] = {
        "kind": "snapshot",
        "model": {
            "name": "fixture",
            "blocks": n_blocks,
            "heads": n_heads,
            "width": width,
            "layout": layout,
            "description": "",
        },
        "tokens": {"count": tokens, "prefix": ["[CLS]"], "grid": [2, 3], "pooled": pooled, "output": output},
        "classes": {"count": n_classes, "names": names, "kept": kept, "all": mode == "all"},
        "image": {"width": 1, "height": 1, "mime": "image/png", "name": "pixel.png", "label": 4},
        "objects": [{"class": 4, "name": names[4]}],
        "payload": {"mode": mode, "note": "a fixture"},
        "exactness": {"logits": "exact", "ranks": "exact", "note": "float32 readings"},
        "attention": {"rows": list(range(shown)), "encoding": "sqrt-u8"},
        "caveats": [],
        "unreachable": [] if pooled else list(range(len(points) - 4, len(points))),
        "intervention": None,
    }
    if mode == "increments":
        meta["embedding_scale"] = EMBEDDING_SCALE
    if lenses:
        add_lenses(meta, arrays, (n_classes, len(points), shown), n_blocks)
    return Snapshot(meta, arrays)


def flow(arrays: dict[str, Array], shape: tuple[int, int, int], kept: list[int]) -> dict[str, Array]:
    """Where logits stand after each increment: random shares of tokens, which with those of biases sum to the answer."""
    shares = np.random.default_rng(11).normal(size=shape).astype(np.float32)
    answer = arrays["output_logits"][kept].astype(np.float64)
    biases = (answer[:, None] - shares.sum(axis=-1, dtype=np.float64)).astype(np.float32)
    return {"flow": shares, "flow_bias": biases}


def add_lenses(meta: dict[str, Any], arrays: dict[str, Array], shape: tuple[int, int, int], n_blocks: int) -> None:
    """Two lenses of all classes, the first without maps for the image tokens of the last block, and one of two classes."""
    rng = np.random.default_rng(7)
    kept, every = meta["classes"]["kept"], meta["classes"]["all"]
    meta["lenses"] = []
    for number, (kind, label, question, read) in enumerate(LENSES):
        logits = np.round(3 * rng.normal(size=shape), 2).astype(np.float16)
        if number == 0:
            logits[:, -4:, 1:] = np.nan
        if read is not None:
            logits[[c for c in range(shape[0]) if c not in read]] = np.nan
        ranks = (logits[None] > logits[:, None]).sum(axis=1).astype(np.uint8)
        ranks[np.isnan(logits)] = missing(ranks)
        found = {"logits": logits[kept]}
        if read is None:
            found["ranks"] = ranks[kept]
            found |= {} if every else summary(logits, ranks)
        arrays |= {lens_array(number, part): array for part, array in found.items()}
        blocks = [round(0.25 + 0.25 * block, 2) for block in range(n_blocks + 1)]
        trust = {
            "average precision": blocks,
            "agreement": [None, *blocks[1:]],
            "logit: average precision": blocks[::-1],
        }
        meta["lenses"].append(
            {
                "kind": kind,
                "label": label,
                "question": question,
                "pictures": 64,
                "classes": read,
                "error": [0.05] * (shape[1] - 4) + [None] * 4,
                "trust": {} if number else trust,
            }
        )


CASES = {
    "all": {"mode": "all"},
    "all_pooled": {"mode": "all", "pooled": True},
    "all_parallel": {"mode": "all", "layout": "parallel"},
    "classes": {"mode": "classes"},
    "increments": {"mode": "increments"},
    "lenses": {"mode": "all", "lenses": True},
    "lenses_classes": {"mode": "classes", "lenses": True},
}


def derived() -> dict[str, bytes]:
    """Containers made from those of a fixture: made smaller, and in planes of bytes as pages store them."""
    whole = synthetic("classes")
    return {
        "residual_only": select_streams(whole, streams=["residual"]).pack(),
        "ranks_only": select_streams(whole, streams=["mlp", "residual"], ranks_only=True).pack(),
        "planes": byte_planes(whole.pack()),
    }


def expected(snapshot: Snapshot) -> dict[str, Any]:
    """What a reader must make of a fixture, by NumPy."""
    classes = range(7) if snapshot.meta["payload"]["mode"] != "classes" else snapshot.meta["classes"]["kept"]
    return {
        str(c): {
            "logits": np.round(snapshot.logits(c), 6).tolist(),
            "ranks": snapshot.ranks(c).tolist(),
            "direct": np.round(snapshot.direct(c), 6).tolist(),
        }
        | ({"lenses": [through(snapshot, c, n) for n in range(len(LENSES))]} if "lenses" in snapshot.meta else {})
        for c in classes
    }


def through(snapshot: Snapshot, c: int, lens: int) -> dict[str, Any]:
    """What a reader must make of a class through a lens: null where there is no reading."""
    found: dict[str, Any] = {}
    for part, read in (("logits", snapshot.logits), ("ranks", snapshot.ranks)):
        try:
            values = np.asarray(read(c, lens=lens), float)
        except KeyError:
            found[part] = None
            continue
        values[values == -1] = np.nan if part == "ranks" else -1
        found[part] = [[None if np.isnan(v) else round(float(v), 6) for v in row] for row in values]
    return found


def numbering(n_blocks: int, layout: str) -> dict[str, Any]:
    """The whole numbering of stream points and increments of a model."""
    points = Points(n_blocks, layout)
    return {
        "n_blocks": n_blocks,
        "layout": layout,
        "per_block": points.per_block,
        "points": [
            {
                "number": number,
                "block": point.block,
                "stream": point.stream,
                "increment": points.increment(point.stream, point.block),
                "is_sum": points.is_sum(point.stream),
                "name": point.name,
            }
            for number, point in enumerate(points)
        ],
        # Of an increment: its own point, the residual stream after it, and the increment before its block.
        "increments": [
            {
                "number": number,
                "block": points.added(number).block,
                "stream": points.added(number).stream,
                "added": points.of_increment(number)[0],
                "after": points.of_increment(number)[-1],
                "block_input": points.block_input(number),
                "name": points.added(number).name,
            }
            for number in range(points.n_increments)
        ],
    }


def numberings() -> str:
    """The numbering of models of several depths and both layouts, as JSON with a line for each."""
    cases = [json.dumps(numbering(n, layout)) for layout in LAYOUTS for n in (0, 1, 2, 12)]
    return "[\n" + ",\n".join(cases) + "\n]\n"


def main() -> None:
    """Write all fixtures."""
    FOLDER.mkdir(exist_ok=True)
    for name, case in CASES.items():
        snapshot = synthetic(**case)  # type: ignore[arg-type]
        (FOLDER / f"{name}.bin").write_bytes(snapshot.pack())
        (FOLDER / f"{name}.json").write_text(json.dumps(expected(snapshot)) + "\n")
    for name, data in derived().items():
        (FOLDER / f"{name}.bin").write_bytes(data)
    (FOLDER / "points.json").write_text(numberings())
    # They are the only ones that need torch.
    from engine_fixtures import MODELS, fixtures

    (FOLDER / "engine").mkdir(exist_ok=True)
    for name in MODELS:
        for file, data in fixtures(name).items():
            (FOLDER / "engine" / f"{file}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
