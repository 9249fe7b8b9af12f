"""The interventions of a sweep over tokens, with their options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from classspace_widgets.trace import Trace

MODES = ("knock out", "remove", "patch")


@dataclass(frozen=True)
class KnockOut:
    """From a block on, no other token may read the token.

    Parameters
    ----------
    window : int
        Number of blocks in which the token may not be read, starting at each block.
    renormalise : bool
        False: weights are set to 0 after the softmax; True: masked before it, so that the other weights grow.

    Examples
    --------
    >>> from classspace_widgets.causal import sweep_tokens
    >>> from classspace_widgets.scenes import gallery
    >>> sweep_tokens(ClassSpace.bundled(), gallery()[0].picture, "fish", mode=KnockOut(window=2), tokens=[0]).mode
    'knock out'
    """

    window: int = 1
    renormalise: bool = False

    def __post_init__(self) -> None:
        """Check the window."""
        if self.window < 1:
            raise ValueError(f"window must be at least 1 block, got {self.window}")


@dataclass(frozen=True)
class Patch:
    """The residual stream of a token after a block is replaced by that of another picture.

    Parameters
    ----------
    source : Trace
        Trace of one other picture.

    Examples
    --------
    >>> from classspace_widgets.causal import sweep_tokens
    >>> from classspace_widgets.scenes import gallery
    >>> space, (fish, boat) = ClassSpace.bundled(), (scene.picture for scene in gallery()[0:5:4])
    >>> sweep_tokens(space, fish, "fish", mode=Patch(space.trace(boat)), tokens=[0], blocks=[0, 7]).blocks
    (0, 7)
    """

    source: Trace

    def __post_init__(self) -> None:
        """Check the source."""
        if getattr(self.source, "n_images", 0) != 1:
            raise TypeError("the source of a patch must be the Trace of one other picture")


def as_mode(mode: str | KnockOut | Patch) -> KnockOut | Patch | None:
    """The intervention that ``mode`` asks for; None for ``"remove"``."""
    if isinstance(mode, (KnockOut, Patch)):
        return mode
    if mode not in MODES:
        raise ValueError(f"mode must be one of {MODES}, a KnockOut or a Patch, got {mode!r}")
    if mode == "patch":
        raise ValueError("mode='patch' needs a source: mode=Patch(trace of another picture)")
    return KnockOut() if mode == "knock out" else None
