"""vaecodec decode."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from vaecodec.commands import files, inputs, options
from vaecodec.commands.console import Console
from vaecodec.formats import DATASET, FORMATS, format_of

if TYPE_CHECKING:
    from vaecodec.codec import Codec


@click.command(short_help="Open a .vz file as an ordinary image.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What to write, - for stdout. [default: FILE with the suffix .png, or .decoded.png where "
    "that exists, .idx for several images; - for stdin]",
)
@click.option(
    "--format",
    type=click.Choice([*FORMATS, DATASET]),
    help="Its format. [default: by the suffix; png for stdout, idx for several images]",
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
    A file of several images, a data set, becomes an idx file, gzipped where the output ends in .gz.
    """
    console = Console(quiet, verbose)
    target = files.STREAM if output is None and file == files.STREAM else output
    if target is not None:
        if format is None and target != files.STREAM:
            format = format_of(target)
        files.check_output(file, target, force=force)

    from vaecodec import container
    from vaecodec.codec import Codec

    data = files.read(file)
    with files.named(file):
        header = container.unpack(data).header
    kind = format or ("png" if header.images == 1 else DATASET)
    _check_kind(file, kind, header.images)
    if target is None:
        target = _default_output(file, kind, console)
        files.check_output(file, target, force=force)

    start = perf_counter()
    with (
        files.named(file),
        console.bar("decoding", header.width, header.height, header.images) as watch,
    ):
        codec = Codec(inputs.bundle_of(header.model, model), provider, threads, watch=watch)
        encoded = _decoded(codec, data, kind, strip)
    seconds = perf_counter() - start

    if kind == DATASET and target.suffix.lower() == ".gz":
        encoded = gzip.compress(encoded, mtime=0)
    files.write(target, encoded, force=force)
    console.say(
        f"{files.source_name(file)}: {len(data):,} bytes -> {files.target_name(target)}: "
        f"{inputs.describe(header.images, header.height, header.width)}, {len(encoded):,} bytes"
    )
    console.work(codec, provider, header.pixels, seconds)


def _decoded(codec: Codec, data: bytes, format: str, strip: bool) -> bytes:
    """Return an image file, or an idx file, of a .vz."""
    from vaecodec import datasets, images

    if format == DATASET:
        return datasets.write_idx(codec.decode_images(data))
    picture, encoded = codec.decode_picture(data), io.BytesIO()
    images.write(images.strip(picture) if strip else picture, encoded, format)
    return encoded.getvalue()


def _check_kind(source: Path, format: str, number: int) -> None:
    """Raise ClickException where a file of several images would become one."""
    if number > 1 and format != DATASET:
        raise click.ClickException(
            f"{files.source_name(source)} holds {number:,} images, which {format} cannot; name an "
            "output that ends in .idx or .idx.gz"
        )


def _default_output(source: Path, format: str, console: Console) -> Path:
    """Return a name that nothing is lost by, as far as the user did not see it."""
    target = files.beside(source, f".{format}")
    if target == files.STREAM or not os.path.lexists(target):
        return target
    other = files.beside(source, f".decoded.{format}")
    console.say(f"{target} exists; the output is {other}")
    return other
