"""Picture: one upright 8-bit image with its alpha and metadata, as everything here takes it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vaecodec.container import MAX_PIXELS, MAX_SIDE
from vaecodec.errors import ImageError

__all__ = ["Picture", "Samples", "check_size", "from_array", "strip"]

Samples = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Picture:
    """One image, upright, and what belongs to it.

    pixels: uint8 (H, W, 1) grey or (H, W, 3) RGB. alpha: uint8 (H, W), 255 opaque, not
    premultiplied, or None. icc: the profile of the pixels; without one they are sRGB. exif: a TIFF
    block without "Exif" before it. xmp: UTF-8 XML.

    Raises ValueError where dtypes or shapes are others, ImageError where the size is not
    acceptable (`check_size`).
    """

    pixels: Samples
    alpha: Samples | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def __post_init__(self) -> None:
        pixels, alpha = self.pixels, self.alpha
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise ValueError(
                f"expected uint8 pixels (H, W, 1 or 3), got {pixels.dtype} {pixels.shape}"
            )
        if alpha is not None and (alpha.dtype != np.uint8 or alpha.shape != pixels.shape[:2]):
            raise ValueError(
                f"expected uint8 alpha {pixels.shape[:2]}, got {alpha.dtype} {alpha.shape}"
            )
        check_size(pixels.shape[1], pixels.shape[0])


def check_size(width: int, height: int, number: int = 1) -> None:
    """Raise ImageError unless `number` images of a size are acceptable.

    Each side has 1 to 65535 pixels, all images have at most 400 million, and there is one at least.
    """
    if number < 1:
        raise ImageError("there is no image")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ImageError(f"{width}x{height} pixels; each side has to be 1 to {MAX_SIDE}")
    if number * width * height > MAX_PIXELS:
        what = "" if number == 1 else f"{number} images of "
        limit = MAX_PIXELS // 10**6
        raise ImageError(f"{what}{width}x{height} pixels; the limit is {limit} million")


def from_array(samples: Samples) -> Picture:
    """Picture of uint8 (H, W) or (H, W, C): C is 1 grey, 2 grey + alpha, 3 RGB, 4 RGB + alpha.

    Raises:
        ValueError: another dtype or shape.
        ImageError: the size is not acceptable.
    """
    planes = samples[:, :, np.newaxis] if samples.ndim == 2 else samples
    if samples.dtype != np.uint8 or planes.ndim != 3 or planes.shape[2] not in (1, 2, 3, 4):
        raise ValueError(
            "expected uint8 samples of shape (H, W) or (H, W, 1 to 4), "
            f"got {samples.dtype} {samples.shape}"
        )
    colours = 1 if planes.shape[2] < 3 else 3
    alpha = planes[:, :, colours] if planes.shape[2] > colours else None
    return Picture(
        np.ascontiguousarray(planes[:, :, :colours]),
        None if alpha is None else np.ascontiguousarray(alpha),
    )


def strip(picture: Picture) -> Picture:
    """The picture without ICC profile, EXIF and XMP; its samples then count as sRGB."""
    return replace(picture, icc=None, exif=None, xmp=None)
