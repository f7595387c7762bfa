"""Images made to fit a model of one size: in its colours always, in its size on request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from vaecodec.errors import ImageError
from vaecodec.modes import to_srgb
from vaecodec.picture import Picture

__all__ = ["Change", "changed", "in_colours", "pad", "picture_in_colours", "resize"]

Images = NDArray[np.uint8]

Change = Callable[[Images, int, int], Images]
"""`resize` or `pad`: images (N, H, W, C), height, width -> images of that size."""

LUMA = np.array([19595, 38470, 7471], np.uint32)
"""Of red, green and blue in grey, in 1/65536: those of ITU-R BT.601, which Pillow takes."""


def resize(images: Images, height: int, width: int) -> Images:
    """Return images, uint8 (N, H, W, C), scaled by Lanczos's filter to height x width."""
    return _each(
        images, (height, width, images.shape[3]), lambda image: _scaled(image, width, height)
    )


def pad(images: Images, height: int, width: int) -> Images:
    """Return images, uint8 (N, H, W, C), in the middle of height x width, with zeros around.

    Raises ImageError where they are larger.
    """
    vertical, horizontal = height - images.shape[1], width - images.shape[2]
    if min(vertical, horizontal) < 0:
        raise ImageError(
            f"{images.shape[2]}x{images.shape[1]} pixels cannot be padded to {width}x{height}; "
            "--resize scales them"
        )
    top, left = vertical // 2, horizontal // 2
    return np.pad(images, ((0, 0), (top, vertical - top), (left, horizontal - left), (0, 0)))


def changed(picture: Picture, change: Change, height: int, width: int) -> Picture:
    """Return a picture, its alpha included, that `change` has made height x width."""
    alpha = picture.alpha
    if alpha is not None:
        alpha = change(alpha[np.newaxis, ..., np.newaxis], height, width)[0, ..., 0]
    return replace(
        picture, pixels=change(picture.pixels[np.newaxis], height, width)[0], alpha=alpha
    )


def in_colours(images: Images, colours: int) -> Images:
    """Return images, uint8 (N, H, W, 1 or 3), in 1 (grey) or 3 colours; grey is repeated."""
    if images.shape[3] == colours:
        return images
    if colours == 3:
        return np.repeat(images, 3, axis=3)
    return _each(images, (*images.shape[1:3], 1), _grey)


def picture_in_colours(picture: Picture, colours: int) -> Picture:
    """Return a picture in 1 or 3 colours; of grey with a profile of its own, the sRGB colours."""
    if colours == 3 and picture.icc and picture.icc[16:20] == b"GRAY":
        return replace(picture, pixels=_srgb(picture.pixels, picture.icc), icc=None)
    return replace(picture, pixels=in_colours(picture.pixels[np.newaxis], colours)[0])


def _srgb(grey: NDArray[np.uint8], profile: bytes) -> NDArray[np.uint8]:
    try:
        return np.asarray(to_srgb(Image.fromarray(grey[..., 0]), profile))
    except ImageCms.PyCMSError:  # damaged: the samples as they are is all there is
        return np.repeat(grey, 3, axis=2)


def _each(images: Images, shape: tuple[int, ...], change: Callable[[Images], Images]) -> Images:
    """Return images of another shape, changed one by one: memory for one is all it takes more."""
    out = np.empty((len(images), *shape), np.uint8)
    for i, image in enumerate(images):
        out[i] = change(image)
    return out


def _grey(image: Images) -> Images:
    grey: Images = ((image @ LUMA + 0x8000) >> 16).astype(np.uint8)
    return grey[..., np.newaxis]


def _scaled(image: Images, width: int, height: int) -> Images:
    plain = image[..., 0] if image.shape[2] == 1 else image
    scaled = Image.fromarray(plain).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled).reshape(height, width, -1)
