"""What a codec does where people do not look: re-encoding again and again, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train.data import image_files
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import bits_per_pixel, psnr


def generations(
    codec: Codec, folders: Sequence[str | Path], quality: float, count: int
) -> list[tuple[float, float]]:
    """Return mean (bits per pixel, PSNR in dB against the original) after 1 .. `count` encodings.

    Each generation encodes the pixels that the one before it decoded to.
    """
    points = []
    files = image_files(folders)
    if not files:
        raise ValueError(f"no image in {', '.join(map(str, folders))}")
    for file in files:
        original = pixels = read(file).pixels
        height, width, _ = original.shape
        row = []
        for _ in range(count):
            data = codec.encode(pixels, quality)
            pixels = codec.decode_picture(data).pixels
            row.append((bits_per_pixel(len(data), width, height), psnr(original, pixels)))
        points.append(row)
    return [(float(bpp), float(db)) for bpp, db in np.mean(points, axis=0)]


def noise(
    codec: Codec, quality: float, height: int, width: int, seed: int = 0
) -> tuple[float, float]:
    """Return (bits per pixel, PSNR in dB) of uniform noise, uint8 (height, width, 3)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = codec.encode(pixels, quality)
    decoded = codec.decode_picture(data).pixels
    return bits_per_pixel(len(data), width, height), psnr(pixels, decoded)
