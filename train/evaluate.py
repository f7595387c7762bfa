"""Rate and distortion of a bundle on real files: through its graphs and the real bit stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np

from train.curves import Curve, decibels, saved
from train.data import image_files
from train.progress import Progress
from train.rivals import RIVALS, Write
from train.validation import jpeg
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bd_rate, bits_per_pixel, ms_ssim
from vaecodec.picture import Samples
from vaecodec.search import Search

JPEG = "measured_jpeg_pillow"
"""The codec of a reference file that BD-rates are stated against, where no other is named."""

QUALITIES = (0.0, 12.5, 25.0, 37.5, 50.0, 62.5, 75.0, 87.5, 100.0)


@dataclass(frozen=True)
class Row:
    """What one image costs and looks like at one quality."""

    image: str
    quality: float
    bytes: int
    bpp: float
    psnr: float
    """dB, over all samples."""
    ms_ssim: float
    ssimulacra2: float
    """NaN where it was not asked for."""


def ssimulacra2(original: Samples, decoded: Samples) -> float:
    """Return SSIMULACRA 2 of two images, uint8 (H, W, 1 or 3): 90 is hard to tell apart."""
    import tempfile

    from PIL import Image
    from ssimulacra2 import compute_ssimulacra2

    with tempfile.TemporaryDirectory() as folder:
        names = [f"{folder}/{n}.png" for n in ("original", "decoded")]
        for name, samples in zip(names, (original, decoded), strict=True):
            colours = np.broadcast_to(samples, (*samples.shape[:2], 3))
            Image.fromarray(np.ascontiguousarray(colours)).save(name, compress_level=0)
        return float(compute_ssimulacra2(*names))


def writer(codec: Codec, search: Search | None = None) -> Write:
    """Return what writes and reads back a codec's files; search: None for the model's default."""

    def write(pixels: Samples, quality: float) -> tuple[bytes, Samples]:
        data = codec.encode(pixels, quality, search=search)
        return data, codec.decode_picture(data).pixels

    return write


def measure(write: Write, name: str, pixels: Samples, quality: float, perceptual: bool) -> Row:
    """Write and read back one image, uint8 (H, W, 1 or 3), and compare."""
    data, decoded = write(pixels, quality)
    height, width, _ = pixels.shape
    return Row(
        name,
        quality,
        len(data),
        bits_per_pixel(len(data), width, height),
        decibels(pixels, decoded),
        ms_ssim(pixels, decoded),
        ssimulacra2(pixels, decoded) if perceptual else float("nan"),
    )


def table(
    codec: Codec,
    folders: Sequence[str | Path],
    qualities: Iterable[float] = QUALITIES,
    perceptual: bool = False,
    search: Search | None = None,
) -> list[Row]:
    """Measure every image of folders at every quality; search: None for the model's default."""
    files, wanted, write = named(folders), list(qualities), writer(codec, search)
    rows = []
    with Progress("evaluating") as progress:
        for number, (name, file) in enumerate(files.items(), 1):
            pixels = read(file).pixels
            rows += [measure(write, name, pixels, q, perceptual) for q in wanted]
            progress.update(number / len(files), f"{number} of {len(files)} images")
    return rows


def named(folders: Sequence[str | Path]) -> dict[str, Path]:
    """Return the image files of folders by the names that rows carry."""
    files = image_files(folders)
    found = {p.stem: p for p in files}
    if not files or len(found) < len(files):
        where = ", ".join(map(str, folders))
        raise ValueError(f"{len(files)} images in {where} with {len(found)} names; each needs one")
    return found


def means(rows: Sequence[Row]) -> list[dict[str, float]]:
    """Return the mean over the images at each quality, ascending."""
    result = []
    for quality in sorted({r.quality for r in rows}):
        chosen = [r for r in rows if r.quality == quality]
        keys = ("bpp", "psnr", "ms_ssim", "ssimulacra2")
        row = {k: float(np.mean([getattr(r, k) for r in chosen])) for k in keys}
        result.append({"quality": quality} | {k: v for k, v in row.items() if not np.isnan(v)})
    return result


def against(rows: Sequence[Row], reference: Path, codec: str) -> float:
    """Return the BD-rate (percent) of mean rate and PSNR against a codec of a reference file.

    The file holds {"codecs": {NAME: {"bpp": [...], "psnr": [...]}}}, means over the same images.
    """
    mean = means(rows)
    return against_points([m["bpp"] for m in mean], [m["psnr"] for m in mean], reference, codec)


def against_points(bpp: Sequence[float], db: Sequence[float], reference: Path, codec: str) -> float:
    """Return the BD-rate (percent) of points against a codec of a reference file (`against`)."""
    return float(bd_rate(*published(reference, codec), bpp, db))


def published(reference: Path, codec: str) -> Curve:
    """Return the rates and the PSNRs of a codec of a reference file; ValueError if it has none."""
    codecs = json.loads(reference.read_text("utf-8"))["codecs"]
    if codec not in codecs:
        raise ValueError(f"{reference} has no codec {codec}; it has {', '.join(codecs)}")
    return codecs[codec]["bpp"], codecs[codec]["psnr"]


def against_jpeg(rows: Sequence[Row], folders: Sequence[str | Path]) -> dict[str, float]:
    """Return each image's BD-rate (percent) against Pillow's JPEG (optimize) of the same image.

    NaN where no JPEG has any of its PSNRs.
    """
    result = {}
    for name, file in named(folders).items():
        image = read(file).pixels
        bpp, quality = zip(*(jpeg(image, q) for q in RIVALS["JPEG"].qualities), strict=True)
        own = [r for r in rows if r.image == name]
        points = [r.bpp for r in own], [r.psnr for r in own]
        result[name] = saved(points, (list(bpp), list(quality)))
    return result


def choose_quality(codec: Codec, folders: Sequence[str | Path], target: float) -> tuple[int, float]:
    """Return (the lowest whole quality whose mean SSIMULACRA 2 is at least `target`, that mean).

    Raises ValueError where no quality reaches it.
    """

    def mean_at(quality: int) -> float:
        return means(table(codec, folders, [quality], perceptual=True))[0]["ssimulacra2"]

    low, high, best = 0, 100, mean_at(100)
    if best < target:
        raise ValueError(f"the mean SSIMULACRA 2 is {best:.2f} at quality 100; {target} is asked")
    while low < high:
        middle = (low + high) // 2
        found = mean_at(middle)
        if found >= target:
            high, best = middle, found
        else:
            low = middle + 1
    return low, best


def read_tsv(path: Path) -> list[Row]:
    """Return the rows that `write_tsv` wrote; ValueError where it did not."""
    head, *lines = path.read_text("utf-8").splitlines() or [""]
    if head.split("\t") != [f.name for f in fields(Row)]:
        raise ValueError(f"{path} is no table of `evaluate --tsv`: it begins {head!r:.60}")
    return [row_of(line.split("\t")) for line in lines]


def row_of(cells: Sequence[str]) -> Row:
    """Return the row of a table's cells."""
    image, quality, size, *rest = cells
    return Row(image, float(quality), int(size), *map(float, rest))


def write_tsv(rows: Sequence[Row], path: Path) -> None:
    """Write rows as tab-separated values with a line of names."""
    lines = [[f.name for f in fields(Row)]]
    lines += [[f"{v:.5g}" if isinstance(v, float) else str(v) for v in astuple(r)] for r in rows]
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
