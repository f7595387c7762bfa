"""vaecodec decode."""

from __future__ import annotations

import io
import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from vaecodec.commands import files, options
from vaecodec.commands.console import Console
from vaecodec.formats import FORMATS, format_of

if TYPE_CHECKING:
    from vaecodec.bundle import Bundle


@click.command(short_help="Open a .vz file as an ordinary image.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What to write, - for stdout. [default: FILE with the suffix .png, or .decoded.png where "
    "that exists; - for stdin]",
)
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="Its format. [default: by the suffix; png for stdout]",
)
@options.force
@options.where_to_look
@options.provider
@options.threads
@options.strip
@options.verbose
@options.quiet
def decode(
    file: Path,
    output: Path | None,
    format: str | None,
    force: bool,
    model: Path | None,
    provider: str,
    threads: int | None,
    strip: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Open FILE, a .vz or - for stdin, as a PNG, JPEG, WebP, AVIF or TIFF image.

    PNG, WebP and TIFF hold what was decoded without loss. The model is the one that the file names.
    """
    console = Console(quiet, verbose)
    target = output or _default_output(file, format or "png", console)
    if format is None:
        format = "png" if target == files.STREAM else format_of(target)
    files.check_output(file, target, force=force)

    from vaecodec import container, images
    from vaecodec.codec import Codec

    data = files.read(file)
    start = perf_counter()
    with files.named(file):
        header = container.unpack(data).header
        with console.bar("decoding", header.width, header.height) as watch:
            codec = Codec(_bundle(header.model, model), provider, threads, watch=watch)
            picture = codec.decode_picture(data)
    seconds = perf_counter() - start

    encoded = io.BytesIO()
    images.write(images.strip(picture) if strip else picture, encoded, format)
    files.write(target, encoded.getvalue())
    console.say(
        f"{files.source_name(file)}: {len(data):,} bytes -> {files.target_name(target)}: "
        f"{header.width}x{header.height}, {encoded.tell():,} bytes"
    )
    console.work(codec, provider, header.width * header.height, seconds)


def _default_output(source: Path, format: str, console: Console) -> Path:
    """Return a name that nothing is lost by, as far as the user did not see it."""
    target = files.beside(source, f".{format}")
    if target == files.STREAM or not os.path.lexists(target):
        return target
    other = files.beside(source, f".decoded.{format}")
    console.say(f"{target} exists; the output is {other}")
    return other


def _bundle(fingerprint: bytes, place: Path | None) -> Bundle:
    from vaecodec.bundle import find, find_fingerprint

    if place is not None and not place.is_dir():
        place = find(str(place)).path  # a name, perhaps; else this says which there are
    return find_fingerprint(fingerprint, place)
