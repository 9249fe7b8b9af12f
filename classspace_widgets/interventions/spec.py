"""The interventions: frozen, validated descriptions of what to change; `plan` and `engine` apply them.

Blocks are numbered 1..L, tokens 0..T-1 (prefix tokens first, then image tokens row by row), heads 0..H-1; ``None``
means all.  Every description converts to and from a plain dict (for the panel in the browser) and to Python code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from classspace_widgets.interventions.base import Intervention
from classspace_widgets.interventions.tokens import (
    Box,
    Mask,
    Sizes,
    Tokens,
    as_box,
    as_indices,
    as_mask,
    check_tokens,
    select_blocks,
    select_heads,
    select_tokens,
)
from classspace_widgets.masks import as_array
from classspace_widgets.points import SUBLAYERS

if TYPE_CHECKING:
    from typing_extensions import Self

    from classspace_widgets.metrics.norms import TokenNorms

PICTURE = "picture"
"""Name of the source that is the picture itself, traced without interventions."""
OTHER = "other"
"""Name of the source that is a session's second picture."""
KINDS = ("no_cls", "no_others", "self_only", "self_unscaled", "edges")
ABLATED = (*SUBLAYERS, "head")
MODES = ("zero", "mean", "resample")


@dataclass(frozen=True, repr=False)
class _ChoosesTokens(Intervention):
    """Tokens by index, by a box of the patch grid, by a mask, or by length; ``outside`` takes the other image tokens."""

    tokens: Tokens | None = None
    box: Box | None = None
    mask: Mask | None = None
    outside: bool = False
    norm_above: float | None = None
    norm_block: int | None = None
    source: Any = None
    # Only selects numbers of the mask; the field `mask` is then the mask of the selected objects.
    objects: InitVar[Any] = None

    def __post_init__(self, objects: Any) -> None:
        name = type(self).__name__
        if objects is not None and self.mask is None:
            raise ValueError(f"{name}: objects= selects objects of mask=, which is missing")
        given = [n for n in ("tokens", "box", "mask", "norm_above") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"{name} takes exactly one of tokens, box, mask and norm_above, got {given or 'none'}")
        if self.norm_above is None and (self.norm_block is not None or self.source is not None):
            raise ValueError(f"{name}: norm_block and source belong to norm_above")
        if self.norm_above is not None and not self.norm_above > 0:
            raise ValueError(f"{name}: norm_above must be above 0 (in medians of the block), got {self.norm_above!r}")
        if self.norm_above is not None:
            self._set(norm_above=float(self.norm_above), source=PICTURE if self.source is None else self.source)
        mask = as_mask(self.mask, objects)
        self._set(tokens=as_indices(self.tokens, "tokens"), box=as_box(self.box), mask=mask)

    def _changed(self) -> dict[str, Any]:
        return {name: value for name, value in super()._changed().items() if (name, value) != ("source", PICTURE)}

    def select(self, sizes: Sizes) -> Tokens:
        """Indices of the chosen tokens."""
        return select_tokens(
            sizes, tokens=self.tokens, box=self.box, mask=self.mask, outside=self.outside, what=type(self).__name__
        )

    @property
    def measures_the_picture(self) -> bool:
        """Whether the choice is by length in the picture's own pass without interventions."""
        return self.norm_above is not None and bool(self.source == PICTURE)

    def by_index(self, norms: TokenNorms) -> Self:
        """The same choice by index, where it is by length."""
        name = type(self).__name__
        if norms.norms.shape[1] != 1:
            raise ValueError(
                f"{name}: norm_above chooses tokens of one picture, source has {norms.norms.shape[1]}; take source.image(0)"
            )
        last = len(norms.norms) - 1
        if self.norm_block is not None and not 0 <= self.norm_block <= last:
            raise ValueError(f"{name}: norm_block must be in 0..{last}, got {self.norm_block}")
        assert self.norm_above is not None
        chosen = norms.longer_than(self.norm_above, block=self.norm_block)
        if not chosen:
            where = "any block" if self.norm_block is None else f"block {self.norm_block}"
            image = (
                norms.norms[..., norms.prefix :]
                if self.norm_block is None
                else norms.norms[self.norm_block, :, norms.prefix :]
            )
            raise ValueError(
                f"{name}: no image token is longer than {self.norm_above:g} medians after {where}; the longest has "
                f"{image.nan_to_num(0.0).max().item():.2f}"
            )
        return replace(self, tokens=chosen, norm_above=None, norm_block=None, source=None, objects=None)

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        if self.norm_above is None:
            self.select(sizes)


@dataclass(frozen=True, repr=False)
class RemoveTokens(_ChoosesTokens):
    """Remove image tokens from the sequence after the position embedding, before block 1 (Vilas et al. 2023).

    Rotary positions and relative position biases of later blocks are reduced to the other tokens, so ViT, DeiT, BEiT,
    EVA, RoPE and relative-position families all work; only a pass with its own attention mask is refused.

    Parameters
    ----------
    tokens : int or sequence of int, optional
        Token indices.
    box : (row0, column0, row1, column1), optional
        Rectangle of image tokens, ends excluded.
    mask : array_like [rows, columns] or [height, width], optional
        Mask of objects: 0 is context, any other number an object. Removes the tokens that *all* objects together cover
        at least half of; with ``outside=True`` the context tokens.
    outside : bool
        Remove the image tokens that are *not* chosen.
    objects : int or sequence of int, optional
        With ``mask``: only objects with these numbers, such as ``objects=[1]`` for the main object of a `Scene`.
    norm_above : float, optional
        Image tokens that are longer than this, in units of the median of their block (`metrics.token_norms`).
    norm_block : int, optional
        After which block, 0..L; by default after any.
    source : str or Trace, optional
        With ``norm_above``: the trace of one picture, or its name in ``sources``, whose tokens are measured; by default
        the picture itself, which is traced without interventions first.

    Examples
    --------
    >>> RemoveTokens(box=(0, 0, 2, 2)).to_dict()
    {'type': 'RemoveTokens', 'box': [0, 0, 2, 2]}
    """

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        if self.norm_above is not None:
            return
        chosen = self.select(sizes)
        if chosen[0] < sizes.prefix:
            raise ValueError(f"RemoveTokens: prefix tokens cannot be removed, image tokens start at {sizes.prefix}")
        if len(chosen) == len(sizes.image_tokens):
            raise ValueError("RemoveTokens: every image token would be removed; keep at least one")


@dataclass(frozen=True, repr=False)
class MaskTokens(_ChoosesTokens):
    """Overwrite tokens before block 1; they stay in the sequence.

    Parameters
    ----------
    tokens, box, mask, outside, objects, norm_above, norm_block, source
        As in `RemoveTokens`.
    mode : str
        ``"zero"``, or ``"mean"``: the mean of the picture's image tokens.

    Examples
    --------
    >>> MaskTokens(tokens=[1, 2], mode="mean").to_code()
    "MaskTokens(tokens=[1, 2], mode='mean')"
    """

    mode: str = "zero"

    def __post_init__(self, objects: Any) -> None:
        super().__post_init__(objects)
        _one_of(self.mode, ("zero", "mean"), "MaskTokens: mode")


@dataclass(frozen=True, repr=False)
class KnockOutAttention(Intervention):
    """Cut edges of the attention graph, so that a reader token does not read a source token.

    Parameters
    ----------
    kind : str
        ``"no_cls"``: image tokens do not read [CLS] (as in the paper).
        ``"no_others"``: image tokens do not read each other, only themselves and the prefix tokens.
        ``"self_only"``: an image token's weight on itself is 1 and all its others are 0 (as in the paper), so image
        tokens are fully independent of each other.
        ``"self_unscaled"``: an image token's weights on all others are 0, and that on itself keeps its value after the
        softmax; attention then adds much less to it than in a normal pass.
        ``"edges"``: ``readers`` do not read ``sources``.
    readers, sources : int or sequence of int, optional
        For ``"edges"``: token indices; None for all tokens.
    blocks, heads : int or sequence of int, optional
    renormalise : bool
        False: weights are set to 0 after the softmax, as in the paper's ``"no_cls"``, so rows no longer sum to 1 (and
        the other weights still depend on the cut sources, through the softmax's denominator). True: edges are masked
        before the softmax, so the other weights grow. ``"self_only"`` is the same for both, and ``"self_unscaled"``
        needs False.

    Raises
    ------
    ValueError
        For an unknown kind, readers or sources for a kind other than ``"edges"``, or ``"self_unscaled"`` renormalised.

    Examples
    --------
    >>> KnockOutAttention("edges", readers=[0], blocks=[7, 8]).to_dict()
    {'type': 'KnockOutAttention', 'kind': 'edges', 'readers': [0], 'blocks': [7, 8]}
    """

    kind: str
    readers: Tokens | None = None
    sources: Tokens | None = None
    blocks: Tokens | None = None
    heads: Tokens | None = None
    renormalise: bool = False

    def __post_init__(self) -> None:
        _one_of(self.kind, KINDS, "KnockOutAttention: kind")
        self._set(
            readers=as_indices(self.readers, "readers"),
            sources=as_indices(self.sources, "sources"),
            blocks=as_indices(self.blocks, "blocks", low=1),
            heads=as_indices(self.heads, "heads"),
            renormalise=bool(self.renormalise),
        )
        if self.kind != "edges" and (self.readers is not None or self.sources is not None):
            raise ValueError(f"KnockOutAttention: readers and sources belong to kind='edges', not to {self.kind!r}")
        if self.kind == "edges" and self.readers is None and self.sources is None:
            raise ValueError("KnockOutAttention: kind='edges' needs readers, sources or both")
        if self.kind == "self_unscaled" and self.renormalise:
            raise ValueError("KnockOutAttention: 'self_unscaled' renormalised is 'self_only'; use that kind")

    @property
    def before_softmax(self) -> bool:
        """Whether edges are masked before the softmax rather than set to zero after it."""
        return self.renormalise or self.kind == "self_only"

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        what = f"KnockOutAttention({self.kind!r})"
        select_blocks(self.blocks, sizes, what)
        select_heads(self.heads, sizes, what)
        check_tokens(self.readers or (), sizes, f"{what} readers")
        check_tokens(self.sources or (), sizes, f"{what} sources")
        if self.kind == "no_cls" and (sizes.prefix == 0 or not sizes.cls):
            raise ValueError(f"{what}: this model has no [CLS] token")

    def kept(self, sizes: Sizes) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Edges that are kept, ``[T readers, T sources]``."""
        keep = np.ones((sizes.tokens, sizes.tokens), bool)
        image = slice(sizes.prefix, sizes.tokens)
        if self.kind == "no_cls":
            keep[image, 0] = False
        elif self.kind == "no_others":
            keep[image, image] = np.eye(len(sizes.image_tokens), dtype=bool)
        elif self.kind in ("self_only", "self_unscaled"):
            keep[image] = np.eye(sizes.tokens, dtype=bool)[image]
        else:
            everything = tuple(range(sizes.tokens))
            keep[np.ix_(self.readers or everything, self.sources or everything)] = False
        return keep


@dataclass(frozen=True, repr=False)
class Ablate(Intervention):
    """Replace what a sublayer or an attention head adds to the residual stream.

    Parameters
    ----------
    sublayer : str
        ``"attention"`` or ``"mlp"``: the whole increment. ``"head"``: the output of some attention heads, before the
        output projection (whose bias is kept).
    blocks, heads : int or sequence of int, optional
    mode : str
        ``"zero"``. ``"mean"``: the mean over the picture's own tokens, or with a source, at every token the mean over
        the source's pictures. ``"resample"``: the source's value at every token.
    source : str or Trace, optional
        Trace of other images, or its name in ``sources={name: trace}``.

    Raises
    ------
    ValueError
        For an unknown sublayer or mode, ``heads`` without ``sublayer="head"``, or a source that is missing or not used.

    Examples
    --------
    >>> Ablate("head", blocks=8, heads=[0, 3], mode="mean").to_dict()
    {'type': 'Ablate', 'sublayer': 'head', 'blocks': [8], 'heads': [0, 3], 'mode': 'mean'}
    """

    sublayer: str
    blocks: Tokens | None = None
    heads: Tokens | None = None
    mode: str = "zero"
    source: Any = None

    def __post_init__(self) -> None:
        _one_of(self.sublayer, ABLATED, "Ablate: sublayer")
        _one_of(self.mode, MODES, "Ablate: mode")
        self._set(blocks=as_indices(self.blocks, "blocks", low=1), heads=as_indices(self.heads, "heads"))
        if self.heads is not None and self.sublayer != "head":
            raise ValueError(f"Ablate: heads belong to sublayer='head', not to {self.sublayer!r}")
        if self.mode == "resample" and self.source is None:
            raise ValueError("Ablate: mode='resample' needs a source (a Trace, or the name of one)")
        if self.mode == "zero" and self.source is not None:
            raise ValueError("Ablate: mode='zero' takes no source")

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        select_blocks(self.blocks, sizes, "Ablate")
        select_heads(self.heads, sizes, "Ablate")


@dataclass(frozen=True, repr=False)
class PatchResidual(Intervention):
    """Overwrite the residual stream of some tokens after a block with a state from elsewhere (activation patching).

    Parameters
    ----------
    target_block : int
        Where the state is written. 0: the embedding; l: after block l.
    tokens : int or sequence of int, optional
        Which tokens are overwritten; by default all.
    source : str, Trace or (int, int), optional
        Where the state comes from. A trace (or its name in ``sources``) of one image, or of as many as the batch has, read
        at the same tokens or at ``source_token``; or ``(image, token)`` of the same batch. Without one, every picture's
        own ``source_token``. In views, ``"other"`` is their second picture: ``Explorer(trace, other=source)``.
    source_block : int, optional
        After which block the state is read; by default ``target_block``. A state of the same pass cannot be that of a later
        block, which is not computed yet.
    source_token : int, optional
        The one token whose vector replaces every chosen token.

    Raises
    ------
    ValueError
        For a block below 0, no source, or a later block of the same pass.

    Examples
    --------
    >>> PatchResidual(4, tokens=0, source=(1, 0)).to_dict()  # [CLS] of the batch's second picture
    {'type': 'PatchResidual', 'target_block': 4, 'tokens': [0], 'source': [1, 0]}
    >>> PatchResidual(source_block=2, target_block=5, source_token=17, tokens=40).to_code()  # within every picture
    'PatchResidual(target_block=5, tokens=[40], source_block=2, source_token=17)'
    """

    target_block: int
    tokens: Tokens | None = None
    source: Any = None
    source_block: int | None = None
    source_token: int | None = None

    def __post_init__(self) -> None:
        for name in ("target_block", "source_block", "source_token"):
            value = getattr(self, name)
            if value is None and name != "target_block":
                continue
            if isinstance(value, bool) or int(value) != value or value < 0:
                raise ValueError(f"PatchResidual: {name} must be an integer of at least 0, got {value!r}")
            self._set(**{name: int(value)})
        self._set(tokens=as_indices(self.tokens, "tokens"))
        if self.source is None and self.source_token is None:
            raise ValueError(
                "PatchResidual needs a source: a Trace, the name of one, (image, token), or source_token= of the same picture"
            )
        if isinstance(self.source, Sequence) and not isinstance(self.source, str):
            if len(self.source) != 2:
                raise ValueError(f"PatchResidual: a position must be (image, token), got {self.source!r}")
            if self.source_token is not None:
                raise ValueError(f"PatchResidual: source={self.source!r} names a token already; leave source_token out")
            self._set(source=(int(self.source[0]), int(self.source[1])))
        if self.same_pass and self.from_block > self.target_block:
            raise ValueError(
                f"PatchResidual: the state after block {self.from_block} of the same pass is not computed yet after block "
                f"{self.target_block}; take source_block of at most {self.target_block}, or a trace as source"
            )

    @property
    def same_pass(self) -> bool:
        """Whether the state comes from the pass that is changed, not from a trace."""
        return self.source is None or isinstance(self.source, tuple)

    @property
    def from_block(self) -> int:
        """The block after which the state is read."""
        return self.target_block if self.source_block is None else self.source_block

    @property
    def from_token(self) -> int | None:
        """The token whose vector replaces every chosen one; None where each is replaced by the source's own."""
        return self.source[1] if isinstance(self.source, tuple) else self.source_token

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        for name, block in (("target_block", self.target_block), ("source_block", self.from_block)):
            if block > sizes.blocks:
                raise ValueError(f"PatchResidual: {name} must be in 0..{sizes.blocks}, got {block}")
        check_tokens(self.tokens or (), sizes, "PatchResidual")
        if self.from_token is not None:
            check_tokens([self.from_token], sizes, "PatchResidual source")


@dataclass(frozen=True, repr=False)
class AddVector(Intervention):
    """Add a vector to the residual stream of some tokens after a block (steering).

    Parameters
    ----------
    block : int
        0: the embedding; l: after block l.
    vector : array_like [D]
        What is added to every chosen token.
    tokens : int or sequence of int, optional
        By default all tokens.

    Raises
    ------
    ValueError
        For a block below 0, or a vector that is not one row of finite numbers.

    Examples
    --------
    >>> AddVector(3, [0.5, -1.0], tokens=[4, 5]).to_dict()
    {'type': 'AddVector', 'block': 3, 'vector': [0.5, -1.0], 'tokens': [4, 5]}
    """

    block: int
    vector: tuple[float, ...]
    tokens: Tokens | None = None

    def __post_init__(self) -> None:
        if isinstance(self.block, bool) or int(self.block) != self.block or self.block < 0:
            raise ValueError(f"AddVector: block must be an integer of at least 0, got {self.block!r}")
        numbers = as_array(self.vector).astype(np.float64)
        if numbers.ndim != 1 or not np.isfinite(numbers).all():
            raise ValueError(f"AddVector: vector must be [D] finite numbers, got shape {list(numbers.shape)}")
        self._set(block=int(self.block), vector=tuple(numbers.tolist()), tokens=as_indices(self.tokens, "tokens"))

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        if self.block > sizes.blocks:
            raise ValueError(f"AddVector: block must be in 0..{sizes.blocks}, got {self.block}")
        if sizes.width and len(self.vector) != sizes.width:
            raise ValueError(
                f"AddVector: vector must have the width D={sizes.width} of a token, got {len(self.vector)}"
            )
        check_tokens(self.tokens or (), sizes, "AddVector")


@dataclass(frozen=True, repr=False)
class ReplaceClassEmbedding(Intervention):
    """Replace the classifier's rows of some classes by those of other classes, or by any vectors of width D.

    Parameters
    ----------
    classes : int or sequence of int
        The K classes whose rows are replaced.
    by : int or sequence of int, optional
        The classes whose rows and biases replace them.
    vectors : array_like [K, D], optional
        The new rows; biases are kept.

    Raises
    ------
    ValueError
        Unless exactly one of ``by`` and ``vectors`` is given, one for every class.

    Examples
    --------
    >>> ReplaceClassEmbedding([0], by=[3]).to_dict()
    {'type': 'ReplaceClassEmbedding', 'classes': [0], 'by': [3]}
    """

    classes: Tokens
    by: Tokens | None = None
    vectors: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        self._set(classes=_ordered(self.classes))
        if (self.by is None) == (self.vectors is None):
            raise ValueError("ReplaceClassEmbedding takes exactly one of by and vectors")
        if self.by is not None:
            self._set(by=_ordered(self.by))
        else:
            rows = np.asarray(self.vectors, dtype=np.float64)
            if rows.ndim != 2:
                raise ValueError(f"ReplaceClassEmbedding: vectors must have shape [K, D], got {rows.shape}")
            self._set(vectors=tuple(tuple(float(v) for v in row) for row in rows))
        if len(self.by or self.vectors or ()) != len(self.classes):
            raise ValueError(f"ReplaceClassEmbedding: {len(self.classes)} classes need as many replacements")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"ReplaceClassEmbedding: a class is listed twice in {self.classes}")

    def check(self, sizes: Sizes) -> None:
        """See `Intervention.check`."""
        bad = [c for c in (*self.classes, *(self.by or ())) if not 0 <= c < sizes.classes]
        if bad:
            raise ValueError(f"ReplaceClassEmbedding: classes must be in 0..{sizes.classes - 1}, got {bad[:5]}")


def _one_of(value: Any, choices: tuple[str, ...], name: str) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")


def _ordered(value: Any) -> Tokens:
    items = (value,) if isinstance(value, (int, np.integer)) else tuple(value)
    as_indices(items, "classes")
    return tuple(int(i) for i in items)
