"""Multinomial logistic regression with a penalty, chosen by cross-validation.

With features ``x_i`` [D] and classes ``y_i`` of n examples, weights ``W`` [C, D] and biases ``b`` [C] minimise

    mean over i of -log softmax(W x_i + b)[y_i]  +  penalty / 2 * |W|^2

Features are centred and divided by one number, their root mean square, so that one range of penalties serves every model.  The
weights are sums of centred features, so the search runs in the coordinates of those: at most n, however wide the model is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from classspace_widgets.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

PENALTIES = tuple(10.0 ** (-half / 2) for half in range(0, 11))
"""From strong to weak, 1 to 1e-5 in half decades: each fit starts from the one before."""

FOLDS = 5
PATIENCE = 2
"""Penalties in a row that are no better before the weaker ones are left out."""

PRECISE = {"max_iter": 1000, "tolerance_grad": 1e-9, "tolerance_change": 1e-15}
ROUGH = {"max_iter": 200, "tolerance_grad": 1e-4, "tolerance_change": 1e-6}
"""When a search ends.  To choose a penalty the rough one suffices: losses change by about 0.001, and it takes a sixth of the time."""


@dataclass(frozen=True)
class Validation:
    """Cross-validation of the penalties.

    Made by `cross_validate`.

    Attributes
    ----------
    penalties : tuple of float
        Those that were tried, from strong to weak.
    accuracy : tuple of float
        Of the examples left out, for each penalty, 0 to 1.
    loss : tuple of float
        Their mean cross-entropy.
    folds : int
        Parts that were left out one after the other.
    """

    penalties: tuple[float, ...]
    accuracy: tuple[float, ...]
    loss: tuple[float, ...]
    folds: int

    @property
    def best(self) -> int:
        """Position of the penalty with the smallest loss."""
        return min(range(len(self.loss)), key=self.loss.__getitem__)


def fit_logistic(features: Tensor, labels: Tensor, n_classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights and biases for features as they are.

    Parameters
    ----------
    features : Tensor [n, D]
    labels : Tensor [n], int64
        0..C-1.
    n_classes : int
    penalty : float
        Of the scaled features, above 0.

    Returns
    -------
    tuple of Tensor [C, D] and Tensor [C], float64
    """
    path = _Path(features, labels, n_classes)
    stronger = [strong for strong in PENALTIES if strong > penalty]
    for each in stronger:
        path.fit(each, ROUGH)
    path.fit(penalty, PRECISE)
    return path.weights()


def cross_validate(features: Tensor, labels: Tensor, n_classes: int, *, seed: int = 0, show: bool = True) -> Validation:
    """Accuracy and loss of every penalty on examples that were left out of the fit.

    Parameters
    ----------
    features : Tensor [n, D]
    labels : Tensor [n], int64
        0..C-1, each at least twice.
    n_classes : int
    seed : int
        Of the folds; each has about as many examples of every class.
    show : bool
        Show a progress bar after a second.

    Returns
    -------
    Validation
    """
    count = min(FOLDS, int(torch.bincount(labels, minlength=n_classes).min()))
    fold = _folds(labels, count, seed)
    paths = [_Path(features[fold != part], labels[fold != part], n_classes) for part in range(count)]
    accuracy: list[float] = []
    loss: list[float] = []
    with progress_bar(len(PENALTIES), "cross-validation", "penalty", show=show) as bar:
        for penalty in PENALTIES:
            right, total = 0.0, 0.0
            for part, path in enumerate(paths):
                path.fit(penalty, ROUGH)
                weight, bias = path.weights()
                logits = features[fold == part].to(weight) @ weight.T + bias
                held = labels[fold == part]
                right += float((logits.argmax(dim=1) == held).sum())
                total += float(torch.nn.functional.cross_entropy(logits, held, reduction="sum"))
            accuracy.append(right / len(labels))
            loss.append(total / len(labels))
            bar.update()
            if len(loss) - 1 - loss.index(min(loss)) >= PATIENCE:
                break
    return Validation(PENALTIES[: len(loss)], tuple(accuracy), tuple(loss), count)


def _folds(labels: Tensor, count: int, seed: int) -> Tensor:
    """The part that each example is left out with; the examples of a class are spread evenly, at random."""
    generator = torch.Generator("cpu").manual_seed(seed)
    fold = torch.empty_like(labels)
    start = 0
    for own in torch.bincount(labels).nonzero().flatten().tolist():
        places = (labels == own).nonzero().flatten()
        places = places[torch.randperm(len(places), generator=generator, device="cpu").to(places.device)]
        fold[places] = (torch.arange(len(places), device=labels.device) + start) % count
        start += len(places)
    return fold


class _Path:
    """Fits of one set of examples with ever weaker penalties, each from where the one before ended."""

    def __init__(self, features: Tensor, labels: Tensor, n_classes: int) -> None:
        features = features.double()
        self.labels = labels
        self.mean = features.mean(dim=0)
        centred = features - self.mean
        self.scale = centred.square().mean().sqrt().clamp_min(1e-12)
        self.basis = _basis(centred)
        self.inside = centred @ self.basis.T / self.scale
        self.weight = self.inside.new_zeros(n_classes, self.inside.shape[1])
        self.bias = self.inside.new_zeros(n_classes)

    def fit(self, penalty: float, ends: dict[str, Any]) -> None:
        parameters = [self.weight.requires_grad_(), self.bias.requires_grad_()]
        search = torch.optim.LBFGS(parameters, history_size=20, line_search_fn="strong_wolfe", **ends)

        def loss() -> Tensor:
            search.zero_grad()
            logits = torch.addmm(self.bias, self.inside, self.weight.T)
            found = torch.nn.functional.cross_entropy(logits, self.labels) + penalty / 2 * self.weight.square().sum()
            found.backward()  # type: ignore[no-untyped-call]
            return found

        with torch.enable_grad():
            search.step(loss)  # type: ignore[no-untyped-call]
        self.weight, self.bias = (parameter.detach() for parameter in parameters)

    def weights(self) -> tuple[Tensor, Tensor]:
        """For features as they are: centring and scale are taken into weights and biases."""
        weight = self.weight @ self.basis / self.scale
        return weight, self.bias - weight @ self.mean


def _basis(centred: Tensor) -> Tensor:
    """Orthonormal rows ``[r, D]`` that span the examples: all D axes where there are more examples than those."""
    examples, width = centred.shape
    if examples > width:
        return torch.eye(width, dtype=centred.dtype, device=centred.device)
    basis: Tensor = torch.linalg.qr(centred.T).Q.T
    return basis


def chosen(validations: Sequence[Validation]) -> int:
    """Position of the validation with the best accuracy at its best penalty; the first of equals."""
    return max(range(len(validations)), key=lambda i: validations[i].accuracy[validations[i].best])
