"""Pictures for people: crops at equal size beside other codecs, and rate-distortion curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from train import evaluate
from train.rivals import RIVALS, Rival
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bits_per_pixel, psnr
from vaecodec.picture import Samples, strip
from vaecodec.targets import Target

OTHERS = ("JPEG", "WebP", "AVIF")


def at_most(rival: Rival, pixels: Samples, size: int) -> tuple[int, Samples]:
    """Return (bytes, pixels) of the highest quality that needs at most `size` bytes.

    Quality 0 is taken where even that needs more.
    """
    low, high, best = 0, 100, (b"", pixels)
    while low <= high:
        middle = (low + high) // 2
        found = rival(pixels, middle)
        if len(found[0]) <= size or middle == 0:
            best, low = found, middle + 1
        else:
            high = middle - 1
    return len(best[0]), best[1]


def strip_of(
    codec: Codec,
    file: Path,
    quality: float,
    box: tuple[int, int, int, int],
    zoom: int,
    beside: Codec | None = None,
) -> Image.Image:
    """Return a box (left, top, right, bottom) of an image, and of each codec's file of one size.

    beside: another model, for a panel of its own.
    """
    original = read(file)
    height, width, _ = original.pixels.shape
    data = codec.encode(strip(original), quality)
    panels = [("original", 0, original.pixels)]
    panels += [(n, *at_most(RIVALS[n], original.pixels, len(data))) for n in OTHERS]
    if beside:
        other = beside.encode(strip(original), target=Target("max-bytes", len(data)))
        panels.append((beside.bundle.name, len(other), beside.decode_picture(other).pixels))
    panels.append((codec.bundle.name, len(data), codec.decode_picture(data).pixels))
    left, top, right, bottom = box
    side, tall, line = (right - left) * zoom, (bottom - top) * zoom, 40
    sheet = Image.new("RGB", ((side + 8) * len(panels) - 8, tall + line), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, (name, size, pixels) in enumerate(panels):
        x = i * (side + 8)
        crop = Image.fromarray(np.broadcast_to(pixels, (height, width, 3))[top:bottom, left:right])
        sheet.paste(crop.resize((side, tall), Image.Resampling.NEAREST), (x, line))
        draw.text((x + 2, 2), name, "black", font)
        if size:
            figures = f"{bits_per_pixel(size, width, height):.3f} bpp"
            figures += f", {psnr(original.pixels, pixels):.2f} dB"
            draw.text((x + 2, 20), figures, "black", font)
    return sheet


def curves(
    models: Mapping[str, Path], reference: Path, codecs: Mapping[str, str], target: Path, title: str
) -> None:
    """Draw mean PSNR over mean rate of models and of codecs of a reference file.

    models: label -> TSV of an evaluation, the newest last. codecs: label -> name in the file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    for label, name in codecs.items():
        axes.plot(*evaluate.published(reference, name), label=label, linewidth=1)
    for number, (label, rows) in enumerate(models.items(), 1):
        mean = evaluate.means(evaluate.read_tsv(rows))
        points = [m["bpp"] for m in mean], [m["psnr"] for m in mean]
        style = "k.-" if number == len(models) else "k.:"
        axes.plot(*points, style, label=label, linewidth=2 if style == "k.-" else 1)
    axes.set(xlabel="bits per pixel", ylabel="PSNR, dB (RGB)", title=title)
    axes.set(xlim=(0, 2.0), ylim=(25, 42))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    # From the top of the figure to its bottom, as the eye goes.
    order = sorted(range(len(labels)), key=lambda i: -_height(handles[i]))
    axes.legend(
        [handles[i] for i in order], [labels[i] for i in order], fontsize=8, loc="lower right"
    )
    figure.savefig(target, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _height(line: Any) -> float:
    """Return the PSNR of a line at 0.7 bits per pixel, where all of them are."""
    return float(np.interp(0.7, line.get_xdata(), line.get_ydata()))
