"""How far a lens can be trusted at each block: on held-out pictures, against masks, and against what it promises.

Three questions, each beside the logit lens:

- *agreement*: does the lens, read where the answer is read, already give the model's answer? (top-1, and the divergence of
  their probabilities);
- *masks*: does the score of the picture's class pick out the object's patches?
- *promise*: a Jacobian promises how far a logit moves when a vector is added to all image tokens. Add it, and compare.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from classspace_widgets.data.batches import LabelledPictures
from classspace_widgets.describe import short_repr
from classspace_widgets.explain.masks import mask_scores
from classspace_widgets.interventions import AddVector, run_with
from classspace_widgets.lens import FittedLens
from classspace_widgets.lookup import at_least
from classspace_widgets.progress import progress_bar
from classspace_widgets.studies.statistics import REPLICATES, bootstrap_ci, interval

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from classspace_widgets.space.space import ClassSpace
    from classspace_widgets.trace import Trace

PUSH = 0.05
"""Length of an added vector, as a share of the mean length of the image tokens there: small enough for first order."""

PUSHED_CLASSES = 3
"""Classes along whose maps each picture is pushed, drawn at random."""


@dataclass(frozen=True)
class LensReport:
    """How far lenses can be trusted, by block.

    Made by `lens_report`.

    Attributes
    ----------
    table : DataFrame
        A row for each ``weights`` (``"trained"``, and ``"random"`` for a random twin with lenses of its own), ``lens``
        (``"logit"`` and the given ones), ``block`` (0..L, the residual stream), ``tokens``
        (``"output"`` or ``"image"``) and ``measure``, with ``value``, a 95 % interval ``low`` to ``high`` over pictures, and
        the number of pictures ``count``:

        - ``agreement``: share of pictures whose best class at the output token is the model's answer;
        - ``divergence``: Kullback-Leibler divergence of the lens's probabilities from the model's, in nats;
        - ``average precision``, ``pointing``: of the label's score of image tokens against the object's mask;
        - ``identifiability, object`` and ``identifiability, context``: of the label, ``1 - rank / C``;
        - ``promise slope``: measured change of a class logit over the promised one, 1 if the promise is kept; ``random
          slope``: the same for a random direction of the same length;
          ``promise correlation``: of promised and measured changes over pictures and classes (no interval).
    pictures : int
    """

    __repr__ = short_repr

    table: pd.DataFrame
    pictures: int = field(default=0)

    def attached(self, lens: FittedLens) -> FittedLens:
        """The lens with these measures in its `trust`, and those of the logit lens: views and files then have them."""
        trust: dict[str, tuple[float, ...]] = {}
        for name, prefix in ((lens.kind, ""), ("logit", "logit: ")):
            own = (self.table["weights"] == "trained") & (self.table["lens"] == name)
            for measure in self.table.loc[own, "measure"].unique():
                known = self.values(name, measure).to_dict()
                blocks = range(lens.points.n_blocks + 1)
                trust[prefix + measure] = tuple(round(float(known.get(block, np.nan)), 4) for block in blocks)
        return replace(lens, trust=trust)

    def values(self, lens: str, measure: str) -> pd.Series[Any]:
        """Values of a measure by block."""
        trained = self.table["weights"] == "trained"
        rows = self.table[trained & (self.table["lens"] == lens) & (self.table["measure"] == measure)]
        return rows.set_index("block")["value"]


def lens_report(
    space: ClassSpace,
    lenses: FittedLens | Sequence[FittedLens],
    dataset: Any,
    *,
    control: Callable[[ClassSpace], FittedLens | Sequence[FittedLens]] | None = None,
    promises: int = 16,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = True,
) -> LensReport:
    """Measure how far lenses can be trusted on pictures that they were not fitted on.

    Parameters
    ----------
    space : ClassSpace
    lenses : FittedLens or sequence of them
        Of all classes. The logit lens is measured beside them.
    dataset : Any
        As in `run_study`, with labels; the measures of masks need masks.
    control : callable, optional
        Fits lenses of a random twin, which is then measured as well: ``control=lambda twin: twin.fit_lens("jacobian", pictures)``.
        Its labels are the pictures' own, its answers those of random weights.
    promises : int
        Pictures whose image tokens are pushed along the maps of three random classes; 0 for none. Only a Jacobian promises anything.
    batch_size : int
    seed : int
        Of the random directions, of the intervals and of the twin.
    progress : bool
        Show a progress bar after a second.

    Returns
    -------
    LensReport

    Raises
    ------
    ValueError
        For a lens of another model, or of some classes only.

    Examples
    --------
    >>> from classspace_widgets.scenes import ScenesDataset
    >>> space = ClassSpace.bundled("contrast")
    >>> report = lens_report(space, space.bundled_lens("jacobian"), ScenesDataset(8, seed=5), promises=0, progress=False)
    >>> float(report.values("logit", "agreement")[8])
    1.0
    """
    at_least(promises, "promises", 0)
    measured = {"trained": (space, lenses)}
    if control is not None:
        twin = space.random_twin(seed)
        measured["random"] = (twin, control(twin))
    tables = []
    for weights, (model, its) in measured.items():
        given = [its] if isinstance(its, FittedLens) else list(its)
        for fitted in given:
            fitted.require_complete("a report")
        table, seen = _measured(model, given, dataset, promises, at_least(batch_size, "batch_size", 1), seed, progress)
        tables.append(table.assign(weights=weights))
    columns = ["weights", "lens", "block", "tokens", "measure", "value", "low", "high", "count"]
    return LensReport(pd.concat(tables, ignore_index=True)[columns], seen)


def _measured(
    space: ClassSpace,
    lenses: Sequence[FittedLens],
    dataset: Any,
    promises: int,
    batch_size: int,
    seed: int,
    progress: bool,
) -> tuple[pd.DataFrame, int]:
    """The table of one model, and how many pictures it rests on."""
    chosen: dict[str, FittedLens | None] = {"logit": None} | {fitted.kind: fitted for fitted in lenses}
    rows: dict[tuple[str, int, str, str], list[np.ndarray[Any, Any]]] = {}
    generator = torch.Generator().manual_seed(seed)
    promised: dict[int, list[np.ndarray[Any, Any]]] = {}
    seen = 0
    pictures = LabelledPictures(space, dataset)
    with progress_bar(len(pictures), "lens report", "picture", show=progress) as bar:
        for batch in pictures.batches(batch_size):
            trace = space.trace_pixels(batch.pixels)
            for name, lens in chosen.items():
                for block in range(trace.n_blocks + 1):
                    found = _readings(trace, lens, block, batch.labels, batch.masks)
                    for (tokens, measure), values in found.items():
                        rows.setdefault((name, block, tokens, measure), []).append(values)
                if lens is not None and lens.kind == "jacobian" and seen < promises:
                    pushed = _promises(space, lens, batch.pixels[: promises - seen], generator)
                    for block, pairs in pushed.items():
                        promised.setdefault(block, []).append(pairs)
            seen += len(batch.labels)
            bar.update(len(batch.labels))
    table = [_row(key, np.concatenate(values), seed) for key, values in rows.items()]
    table += [row for block, pairs in promised.items() for row in _slopes(block, np.concatenate(pairs), seed)]
    return pd.DataFrame(table, columns=["lens", "block", "tokens", "measure", "value", "low", "high", "count"]), seen


def _readings(
    trace: Trace, lens: FittedLens | None, block: int, labels: Tensor, masks: Tensor
) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
    """Values ``[B]`` of one lens at one block, by tokens and measure; NaN where there is none."""
    answer = trace.output.float()
    logits = trace.readout("residual", block, lens=lens).float()
    expected = answer.log_softmax(-1)
    divergence = (expected.exp() * (expected - logits.log_softmax(-1))).sum(-1)
    found = {
        ("output", "agreement"): (logits.argmax(-1) == answer.argmax(-1)).double(),
        ("output", "divergence"): divergence.double(),
    }
    prefix = len(trace.prefix)
    scores = trace.logits("residual", block, labels=labels.tolist(), lens=lens)[:, prefix:, 0]
    if scores.isnan().all():
        return {key: value.cpu().numpy() for key, value in found.items()}
    for measure, name in (("average_precision", "average precision"), ("pointing_game", "pointing")):
        found["image", name] = mask_scores(scores, masks)[measure]
    ranks = trace.ranks("residual", block, labels=labels.tolist(), lens=lens)[:, prefix:, 0].double()
    identifiability = 1 - ranks / trace.n_classes
    for name, inside in (("object", masks == 1), ("context", masks == 0)):
        inside = inside.to(ranks.device)
        mean = (identifiability * inside).sum(-1) / inside.sum(-1)
        found["image", f"identifiability, {name}"] = mean
    return {key: value.cpu().numpy() for key, value in found.items()}


def _promises(
    space: ClassSpace, lens: FittedLens, pixels: Tensor, generator: torch.Generator
) -> dict[int, np.ndarray[Any, Any]]:
    """By block, ``[B, n, 3]`` for n classes: promised change of the class's logit, measured one, and that of a random push."""
    trace = space.trace_pixels(pixels)
    prefix = len(trace.prefix)
    image = tuple(range(prefix, trace.n_tokens))
    found: dict[int, np.ndarray[Any, Any]] = {}
    for block in range(trace.n_blocks + 1):
        number = lens.points.increment("residual", block)
        if not bool(lens.defined[number, prefix]) or bool(lens.classifier[number, prefix]):
            continue
        lengths = PUSH * trace.stream("residual", block)[:, prefix:].float().norm(dim=-1).mean(dim=-1)
        triples = np.zeros((len(pixels), PUSHED_CLASSES, 3))
        for picture, length in enumerate(lengths.tolist()):
            classes = torch.randperm(trace.n_classes, generator=generator)[:PUSHED_CLASSES].tolist()
            for place, one in enumerate(classes):
                row = lens.weights[number, prefix, one].cpu()
                triples[picture, place, 0] = float(row.norm()) * length
                for column, direction in ((1, row), (2, torch.randn(len(row), generator=generator))):
                    push = AddVector(block, direction / direction.norm() * length, tokens=image)
                    moved = run_with(space, pixels[picture : picture + 1], [push])
                    triples[picture, place, column] = float(moved[0, one] - trace.output[picture, one])
        found[block] = triples
    return found


def _row(key: tuple[str, int, str, str], values: np.ndarray[Any, Any], seed: int) -> list[Any]:
    """A line of the table: mean and interval over the pictures that have a value."""
    known = values[~np.isnan(values)]
    low, high = bootstrap_ci(known, seed=seed) if len(known) else (np.nan, np.nan)
    return [*key, float(known.mean()) if len(known) else np.nan, float(low), float(high), len(known)]


def _slopes(block: int, triples: np.ndarray[Any, Any], seed: int) -> list[list[Any]]:
    """Least-squares slopes of measured changes over the promised ones, through 0, with intervals over pictures."""
    promised = triples[..., 0]
    rows = []
    for column, measure in ((1, "promise slope"), (2, "random slope")):
        # The slope is a ratio of two means over pictures, so both are resampled together.
        draws = np.random.default_rng(seed).multinomial(
            len(triples), np.full(len(triples), 1 / len(triples)), REPLICATES
        )
        kept, whole = (promised * triples[..., column]).sum(1), (promised**2).sum(1)
        low, high = interval((draws @ kept) / (draws @ whole))
        rows.append(
            ["jacobian", block, "image", measure, kept.sum() / whole.sum(), float(low), float(high), len(triples)]
        )
    together = np.corrcoef(promised.ravel(), triples[..., 1].ravel())[0, 1]
    rows.append(["jacobian", block, "image", "promise correlation", float(together), np.nan, np.nan, len(triples)])
    return rows
