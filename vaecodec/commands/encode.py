"""vaecodec encode."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import click

from vaecodec.commands import files, inputs, options
from vaecodec.commands.console import Console

if TYPE_CHECKING:
    from vaecodec.targets import Target
    from vaecodec.tuning import Met


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
@options.targets
@options.effort
@click.option(
    "--max-seconds",
    type=options.Number(0, min_open=True),
    metavar="SECONDS",
    help="Take what the search of --effort has found after so long, about.",
)
@click.option(
    "--roi",
    metavar="MASK",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where the bits go: an image of the same size, white where the quality holds and black "
    "where it is 50 lower, with all greys between.",
)
@options.model
@options.provider
@options.threads
@click.option(
    "--resize",
    "fit",
    flag_value="resize",
    help="Scale the image to the size that the model takes, where it takes only one.",
)
@click.option(
    "--pad",
    "fit",
    flag_value="pad",
    help="Put black around the image, up to the size that the model takes.",
)
@options.strip
@options.verbose
@options.quiet
def encode(
    image: Path,
    output: Path | None,
    force: bool,
    quality: float | None,
    bpp: float | None,
    max_bytes: int | None,
    psnr: float | None,
    ms_ssim: float | None,
    strict: bool,
    effort: int | None,
    max_seconds: float | None,
    roi: Path | None,
    model: str | None,
    provider: str,
    threads: int | None,
    fit: str | None,
    strip: bool,
    verbose: bool,
    quiet: bool,
) -> None:
    """Compress IMAGE to a .vz file.

    IMAGE is a file that Pillow reads, or - for stdin. It is turned upright; the alpha channel, ICC
    profile, EXIF and XMP are kept.

    A model of images of one size also takes a data set of any number of them as IMAGE, and writes
    it into one file: an idx file, gzipped or not, a zip of images, or a folder of images.
    """
    asked = options.target(
        quality, strict, bpp=bpp, max_bytes=max_bytes, psnr=psnr, ms_ssim=ms_ssim
    )
    target = output or inputs.default_output(image)
    files.check_output(image, target, force=force)

    from vaecodec.bundle import DEFAULT_MODEL, find
    from vaecodec.codec import Codec

    console = Console(quiet, verbose)
    bundle = find(model or DEFAULT_MODEL)
    source = inputs.read(image, bundle).fitted(fit, bundle)
    if strip:
        source = source.stripped()
    number, height, width = source.images.shape[:3]
    mask = None if roi is None else inputs.read_mask(roi)

    start = perf_counter()
    search = options.search(effort, max_seconds)
    steps = options.search_steps(search, bundle)
    with console.bar("encoding", width, height, number, steps) as watch:
        codec = Codec(bundle, provider, threads, watch=watch)
        met = source.encode_to(codec, asked, search, mask) if asked else None
        data = source.encode(codec, quality, search, mask) if met is None else met.data
    seconds = perf_counter() - start

    files.write(target, data, force=force)
    if met is not None and met.problem is not None:
        console.say(f"Warning: {files.source_name(image)}: {met.problem}")
    rate = _rate(len(data), number, width * height)
    console.say(
        f"{files.source_name(image)}: {source} -> "
        f"{files.target_name(target)}: {len(data):,} bytes, {rate}{_reached(met, asked)}"
    )
    console.work(codec, provider, number * width * height, seconds)


def _reached(met: Met | None, asked: Target | None) -> str:
    """Return what the report says of a file made to a target: its likeness, and its quality."""
    if met is None or asked is None:
        return ""
    likeness = "" if asked.is_of_size else f", {asked.text(met.value)}"
    return f"{likeness}, quality {met.quality:g}"


def _rate(size: int, number: int, pixels: int) -> str:
    if number == 1:
        return f"{8 * size / pixels:.3f} bpp"
    return f"{8 * size / number:.2f} bits per image"
