"""Arrays of images as pictures of rows and columns, and small PNG files. NumPy and Pillow only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

WHITE = 255


def grid(images: Pixels, columns: int, gap: int = 0) -> Pixels:
    """Return images side by side, in reading order, as one picture.

    images: uint8 (N, H, W, C), N at least 1. columns: images in a row; the last row is filled up
    with white. gap: white pixels between images, none around them. Returns uint8
    (rows * (H + gap) - gap, columns * (W + gap) - gap, C).
    """
    count, height, width, colours = images.shape
    rows = -(-count // columns)
    cells = np.full((rows * columns, height + gap, width + gap, colours), WHITE, np.uint8)
    cells[:count, :height, :width] = images
    cells = cells.reshape(rows, columns, *cells.shape[1:]).swapaxes(1, 2)
    picture = cells.reshape(rows * (height + gap), columns * (width + gap), colours)
    return np.ascontiguousarray(picture[: len(picture) - gap, : picture.shape[1] - gap])


def spread(images: Pixels, count: int) -> Pixels:
    """Return `count` images, or all, that lie at equal distances: many sets are sorted by class."""
    count = min(count, len(images))
    chosen: Pixels = images[np.arange(count) * len(images) // count]
    return chosen


def save(picture: Pixels, path: Path) -> None:
    """Write a picture, uint8 (H, W, 1 or 3), as a PNG file."""
    Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture).save(path, optimize=True)


def shrink(path: Path, colours: int) -> int:
    """Rewrite a PNG file with a palette of at most `colours`; return its bytes."""
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    return path.stat().st_size
