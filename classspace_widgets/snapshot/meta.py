"""What the meta data of a container say, key by key: the types of the JSON that `docs/snapshot_format.md` describes.

A file's meta data are checked before they are used (`snapshot.check`); after that, and where a snapshot is made, these
types hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from typing_extensions import NotRequired

    from classspace_widgets.certainty import AnswerMeta

__all__ = ["AtlasMeta", "PartMeta", "SnapshotMeta"]

PayloadMode = Literal["all", "classes", "increments"]


class RefusalsMeta(TypedDict, total=False):
    """Why heads cannot be read one by one, or not by source token, or where logits stand; where they cannot."""

    heads_refused: str
    sources_refused: str
    flow_refused: str


class ModelMeta(RefusalsMeta):
    """The model that a snapshot is of."""

    name: str
    blocks: int
    heads: int
    width: int
    layout: str
    description: str


class TokensMeta(TypedDict):
    """Its tokens: how many, the prefix by name, rows and columns of the others; the token that the answer is read from."""

    count: int
    prefix: list[str]
    grid: list[int]
    pooled: bool
    output: int
    removed: list[int]


class ClassesMeta(TypedDict):
    """All classes by name, and those whose readings are carried."""

    count: int
    names: list[str]
    kept: list[int]
    all: bool


class PhotoMeta(TypedDict):
    """The photograph that the model saw a part of: its size in pixels and its file's type, and that part.

    ``crop`` is left, top, right, bottom as shares of the width and height; beyond 0..1 the model's input was padded.
    """

    width: int
    height: int
    mime: str
    crop: list[float]


class ImageMeta(TypedDict):
    """What the model saw: its size in pixels, its file's type, its name, and its true class where that is known."""

    width: int
    height: int
    mime: str
    name: str
    label: int | None
    photo: NotRequired[PhotoMeta]


ObjectMeta = TypedDict("ObjectMeta", {"class": int | None, "name": str})
"""An object of the mask, by its class."""


class PayloadMeta(TypedDict):
    """What is carried, in words too; of which stream points, and whether without readings, where less is carried."""

    mode: PayloadMode
    note: str
    streams: NotRequired[list[str]]
    points: NotRequired[list[int]]
    ranks_only: NotRequired[bool]


class ExactnessMeta(TypedDict):
    """Whether readings are exact, and how large their error is where they are not."""

    logits: str
    ranks: str
    note: str
    error: NotRequired[dict[str, float]]


class AttentionMeta(TypedDict):
    """Tokens whose rows of attention weights are carried, and how these are encoded."""

    rows: list[int]
    encoding: str


MapMeta = TypedDict("MapMeta", {"name": str, "label": str, "class": int | None, "signed": bool, "note": str})
"""A map of one value for every token, such as a token importance."""


class LensMeta(TypedDict):
    """A fitted lens that travels: what it answers, on how many pictures it was fitted, and how far it can be trusted.

    ``error`` has a value for each stream point, ``trust`` of every measure one for each block from 0 on.
    """

    kind: str
    label: str
    question: str
    pictures: int
    classes: list[int] | None
    error: list[float | None]
    trust: dict[str, list[float | None]]


class InterventionMeta(TypedDict):
    """What was done to the pass: in words, as Python code, as JSON, and each intervention by its name."""

    label: str
    code: str
    spec: list[dict[str, Any]]
    labels: list[str]


class ExtraMeta(TypedDict, total=False):
    """What only some snapshots have.

    How sure the model is of its answer; by what the float16 class embedding is to be multiplied, where increments are carried; how attention is carried; what
    the extra maps are; which fitted lenses travel; what else a live kernel may be asked for.
    """

    answer: AnswerMeta
    embedding_scale: float
    attention: AttentionMeta
    maps: list[MapMeta]
    lenses: list[LensMeta]
    offers: list[str]


class SnapshotMeta(ExtraMeta):
    """Meta data of a snapshot."""

    kind: Literal["snapshot"]
    model: ModelMeta
    tokens: TokensMeta
    classes: ClassesMeta
    objects: list[ObjectMeta]
    caveats: list[str]
    unreachable: list[int]
    intervention: InterventionMeta | None
    payload: PayloadMeta
    exactness: ExactnessMeta
    image: ImageMeta


class KeptMeta(TypedDict):
    """Classes whose arrays a kernel's answer holds."""

    kept: list[int]


GridMeta = TypedDict(
    "GridMeta", {"kind": str, "mode": str, "class": int, "rows": list[int], "columns": list[int]}
)  # fmt: skip
"""A sweep: what was changed, how, and by which blocks (rows) and heads or tokens (columns)."""


class ImportanceMeta(TypedDict):
    """Token importance of several classes, by block and head."""

    method: str
    classes: list[int]
    signed: bool


class PartMeta(TypedDict):
    """Meta data of a kernel's answer to a view: arrays that are added to the snapshot it has."""

    kind: Literal["part"]
    classes: KeptMeta
    intervened: NotRequired[bool]
    attention: NotRequired[AttentionMeta]
    grid: NotRequired[GridMeta]
    maps: NotRequired[list[MapMeta]]
    importance: NotRequired[ImportanceMeta]


class NamedModelMeta(TypedDict):
    """The model that a memory atlas is of."""

    name: str
    blocks: int


class NamesMeta(TypedDict):
    """All classes by name."""

    names: list[str]


class PicturesMeta(TypedDict):
    """Pictures that an atlas shows: how many, their classes where they are known, and how many could not be read."""

    count: int
    labels: list[int]
    skipped: int


class AtlasMeta(TypedDict):
    """Meta data of a memory atlas."""

    model: NamedModelMeta
    classes: NamesMeta
    widths: list[int]
    grid: list[int]
    pictures: PicturesMeta
