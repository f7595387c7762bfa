"""vaecodec bench."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaecodec.commands import files, options
from vaecodec.commands.console import Console

if TYPE_CHECKING:
    from vaecodec.bench import Bench, Row


@click.command(short_help="Measure rate, distortion and the time of every stage.")
@click.argument("places", nargs=-1, metavar="[FILE|DIR]...", type=click.Path(path_type=Path))
@options.quality(
    multiple=True,
    help="A quality to measure; repeatable. [default: the model's default, 20, 50 and 80]",
)
@options.model
@options.provider
@options.threads
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Times each thing is timed, after one that does not count; medians are reported.",
)
@click.option(
    "--process",
    is_flag=True,
    help="Measure whole processes too, from start to finish, on one image: the first FILE, or one "
    "of 768x512 pixels; at the first --quality, or the model's default.",
)
@click.option(
    "--json",
    "json_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write all that was measured there as JSON; - prints it in place of the tables.",
)
@options.force
@options.quiet
def bench(
    places: tuple[Path, ...],
    quality: tuple[float, ...],
    model: str | None,
    provider: str,
    threads: int | None,
    runs: int,
    process: bool,
    json_file: Path | None,
    force: bool,
    quiet: bool,
) -> None:
    """Measure what a model does to images, and how long each stage takes.

    Each image is encoded, decoded and checked before it is timed. Images are each FILE and those in
    each DIR; without any, three photographs that come with the package.

    For a model of images of one size, each FILE or DIR is a data set, coded into one file: bits per
    image and the negative ELBO, beside PNG, JPEG and WebP files of the same images.
    """
    if json_file is not None and json_file != files.STREAM:
        files.check_output(files.STREAM, json_file, force=force)

    from vaecodec.bench import Bench, photographs
    from vaecodec.bundle import DEFAULT_MODEL, find
    from vaecodec.commands import results

    bundle = find(model or DEFAULT_MODEL)
    one_size = bundle.image_shape is not None
    found = list(places) if one_size else photographs(places)
    measured = Bench(bundle, provider, threads, runs)
    if one_size:
        data, text = _data_sets(measured, found, quality, process)
    elif process:
        from vaecodec import speed

        one = speed.measure(measured, found[0] if places else None, next(iter(quality), None))
        data, text = results.speed_data(one), results.speed_text(one)
    else:
        jobs = [(path, q) for path in found for q in quality or measured.qualities()]
        rows = _measure(measured, jobs, Console(quiet))
        data, text = results.rows_data(rows), results.rows_text(rows)
    facts = results.facts(measured)
    _output(facts | data, results.facts_text(facts) + "\n\n" + text, json_file, force=force)


def _data_sets(
    measured: Bench, places: Sequence[Path], qualities: Sequence[float], process: bool
) -> tuple[dict[str, Any], str]:
    """Return what was measured on data sets, as JSON data and as text."""
    from vaecodec import dataset_bench
    from vaecodec.commands import dataset_results, inputs

    name = measured.codec.bundle.name
    if not places or process:
        raise click.ClickException(
            f"{name} takes images of one size: name a data set as FILE or DIR"
            + (", and leave out --process" if process else "")
        )
    found = []
    for place in places:
        images = inputs.read(place, measured.codec.bundle).images
        with files.named(place):
            asked = qualities or measured.qualities()
            found.append(dataset_bench.measure(measured, place.name, images, asked))
    return dataset_results.data(found), dataset_results.text(found)


def _measure(measured: Bench, jobs: Sequence[tuple[Path, float]], console: Console) -> list[Row]:
    """Measure each image at each quality, with a bar on a terminal."""
    if not console.draws():
        return [measured.measure(*job) for job in jobs]
    bar: Iterable[tuple[Path, float]]
    with click.progressbar(jobs, label="measuring", file=sys.stderr) as bar:
        return [measured.measure(*job) for job in bar]


def _output(facts: dict[str, Any], text: str, json_file: Path | None, *, force: bool) -> None:
    encoded = json.dumps(facts, indent=1, allow_nan=False) + "\n"
    if json_file == files.STREAM:
        click.echo(encoded, nl=False)
        return
    if json_file is not None:
        files.write(json_file, encoded.encode(), force=force)
    click.echo(text)
