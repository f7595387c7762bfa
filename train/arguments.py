"""What the options of `python -m train` can be, and how their help looks."""

from __future__ import annotations

import argparse
from pathlib import Path

from train.commands import Command

Group = argparse._SubParsersAction  # its only name


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the defaults that there are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, "", []):
            return action.help
        return super()._get_help_string(action)


def command(group: Group, run: Command, name: str) -> argparse.ArgumentParser:
    """Add a command whose help is the docstring of the function that runs it."""
    text = " ".join((run.__doc__ or "").split())
    parser: argparse.ArgumentParser = group.add_parser(
        name,
        help=text.split(". ")[0].rstrip("."),
        description=text,
        formatter_class=_Help,
    )
    parser.set_defaults(run=run)
    return parser


def folder(text: str) -> Path:
    """Return the path of a folder that there is."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is not a folder")
    return Path(text)


def place(text: str) -> Path:
    """Return the path of a file or folder that there is."""
    if not Path(text).exists():
        raise argparse.ArgumentTypeError(f"{text} does not exist")
    return Path(text)


def file(text: str) -> Path:
    """Return the path of a file that there is."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text} is not a file")
    return Path(text)


def number(text: str) -> int:
    """Return a whole number above 0."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return int(text)


def positive(text: str) -> float:
    """Return a number above 0."""
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return float(text)


def names(text: str) -> list[str]:
    """Return what stands between commas."""
    return text.split(",")


def labelled(text: str) -> tuple[str, str]:
    """Return the label and what stands behind it of LABEL=TEXT; of TEXT alone both are that."""
    label, mark, rest = text.partition("=")
    return (label, rest) if mark else (text, text)


def share(text: str) -> float:
    """Return a number from 0 to 1."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return float(text)


def quality(text: str) -> float:
    """Return a quality, 0 to 100."""
    if not 0 <= float(text) <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100")
    return float(text)
