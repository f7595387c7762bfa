"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

from vaecodec.errors import VaecodecError

__all__ = [
    "force",
    "json_flag",
    "model",
    "provider",
    "quality",
    "quiet",
    "strip",
    "threads",
    "verbose",
    "where_to_look",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)


def _model_names(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    """Return the names of the bundles at hand that begin with `incomplete`, or ask for folders."""
    from vaecodec.bundle import available

    try:
        names = sorted({bundle.name for bundle in available()})
    except VaecodecError:
        names = []
    matching = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="dir")]


class _Quality(click.FloatRange):
    """A number from 0 to 100."""

    name = "number"

    def convert(self, value: Any, parameter: Any, context: Any) -> float:
        number = float(super().convert(value, parameter, context))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number from 0 to 100.", parameter, context)
        return number


model = click.option(
    "--model",
    metavar="NAME|DIR",
    shell_complete=_model_names,
    help="The model: a name that `vaecodec models` lists, or the directory of a bundle. "
    "[default: photo-1]",
)
where_to_look = click.option(
    "--model",
    metavar="DIR",
    type=click.Path(path_type=Path),
    shell_complete=_model_names,
    help="Where to look for the model that the file names: a bundle or a directory of bundles.",
)
provider = click.option(
    "--provider",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="What runs the networks; auto is CUDA where it works, else the CPU.",
)
threads = click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of the networks. [default: one per core]",
)
strip = click.option("--strip", is_flag=True, help="Leave out ICC profile, EXIF and XMP.")
force = click.option("-f", "--force", is_flag=True, help="Replace the output where it exists.")
quiet = click.option("--quiet", is_flag=True, help="Report nothing but errors.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Report also what did the work.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def quality(help: str, *, multiple: bool = False) -> Callable[[Decorated], Decorated]:
    """Return the option -q/--quality, whose help differs between commands."""
    return click.option(
        "-q", "--quality", type=_Quality(0, 100), metavar="NUMBER", multiple=multiple, help=help
    )
