"""`neighbours`: patches of other pictures in the same state as a token."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from classspace_widgets.lookup import at_least, whole_number
from classspace_widgets.models.fingerprint import known_fingerprint
from classspace_widgets.nearest.build import picture_mark

if TYPE_CHECKING:
    import pandas as pd

    from classspace_widgets.nearest.bank import StateBank
    from classspace_widgets.snapshot.container import Array
    from classspace_widgets.trace import Trace

STEP = 1 << 16
"""States that are compared at once."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Patches of other pictures in nearly the same state as a token, nearest first.

    Made by `neighbours`.

    Attributes
    ----------
    bank : StateBank
    block, token : int
        What was asked for.
    cosines : ndarray [k], float32
        In [-1, 1].
    pictures, tokens : ndarray [k], int64
        Picture of the bank, and its token.
    """

    bank: StateBank
    block: int
    token: int
    cosines: Array
    pictures: Array
    tokens: Array

    def __len__(self) -> int:
        return len(self.cosines)

    def __repr__(self) -> str:
        best = f", the nearest at cosine {self.cosines[0]:.2f}" if len(self) else ""
        return f"Neighbours({len(self)} patches like token {self.token} at block {self.block}{best})"

    @property
    def places(self) -> Array:
        """Row and column of each patch in its picture, ``[k, 2]``."""
        patches = self.tokens - len(self.bank.prefix)
        return np.stack([patches // self.bank.grid[1], patches % self.bank.grid[1]], axis=1)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each patch: ``cosine``, ``picture``, ``name``, ``row``, ``column``, ``label`` and ``answer`` (class names)."""
        import pandas as pd

        bank = self.bank

        def named(classes: Array) -> list[str]:
            return ["" if c < 0 else bank.class_names[c] for c in classes[self.pictures].tolist()]

        return pd.DataFrame(
            {
                "cosine": self.cosines,
                "picture": self.pictures,
                "name": [bank.names[p] for p in self.pictures.tolist()],
                "row": self.places[:, 0],
                "column": self.places[:, 1],
                "label": named(bank.labels),
                "answer": named(bank.answers),
            }
        )

    def thumbnails(self) -> list[bytes]:
        """The pictures as small WebP files, in the order of the patches."""
        return [self.bank.thumbnail(int(picture)) for picture in self.pictures]

    def _repr_html_(self) -> str:
        rows, columns = self.bank.grid
        shown = []
        for record, file in zip(self.table.to_dict("records"), self.thumbnails(), strict=True):
            words = html.escape(f"{record['label'] or record['answer']} {record['cosine']:.2f}")
            box = (
                f"position:absolute;box-sizing:border-box;border:2px solid #e8590c;left:{100 * record['column'] / columns:.1f}%;"
                f"top:{100 * record['row'] / rows:.1f}%;width:{100 / columns:.1f}%;height:{100 / rows:.1f}%"
            )
            picture = f'<img alt="{words}" src="data:image/webp;base64,{base64.b64encode(file).decode()}">'
            shown.append(
                f'<figure style="display:inline-block;margin:0 6px 0 0"><div style="position:relative;display:inline-block">{picture}'
                f'<span style="{box}"></span></div><figcaption>{words}</figcaption></figure>'
            )
        return f"<div>{html.escape(repr(self))}</div><div>{''.join(shown)}</div>"


def neighbours(
    trace: Trace,
    token: int,
    bank: StateBank,
    *,
    block: int = -1,
    k: int = 8,
    per_picture: int = 1,
    centred: bool = False,
    image: int = 0,
) -> Neighbours:
    """Find the patches of other pictures in the same state as a token: those of largest cosine in the residual stream.

    Parameters
    ----------
    trace : Trace
    token : int
        0..T-1; a prefix token is compared with the patches of the bank, too.
    bank : StateBank
        Of the same model. The pictures of the bank that equal the traced one are left out.
    block : int
        0..L, one of the bank's; -1 is the last block.
    k : int
        Number of patches.
    per_picture : int
        Patches of one picture at most.
    centred : bool
        Subtract the mean state of the bank first: states are then compared by what they do not all share.
    image : int
        Which image of the batch.

    Returns
    -------
    Neighbours

    Raises
    ------
    ValueError
        For a bank of another model or without the block, or a token that was removed.

    Examples
    --------
    >>> from classspace_widgets.nearest import state_bank
    >>> from classspace_widgets.scenes import ScenesDataset, gallery
    >>> space = ClassSpace.bundled("contrast")
    >>> bank = state_bank(space, ScenesDataset(8, seed=2), blocks=[4])
    >>> found = neighbours(space.trace(gallery()[0].picture), 27, bank, block=4, k=3)
    >>> found.table[["cosine", "label"]].shape
    (3, 2)
    """
    trace = trace.image(image)
    block = trace.n_blocks if block == -1 else block
    place = bank.at(block)
    weights = "" if trace.space is None else known_fingerprint(trace.space.model)
    bank.check(trace.class_names, trace.prefix, trace.grid, weights)
    token = whole_number(token, "token", 0, trace.n_tokens - 1)
    at_least(k, "k", 1)
    at_least(per_picture, "per_picture", 1)
    state = trace.stream("residual", block)[0, token].float()
    if bool(state.isnan().any()):
        raise ValueError(f"token {token} was removed from this pass; choose one of those that are left")
    cosines = _cosines(bank, place, state, centred=centred)
    if trace.pictures is not None:
        same = np.flatnonzero(bank.marks == picture_mark(trace.pictures[0]))
        cosines[np.isin(bank.pictures, same)] = -np.inf
    order = np.argsort(-cosines, kind="stable")
    order = order[np.isfinite(cosines[order])]
    chosen = order[_turn(bank.pictures[order]) < per_picture][:k]
    return Neighbours(
        bank,
        block,
        token,
        cosines[chosen].astype(np.float32),
        bank.pictures[chosen].astype(np.int64),
        bank.tokens[chosen].astype(np.int64),
    )


def _cosines(bank: StateBank, place: int, state: torch.Tensor, *, centred: bool) -> Array:
    """Cosines ``[n]`` of a state ``[D]`` with all of the bank's at a block."""
    states, lengths = bank.states[place], bank.lengths[place]
    mean = torch.zeros_like(state)
    parts = [slice(start, start + STEP) for start in range(0, len(states), STEP)]

    def vectors(part: slice) -> torch.Tensor:
        found = torch.from_numpy(states[part]).to(state.device, torch.float32)
        return found * torch.from_numpy(lengths[part]).to(state.device).unsqueeze(1)

    if centred:
        mean = torch.stack([vectors(part).sum(dim=0) for part in parts]).sum(dim=0) / len(states)
    own = torch.nn.functional.normalize(state - mean, dim=0)
    found = [torch.nn.functional.normalize(vectors(part) - mean, dim=1) @ own for part in parts]
    cosines: Array = torch.cat(found).clamp(-1, 1).cpu().numpy()
    return cosines


def _turn(pictures: Array) -> Array:
    """For each of a list of pictures, how often it came before: ``[3, 5, 3] -> [0, 0, 1]``."""
    order = np.argsort(pictures, kind="stable")
    _, starts, counts = np.unique(pictures[order], return_index=True, return_counts=True)
    turn = np.empty(len(pictures), np.int64)
    turn[order] = np.arange(len(pictures)) - np.repeat(starts, counts)
    return turn
