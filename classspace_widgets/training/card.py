"""The model card: what a bundled model is, how it was trained, and what it measured, as Markdown."""

from __future__ import annotations

from typing import Any


def model_card(card: dict[str, Any]) -> str:
    """The text beside a bundled model's weights.

    Parameters
    ----------
    card : dict
        The model's JSON file: arguments, recipe, time, and the numbers of `training.evaluate.evaluate`.
    """
    lines = [
        f"# Bundled model: {card['variant']}",
        "",
        "A timm `VisionTransformer` trained on `classspace_widgets.scenes`, drawn pictures of 24 classes in 10 contexts.",
        "",
        *_training(card),
        "",
        *_accuracy(card),
        "",
        *_identifiability(card["evaluation"]),
        "",
    ]
    return "\n".join(lines)


def _training(card: dict[str, Any]) -> list[str]:
    """Model, data, schedule and supervision, an item each."""
    recipe = card["recipe"]
    return [
        f"- Model: {', '.join(f'{k}={v}' for k, v in card['timm'].items())}; {card['bytes'] / 1e6:.1f} MB in float16.",
        f"- Data: {recipe['scenes']:,} scenes of seed {card['seed']}, p_home {recipe['p_home']}, "
        f"{_distractors(recipe)} smaller objects; each {_augmentation(recipe)} at random every time it is seen.",
        f"- Training: {card['trained_steps']:,} of {recipe['steps']:,} steps of {recipe['batch']} pictures, "
        f"{_optimizer(recipe)} after {recipe['warm_up']} warm-up steps, cosine to zero, weight decay {recipe['decay']}; "
        f"{_kept_tokens(recipe)}{_initial_weights(recipe)}.",
        f"- Time: {card['seconds'] / 60:.0f} minutes on {card.get('hardware', card['device'])}.",
        f"- {_supervision(recipe)}",
        *[f"- {note}" for note in card.get("notes", [])],
        f"- To train it again: `python -m classspace_widgets.training.scenes --variant {card['variant']} --out weights "
        f"--steps {recipe['steps']} --seed {card['seed']}`",
    ]


def _distractors(recipe: dict[str, Any]) -> str:
    fewest, most = recipe["distractors"]
    return f"{fewest} to {most}" if most else "no"


def _augmentation(recipe: dict[str, Any]) -> str:
    return "rotated, zoomed, shifted, flipped and recoloured" if recipe["vary"] else "flipped"


def _optimizer(recipe: dict[str, Any]) -> str:
    if "matrix_rate" not in recipe:
        return f"AdamW at {recipe['rate']}"
    return f"Muon at {recipe['matrix_rate']} for the blocks' matrices and AdamW at {recipe['rate']} for the rest"


def _kept_tokens(recipe: dict[str, Any]) -> str:
    if recipe["keep"] >= 1:
        return "all image tokens kept in every step"
    return (
        f"{recipe['keep']:.0%} of the image tokens kept at random for the first {recipe['keep_until']:.0%} of the steps"
    )


def _initial_weights(recipe: dict[str, Any]) -> str:
    return f", starting from the weights of the {recipe['start_from']} model" if recipe.get("start_from") else ""


def _supervision(recipe: dict[str, Any]) -> str:
    """The training targets: one label a picture, or a class for its tokens too."""
    if not recipe["token_weight"]:
        return "One label per picture and nothing else: no token is labelled."
    return (
        "**Token labelling**: besides the picture's label, every image token whose patch shows an object on at least "
        f"40 % of its pixels is trained on that object's own class (weight {recipe['token_weight']}), and every token "
        f"without any object on the uniform distribution over classes (weight {recipe['context_weight']}), both from the "
        "exact masks and through the model's own classifier. Whatever the numbers below say about image tokens and what "
        "they show was therefore **trained in**; the model did not learn it from the pictures' labels."
    )


def _accuracy(card: dict[str, Any]) -> list[str]:
    found = card["evaluation"]
    reached = found["own"][0] >= 0.97 and found["away"][0] >= 0.90
    return [
        f"## Accuracy on {found['n']:,} held-out scenes (95 % Wilson interval)",
        "",
        "| scenes | top-1 |",
        "|---|---|",
        f"| own distribution (p_home {card['recipe']['p_home']}) | {_cell(found['own'])} |",
        f"| every main object out of its home context | {_cell(found['away'])} |",
        "",
        f"The aim for the default model and its GAP twin is 97 % and 90 %: {'reached' if reached else '**not reached**'}.",
    ]


def _identifiability(found: dict[str, Any]) -> list[str]:
    """Block by block, for the trained model, its random twin, and with attention cut."""
    trained, twin, cut = found["trained"], found["random"], found["cut"]
    columns = (
        trained["main_on_main"],
        trained["main_on_context"],
        trained["others_on_others"],
        trained["main_on_others"],
        twin["main_on_main"],
        cut["main_on_main"],
    )
    rows = [_row(block, *map(_cell, cells)) for block, cells in enumerate(zip(*columns, strict=True))]
    differences = [
        _row(name, _cell(numbers), _cell(twin["differences"][name]), _cell(cut["differences"][name]))
        for name, numbers in trained["differences"].items()
    ]
    return [
        f"## Class identifiability (1 - rank/C) on {found['probes']} held-out scenes with 1 or 2 smaller objects",
        "",
        "Mean over tokens of a picture, then over pictures, with a 95 % bootstrap interval over pictures. Row 0 is the "
        "input of the first block. Cut: every image token attends to itself only, in all blocks.",
        "",
        "| after block | main class on the main object | main class on context | other objects' own class on them "
        "| main class on other objects | random twin, main object | attention cut, main object |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"On other objects, the main object's class {_broadcast(trained)} their own in the last block.",
        "",
        "| paired difference | trained | random twin | attention cut |",
        "|---|---|---|---|",
        *differences,
        "",
        f"Top-1 on these scenes: {_cell(trained['accuracy'])}; with attention cut {_cell(cut['accuracy'])}; random twin "
        f"{_cell(twin['accuracy'])}.",
    ]


def _broadcast(trained: dict[str, Any]) -> str:
    """Where the main object's class ends on other objects' tokens, compared with their own class."""
    mean, low, high = trained["differences"]["own minus main, on others"]
    if low < 0 < high:
        return "ends neither clearly above nor below"
    return "ends **above**" if mean < 0 else "ends below"


def _cell(numbers: list[float]) -> str:
    mean, low, high = numbers
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"
