"""The command line of training: `python -m train COMMAND`. What the commands do: commands.py.

argparse, because `fit` runs where nothing but torch, NumPy and Pillow is installed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from train import commands, measuring
from train.arguments import (
    Group,
    command,
    file,
    folder,
    labelled,
    names,
    number,
    place,
    positive,
    quality,
    share,
)
from vaecodec.errors import VaecodecError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit status, as --help says."""
    chosen = _parser().parse_args(arguments)
    try:
        return int(chosen.run(chosen) or 0)
    except KeyboardInterrupt:
        return 130
    except (ImportError, OSError, ValueError, VaecodecError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Train vaecodec's models: RECIPE -> weights -> bundle.\n\n"
        "  python -m train fit photo-3 IMAGES --out runs/photos --minutes 60 --anneal 0.4\n"
        "  python -m train export runs/photos --name mine --choose IMAGES\n"
        "  python -m train evaluate exported/mine IMAGES\n"
        "  python -m train fit mnist-conv-2d MNIST --out runs/mnist-conv-2d\n"
        "  python -m train finetune --from photo-3 FOLDER --minutes 20 --name mine",
        epilog="IMAGES are folders, searched with their subfolders; for a gaussian recipe, the one "
        "that holds the files it names. MODEL is a bundle's name or directory. Exit status: 0 "
        "done, 1 not done and why in one line on stderr, 2 wrong usage, 130 Ctrl-C.",
    )
    group = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for add in (
        _fit,
        _finetune,
        measuring.evaluate,
        measuring.standings,
        measuring.monotony,
        _export,
        measuring.efforts,
        _gradients,
        measuring.exact,
        measuring.stress,
        _strip,
        _curves,
        _plot,
        _reproduce,
        _sheets,
        _pages,
    ):
        add(group)
    return parser


KINDS = ("reconstructions", "samples", "manifold", "codes", "traversal")


def _fit(group: Group) -> None:
    p = command(group, commands.fit, "fit")
    p.add_argument("recipe", metavar="RECIPE", help="a name under train/recipes, or a TOML file")
    p.add_argument("images", metavar="IMAGES", nargs="+", type=folder)
    p.add_argument("--out", type=Path, required=True, help="folder of the run")
    p.add_argument(
        "--minutes",
        type=float,
        default=60.0,
        help="train so long from now, decoding excluded; a recipe with epochs goes by these",
    )
    p.add_argument(
        "--anneal",
        type=share,
        default=0.0,
        help="share of the time (or steps), at its end, in which the rates fall to zero; 0 trains "
        "at a constant rate; the state before the decay stays in OUT/constant",
    )
    p.add_argument("--steps", type=int, help="stop at this step in all, whatever the time")
    start = p.add_mutually_exclusive_group()
    start.add_argument(
        "--resume", type=folder, help="go on from a run's full state: the same curve"
    )
    start.add_argument(
        "--continue",
        type=folder,
        dest="continue_",
        metavar="FOLDER",
        help="go on from a run's weights alone, with a new warm-up",
    )
    start.add_argument(
        "--from", dest="model", metavar="MODEL", help="go on from a released model likewise"
    )
    p.add_argument(
        "--rate",
        type=positive,
        default=1.0,
        help="of the recipe's rates; less than 1 where an annealed model is trained on",
    )
    p.add_argument("--batch", type=int, help="crops per step and device, instead of the recipe's")
    p.add_argument(
        "--validate", type=folder, action="append", default=[], help="images to measure on the way"
    )
    p.add_argument(
        "--validate-every", type=float, default=15.0, help="minutes between measurements"
    )
    p.add_argument("--validate-images", type=int, default=5, help="how many images to measure")
    p.add_argument(
        "--patience",
        type=number,
        help="stop after so many measurements without a better one, and keep the best",
    )
    p.add_argument("--save-every", type=float, default=5.0, help="minutes between saved states")


def _finetune(group: Group) -> None:
    p = command(group, commands.finetune, "finetune")
    p.add_argument("folders", metavar="FOLDER", nargs="+", type=folder)
    p.add_argument("--from", dest="base", required=True, metavar="MODEL", help="to go on from")
    p.add_argument("--name", required=True, help="name of the bundle")
    p.add_argument("--minutes", type=float, default=20.0, help="of training; measuring adds to it")
    p.add_argument(
        "--holdout",
        type=place,
        action="append",
        default=[],
        metavar="PLACE",
        help="image or folder to measure on, not to train on; may be repeated; every tenth image "
        "of FOLDER (1 to 20) if not",
    )
    p.add_argument("--only", choices=("prior", "decoder"), help="train this part alone")
    p.add_argument("--data", default="", help="what the images are, for the manifest")
    p.add_argument(
        "--out",
        type=Path,
        help="where the bundle goes; the user's models, as `vaecodec models` says",
    )


def _sheets(group: Group) -> None:
    p = command(group, commands.sheets, "sheets")
    p.add_argument("dataset", metavar="DATASET", type=place, help="idx file, zip or folder")
    p.add_argument("--out", type=Path, required=True, help="folder of the sheets")
    p.add_argument("--rows", type=number, default=16, help="of images")
    p.add_argument("--columns", type=number, default=16, help="of images")


def _pages(group: Group) -> None:
    p = command(group, commands.pages, "pages")
    p.add_argument("photographs", metavar="PHOTOS", type=folder, help="to draw them with")
    p.add_argument("--out", type=Path, required=True, help="folder of the pages' folders")


def _export(group: Group) -> None:
    p = command(group, commands.export, "export")
    p.add_argument("folder", metavar="RUN", type=folder, help="folder of the run")
    p.add_argument("--name", required=True, help="name of the bundle")
    p.add_argument("--out", type=Path, default=Path("exported"), help="where bundles are")
    p.add_argument("--data", default="", help="what the model was trained on, for the manifest")
    how = p.add_mutually_exclusive_group(required=True)
    how.add_argument(
        "--choose", type=folder, action="append", default=[], help="images to choose quality on"
    )
    how.add_argument("--quality", type=quality, help="default quality, instead of choosing one")
    p.add_argument("--target", type=float, default=80.0, help="SSIMULACRA 2 of the default quality")
    p.add_argument(
        "--measure",
        type=folder,
        action="append",
        default=[],
        help="where the test set of a gaussian recipe is, to be measured for the manifest",
    )


def _gradients(group: Group) -> None:
    p = command(group, commands.gradients, "gradients")
    p.add_argument("model", metavar="MODEL")


def _strip(group: Group) -> None:
    p = command(group, commands.strip, "strip")
    p.add_argument("model", metavar="MODEL")
    p.add_argument("image", metavar="IMAGE", type=file)
    p.add_argument("target", metavar="TARGET", type=Path, help="image file to write")
    p.add_argument("--quality", type=quality, default=25.0)
    p.add_argument(
        "--box",
        type=int,
        nargs=4,
        default=(0, 0, 256, 256),
        metavar=("LEFT", "TOP", "RIGHT", "BOTTOM"),
    )
    p.add_argument("--zoom", type=int, default=1)
    p.add_argument("--beside", metavar="MODEL", help="another model, for a panel of its own")


def _curves(group: Group) -> None:
    p = command(group, commands.curves, "curves")
    p.add_argument("reference", metavar="REFERENCE", type=file, help="JSON of published points")
    p.add_argument("target", metavar="TARGET", type=Path, help="image file to write")
    p.add_argument(
        "--rows",
        action="append",
        required=True,
        metavar="LABEL=FILE",
        type=labelled,
        help="what evaluate --tsv wrote; may be repeated, the newest model last",
    )
    p.add_argument(
        "--codec",
        action="append",
        default=[],
        metavar="LABEL=NAME",
        type=labelled,
        help="a codec of REFERENCE; may be repeated",
    )
    p.add_argument("--title", default="Kodak, 24 images")


def _plot(group: Group) -> None:
    p = command(group, commands.plot, "plot")
    p.add_argument("model", metavar="MODEL")
    p.add_argument("kind", metavar="KIND", choices=KINDS, help=", ".join(KINDS))
    p.add_argument(
        "data",
        metavar="DATA",
        nargs="*",
        type=Path,
        help="idx file, zip or folder of images; reconstructions takes several",
    )
    p.add_argument("-o", dest="target", type=Path, required=True, help="PNG file to write")
    p.add_argument("--rows", type=number, help="of images; traversal: at most so many dimensions")
    p.add_argument("--columns", type=number, help="of images")
    for axis in ("x", "y"):
        p.add_argument(
            f"--{axis}",
            type=float,
            nargs=2,
            default=(-2.0, 2.0),
            metavar=("LOW", "HIGH"),
            help=f"manifold: latents along {axis}",
        )
    p.add_argument("--seed", type=int, default=0, help="of samples, and of crops of larger images")
    p.add_argument("--count", type=number, help="codes: the first so many images; all if not")
    p.add_argument("--names", type=names, default=[], help="codes: what labels are called, A,B,...")
    p.add_argument("--index", type=int, default=0, help="traversal: which image")
    p.add_argument("--threads", type=number, help="threads of each network")


def _reproduce(group: Group) -> None:
    p = command(group, commands.reproduce, "reproduce")
    p.add_argument("data_root", metavar="DATA_ROOT", type=folder)
    p.add_argument("--out", type=Path, required=True, help="folder of the runs and their results")
    p.add_argument("--bundles", type=Path, default=Path("exported"), help="where bundles go")
    p.add_argument("--docs", type=Path, default=Path("docs"), help="where the page goes")
    p.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="RECIPE",
        help="do this recipe alone, anew; may be repeated",
    )


if __name__ == "__main__":
    sys.exit(main())
