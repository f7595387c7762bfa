"""How long it takes the user: encoding and decoding as whole processes, from start to finish."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np

from vaecodec import images
from vaecodec.bench import SAMPLES, Bench, Row
from vaecodec.errors import VaecodecError
from vaecodec.picture import Picture

__all__ = ["HEIGHT", "WIDTH", "Speed", "measure"]

WIDTH, HEIGHT = 768, 512
"""Of the image that is measured where none is given, as those of the Kodak set are."""


@dataclass(frozen=True)
class Speed:
    """Seconds, medians: `row` in a running process, the others as processes of their own."""

    row: Row
    encode: float
    decode: float
    help: float


def measure(bench: Bench, image: Path | None, quality: float | None) -> Speed:
    """Measure an image file at a quality, by default the sample and the default of the model.

    Raises:
        VaecodecError: a command fails.
    """
    bundle = bench.codec.bundle
    step = bundle.default_quality if quality is None else quality
    common = ["--model", str(bundle.path), "--provider", bench.codec.provider, "--quiet", "--force"]
    if bench.threads is not None:
        common += ["--threads", str(bench.threads)]
    with _folder() as folder:
        source, file, back = image or folder / "sample.png", folder / "a.vz", folder / "back.png"
        if image is None:
            _write_sample(source)
        row = bench.measure(source, step)
        encode = ["encode", str(source), "-o", str(file), "-q", str(step), *common]
        decode = ["decode", str(file), "-o", str(back), *common]
        return Speed(row, *(_median(c, bench.runs) for c in (encode, decode, ["--help"])))


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="vaecodec-") as folder:
        yield Path(folder)


def _write_sample(path: Path) -> None:
    """Write 768x512 pixels of two of the photographs that come with the package, side by side."""
    left, right = (images.read(SAMPLES / name).pixels for name in ("city.webp", "dog.webp"))
    both = np.concatenate([left, right], axis=1)
    top, start = (both.shape[0] - HEIGHT) // 2, (both.shape[1] - WIDTH) // 2
    pixels = np.ascontiguousarray(both[top : top + HEIGHT, start : start + WIDTH])
    with path.open("wb") as stream:
        images.write(Picture(pixels), stream, "png")


def _median(arguments: list[str], runs: int) -> float:
    """Return the median seconds of a command, after a run that is not timed."""
    times = [_seconds(arguments) for _ in range(runs + 1)]
    return statistics.median(times[1:])


def _seconds(arguments: list[str]) -> float:
    start = perf_counter()
    command = [sys.executable, "-m", "vaecodec", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = perf_counter() - start
    if done.returncode:
        raise VaecodecError(f"vaecodec {' '.join(arguments)} failed: {done.stderr.strip()}")
    return seconds
