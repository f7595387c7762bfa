"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from vaecodec.errors import VaecodecError

if TYPE_CHECKING:
    from vaecodec.bundle import Bundle
    from vaecodec.search import Search
    from vaecodec.targets import Target

__all__ = [
    "Number",
    "effort",
    "force",
    "json_flag",
    "model",
    "model_names",
    "provider",
    "quality",
    "quiet",
    "search",
    "strip",
    "target",
    "targets",
    "threads",
    "verbose",
    "where_to_look",
]

Decorated = TypeVar("Decorated", bound=Callable[..., Any] | click.Command)


def model_names(_context: Any, _parameter: Any, incomplete: str) -> list[CompletionItem]:
    """Return the names of the bundles at hand that begin with `incomplete`, or ask for folders."""
    from vaecodec.bundle import available

    try:
        names = sorted({bundle.name for bundle in available()})
    except VaecodecError:
        names = []
    matching = [CompletionItem(name) for name in names if name.startswith(incomplete)]
    return matching or [CompletionItem(incomplete, type="dir")]


class Number(click.FloatRange):
    """A finite number within a range."""

    name = "number"

    def convert(self, value: Any, parameter: Any, context: Any) -> float:
        """Return the number of a text."""
        number = float(super().convert(value, parameter, context))
        if not math.isfinite(number):
            self.fail(
                f"{value!r} is not in the range {self._describe_range()}.", parameter, context
            )
        return number


model = click.option(
    "--model",
    metavar="NAME|DIR",
    shell_complete=model_names,
    help="The model: a name that `vaecodec models` lists, or the directory of a bundle. "
    "[default: photo-3]",
)
where_to_look = click.option(
    "--model",
    metavar="DIR",
    type=click.Path(path_type=Path),
    shell_complete=model_names,
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
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Threads of the networks. [default: one per core]",
)
_TARGETS = (
    click.option(
        "--bpp",
        type=Number(0, min_open=True),
        metavar="NUMBER",
        help="In place of a quality: so many bits per pixel, within 2 %.",
    ),
    click.option(
        "--max-bytes",
        type=click.IntRange(min=1),
        metavar="N",
        help="In place of a quality: a file of at most N bytes.",
    ),
    click.option(
        "--psnr",
        type=Number(0, min_open=True),
        metavar="DB",
        help="In place of a quality: this PSNR, within 0.1 dB.",
    ),
    click.option(
        "--ms-ssim",
        type=Number(0, 1, min_open=True),
        metavar="NUMBER",
        help="In place of a quality: this MS-SSIM, within 0.0005.",
    ),
    click.option(
        "--strict",
        is_flag=True,
        help="Fail where the image cannot be made so; else it is as near as it can be.",
    ),
)
effort = click.option(
    "--effort",
    type=click.IntRange(0, 9),
    metavar="0-9",
    help="How hard to look for a smaller file that looks the same: 0 not at all, 9 for many times "
    "as long. Decoding is the same. [default: 2, half a second for 768x512 on two cores]",
)
strip = click.option("--strip", is_flag=True, help="Leave out ICC profile, EXIF and XMP.")
force = click.option("-f", "--force", is_flag=True, help="Replace the output where it exists.")
quiet = click.option("--quiet", is_flag=True, help="Report nothing but errors.")
verbose = click.option("-v", "--verbose", is_flag=True, help="Report also what did the work.")
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def quality(help: str, *, multiple: bool = False) -> Callable[[Decorated], Decorated]:
    """Return the option -q/--quality, whose help differs between commands."""
    return click.option(
        "-q", "--quality", type=Number(0, 100), metavar="NUMBER", multiple=multiple, help=help
    )


def search(effort: int | None, max_seconds: float | None) -> Search | None:
    """Return the search of a command line, None where nothing was said of it."""
    if effort is None and max_seconds is None:
        return None
    from vaecodec.search import Search

    return Search(effort) if max_seconds is None else Search(effort, max_seconds)


def search_steps(search: Search | None, bundle: Bundle) -> int:
    """Return how many steps a search will take in each tile of an image."""
    from vaecodec.search import DEFAULT_EFFORT, EFFORTS

    default = DEFAULT_EFFORT if bundle.manifest.get("search") else 0
    asked = None if search is None else search.effort
    return EFFORTS[default if asked is None else asked]


def targets(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that stand in place of a quality, and --strict."""
    for option in reversed(_TARGETS):
        command = option(command)
    return command


def target(quality: float | None, strict: bool, **asked: float | None) -> Target | None:
    """Return the target of a command line, None for none; asked: a value, or None, of each kind.

    Raises UsageError where more than one thing decides.
    """
    given = [(name.replace("_", "-"), value) for name, value in asked.items() if value is not None]
    decides = [f"--{kind}" for kind, _ in given]
    if quality is not None:
        decides.insert(0, "--quality")
    if len(decides) > 1:
        raise click.UsageError(f"{' and '.join(decides)} exclude each other: one decides.")
    if not given:
        if strict:
            raise click.UsageError("--strict goes with --bpp, --max-bytes, --psnr or --ms-ssim.")
        return None

    from vaecodec.targets import Target

    return Target(*given[0], strict)
