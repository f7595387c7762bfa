"""What a model gains over another on some images, beside the formats that people have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.curves import decibels, saved
from train.evaluate import QUALITIES, writer
from train.progress import Progress
from train.rivals import PNG, RIVALS, Write
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bits_per_pixel
from vaecodec.picture import Samples
from vaecodec.search import Search

PIXELS = 16_000_000
"""Of all images together; of larger ones the middles are measured."""

LONGEST = 16_383
"""Side of an image of which the middle is measured: WebP has no longer ones."""


@dataclass(frozen=True)
class Curve:
    """Means over images: bits per pixel and PSNR (dB) at each quality."""

    bpp: list[float]
    psnr: list[float]

    def against(self, other: Curve) -> float:
        """Return the BD-rate to another curve in percent; NaN where they share no PSNR."""
        return saved((self.bpp, self.psnr), (other.bpp, other.psnr))


@dataclass(frozen=True)
class Standing:
    """A model and the formats of RIVALS on some images.

    names, images: of each, uint8 (H, W, 1 or 3). png: bits per pixel of PNG, lossless.
    """

    names: list[str]
    images: list[Samples]
    model: Curve
    rivals: Mapping[str, Curve]
    png: float


@dataclass(frozen=True)
class Comparison:
    """Two models and the formats of RIVALS on the same images.

    png: bits per pixel of PNG, lossless. pixels: of an image, the mean.
    """

    images: list[str]
    pixels: float
    before: Curve
    after: Curve
    rivals: Mapping[str, Curve]
    png: float

    @property
    def gain(self) -> float:
        """The BD-rate of the second model to the first, in percent; NaN where there is none."""
        return self.after.against(self.before)

    def pays_after(self, size: int, quality: float) -> int | None:
        """Return how many images at a quality save the `size` bytes of a bundle; None: never."""
        bits = float(np.interp(quality, QUALITIES, self.before.bpp)) * self.pixels
        fewer = -self.gain / 100 * bits / 8
        return math.ceil(size / fewer) if fewer > 0 else None


def middle(pixels: Samples, most: float) -> Samples:
    """Return the middle of an image, (H, W, C), of at most so many pixels.

    It has the shape of the image, as far as no side is longer than LONGEST.
    """
    height, width, _ = pixels.shape
    factor = min(1.0, (most / (height * width)) ** 0.5)
    rows, columns = (min(max(1, int(side * factor)), LONGEST) for side in (height, width))
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def measured(model: Codec, files: Sequence[Path]) -> Standing:
    """Return what a model and the formats of RIVALS make of image files, all by real files.

    Models are measured at effort 0, without the search that they may have by default.
    """
    # What a file system took for a name need not be text.
    names = [path.stem.encode("utf-8", "replace").decode() for path in files]
    pixels = [middle(read(path).pixels, PIXELS / len(files)) for path in files]
    writers: dict[str, tuple[Write, Sequence[float]]] = {
        "": (writer(model, Search(0)), QUALITIES),
        **{name: (rival, rival.qualities) for name, rival in RIVALS.items()},
    }
    curves = {}
    with Progress("measuring") as progress:
        for number, (name, (write, qualities)) in enumerate(writers.items()):
            curves[name] = _curve(write, pixels, qualities)
            progress.update((number + 1) / len(writers), name)
    png = float(np.mean([_rate(PNG(image, 0)[0], image) for image in pixels]))
    return Standing(names, pixels, curves.pop(""), curves, png)


def compare(standing: Standing, after: Codec) -> Comparison:
    """Return what another model makes of the same images, beside what was measured before."""
    return Comparison(
        standing.names,
        float(np.mean([image.shape[0] * image.shape[1] for image in standing.images])),
        standing.model,
        _curve(writer(after, Search(0)), standing.images, QUALITIES),
        standing.rivals,
        standing.png,
    )


def _curve(write: Write, images: Sequence[Samples], qualities: Sequence[float]) -> Curve:
    points = [np.mean([_point(write, image, q) for image in images], 0) for q in qualities]
    bpp, db = np.array(points).T.tolist()
    return Curve(bpp, db)


def _rate(data: bytes, pixels: Samples) -> float:
    return bits_per_pixel(len(data), pixels.shape[1], pixels.shape[0])


def _point(write: Write, pixels: Samples, quality: float) -> tuple[float, float]:
    data, decoded = write(pixels, quality)
    return _rate(data, pixels), decibels(pixels, decoded)


def report(found: Comparison, names: tuple[str, str], size: int, quality: float) -> str:
    """Return a comparison as Markdown.

    names: of the two models. size: of the second's bundle in bytes. quality: its default one.
    """
    before, after = names
    lines = [
        f"{len(found.images)} images that were not trained on: {', '.join(found.images)}",
        "",
        f"| quality | {before}: bpp | dB | {after}: bpp | dB |",
        "|--:|--:|--:|--:|--:|",
    ]
    points = zip(QUALITIES, *vars(found.before).values(), *vars(found.after).values(), strict=True)
    lines += [f"| {q:g} | {a:.3f} | {b:.2f} | {c:.3f} | {d:.2f} |" for q, a, b, c, d in points]
    lines += [
        "",
        f"| bits at equal PSNR | {before} | {after} |",
        "|---|--:|--:|",
        f"| against {before} | | {_percent(found.after.against(found.before))} |",
    ]
    for name, curve in found.rivals.items():
        pair = [_percent(c.against(curve)) for c in (found.before, found.after)]
        lines.append(f"| against {name} | {' | '.join(pair)} |")
    count = found.pays_after(size, quality)
    lines += [
        "",
        f"PNG, lossless: {found.png:.3f} bpp. The bundle has {size / 1e6:.2f} MB; at quality "
        f"{quality:g} it has paid for itself "
        + (f"after {count} images of this size." if count else "never."),
    ]
    return "\n".join(lines)


def _percent(value: float) -> str:
    return "no PSNR in common" if math.isnan(value) else f"{value:+.1f} %"
