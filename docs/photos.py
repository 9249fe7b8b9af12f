"""docs/photos.md: the paper's measurements on photographs that the bundled photo model has never seen.

``python docs/regenerate.py photos --data FOLDER``. The folder has one folder for each class, called by its WordNet id, and
``boxes.csv`` (see `data.box_folder`). Runs are kept in ``--work``; the same command goes on after an interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from tables import best, findings_table, place_rows, scores_table, verdict

MEASURED = {"findings": 10, "lenses": 5, "importance": 5}
"""Photographs of each class that each run measures on: the first by name."""
FITTED = {"jacobian": 1, "translator": 10, "probes": 20}
"""Photographs of each class for lenses and probes: the last by name, which nothing is measured on."""
TWINS = {"findings": 5, "lenses": 3}
STUDIES = (
    "accuracy", "identifiability", "identifiability_change", "place_difference", "similarity_change",
    "residual_composition", "class_value_agreement", "key_value_agreement", "memory_compositionality",
    "attention_perturbation", "token_removal", "decisions",
)  # fmt: skip
METHODS = ("gradient", "gradient:paper", "direct", "flow:0", "flow:2", "flow:4", "attention", "chefer", "rollout")
LENSES = ("jacobian", "translator")
ORDERS = 3


class Runs:
    """The runs behind the page, each stored in a file of the work folder as soon as it is finished."""

    def __init__(self, data: Path, work: Path) -> None:
        from classspace_widgets import ClassSpace
        from classspace_widgets.data import box_folder

        self.space = ClassSpace.bundled("photos", device="cpu")
        self.data = box_folder(data, classes=self.space.wordnet_ids)
        self.work = work
        work.mkdir(parents=True, exist_ok=True)

    def pictures(self, first: int = 0, last: int = 0) -> Any:
        """So many of the first, or of the last, photographs of each class."""
        from torch.utils.data import Subset

        chosen: list[int] = []
        for label in range(len(self.data.class_names)):
            own = [i for i, other in enumerate(self.data.labels) if other == label]
            if first + last > len(own):
                raise SystemExit(
                    f"{self.data.class_names[label]}: expected {first + last} photographs, found {len(own)}"
                )
            chosen += own[:first] + own[len(own) - last :]
        return Subset(self.data, chosen)

    def run(self, name: str, pictures: Any, studies: Any, **options: Any) -> Any:
        """Results from their file, or from a run that goes on from its checkpoint; ``studies`` may be what makes them."""
        from classspace_widgets.studies import StudyResults, run_study

        file, checkpoint = self.work / f"{name}.json.gz", self.work / f"{name}.checkpoint"
        if not file.exists():
            began = time.process_time()
            found = run_study(
                self.space,
                pictures,
                studies() if callable(studies) else studies,
                checkpoint=checkpoint,
                resume=True,
                **options,
            )
            found.save(file)
            checkpoint.unlink(missing_ok=True)
            print(f"{name}: {time.process_time() - began:.0f} s of processor time", flush=True)
        return StudyResults.load(file)

    def lens(self, kind: str) -> Callable[[Any], Any]:
        """What gives the lens of the model, which comes with it, and of each random twin, which is fitted once."""
        from classspace_widgets.lens import FittedLens
        from classspace_widgets.models.fingerprint import model_fingerprint

        def fitted(space: Any) -> Any:
            if space is self.space:
                return space.bundled_lens(kind)
            file = self.work / f"{kind}-{model_fingerprint(space.model)[:12]}.safetensors"
            if not file.exists():
                space.fit_lens(kind, self.pictures(last=FITTED[kind])).save(file)
            return FittedLens.load(file)

        return fitted


def write(data: Path, work: Path, page: Path) -> None:
    """Measure what is not there yet, and write the page."""
    from classspace_widgets.studies import findings

    runs = Runs(data, work)
    found = runs.run("findings", runs.pictures(MEASURED["findings"]), STUDIES, random_twin=TWINS["findings"])
    through = {"logit": found}
    for kind in LENSES:
        pictures = runs.pictures(MEASURED["lenses"])
        options = {"random_twin": TWINS["lenses"], "lens": runs.lens(kind)}
        through[kind] = runs.run(f"lens-{kind}", pictures, ["place_difference"], **options)
    probed, tested = _importance(runs)
    together = findings({**found, **tested})
    parts = [
        _intro(runs, found),
        _holds(together, through),
        _by_block(found),
        _under_lenses(through),
        _sublayers(found),
        _decided(found),
        _maps(tested, findings(tested)),
        _probes(probed),
        OWN,
    ]
    page.write_text("\n\n".join(part.strip() for part in parts) + "\n", encoding="utf-8")
    print(f"{page.name}: {len(together)} findings")


def _importance(runs: Runs) -> tuple[pd.DataFrame, Any]:
    """Accuracy of linear probes by block, and the tests of every method of importance."""
    from classspace_widgets.probing import LensScores, ProbeScores, fit_probes, probe_accuracy
    from classspace_widgets.studies import ExplanationStudy

    pictures, accuracy = runs.pictures(MEASURED["importance"]), runs.work / "probes.csv"
    adapter, block = runs.space.adapter, runs.space.points.n_blocks - 1
    prefix = len(adapter.prefix)
    # One probe for [CLS], and one for all image tokens: a probe for each of them would have too few pictures.
    tokens = {"[CLS]": [0], "image": list(range(prefix, prefix + adapter.grid[0] * adapter.grid[1]))}

    def fitted(name: str) -> Any:
        return fit_probes(runs.space, runs.pictures(last=FITTED["probes"]), tokens=tokens[name], per_position=False)

    def study() -> Any:
        scorers = {
            f"probe of block {block}": ProbeScores(fitted("image"), block),
            f"lens at block {block}": LensScores(block),
        }
        return ExplanationStudy(methods=METHODS, scorers=scorers, steps=9, random_orders=ORDERS)

    if not accuracy.exists():
        measured = {name: probe_accuracy(runs.space, fitted(name), pictures) for name in tokens}
        pd.concat([part[part["tokens"] == name] for name, part in measured.items()]).to_csv(accuracy, index=False)
    return pd.read_csv(accuracy), runs.run("importance", pictures, study)


def _intro(runs: Runs, found: Any) -> str:
    accuracy = found["accuracy"].where(weights="trained").set_index("measure")
    fresh = found["accuracy"].where(weights="random", measure="top-1")["value"].iloc[0]
    top1, top5 = (
        f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]" for row in (accuracy.loc["top-1"], accuracy.loc["top-5"])
    )
    classes = len(runs.data.class_names)
    return f"""# The paper on photographs

`ClassSpace.bundled("photos")` is a small, ordinary vision transformer: [CLS], {runs.space.points.n_blocks} blocks, {runs.space.adapter.grid[0]} x {runs.space.adapter.grid[1]} patches, trained on photographs
with one label each and nothing else. This page repeats the paper's measurements on photographs of Tiny-ImageNet (its `val`
part), which the model has never seen: what holds here, and what does not. "Object" means the image tokens of which at least half
lies in the object's box, "context" all others. A box is coarser than the paper's segmentation: its corners show context too.

Measured on the first {MEASURED["findings"]} photographs of each of the {classes} classes ({MEASURED["findings"] * classes}), with {TWINS["findings"]} random twins; through fitted lenses on the
first {MEASURED["lenses"]} ({MEASURED["lenses"] * classes}), with {TWINS["lenses"]}; methods of importance on the first {MEASURED["importance"]}. The lenses of the twins, and the probes, were fitted on the last
photographs of each class ({FITTED["jacobian"]} for a Jacobian, {FITTED["translator"]} for a translator, {FITTED["probes"]} for probes), on which nothing is measured. Random twins have
the same architecture and fresh weights. Brackets are 95 % bootstrap intervals over photographs.

Top-1 {top1}, top-5 {top5}; {TWINS["findings"]} random twins: top-1 {fresh:.3f}.

Made by `python docs/regenerate.py photos --data FOLDER`; the sentences are made from the numbers. The photographs are not part of
the project."""


def _holds(together: Any, through: dict[str, Any]) -> str:
    paper = [f for f in together if " beats " not in f.claim]
    missed = [f"- {f.claim}." for f in paper if not f.holds]
    seen = {kind: _blocks_ahead(results["place_difference"]) for kind, results in through.items()}
    known = "; ".join(f"{kind} {', '.join(map(str, blocks)) or 'none'}" for kind, blocks in seen.items())
    return (
        f"## What holds, and what does not\n\n{len(paper) - len(missed)} of {len(paper)} findings hold. A finding is a difference with a direction, "
        "tested on the same photographs; a claim about random weights must hold for every twin. The p values of all tests of "
        "this page's findings, with those of the methods of importance below, are corrected together by Holm's method, at 0.05.\n\n"
        + ("**Does not hold on this model:**\n\n" + "\n".join(missed) + "\n\n" if missed else "")
        + f"Object ahead of context, by lens and block ([numbers](#object-and-context-under-each-lens)): {known}.\n\n"
        + findings_table(paper)
    )


def _cell(row: pd.Series) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _by_block(found: Any) -> str:
    rows = (
        found["identifiability"]
        .where(stream="residual", outcome="all")
        .set_index(["weights", "block", "tokens"])
        .sort_index()
    )
    columns = ["[CLS]", "class", "context"]
    lines = [
        [str(block), *(_cell(rows.loc[("trained", block, c)]) for c in columns)]
        + [f"{rows.loc[('random', block, c), 'value']:.3f}" for c in columns]
        for block in sorted({key[1] for key in rows.index})
    ]
    return (
        "## Identifiability after every block\n\nOf the photograph's label, in the residual stream, read with the final norm and the class "
        f"embedding; {found['identifiability'].chance:.3f} is chance. Means over all tokens of a kind. The model does not use its image tokens after the last block. Twins: the "
        "mean of all.\n\n"
        + _table(["block", "[CLS]", "object", "context", "[CLS], twins", "object, twins", "context, twins"], lines)
    )


def _under_lenses(through: dict[str, Any]) -> str:
    lines, sentences = [], []
    for kind, results in through.items():
        result = results["place_difference"]
        lines += place_rows(kind, {"trained": result.tables["by_picture"], "twins": result.tables["twins"]})
        sentences.append(_ahead(kind, result))
    head = "| lens | block | object | context | difference | p | twins |\n|---|---|---|---|---|---|---|\n"
    return (
        "## Object and context under each lens\n\nThe same difference read through each [lens](lenses.md): what the classifier would read "
        "(logit), what of the token the answer goes on to use (Jacobian), what can be decoded (translator). Means over photographs of "
        "their own means; p by flipping the signs of the photographs' differences. *Twins*: the least and the greatest difference of "
        f"{TWINS['findings']} random twins (logit), or of {TWINS['lenses']} with lenses of their own. Blocks where a lens has no map are missing.\n\n"
        + "\n".join(f"- {sentence}" for sentence in sentences)
        + "\n\n"
        + head
        + "\n".join(lines)
    )


def _residual(result: Any) -> pd.DataFrame:
    """The model's own differences by place in the residual stream, by block."""
    return result.tables["by_picture"].query("weights == 'trained' and stream == 'residual'").set_index("block")


def _blocks_ahead(result: Any) -> list[int]:
    """Blocks in which the object is ahead: corrected for the number of blocks, and more than in every twin."""
    from classspace_widgets.studies.statistics import holm

    own = _residual(result)
    twins = result.tables["twins"].query("stream == 'residual'").groupby("block")["value"].max()
    p = pd.Series(holm(own["p_pictures"].tolist()), own.index)
    return [int(b) for b in own.index if own.loc[b, "value"] > max(0, twins.get(b, 0)) and p[b] <= 0.05]


def _ahead(kind: str, result: Any) -> str:
    """In which blocks the object is ahead, in words."""
    own, ahead = _residual(result), _blocks_ahead(result)
    behind = [int(b) for b in own.index if own.loc[b, "high"] < 0]
    widest = own["value"].idxmax()
    listed = ", ".join(map(str, ahead)) or "no block"
    return (
        f"{kind}: the object is ahead of its context, and more than in every twin, in {'block' if len(ahead) == 1 else 'blocks' if ahead else ''} {listed} "
        f"of {own.index.min()} to {own.index.max()} (p corrected for {len(own)} blocks); by most after block {widest}, "
        f"{own.loc[widest, 'value']:+.3f}."
        + (f" It is behind (interval below 0) in {', '.join(map(str, behind))}." if behind else "")
    ).replace("  ", " ")


def _sublayers(found: Any) -> str:
    read = (
        found["identifiability"]
        .where(outcome="all", weights="trained")
        .set_index(["stream", "block", "tokens"])
        .sort_index()
    )
    change = (
        found["similarity_change"]
        .where(outcome="all", weights="trained")
        .set_index(["stream", "block", "tokens"])
        .sort_index()
    )
    made = (
        found["residual_composition"]
        .where(outcome="all", weights="trained")
        .set_index(["source", "block", "tokens"])
        .sort_index()
    )
    twins = (
        found["similarity_change"].where(outcome="all", weights="random").groupby(["stream", "tokens"])["value"].mean()
    )
    sources = ("previous", "attention", "mlp", "composition")
    blocks = range(1, 1 + max(read.index.get_level_values("block")))
    both = ("attention", "mlp")
    name_of = {"previous": "input", "mlp": "MLP", "composition": "none"}
    tables = []
    for tokens, name in (("[CLS]", "[CLS]"), ("image", "image tokens")):
        lines = [
            [str(b)]
            + [_cell(read.loc[(s, b, tokens)]) for s in both]
            + [f"{change.loc[(s, b, tokens), 'value']:.3f}" for s in both]
            + [f"{made.loc[(s, b, tokens), 'value']:.3f}" for s in sources]
            for b in blocks
        ]
        head = [f"{name}: block", "attention adds", "MLP adds", "attention above input", "MLP above input"]
        tables.append(
            _table([*head, *(f"first class from {name_of.get(source, source)}" for source in sources)], lines)
        )
        tables.append(
            f"Above their input in the twins, over all blocks: attention {twins['attention', tokens]:.3f}, MLP {twins['mlp', tokens]:.3f}.\n"
        )
    return (
        "## What attention and MLP add\n\n*adds*: identifiability of the label in what the sublayer adds to the residual stream. *above input*: "
        "share of tokens where the label's logit in what is added exceeds that in the block's input. *first class from*: share of tokens "
        "whose first class after the block is that of the block's input, of what attention or MLP adds, or of none of them.\n\n"
        + "\n".join(tables)
    )


def _decided(found: Any) -> str:
    rows = (
        found["decisions"]
        .where(measure="decided", outcome="all")
        .set_index(["weights", "block", "tokens"])
        .sort_index()
    )
    columns = ["[CLS]", "class", "context"]
    blocks = sorted({key[1] for key in rows.index})
    lines = [
        [
            str(b),
            *(_cell(rows.loc[("trained", b, c)]) for c in columns),
            *(f"{rows.loc[('random', b, c), 'value']:.3f}" for c in columns),
        ]
        for b in blocks
    ]
    pictures = found["decisions"].tables["pictures"].query("weights == 'trained'")
    after = [
        f"after block {own.mean():.2f} on average where it is {words}"
        for value, words in ((1, "right"), (0, "wrong"))
        if len(own := pictures[pictures["correct"] == value]["decided_block"])
    ]
    tests = found["decisions"].tables["differences"].query("against == 'itself'").iloc[0]
    return (
        "## When it is decided\n\nShare of tokens whose final class is first after this block and stays first.\n\n"
        + _table(["block", "[CLS]", "object", "context", "[CLS], twins", "object, twins", "context, twins"], lines)
        + f"\nThe answer is decided {', '.join(after)}. "
        f"Halfway, tokens of the object are decided {'more' if tests['value'] > 0 else 'less'} often than those of the context: "
        f"{tests['value']:+.3f} [{tests['low']:+.3f}, {tests['high']:+.3f}].\n"
    )


def _maps(tested: Any, own: Any) -> str:
    result = tested["explanation"]
    notes = "".join(f"\n{note}\n" for note in result.notes)
    return (
        "## Maps of importance, tested\n\nScores for the photograph's label, as in [docs/evidence.md](evidence.md): image tokens are removed, the "
        "least important first (*negative*: higher is better) or the most important first (*positive*: lower is better); against "
        f"boxes: pointing game, IoU, average precision, share of positive importance inside. `random`: {ORDERS} random orders for each "
        f"photograph, the control; its scores against boxes are those of a map of noise.\n\n{scores_table(result)}{notes}\n"
        f"{verdict(own)}{_behind(result)}\n\n{best(result)}\n\n"
        "Here the p values are corrected over the comparisons of this section alone."
    )


def _behind(result: Any) -> str:
    """The methods that beat a gradient, by the paired intervals of their differences."""
    table = result.tables["differences"].query("against == 'itself' and high < 0")
    listed = []
    for comparison, low, high in table[["comparison", "low", "high"]].itertuples(index=False):
        order, _, both = comparison.partition(": ")
        own, _, other = both.partition(" against ")
        listed.append(f"{own} behind {other}, {order}, by {-high:.3f} to {-low:.3f}")
    return f"Behind, with a paired interval below 0 (not corrected): {'; '.join(listed) or 'none'}."


def _probes(probed: pd.DataFrame) -> str:
    rows = probed[probed["stream"] == "residual"].set_index(["tokens", "block", "reading"])["value"]
    blocks = sorted({key[1] for key in rows.index})
    cells = [(tokens, reading) for tokens in ("[CLS]", "image") for reading in ("probe", "lens")]
    lines = [[str(b), *(f"{rows[tokens, b, reading]:.3f}" for tokens, reading in cells)] for b in blocks]
    return (
        f"## Linear probes and the class embedding\n\nTop-1 of a ridge classifier fitted at each block on {FITTED['probes']} photographs a class (one for all image "
        "tokens, one for [CLS]), and of the model's own class embedding read at the same place.\n\n"
        + _table(
            ["block", "[CLS]: probe", "[CLS]: class embedding", "image tokens: probe", "image tokens: class embedding"],
            lines,
        )
    )


OWN = """## Your own photographs

`classspace export *.jpg --out photographs.html` makes a page of yours: every photograph sharp under its patches, every class live.
The [gallery](gallery.md) has one such page of the photographs that come with the package."""
