"""What Pillow's writers make of images: the formats that models are measured beside."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from vaecodec.picture import Samples

Write = Callable[[Samples, float], tuple[bytes, Samples]]
"""An image, uint8 (H, W, 1 or 3), and a quality -> its file, and what that decodes to."""


@dataclass(frozen=True)
class Rival:
    """A format of Pillow with its settings, and qualities that make a curve; it is a `Write`."""

    format: str
    settings: Mapping[str, Any]
    qualities: tuple[int, ...] = ()

    def __call__(self, pixels: Samples, quality: float) -> tuple[bytes, Samples]:
        """Return the file of an image, uint8 (H, W, 1 or 3), and what it decodes to."""
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        buffer = io.BytesIO()
        image.save(buffer, self.format, quality=int(quality), **self.settings)
        decoded = Image.open(io.BytesIO(buffer.getvalue())).convert(image.mode)
        return buffer.getvalue(), np.asarray(decoded).reshape(pixels.shape)


_AVIF = (5, 15, 30, 45, 55, 65, 75, 85, 92, 97)

RIVALS: Mapping[str, Rival] = {
    "JPEG": Rival("JPEG", {"optimize": True}, (5, 10, 20, 30, 45, 60, 75, 85, 92, 96)),
    "WebP": Rival("WEBP", {"method": 6}, (0, 10, 25, 40, 55, 70, 80, 90, 96)),
    "AVIF": Rival("AVIF", {"subsampling": "4:4:4"}, _AVIF),
    "AVIF tuned for PSNR": Rival(
        "AVIF", {"subsampling": "4:4:4", "advanced": {"tune": "psnr"}}, _AVIF
    ),
}
"""By name. AVIF's own tuning is for the eye, so both are measured."""

PNG = Rival("PNG", {"optimize": True})
"""Lossless: of any quality."""
