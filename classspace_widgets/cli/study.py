"""``classspace study`` and ``classspace report``."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

from classspace_widgets.cli.model import add_model, check_page, expanded, space_of

EXAMPLES = """\
examples:
  classspace study --data scenes:500 --twin --out results/
  classspace study --model vit_base_patch16_224 --data photos/ --device cuda --autocast bfloat16 --out results/
  classspace study --model vit_base_patch16_224 --data ImageNetS50/ --studies identifiability accuracy --out results/
  classspace study --space mine.safetensors --data photos/val --out results/
  classspace study --data scenes:500 --twin --out results/ --resume        go on after an interruption

data:
  a folder of pictures, <class>/<picture>, with masks where there are: photo_mask.png beside it, or masks/photo.png;
  a folder in the layout of ImageNet-S, Pascal VOC or COCO (with masks), or class folders with a table boxes.csv;
  an .npz file with images [N, height, width, 3] uint8, labels [N] and perhaps masks [N, height, width], class_names [C];
  hf:NAME or hf:NAME:SPLIT, a Hugging Face data set; scenes or scenes:N or scenes:N:SEED, drawn scenes with masks
"""
REPORT_EXAMPLES = """\
examples:
  classspace study --data scenes:500 --twin --out results/
  classspace report results/ --out report.html
"""
TWINS = 5
RESULTS, CHECKPOINT = "results.json.gz", "checkpoint"


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands to a parser."""
    raw = argparse.RawDescriptionHelpFormatter
    study = commands.add_parser("study", help="measure a model over a data set", epilog=EXAMPLES, formatter_class=raw)
    study.add_argument("--data", required=True, help="what to measure on, see below")
    study.add_argument("--out", type=expanded, required=True, help="folder for results and checkpoint")
    add_model(study)
    study.add_argument("--studies", nargs="+", metavar="NAME", help="only these (default: all that share one pass)")
    study.add_argument(
        "--twin",
        nargs="?",
        type=int,
        const=TWINS,
        default=0,
        metavar="N",
        help=f"measure N models with fresh weights beside it (default: {TWINS}); each costs as much as the model itself",
    )
    study.add_argument("--resume", action="store_true", help="go on from the checkpoint in the folder")
    study.add_argument("--class-map", type=expanded, help="JSON file: data set class to model class")
    study.add_argument("--batch-size", type=int, default=8, help="pictures in a forward pass (default: 8)")
    study.add_argument("--autocast", choices=("bfloat16", "float16"), help="run the model under autocast")
    study.add_argument("--workers", type=int, default=1, help="threads that read pictures ahead (default: 1)")
    study.add_argument("--max-skipped", type=int, default=100, help="stop at more unreadable pictures (default: 100)")
    study.add_argument("--seed", type=int, default=0, help="of random twins, tokens and tests (default: 0)")
    study.set_defaults(run=_study, stopped="stopped; go on with the same command and --resume")
    report = commands.add_parser(
        "report", help="one offline page from the results of a study", epilog=REPORT_EXAMPLES, formatter_class=raw
    )
    report.add_argument("results", type=expanded, help="the folder that `classspace study` wrote, or its results file")
    report.add_argument("--out", type=expanded, required=True, help="the HTML file to write")
    report.add_argument("--title", default="Studies in class embedding space", help="the page's title")
    report.set_defaults(run=_report)


def _study(arguments: argparse.Namespace) -> int:
    results, checkpoint = arguments.out / RESULTS, arguments.out / CHECKPOINT
    if arguments.out.exists() and not arguments.out.is_dir():
        raise NotADirectoryError(f"{arguments.out} is a file; --out must be a folder")
    if results.exists():
        raise FileExistsError(f"{results} is there already; choose another --out, or remove it")
    if checkpoint.exists() and not arguments.resume:
        raise FileExistsError(f"{checkpoint} is there already; add --resume to go on from it, or remove it")
    class_map = None if arguments.class_map is None else _class_map(arguments.class_map)
    import torch

    from classspace_widgets.data.named import named_dataset
    from classspace_widgets.studies import Execution, run_study

    dataset = named_dataset(arguments.data)
    space = space_of(arguments)
    found = run_study(
        space,
        dataset,
        arguments.studies,
        random_twin=arguments.twin,
        checkpoint=checkpoint,
        resume=arguments.resume,
        seed=arguments.seed,
        class_map=class_map,
        execution=Execution(
            batch_size=arguments.batch_size,
            max_skipped=arguments.max_skipped,
            autocast=getattr(torch, arguments.autocast) if arguments.autocast else None,
            workers=arguments.workers,
        ),
    )
    found.save(results)
    checkpoint.unlink(missing_ok=True)
    print(f"{results}: {', '.join(found)} over {found.provenance['pictures']} pictures, {len(found.skipped)} skipped")
    print(f"a page of it: classspace report {shlex.quote(str(arguments.out))} --out report.html")
    return 0


def _class_map(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"--class-map: there is no file at {path}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"--class-map: {path} is not JSON ({error})") from None
    if not isinstance(found, dict):
        raise ValueError(f'--class-map: {path} must hold {{"data set class": "model class", ...}}')
    return found


def _report(arguments: argparse.Namespace) -> int:
    check_page(arguments.out)
    path = arguments.results / RESULTS if arguments.results.is_dir() else arguments.results
    if not path.is_file():
        waiting = (arguments.results / CHECKPOINT).exists()
        hint = "the study is not finished: run it again with --resume" if waiting else "run `classspace study` first"
        raise FileNotFoundError(f"no results in {arguments.results}; {hint}")
    from classspace_widgets.plots.report import write_report
    from classspace_widgets.studies import StudyResults

    target = write_report(StudyResults.load(path), arguments.out, title=arguments.title)
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    return 0
