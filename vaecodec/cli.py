"""The command line: `vaecodec encode`, `decode`, `info`, `bench`, `models`.

Each command stands in a module of `vaecodec.commands` and is thin over the Python API. Nothing
heavy is imported before a command runs, so that help and completion are instant.
"""

from __future__ import annotations

import errno
import io
import sys
import warnings
from typing import Any

import click

from vaecodec import __version__
from vaecodec.commands.bench import bench
from vaecodec.commands.decode import decode
from vaecodec.commands.encode import encode
from vaecodec.commands.info import info
from vaecodec.commands.models import models
from vaecodec.errors import VaecodecError

__all__ = ["cli", "main"]


class _Group(click.Group):
    """Says in one line, with exit status 1, what a user could not have, and why."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except VaecodecError as error:
            raise click.ClickException(_one_line(str(error))) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read our stdout has enough: click's to end
                raise
            raise click.ClickException(_one_line(_reason(error))) from error
        except MemoryError as error:
            raise click.ClickException("there is not enough memory for this image") from error


def _reason(error: OSError) -> str:
    text = error.strerror or str(error) or type(error).__name__
    return text if error.filename is None else f"{error.filename}: {text}"


def _one_line(text: str) -> str:
    # Names out of a zip of somebody's are printed, too: a terminal must not obey them.
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


@click.group(
    cls=_Group,
    commands=[encode, decode, info, bench, models],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit status: 0 done, 1 not done and why in one line on stderr, 2 wrong usage.",
)
@click.version_option(__version__, prog_name="vaecodec")
def cli() -> None:
    """Compress photographs with a learned codec to .vz files, and open them again."""


def main() -> None:
    """Run the command line of this process."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for programmers, who run python -W
    cli(prog_name="vaecodec")
