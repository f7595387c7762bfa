"""What the encoder's effort buys on files: rate, distortion, time and memory of each level."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np

from train import evaluate
from train.curves import decibels
from train.evaluate import named
from train.progress import Progress
from train.tsv import resumed
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bd_rate, mean_squared_error
from vaecodec.picture import strip
from vaecodec.refine import price
from vaecodec.search import Search

EFFORTS = (0, 2, 9)
WORD = 32
"""Bits that files come in."""
QUALITIES = (15.0, 40.0, 65.0, 90.0)


@dataclass(frozen=True)
class Row:
    """One image of so many pixels at one quality and effort of a model.

    model: its name and fingerprint. bpp: bits per pixel of the file. psnr: dB. cost: what the
    search makes small, bits of the file and its squared error at its price, in bits per pixel.
    seconds: of encoding, the codec warm. peak: memory of the process so far, MiB.
    """

    model: str
    image: str
    pixels: int
    quality: float
    effort: int
    bpp: float
    psnr: float
    cost: float
    seconds: float
    peak: float


def measure(codec: Codec, file: Path, quality: float, effort: int) -> Row:
    """Encode and decode one image."""
    picture = strip(read(file))
    start = perf_counter()
    data = codec.encode(picture, quality, search=Search(effort))
    seconds = perf_counter() - start
    decoded = codec.decode_picture(data).pixels
    pixels = picture.pixels.shape[0] * picture.pixels.shape[1]
    paid = price(codec.model, codec.model.quality_step(quality))  # type: ignore[arg-type] # a photo bundle
    bpp = 8 * len(data) / pixels
    cost = bpp + 3 * paid * mean_squared_error(picture.pixels, decoded)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    db = decibels(picture.pixels, decoded)
    return Row(_label(codec), file.stem, pixels, quality, effort, bpp, db, cost, seconds, peak)


def table(
    model: str,
    folders: Sequence[Path],
    efforts: Sequence[int],
    qualities: Sequence[float],
    tsv: Path,
) -> list[Row]:
    """Return the rows of all images, efforts ascending; those that `tsv` has are read from it."""
    codec = Codec(model, "cpu")
    label, result = _label(codec), []
    wanted = list(product(sorted(efforts), named(folders).items(), qualities))
    with (
        Progress("encoding") as progress,
        resumed(tsv, [f.name for f in fields(Row)]) as (lines, add),
    ):
        known = {(r.model, r.image, r.quality, r.effort): r for r in map(_row, lines)}
        for number, (effort, (name, path), quality) in enumerate(wanted, 1):
            row = known.get((label, name, quality, effort))
            if row is None:
                row = measure(codec, path, quality, effort)
                add(astuple(row))
            result.append(row)
            progress.update(number / len(wanted), f"effort {effort}, {name}")
    return result


def _label(codec: Codec) -> str:
    return f"{codec.bundle.name} {codec.bundle.fingerprint.hex()}"


def _row(cells: Sequence[str]) -> Row:
    model, image, pixels, quality, effort, *rest = cells
    return Row(model, image, int(pixels), float(quality), int(effort), *map(float, rest))


def _curve(rows: Sequence[Row], effort: int) -> tuple[list[float], list[float]]:
    """Return mean bpp and mean PSNR at each quality of an effort."""
    points = []
    for quality in sorted({r.quality for r in rows}):
        chosen = [(r.bpp, r.psnr) for r in rows if (r.quality, r.effort) == (quality, effort)]
        points.append(np.mean(chosen, 0).tolist())
    bpp, db = zip(*points, strict=True)
    return list(bpp), list(db)


def report(
    model: str,
    folders: Sequence[Path],
    efforts: Sequence[int],
    qualities: Sequence[float],
    tsv: Path,
    reference: Path | None,
) -> None:
    """Measure and print a line for each effort, then the images that more effort left worse off."""
    rows = table(model, folders, efforts, qualities, tsv)
    plain = _curve(rows, min(efforts))
    for effort in sorted(efforts):
        bpp, db = _curve(rows, effort)
        own = [r for r in rows if r.effort == effort]
        line = f"effort {effort}"
        if len(bpp) > 2:
            line += f": BD-rate against effort {min(efforts)} {bd_rate(*plain, bpp, db):+.2f} %"
        if reference and len(bpp) > 2:
            saved = evaluate.against_points(bpp, db, reference, evaluate.JPEG)
            line += f", against {evaluate.JPEG} {saved:+.2f} %"
        cost = np.mean([r.cost for r in own])
        seconds, peak = np.mean([r.seconds for r in own]), max(r.peak for r in own)
        print(f"{line}, cost {cost:.5f}, {seconds:.2f} s an image, peak {peak:.0f} MiB")
    for low, high in zip(sorted(efforts), sorted(efforts)[1:], strict=False):
        worse = _worse(rows, low, high)
        print(f"effort {high} costs more than {low}: {', '.join(worse) or 'on no image'}")


def _worse(rows: Sequence[Row], low: int, high: int) -> list[str]:
    """Name the images whose cost rose by more than the word that files are rounded to."""
    cost = {(r.image, r.quality): r.cost for r in rows if r.effort == low}
    found = []
    for r in rows:
        before = cost[r.image, r.quality]
        if r.effort == high and r.cost > before + WORD / r.pixels:
            found.append(f"{r.image} at {r.quality:g} ({100 * (r.cost / before - 1):+.3f} %)")
    return found
