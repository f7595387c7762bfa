"""What the encoder's effort buys on files: rate, distortion, time and memory of each level."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path
from time import perf_counter

import numpy as np

from train import evaluate
from train.data import image_files
from train.progress import Progress
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bd_rate, mean_squared_error, psnr
from vaecodec.picture import strip
from vaecodec.refine import price
from vaecodec.search import Search

EFFORTS = (0, 2, 9)
WORD = 32
"""Bits that files come in."""
QUALITIES = (15.0, 40.0, 65.0, 90.0)


@dataclass(frozen=True)
class Row:
    """One image of so many pixels at one quality and effort.

    bpp: bits per pixel of the file. psnr: dB. cost: what the search makes small, bits of the file
    and its squared error at its price, in bits per pixel. seconds: of encoding, the codec warm.
    peak: memory of the process so far, MiB.
    """

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
    db = psnr(picture.pixels, decoded)
    return Row(file.stem, pixels, quality, effort, bpp, db, cost, seconds, peak)


def table(
    model: str,
    folders: Sequence[Path],
    efforts: Sequence[int],
    qualities: Sequence[float],
    tsv: Path,
) -> list[Row]:
    """Return the rows of all images, efforts ascending; those that `tsv` has are read from it."""
    rows = list(_read(tsv)) if tsv.exists() else []
    known = {(r.image, r.quality, r.effort) for r in rows}
    codec = Codec(model, "cpu")
    wanted = list(product(sorted(efforts), image_files(folders), qualities))
    with Progress("encoding") as progress, tsv.open("a") as file:
        if not rows:
            print(*(f.name for f in fields(Row)), sep="\t", file=file)
        for number, (effort, path, quality) in enumerate(wanted, 1):
            if (path.stem, quality, effort) not in known:
                rows.append(measure(codec, path, quality, effort))
                values = (f"{v:.6g}" if isinstance(v, float) else v for v in astuple(rows[-1]))
                print(*values, sep="\t", file=file, flush=True)
            progress.update(number / len(wanted), f"effort {effort}, {path.stem}")
    return [r for r in rows if r.effort in efforts and r.quality in qualities]


def _read(tsv: Path) -> Iterator[Row]:
    for line in tsv.read_text().splitlines()[1:]:
        image, pixels, quality, effort, *rest = line.split("\t")
        yield Row(image, int(pixels), float(quality), int(effort), *map(float, rest))


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
