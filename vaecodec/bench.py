"""What a model does to images, and how long each stage takes: verified first, then measured."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from vaecodec import images
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.errors import ImageError, VaecodecError
from vaecodec.formats import SUFFIXES
from vaecodec.metrics import bits_per_pixel, ms_ssim, psnr
from vaecodec.picture import Picture
from vaecodec.stages import Stopwatch

__all__ = ["QUALITIES", "SAMPLES", "Bench", "Row", "photographs"]

SAMPLES = Path(__file__).parent / "samples"
"""Photographs that come with the package."""

QUALITIES = (20.0, 50.0, 80.0)
"""Measured beside the default quality of a model."""

Seconds = dict[str, float]
"""Stage (`vaecodec.stages`, "rest", "total", and what files take) -> seconds."""


def photographs(places: Sequence[Path]) -> list[Path]:
    """Return the images in `places`, files and directories of files; without any, the samples.

    Raises:
        ImageError: a directory has no file with a suffix that `vaecodec.formats` knows.
    """
    found: list[Path] = []
    for place in places or [SAMPLES]:
        inside = [place]
        if place.is_dir():
            inside = sorted(file for file in place.iterdir() if file.suffix.lower() in SUFFIXES)
        if not inside:
            raise ImageError(f"{place} has no image: no file in it ends in {', '.join(SUFFIXES)}")
        found += inside
    return found


@dataclass(frozen=True)
class Row:
    """What was measured on one image at one quality.

    quality: 0..100. bytes: of the file. bpp: bits per pixel. psnr: dB. ms_ssim: NaN for an image
    too small for it. encode: seconds per stage from array to bytes, "total", and "read", which is
    the time to read the image file and not part of the total. decode: likewise back, and "write"
    to a PNG in memory. All seconds are medians of the runs.
    """

    image: str
    width: int
    height: int
    quality: float
    bytes: int
    bpp: float
    psnr: float
    ms_ssim: float
    encode: Seconds
    decode: Seconds

    @property
    def pixels(self) -> int:
        """Pixels of the image."""
        return self.width * self.height


class Bench:
    """A codec under a stopwatch.

    model, provider, threads: as `Codec` takes them. runs: how often each thing is timed, after a
    run that is not.
    """

    def __init__(
        self, model: str | Path | Bundle, provider: str, threads: int | None, runs: int
    ) -> None:
        self._watch = Stopwatch()
        self.codec = Codec(model, provider, threads, watch=self._watch)
        self.threads, self.runs = threads, runs

    def qualities(self) -> list[float]:
        """Return the default quality of the model and a few more, ascending."""
        return sorted({self.codec.bundle.default_quality, *QUALITIES})

    def measure(self, path: Path, quality: float) -> Row:
        """Measure an image file.

        Raises:
            VaecodecError: the image does not come back as it should, or cannot be read.
        """
        picture = images.read(path)
        data = self.codec.encode(picture, quality)
        decoded = self.codec.decode_picture(data)
        check_round_trip(path, picture, decoded)
        height, width = picture.pixels.shape[:2]
        return Row(
            path.name,
            width,
            height,
            quality,
            len(data),
            bits_per_pixel(len(data), width, height),
            psnr(picture.pixels, decoded.pixels),
            ms_ssim(picture.pixels, decoded.pixels),
            self.timed(lambda: self.codec.encode(picture, quality))
            | {"read": self.timed(lambda: images.read(path))["total"]},
            self.timed(lambda: self.codec.decode_picture(data))
            | {"write": self.timed(lambda: images.write(decoded, io.BytesIO(), "png"))["total"]},
        )

    def timed(self, work: Callable[[], object]) -> Seconds:
        """Return the median seconds of each stage of `work`, of the "rest" and in "total"."""
        runs = [self._run(work) for _ in range(self.runs)]
        return {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}

    def _run(self, work: Callable[[], object]) -> Seconds:
        self._watch.reset()
        start = perf_counter()
        work()
        total = perf_counter() - start
        stages = self._watch.reset()
        return {**stages, "rest": total - sum(stages.values()), "total": total}


def check_round_trip(path: Path, before: Picture, after: Picture) -> None:
    """Raise VaecodecError unless all came back that comes back exactly.

    The symbols need no check here: decoding compares them with their checksum.
    """
    if after.pixels.shape != before.pixels.shape:
        raise VaecodecError(f"{path}: {before.pixels.shape} came back as {after.pixels.shape}")
    alphas = [picture.alpha is not None for picture in (before, after)]
    if alphas[0] != alphas[1] or (alphas[0] and not _equal(before, after)):
        raise VaecodecError(f"{path}: the alpha channel did not come back as it was")
    for kind in ("icc", "exif", "xmp"):
        if getattr(before, kind) != getattr(after, kind):
            raise VaecodecError(f"{path}: {kind.upper()} did not come back as it was")


def _equal(before: Picture, after: Picture) -> bool:
    return np.array_equal(np.asarray(before.alpha), np.asarray(after.alpha))
