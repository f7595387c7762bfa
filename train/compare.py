"""What a model gains over another on some images, beside the formats that people have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from train.evaluate import QUALITIES, writer
from train.progress import Progress
from train.rivals import PNG, RIVALS, Write
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bd_rate, bits_per_pixel, psnr
from vaecodec.picture import Samples
from vaecodec.search import Search

PIXELS = 16_000_000
"""Of all images together; of larger ones the middles are measured."""


@dataclass(frozen=True)
class Curve:
    """Means over images: bits per pixel and PSNR (dB) at each quality."""

    bpp: list[float]
    psnr: list[float]

    def against(self, other: Curve) -> float | None:
        """Return the BD-rate to another curve in percent; None where they share no PSNR."""
        try:
            return bd_rate(other.bpp, other.psnr, self.bpp, self.psnr)
        except ValueError:
            return None


@dataclass(frozen=True)
class Comparison:
    """Two models and the formats of RIVALS on the same images.

    png: bits per pixel of PNG, lossless. pixels: of an image, the mean.
    """

    images: list[str]
    pixels: float
    before: Curve
    after: Curve
    rivals: dict[str, Curve]
    png: float

    @property
    def gain(self) -> float:
        """The BD-rate of the second model to the first, in percent; NaN where there is none."""
        found = self.after.against(self.before)
        return float("nan") if found is None else found

    def pays_after(self, size: int, quality: float) -> int | None:
        """Return how many images at a quality save the `size` bytes of a bundle; None: never."""
        bits = float(np.interp(quality, QUALITIES, self.before.bpp)) * self.pixels
        saved = -self.gain / 100 * bits / 8
        return math.ceil(size / saved) if saved > 0 else None


def middle(pixels: Samples, most: float) -> Samples:
    """Return the middle of an image, (H, W, C), of at most so many pixels and of its shape."""
    height, width, _ = pixels.shape
    factor = min(1.0, (most / (height * width)) ** 0.5)
    rows, columns = max(1, int(height * factor)), max(1, int(width * factor))
    top, left = (height - rows) // 2, (width - columns) // 2
    return np.ascontiguousarray(pixels[top : top + rows, left : left + columns])


def compare(before: Codec, after: Codec, files: Sequence[Path]) -> Comparison:
    """Return what two models and the formats of RIVALS make of image files, all by real files.

    The models are measured at effort 0, without the search that either may have by default.
    """
    images = [middle(read(path).pixels, PIXELS / len(files)) for path in files]
    writers: dict[str, tuple[Write, Sequence[float]]] = {
        "before": (writer(before, Search(0)), QUALITIES),
        "after": (writer(after, Search(0)), QUALITIES),
        **{name: (rival, rival.qualities) for name, rival in RIVALS.items()},
    }
    curves = {}
    with Progress("measuring") as progress:
        for number, (name, (write, qualities)) in enumerate(writers.items()):
            points = []
            for i, quality in enumerate(qualities):
                points.append(np.mean([_point(write, image, quality) for image in images], 0))
                progress.update((number + (i + 1) / len(qualities)) / len(writers), name)
            curves[name] = Curve(*np.array(points).T.tolist())
    return Comparison(
        [path.stem for path in files],
        float(np.mean([image.shape[0] * image.shape[1] for image in images])),
        curves.pop("before"),
        curves.pop("after"),
        curves,
        float(np.mean([_rate(PNG(image, 0)[0], image) for image in images])),
    )


def _rate(data: bytes, pixels: Samples) -> float:
    return bits_per_pixel(len(data), pixels.shape[1], pixels.shape[0])


def _point(write: Write, pixels: Samples, quality: float) -> tuple[float, float]:
    data, decoded = write(pixels, quality)
    # An image that comes back as it was has no PSNR; 100 dB stand for it in a mean.
    return _rate(data, pixels), min(psnr(pixels, decoded), 100.0)


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


def _percent(value: float | None) -> str:
    return "no PSNR in common" if value is None else f"{value:+.1f} %"
