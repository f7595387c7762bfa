"""What common formats make of a data set: a file for each image, and one gzip file of them all."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaecodec.datasets import write_idx
from vaecodec.metrics import mean_squared_error

__all__ = ["RIVALS", "Rival", "rivals"]

RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {"optimize": True}),
    "JPEG 50": ("JPEG", {"quality": 50, "optimize": True}),
    "JPEG 75": ("JPEG", {"quality": 75, "optimize": True}),
    "WebP 75": ("WEBP", {"quality": 75, "method": 6}),
    "WebP lossless": ("WEBP", {"lossless": True}),  # method 6 takes ten times as long for 1 %
}
"""Name -> format and settings of Pillow."""


@dataclass(frozen=True)
class Rival:
    """A format. bytes: of an image, the mean. mse: mean squared error over all samples."""

    name: str
    bytes: float
    mse: float


def rivals(images: NDArray[np.uint8]) -> list[Rival]:
    """Return what each of RIVALS, and idx.gz, makes of images, uint8 (N, H, W, 1 or 3)."""
    packed = len(gzip.compress(write_idx(images), mtime=0))
    return [*(_rival(name, images) for name in RIVALS), Rival("idx.gz", packed / len(images), 0.0)]


def _rival(name: str, images: NDArray[np.uint8]) -> Rival:
    format, settings = RIVALS[name]
    size, decoded = 0, np.empty_like(images)
    for i, pixels in enumerate(images):
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        encoded = io.BytesIO()
        image.save(encoded, format, **settings)
        size += encoded.tell()
        decoded[i] = np.asarray(Image.open(encoded).convert(image.mode)).reshape(pixels.shape)
    return Rival(name, size / len(images), mean_squared_error(images, decoded))
