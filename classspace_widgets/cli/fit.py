"""``classspace fit``."""

from __future__ import annotations

import argparse
import shlex

from classspace_widgets.cli.model import add_model, expanded, model_options

EXAMPLES = """\
examples:
  classspace fit photos/ --model vit_small_patch14_dinov2.lvd142m --image-size 224 --out mine.safetensors
  classspace fit photos/train --model vit_base_patch16_224.mae --out mine.safetensors
  classspace fit photos/ --model vit_small_patch14_dinov2 --checkpoint weights.pth --image-size 224 --out mine.safetensors
  classspace fit photos/ --model my_huggingface_folder/ --out mine.safetensors
  classspace export photo.jpg --space mine.safetensors --out page.html          then look
  classspace study --space mine.safetensors --data photos/val --out results/    or measure
"""


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a parser."""
    fit = commands.add_parser(
        "fit",
        help="fit a classifier for a backbone that has none, on a folder of pictures",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fit.add_argument(
        "data", metavar="FOLDER", help="a folder <class>/<picture>, or any other data set of `classspace study`"
    )
    fit.add_argument("--out", type=expanded, required=True, help="the file to write, by habit .safetensors")
    add_model(fit, space=False)
    fit.add_argument(
        "--features", default="auto", help="what is read: auto, token, mean, pooled or both (default: auto)"
    )
    fit.add_argument("--depth", type=int, metavar="N", help="take only the first N blocks of a timm model")
    fit.add_argument("--batch-size", type=int, default=16, help="pictures in a forward pass (default: 16)")
    fit.add_argument("--workers", type=int, default=2, help="threads that read pictures ahead (default: 2)")
    fit.add_argument("--seed", type=int, default=0, help="of the parts of the cross-validation (default: 0)")
    fit.set_defaults(run=_fit)


def _fit(arguments: argparse.Namespace) -> int:
    if arguments.model is None:
        raise ValueError("--model is needed: a timm model name such as vit_small_patch14_dinov2.lvd142m, or bundled")
    if arguments.out.is_dir() or not arguments.out.parent.is_dir():
        raise FileNotFoundError(
            f"--out must be a file in a folder that is there, such as mine.safetensors, got {arguments.out}"
        )
    from classspace_widgets.data.named import named_dataset
    from classspace_widgets.space.space import ClassSpace

    options = model_options(arguments)
    if arguments.depth is not None:
        options["depth"] = arguments.depth
    space = ClassSpace.fit(
        arguments.model,
        named_dataset(arguments.data),
        features=arguments.features,
        device=arguments.device,
        batch_size=arguments.batch_size,
        workers=arguments.workers,
        seed=arguments.seed,
        **options,
    )
    space.save(arguments.out)
    assert space.fitted is not None
    print(space.fitted.in_words())
    weights = f" --checkpoint {shlex.quote(str(arguments.checkpoint))}" if arguments.checkpoint else ""
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB, without the weights of {arguments.model}")
    print(f"a page: classspace export PICTURE --space {shlex.quote(str(arguments.out))}{weights} --out page.html")
    return 0
