"""Tables and sentences of the pages that are made from results of studies."""

from __future__ import annotations


def findings_table(found) -> str:  # type: ignore[no-untyped-def]
    """Every finding, whether it holds, with its numbers."""
    lines = [f"| {'holds' if f.holds else '**does not hold**'} | {f.claim} | {f.evidence} |" for f in found]
    return "\n".join(["| | finding | numbers |", "|---|---|---|", *lines]) + "\n"


def curve_rows(results, name) -> str:  # type: ignore[no-untyped-def]
    """Identifiability of object and context after every block, beside the random twins."""
    table = results["identifiability"].where(stream="residual", outcome="all", tokens=["class", "context"])
    shown = table.pivot_table(index="block", columns=["weights", "tokens"], values="value")
    columns = [("trained", "class"), ("trained", "context"), ("random", "class"), ("random", "context")]
    head = (
        f"| {name}: block | object | context | object, random twins | context, random twins |\n|---|---|---|---|---|\n"
    )
    lines = [
        f"| {block} | " + " | ".join(f"{shown.loc[block, c]:.3f}" for c in columns) + " |" for block in shown.index
    ]
    return head + "\n".join(lines) + "\n\n"


def place_rows(kind, tables):  # type: ignore[no-untyped-def]
    """A line for each block that is shown."""
    own = tables["trained"].query("weights == 'trained' and stream == 'residual'").set_index("block")
    random = tables["twins"].query("stream == 'residual'").groupby("block")["value"].agg(["min", "max"])
    lines = []
    for block, row in own.iterrows():
        p = f"<= {row['p_least']:.2g}" if row["p_pictures"] <= row["p_least"] else f"{row['p_pictures']:.2g}"
        twins = f"{random.loc[block, 'min']:.3f} to {random.loc[block, 'max']:.3f}" if block in random.index else ""
        lines.append(
            f"| {kind} | {block} | {row['class']:.3f} | {row['context']:.3f} | {row['value']:+.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}] | {p} | {twins} |"
        )
    return lines


def verdict(found) -> str:  # type: ignore[no-untyped-def]
    """The methods that each gradient beats, and those that it does not."""
    sentences = []
    for gradient in dict.fromkeys(f.claim.split(" beats ")[0] for f in found):
        own = [f for f in found if f.claim.startswith(f"{gradient} beats ")]
        ahead, behind = ("; ".join(_versus(f) for f in own if f.holds is held) or "none" for held in (True, False))
        won = sum(f.holds for f in own)
        sentences.append(
            f"{gradient} is ahead in {won} of {len(own)} comparisons: {ahead}. It is not ahead of: {behind}."
        )
    return "\n\n".join(sentences) + "\n\n"


def _versus(finding) -> str:  # type: ignore[no-untyped-def]
    return finding.claim.split(" beats ")[1].removesuffix(" perturbation test").replace(" in the ", ", ")


def best(result) -> str:  # type: ignore[no-untyped-def]
    """The best method by each measure."""
    rows = result.where(outcome="all", weights="trained")
    best_of = []
    for measure, high in (
        ("negative accuracy area", True), ("positive accuracy area", False), ("average_precision", True), ("pointing_game", True),
    ):  # fmt: skip
        of = rows[rows["measure"] == measure].set_index("method")["value"]
        best = of.idxmax() if high else of.idxmin()
        best_of.append(f"{measure.replace('_', ' ')}: {best} ({of[best]:.3f})")
    return "Best by value: " + "; ".join(best_of) + "."


def scores_table(result) -> str:  # type: ignore[no-untyped-def]
    """Every measure of every method, with intervals."""
    rows = result.where(outcome="all", weights="trained")
    rows = rows[~rows["measure"].str.contains("probability")]
    measures = list(dict.fromkeys(rows["measure"]))
    lines = [
        "| method | " + " | ".join(m.replace("_", " ") for m in measures) + " |",
        "|---" * (len(measures) + 1) + "|",
    ]
    for method in dict.fromkeys(rows["method"]):
        own = rows[rows["method"] == method].set_index("measure")
        cells = [f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in (own.loc[m] for m in measures)]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
