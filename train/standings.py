"""How codecs stand on a set of images: a model's files beside those of Pillow's writers.

By three measures: PSNR, which the models are trained for; MS-SSIM and SSIMULACRA 2, which stand for
the eye.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, fields
from itertools import product
from pathlib import Path

import numpy as np

from train import curves
from train.curves import Curve, rising
from train.evaluate import QUALITIES, Row, means, measure, named, row_of, writer
from train.progress import Progress
from train.rivals import RIVALS, Write
from train.tsv import resumed
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bd_rate
from vaecodec.search import Search

Table = Mapping[str, Sequence[Row]]
"""Codec -> a row for each image and quality."""

MEASURES: Mapping[str, Callable[[float], float]] = {
    "psnr": float,
    # In dB: the last thousandths matter as much as the first hundredths.
    "ms_ssim": lambda similarity: -10 * math.log10(max(1 - similarity, 1e-10)),
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
    name, search = codec.bundle.name, Search(effort)
    writers: dict[str, tuple[Write, Sequence[float]]] = {
        **{n: (rival, rival.qualities) for n, rival in RIVALS.items()},
        name: (writer(codec, search), QUALITIES),
    }
    # In the file a model is more than its name, so that none is taken for another.
    at = "the default effort" if effort is None else f"effort {effort}"
    label = {name: f"{name} {codec.bundle.fingerprint.hex()} at {at}"}
    files = named(folders)
    wanted = [(n, i, float(q)) for n, (_, qs) in writers.items() for i, q in product(files, qs)]
    found: dict[str, list[Row]] = {n: [] for n in writers}
    with (
        Progress("measuring") as progress,
        resumed(tsv, ["codec", *(f.name for f in fields(Row))]) as (lines, add),
    ):
        known = {(cells[0], r.image, r.quality): r for cells in lines for r in [row_of(cells[1:])]}
        for number, (n, image, quality) in enumerate(wanted, 1):
            codec_name = label.get(n, n)
            row = known.get((codec_name, image, quality))
            if row is None:
                pixels = read(files[image]).pixels
                row = measure(writers[n][0], image, pixels, quality, perceptual=True)
                add([codec_name, *astuple(row)])
            found[n].append(row)
            progress.update(number / len(wanted), f"{n}, {image}")
    return found


def curve(rows: Sequence[Row], measure: str) -> Curve:
    """Return mean rates of rows and what the mean of a measure is on its scale."""
    mean = means(rows)
    values = [MEASURES[measure](m.get(measure, math.nan)) for m in mean]
    return rising([m["bpp"] for m in mean], values)


def saved(of: Sequence[Row], to: Sequence[Row], measure: str) -> float:
    """Return the BD-rate of one codec's rows to another's by a measure, in percent, or NaN."""
    return curves.saved(curve(of, measure), curve(to, measure))


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
    if not bpp:
        return [math.nan] * len(rates)
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
