"""How codecs stand on a set of images: a model's files beside those of Pillow's writers.

By three measures: PSNR, which the models are trained for; MS-SSIM and SSIMULACRA 2, which stand for
the eye.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import product
from pathlib import Path

import numpy as np

from train.evaluate import QUALITIES, Row, means, measure, named, writer
from train.progress import Progress
from train.rivals import RIVALS, Write
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bd_rate
from vaecodec.search import Search

Table = Mapping[str, Sequence[Row]]
"""Codec -> a row for each image and quality."""

MEASURES: Mapping[str, Callable[[float], float]] = {
    "psnr": float,
    # In dB: the last thousandths matter as much as the first hundredths.
    "ms_ssim": lambda similarity: -10 * math.log10(1 - similarity),
    "ssimulacra2": float,
}
"""Column of a row -> the scale on which its curve is drawn."""

TITLES = {"psnr": "PSNR", "ms_ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA 2"}
RATES = (0.2, 0.4, 0.6, 0.8, 1.0)
"""Bits per pixel at which codecs are set side by side; their ends bound the BD-rate by MS-SSIM."""


def table(model: str, folders: Sequence[Path], effort: int | None, tsv: Path) -> Table:
    """Measure a model and each of RIVALS on images; rows that `tsv` has are not done again.

    effort: of the encoder; None for the model's default.
    """
    codec = Codec(model, "cpu")
    name = codec.bundle.name
    search = None if effort is None else Search(effort)
    writers: dict[str, tuple[Write, Sequence[float]]] = {
        **{n: (rival, rival.qualities) for n, rival in RIVALS.items()},
        name: (writer(codec, search), QUALITIES),
    }
    found = {(c, r.image, r.quality): r for c, r in _read(tsv)} if tsv.exists() else {}
    files = named(folders)
    wanted = [
        (n, image, float(q)) for n, (_, qs) in writers.items() for image, q in product(files, qs)
    ]
    with Progress("measuring") as progress, tsv.open("a") as file:
        if not found:
            print("codec", *(f.name for f in fields(Row)), sep="\t", file=file)
        for number, key in enumerate(wanted, 1):
            n, image, quality = key
            if key not in found:
                pixels = read(files[image]).pixels
                found[key] = measure(writers[n][0], image, pixels, quality, perceptual=True)
                values = (f"{v:.7g}" if isinstance(v, float) else v for v in astuple(found[key]))
                print(n, *values, sep="\t", file=file, flush=True)
            progress.update(number / len(wanted), f"{n}, {image}")
    return {n: [found[key] for key in wanted if key[0] == n] for n in writers}


def _read(tsv: Path) -> Iterator[tuple[str, Row]]:
    for line in tsv.read_text().splitlines()[1:]:
        codec, image, quality, size, *rest = line.split("\t")
        yield codec, Row(image, float(quality), int(size), *map(float, rest))


def curve(rows: Sequence[Row], measure: str) -> tuple[list[float], list[float]]:
    """Return mean rates (bits per pixel) of rows and what the mean of a measure is on its scale.

    Points that are no better than one of fewer bits are left out.
    """
    bpp: list[float] = []
    values: list[float] = []
    for mean in sorted(means(rows), key=lambda mean: mean["bpp"]):
        value = MEASURES[measure](mean[measure])
        if not values or value > values[-1]:
            bpp.append(mean["bpp"])
            values.append(value)
    return bpp, values


def saved(of: Sequence[Row], to: Sequence[Row], measure: str) -> float:
    """Return the BD-rate of one codec's rows to another's by a measure, in percent.

    NaN where the two share nothing.
    """
    try:
        return bd_rate(*curve(to, measure), *curve(of, measure))
    except ValueError:
        return math.nan


def between(of: Sequence[Row], to: Sequence[Row], measure: str) -> float:
    """Return the BD-rate of one codec's rows to another's where both take bits within RATES.

    NaN where they do not.
    """
    rates = np.geomspace(RATES[0], RATES[-1], 17)
    values = np.array([at(rows, measure, rates.tolist()) for rows in (to, of)])
    both = np.isfinite(values).all(0)
    if both.sum() < 2:
        return math.nan
    return bd_rate(rates[both], values[0, both], rates[both], values[1, both])


def at(rows: Sequence[Row], measure: str, rates: Sequence[float]) -> list[float]:
    """Return a measure, on its scale, at rates: linear in the logarithm of the rate.

    NaN at rates that the codec was not measured at.
    """
    bpp, values = curve(rows, measure)
    found: list[float] = np.interp(np.log(rates), np.log(bpp), values, math.nan, math.nan).tolist()
    return found


def report(found: Table, model: str) -> str:
    """Return how codecs stand, as Markdown: means, side by side at equal rates, image by image."""
    order = sorted(found, key=lambda n: saved(found[n], found["JPEG"], "psnr"), reverse=True)
    titles = [TITLES[m] for m in MEASURES]
    lines = [
        f"| bits at equal | {' | '.join(titles)} | {model} to it: {' | '.join(titles)} | "
        f"MS-SSIM, {RATES[0]:g} to {RATES[-1]:g} bpp |",
        "|---" + "|--:" * 7 + "|",
    ]
    for name in order:
        rows = found[name]
        cells = [saved(rows, found["JPEG"], m) for m in MEASURES]
        cells += [saved(found[model], rows, m) for m in MEASURES]
        cells.append(between(found[model], rows, "ms_ssim"))
        lines.append(f"| {name} | {' | '.join(map(_percent, cells))} |")
    lines += ["", f"| at bpp | {' | '.join(f'{r:g}' for r in RATES)} |", "|---" + "|--:" * 5 + "|"]
    for column, title in TITLES.items():
        for name in order:
            values = " | ".join(map(_number, at(found[name], column, RATES)))
            lines.append(f"| {title}{', dB' * (column != 'ssimulacra2')}: {name} | {values} |")
    lines += ["", "Each image, BD-rate by PSNR against its own JPEG, percent:", ""]
    lines += [f"| image | {' | '.join(order)} |", "|---" + "|--:" * len(order) + "|"]
    each = {n: each_image(found[n], found["JPEG"]) for n in order}
    lines += [
        f"| {image} | {' | '.join(_percent(each[n][image]) for n in order)} |"
        for image in each[model]
    ]
    return "\n".join(lines)


def each_image(of: Sequence[Row], to: Sequence[Row]) -> dict[str, float]:
    """Return the BD-rate by PSNR of each image's rows to those of another codec."""
    result = {}
    for image in dict.fromkeys(row.image for row in of):
        own, other = ([r for r in rows if r.image == image] for rows in (of, to))
        result[image] = saved(own, other, "psnr")
    return result


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}"
