"""The model card of the model of photographs, as Markdown."""

from __future__ import annotations

from typing import Any

import numpy as np


def model_card(card: dict[str, Any]) -> str:
    """The text beside the weights.

    Parameters
    ----------
    card : dict
        The model's JSON file, as `training.photos.ship` writes it.
    """
    lines = [
        f"# Bundled model: {card['variant']}",
        "",
        "A timm `VisionTransformer` trained on photographs of everyday things, from random weights.",
        "",
        *_training(card),
        "",
        *_accuracy(card),
        "",
        *_unsure(card),
        "",
        "## Classes",
        "",
        ", ".join(card["classes"]) + ".",
        "",
    ]
    return "\n".join(lines)


def _training(card: dict[str, Any]) -> list[str]:
    """Model, data, schedule and supervision, an item each."""
    recipe, training, own = card["recipe"], card["training"], len(card["classes"])
    size = card["timm"]["img_size"]
    epochs = card["trained_steps"] * recipe["batch"] / training["pictures"]
    return [
        f"- Model: {', '.join(f'{k}={v}' for k, v in card['timm'].items())}; {card['bytes'] / 1e6:.1f} MB in float16.",
        f"- Data: {training['pictures']:,} photographs of {size} x {size} pixels, of {training['classes']} classes of Tiny-ImageNet's "
        "training part. No picture is in the package.",
        f"- Training: {card['trained_steps']:,} steps of {recipe['batch']} pictures (about {epochs:.0f} epochs), Muon at "
        f"{recipe['matrix_rate']} for the blocks' matrices and AdamW at {recipe['rate']} for the rest, constant after "
        f"{recipe['warm_up']} warm-up steps and falling to zero in the last epochs; weight decay {recipe['decay']}; weights averaged "
        f"({recipe['average']}). {recipe['keep']:.0%} of the image tokens kept at random, all in the last epochs. Random crops, "
        f"rotation, colours and covered boxes; {recipe['mixed']:.0%} of the pictures mixed (mixup or CutMix), at the end {recipe['mixed_at_end']:.0%}; labels smoothed by "
        f"{recipe['smoothing']}.",
        f"- Time: {_time(card['seconds'])} on {card['hardware']}.",
        "- One label per picture and nothing else: no token is labelled.",
        f"- Classes: {own} of the {training['classes']} that it was trained on. Those told worst on the validation part "
        f"({recipe['held_back']} photographs of each class, taken from the training part) were dropped one by one, by their rows of "
        f"the classifier alone, until the others reached {card['goal']:.0%} or 60 were left, the fewest allowed. So the numbers of the "
        "validation part are too good; those of the photographs kept apart count.",
        *[f"- {note}" for note in card["notes"]],
        "- To train it again: `python -m classspace_widgets.training.photos.train`, then `.photos.ship`, then "
        "`classspace_widgets.training.lenses photos`; CONTRIBUTING.md has the commands.",
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds > 5400 else f"{seconds / 60:.1f} minutes"


def _accuracy(card: dict[str, Any]) -> list[str]:
    return [
        "## Accuracy (95 % bootstrap interval over photographs)",
        "",
        f"Kept apart: photographs of the {len(card['classes'])} classes from Tiny-ImageNet's validation part, none of which was trained on.",
        "",
        "| photographs | number | top-1 | top-5 |",
        "|---|---|---|---|",
        _row("kept apart", card["kept_apart"]),
        _row("validation part, on which the classes were chosen", card["validation"]),
    ]


def _row(name: str, found: dict[str, Any]) -> str:
    cells = [
        f"{found[k]:.3f} [{found[f'{k}_interval'][0]:.3f}, {found[f'{k}_interval'][1]:.3f}]" for k in ("top1", "top5")
    ]
    return f"| {name} | {found['pictures']:,} | {' | '.join(cells)} |"


def _unsure(card: dict[str, Any]) -> list[str]:
    found, own = card["unsure"], len(card["classes"])
    return [
        "## How unsure it is",
        "",
        f"It counts as unsure where its best class is less than {100 * found['margin']:.0f} points ahead of the second, or where its "
        f"entropy is above {found['entropy']:.2f} nats (as unsure as among {np.exp(found['entropy']):.1f} equally likely classes). On the "
        "validation part, fewer than half of its answers were right from there on. On the photographs kept apart:",
        "",
        "| photographs | number | unsure | right where unsure | right otherwise |",
        "|---|---|---|---|---|",
        f"| of its {own} classes | {found['own']:,} | {found['own_unsure']:.3f} | {found['right']:.3f} | {found['right_otherwise']:.3f} |",
        f"| of {card['training']['classes'] - own} other classes | {found['others']:,} | {found['others_unsure']:.3f} | | |",
        "",
        "So it is sure of a good part of the photographs that show nothing it knows. The other classes were seen in training, with "
        "labels of their own that were dropped: what it never saw may be told better or worse. Pictures that are no photographs may be named with confidence.",
    ]
