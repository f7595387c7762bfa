"""Pillow modes -> 8-bit samples of grey or RGB, with or without alpha.

What each Pillow mode becomes:

    1, L, LA, La            grey, and alpha
    I;16, I                 grey: 0..65535 becomes round(v / 257); other values are refused
    RGB, RGBX, RGBA, RGBa   RGB, and alpha; of 16 bits per colour Pillow keeps the upper 8
    P, PA                   grey where every sample is grey and no RGB profile is there, else RGB;
                            and alpha
    YCbCr, HSV, LAB         RGB
    CMYK                    sRGB through its ICC profile, relative colorimetric with black point
                            compensation; by Pillow's plain formula where no profile works
    F                       refused: floating-point samples have no agreed white

A transparent colour (PNG tRNS, GIF) becomes alpha, and an alpha channel that is all opaque is kept.
RGB stays RGB even where every sample is grey.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vaecodec.errors import ImageError
from vaecodec.picture import Samples

__all__ = ["profile_space", "samples_of", "to_srgb"]

DIRECT_MODES = {
    **dict.fromkeys(("1", "L"), "L"),
    **dict.fromkeys(("LA", "La"), "LA"),
    **dict.fromkeys(("RGB", "RGBX", "YCbCr", "HSV", "LAB"), "RGB"),
    **dict.fromkeys(("RGBA", "RGBa"), "RGBA"),
}
"""Modes that Pillow itself converts as documented above -> the mode it converts them to."""


def samples_of(image: Image.Image) -> Samples:
    """Samples as stored, uint8 (H, W) or (H, W, 2 to 4), as `from_array` takes them."""
    if image.mode in ("P", "PA"):
        return _palette_samples(image)
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_srgb(image))
    if image.mode.startswith("I"):
        values = np.asarray(image)
        return _with_alpha(_upper_bits(values), values, image.info.get("transparency"))
    if image.mode not in DIRECT_MODES:
        raise ImageError(
            f"samples of mode {image.mode} have no agreed meaning as a picture; "
            "convert them to 8 or 16 bits first"
        )
    mode = DIRECT_MODES[image.mode]
    samples = np.asarray(image if image.mode == mode else image.convert(mode))
    if mode in ("LA", "RGBA"):
        return samples
    key = image.info.get("transparency")
    if image.mode == "1" and key:
        key = 255  # before Pillow 12.1 it was 1
    return _with_alpha(samples, samples, key)


def _palette_samples(image: Image.Image) -> Samples:
    samples: Samples = np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))
    red, green, blue = samples[..., 0], samples[..., 1], samples[..., 2]
    coloured = profile_space(image) == b"RGB " or (red != green).any() or (green != blue).any()
    return samples if coloured else samples[..., 2:]


def _upper_bits(values: NDArray[np.integer[Any]]) -> Samples:
    """Values 0..65535 -> 0..255, rounded: 257 apart, so that 65535 is 255 and never a tie."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ImageError(f"integer samples from {low} to {high}; 0 to 65535 were expected")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _with_alpha(samples: Samples, values: NDArray[np.integer[Any]], key: object) -> Samples:
    """Samples and an alpha plane that is 0 where `values` are the transparent colour `key`."""
    if not isinstance(key, int if values.ndim == 2 else tuple):
        return samples
    if values.dtype == np.uint8 and np.max(key) > 255:  # the colour of a file of 16 bits
        key = np.right_shift(key, 8)
    equal = values == np.asarray(key)
    hidden = equal.all(axis=2) if equal.ndim == 3 else equal
    return np.dstack([samples, np.where(hidden, 0, 255).astype(np.uint8)])


def _cmyk_to_srgb(image: Image.Image) -> Image.Image:
    if profile_space(image) == b"CMYK":
        try:
            return to_srgb(image, image.info["icc_profile"])
        except ImageCms.PyCMSError:
            pass  # damaged: the plain formula is all there is
    return image.convert("RGB")


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The image, whose samples the ICC `profile` describes, in mode RGB and sRGB.

    Raises:
        ImageCms.PyCMSError: the profile is damaged or describes other samples.
    """
    transform = ImageCms.buildTransform(
        io.BytesIO(profile),
        ImageCms.createProfile("sRGB"),
        image.mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return transform.apply(image)


def profile_space(image: Image.Image) -> bytes:
    """Four bytes naming the colour space of the ICC profile, "GRAY" say; empty without one."""
    return (image.info.get("icc_profile") or b"")[16:20]
