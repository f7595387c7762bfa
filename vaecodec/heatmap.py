"""Heat maps: bits at positions, drawn over the picture that they belong to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vaecodec.container import POSITION
from vaecodec.picture import Picture

__all__ = ["draw"]

_SMALLEST, _LARGEST = 320, 4096  # pixels: a smaller picture is enlarged by a whole number
_RELIEF = 0.3  # of the grey picture's contrast, which the colours take on
_CLEAR = 99.5  # percentile of the numbers that has the last colour: a few may lie above it

_LAB_TO_CONES = np.array(
    [
        [1, 1, 1],
        [0.3963377774, -0.1055613458, -0.0894841775],
        [0.2158037573, -0.0638541728, -1.2914855480],
    ]
)
_CONES_TO_RGB = np.array(
    [
        [4.0767416621, -1.2684380046, -0.0041960863],
        [-3.3077115913, 2.6097574011, -0.7034186147],
        [0.2309699292, -0.3413193965, 1.7076147010],
    ]
)

Colours = NDArray[np.uint8]


def draw(picture: Picture, bits: NDArray[np.float64], caption: str) -> Picture:
    """Return an RGB picture of the bits of each 16x16 pixels over a picture (H, W).

    bits: float64 (ceil(H/16), ceil(W/16)). Colours stand for bits per pixel; beside the picture is
    a bar that says which for how many, and below it `caption`.
    """
    height, width = picture.pixels.shape[:2]
    sides = ((side - np.arange(0, side, POSITION)).clip(max=POSITION) for side in (height, width))
    values = bits / np.outer(*sides)
    top = _top(float(np.percentile(values, _CLEAR)))
    cells = _colours()[(255 * (values / top).clip(0, 1)).round().astype(np.uint8)]
    scale = max(1, min(-(-_SMALLEST // min(height, width)), _LARGEST // max(height, width)))
    rows = (
        _row(picture.pixels[POSITION * k : POSITION * (k + 1)], row, scale)
        for k, row in enumerate(cells)
    )
    image = Image.fromarray(np.concatenate(list(rows)))
    return Picture(np.asarray(_framed(image, top, float(values.max()) > top, caption)))


def _row(pixels: NDArray[np.uint8], colours: Colours, scale: int) -> NDArray[np.uint8]:
    """Return a row of positions, uint8 (16 * scale, W * scale, 3), from its pixels and colours."""
    grey = pixels.mean(2, keepdims=True, dtype=np.float32)
    over = colours.repeat(POSITION, 0)[: grey.shape[1]]
    mixed = (over + _RELIEF * (grey - 128)).clip(0, 255).round().astype(np.uint8)
    row: NDArray[np.uint8] = mixed.repeat(scale, 0).repeat(scale, 1)
    return row


def _framed(image: Image.Image, top: float, beyond: bool, caption: str) -> Image.Image:
    """Return an image with a bar from 0 to `top` beside it and a caption below."""
    size = max(12, min(image.size) // 28)  # of the text
    font = ImageFont.load_default(size)
    pad, bar, high = size, 2 * size, max(image.height, 12 * size)
    width, height = image.width + 8 * size, high + 4 * size
    framed = Image.new("RGB", (width, height), "white")
    framed.paste(image, (pad, pad))
    left = image.width + 2 * pad
    ramp = _colours()[::-1, None].repeat(bar, 1)
    framed.paste(Image.fromarray(ramp).resize((bar, high)), (left, pad))
    write = ImageDraw.Draw(framed)
    for value in _ticks(top):
        y = pad + round((1 - value / top) * (high - 1))
        write.line((left + bar, y, left + bar + size // 2, y), "black", max(1, size // 12))
        text = f"{value:g}" + ("+" if beyond and value == top else "")
        write.text((left + bar + size * 3 // 4, y), text, "black", font, "lm")
    write.text((pad, high + pad + size // 2), caption, "black", font, "la")
    return framed


def _top(value: float) -> float:
    """Return the round number that is next above a value."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** np.floor(np.log10(value))
    return float(next(n * unit for n in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if n * unit >= value))


def _ticks(top: float) -> list[float]:
    """Return the values that are written beside the bar: 0 to `top` in equal steps."""
    leading = round(top / 10.0 ** np.floor(np.log10(top) + 1e-9), 6)
    parts = {1: 4, 1.5: 3, 2: 4, 3: 3, 4: 4, 5: 5, 6: 6, 8: 4}[leading]
    return [round(top * k / parts, 9) for k in range(parts + 1)]


def _colours() -> Colours:
    """Return 256 RGB colours, uint8 (256, 3), from a dark violet over red to a light yellow.

    Steps look alike: lightness is linear, and the hue goes one way round, in Oklab
    (https://bottosson.github.io/posts/oklab/, where the two matrices are from).
    """
    t = np.linspace(0, 1, 256)
    lightness, hue = 0.2 + 0.75 * t, np.radians(290 + 175 * t)
    chroma = 0.07 + 0.1 * np.sin(np.pi * t) ** 0.8
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], 1)
    linear = ((lab @ _LAB_TO_CONES) ** 3 @ _CONES_TO_RGB).clip(0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: Colours = (255 * srgb).round().astype(np.uint8)
    return colours
