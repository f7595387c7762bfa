"""vaecodec encode."""

from __future__ import annotations

import io
from pathlib import Path
from time import perf_counter

import click

from vaecodec.commands import files, options
from vaecodec.commands.console import Console


@click.command(short_help="Compress an image to a .vz file.")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="What to write, - for stdout. [default: IMAGE with the suffix .vz; - for stdin]",
)
@options.force
@options.quality(
    help="Higher is better and larger, in steps of 1/64; this is not the scale of JPEG. "
    "[default: the model's, a high quality; see vaecodec models]"
)
@options.model
@options.provider
@options.threads
@options.strip
@options.verbose
@options.quiet
def encode(
    image: Path,
    output: Path | None,
    force: bool,
    quality: float | None,
    model: str | None,
    provider: str,
    threads: int | None,
    strip: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Compress IMAGE to a .vz file.

    IMAGE is a file that Pillow reads, or - for stdin. It is turned upright; the alpha channel, ICC
    profile, EXIF and XMP are kept.
    """
    target = output or files.beside(image, ".vz")
    files.check_output(image, target, force=force)

    from vaecodec import images
    from vaecodec.bundle import DEFAULT_MODEL
    from vaecodec.codec import Codec

    console = Console(quiet, verbose)
    source = files.read(image)
    with files.named(image):
        picture = images.read(io.BytesIO(source))
    if strip:
        picture = images.strip(picture)
    height, width = picture.pixels.shape[:2]

    start = perf_counter()
    with console.bar("encoding", width, height) as watch:
        codec = Codec(model or DEFAULT_MODEL, provider, threads, watch=watch)
        data = codec.encode(picture, quality)
    seconds = perf_counter() - start

    files.write(target, data)
    bpp = 8 * len(data) / (width * height)
    console.say(
        f"{files.source_name(image)}: {width}x{height}, {len(source):,} bytes -> "
        f"{files.target_name(target)}: {len(data):,} bytes, {bpp:.3f} bpp"
    )
    console.work(codec, provider, width * height, seconds)
