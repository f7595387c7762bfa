"""The commands of training that measure a bundle, and their options."""

from __future__ import annotations

import argparse
from pathlib import Path

from train import commands
from train.arguments import Group, command, file, folder, number, quality


def evaluate(group: Group) -> None:
    """Add the command `evaluate`."""
    p = command(group, commands.evaluate, "evaluate")
    _model_and_images(p)
    p.add_argument(
        "--quality",
        type=quality,
        action="append",
        help="may be repeated; nine from 0 to 100 if not",
    )
    p.add_argument("--reference", type=file, help="JSON of published points, for mean BD-rates")
    p.add_argument(
        "--against", action="append", help="a codec of --reference (measured_jpeg_pillow)"
    )
    p.add_argument("--effort", type=int, help="of the encoder, 0 to 9; the model's default if not")
    p.add_argument("--ssimulacra2", action="store_true", help="also measure SSIMULACRA 2 (slow)")
    p.add_argument("--tsv", type=Path, help="write every image's row here")
    p.add_argument("--threads", type=int, help="threads of each network")


def standings(group: Group) -> None:
    """Add the command `standings`."""
    p = command(group, commands.standings, "standings")
    _model_and_images(p)
    p.add_argument("--effort", type=int, help="of the encoder, 0 to 9; the model's default if not")
    p.add_argument("--tsv", type=Path, required=True, help="rows; those it has are not done again")


def monotony(group: Group) -> None:
    """Add the command `monotony`."""
    p = command(group, commands.monotony, "monotony")
    _model_and_images(p)
    p.add_argument("--effort", type=int, help="of the encoder, 0 to 9; the model's default if not")
    p.add_argument("--step", type=number, default=1, help="from one quality to the next")


def efforts(group: Group) -> None:
    """Add the command `efforts`."""
    p = command(group, commands.efforts, "efforts")
    _model_and_images(p)
    p.add_argument("--effort", type=int, action="append", help="may be repeated; 0, 2 and 9 if not")
    p.add_argument(
        "--quality", type=quality, action="append", help="may be repeated; 15, 40, 65 and 90 if not"
    )
    p.add_argument("--reference", type=file, help="JSON of published points, for BD-rates")
    p.add_argument("--tsv", type=Path, required=True, help="rows; those it has are not done again")


def exact(group: Group) -> None:
    """Add the command `exact`."""
    p = command(group, commands.exact, "exact")
    _model_and_images(p)
    p.add_argument(
        "--quality", type=quality, action="append", help="may be repeated; 10, 50 and 90 if not"
    )
    p.add_argument("--count", type=int, default=10, help="at most so many images")


def stress(group: Group) -> None:
    """Add the command `stress`."""
    p = command(group, commands.stress, "stress")
    _model_and_images(p)
    p.add_argument(
        "--quality", type=quality, help="quality of the generations; the model's default"
    )
    p.add_argument("--count", type=int, default=10, help="generations")


def _model_and_images(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("images", metavar="IMAGES", nargs="+", type=folder)
