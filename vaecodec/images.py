"""Image files and Pillow images <-> Picture: upright, 8-bit, with alpha and metadata.

What becomes of each Pillow mode stands in `vaecodec.modes`. Of several frames or pages the current
one is read, the first of a file just opened. EPS and WMF are drawings, not images, and refused.

Orientation is applied to the samples, as `vaecodec.orientation` reads it, and its tags reset.
Otherwise ICC profile, EXIF block and XMP packet are kept byte for byte, with two exceptions: a
profile that does not describe the samples (one of CMYK, or of grey beside RGB) is left out, and of
a TIFF, whose EXIF is spread over its own directory, the tags that describe the photograph are kept.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from vaecodec.container import MAX_PIXELS, MAX_SIDE
from vaecodec.errors import FormatError, ImageError
from vaecodec.formats import FORMATS, format_of
from vaecodec.metadata import EXIF_PREFIX, exif_of, fitting_profile, tiff_tags, xmp_of
from vaecodec.modes import samples_of, to_srgb
from vaecodec.orientation import orientation_of, reset_exif, reset_xmp, stated, turn
from vaecodec.picture import Picture, Samples, check_size, from_array, strip

__all__ = [
    "FORMATS",
    "Picture",
    "format_of",
    "from_array",
    "from_pillow",
    "pack_alpha",
    "read",
    "read_alpha",
    "strip",
    "to_pillow",
    "write",
]

LONGEST_SIDE = {"jpg": 65_500, "webp": 16_383}  # pixels; the others hold MAX_SIDE

# Rasterising EPS would run Ghostscript on a stranger's program, WMF works on Windows only.
DRAWINGS = frozenset({"EPS", "WMF"})


def read(source: Path | BinaryIO) -> Picture:
    """Picture of an image file, by the rules at the top of this module.

    Args:
        source: a path, or a stream at its beginning; the stream is left open.

    Raises:
        ImageError: not an image, damaged, cut off, or too large; names the file if it is a path.
        OSError: the file cannot be opened.
    """
    if not isinstance(source, Path):
        return from_pillow(_open(source))
    with source.open("rb") as stream:
        try:
            return read(stream)
        except ImageError as error:
            raise ImageError(f"{source}: {error}") from error


def from_pillow(image: Image.Image) -> Picture:
    """Picture of a Pillow image, by the rules at the top of this module; `image` is only loaded.

    Raises:
        ImageError: it cannot be decoded, or its mode or size is not acceptable.
    """
    check_size(*image.size)
    if image.format in DRAWINGS:
        raise ImageError(f"{image.format} is a drawing, not an image; convert it to pixels first")
    try:
        image.load()
        samples = samples_of(image)
    except ImageError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        raise ImageError(f"the image is damaged: {_reason(error)}") from error
    exif, xmp = exif_of(image), xmp_of(image)  # after load(): in PNG they may follow the pixels
    orientation = orientation_of(exif, xmp)
    if orientation != 1 or (exif and stated(exif) not in (None, 1)):
        samples = turn(samples, orientation)
        exif, xmp = exif and reset_exif(exif), xmp and reset_xmp(xmp)
    picture = from_array(samples)
    icc = fitting_profile(image, grey=picture.pixels.shape[2] == 1)
    return replace(picture, icc=icc, exif=exif, xmp=xmp)


def to_pillow(picture: Picture) -> Image.Image:
    """Image of mode L, LA, RGB or RGBA; metadata under Pillow's names in its `info`."""
    image = _image(picture)
    if picture.icc:
        image.info["icc_profile"] = picture.icc
    if picture.exif:
        image.info["exif"] = EXIF_PREFIX + picture.exif
    if picture.xmp:
        image.info["xmp"] = picture.xmp
    return image


def write(picture: Picture, target: BinaryIO, format: str) -> None:
    """Write an image file, metadata included, to a stream; nothing is written where it fails.

    PNG, WebP and TIFF (uncompressed: Pillow's compressed ones cannot hold EXIF) are lossless, JPEG
    is of quality 95 and AVIF of quality 90, both 4:4:4. JPEG has no alpha: the picture is laid over
    white. WebP and AVIF hold grey as RGB; grey with an ICC profile of its own becomes sRGB there.

    Args:
        picture: what to write.
        target: a binary stream; it need not be seekable.
        format: one of FORMATS.

    Raises:
        ImageError: the format cannot hold this picture or its metadata.
        ValueError: not one of FORMATS.
    """
    if format not in FORMATS:
        raise ValueError(f"expected one of {', '.join(FORMATS)}, got {format!r}")
    height, width = picture.pixels.shape[:2]
    limit = LONGEST_SIDE.get(format, MAX_SIDE)
    if max(width, height) > limit:
        raise ImageError(f"{format} holds sides of {limit} pixels at most, not {width}x{height}")
    encoded = io.BytesIO()
    try:
        _save(_adapted(picture, format), encoded, format)
    except Exception as error:
        raise ImageError(f"cannot be written as {format}: {_reason(error)}") from error
    target.write(encoded.getbuffer())


def pack_alpha(alpha: Samples) -> bytes:
    """PNG, 8-bit greyscale, of an alpha plane, uint8 (H, W): what an alpha chunk holds."""
    encoded = io.BytesIO()
    Image.fromarray(alpha).save(encoded, "PNG", compress_level=9)
    return encoded.getvalue()


def read_alpha(png: bytes) -> Samples:
    """Alpha plane, uint8 (H, W), of the PNG in an alpha chunk.

    Raises:
        FormatError: it is damaged, or not an 8-bit greyscale PNG.
    """
    try:
        # Not through Image.open, whose limit is one of the whole process; the size is known.
        PngImagePlugin.PngImageFile(io.BytesIO(png)).verify()  # checksums to the very end
        image = PngImagePlugin.PngImageFile(io.BytesIO(png))
        check_size(*image.size)
        if image.mode != "L":
            raise FormatError(f"the alpha chunk holds a PNG of mode {image.mode}, not L (grey)")
        return np.array(image)
    except FormatError:
        raise
    except Exception as error:  # as in from_pillow
        raise FormatError(f"the PNG in the alpha chunk is damaged: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# Reading

_pillow_limit_lock = threading.Lock()


@contextmanager
def _our_size_limit() -> Iterator[None]:
    """Pillow's guard against decompression bombs, set to MAX_PIXELS while a header is read.

    It is a variable of the whole process, so the lock holds off other threads that come this way.
    Pillow raises beyond twice its value; it warns beyond the value itself, which is fine here, and
    of damaged metadata, which costs nobody the image.
    """
    with _pillow_limit_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS // 2
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _open(stream: BinaryIO) -> Image.Image:
    try:
        with _our_size_limit():
            return Image.open(stream)
    except UnidentifiedImageError as error:
        raise ImageError(_not_an_image(stream)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {MAX_PIXELS // 10**6} million pixels, the limit") from error
    except Exception as error:
        raise ImageError(f"the image is damaged: {_reason(error)}") from error


def _not_an_image(stream: BinaryIO) -> str:
    if stream.seekable() and stream.seek(0, io.SEEK_END) == 0:
        return "the file is empty; an image was expected"
    return "not an image of a kind that Pillow reads"


# Writing


def _image(picture: Picture) -> Image.Image:
    planes = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
    samples = np.dstack(planes)
    return Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)


def _adapted(picture: Picture, format: str) -> Picture:
    """What the format can hold of a picture: JPEG no alpha, WebP and AVIF no grey profile."""
    if format == "jpg" and picture.alpha is not None:
        return replace(picture, pixels=_over_white(picture.pixels, picture.alpha), alpha=None)
    if format in ("webp", "avif") and picture.icc and picture.icc[16:20] == b"GRAY":
        grey = Image.fromarray(picture.pixels[:, :, 0])
        return replace(picture, pixels=np.asarray(to_srgb(grey, picture.icc)), icc=None)
    return picture


def _over_white(pixels: Samples, alpha: Samples) -> Samples:
    share = alpha[:, :, np.newaxis].astype(np.uint16)
    return ((pixels * share + 255 * (255 - share) + 127) // 255).astype(np.uint8)


def _save(picture: Picture, encoded: io.BytesIO, format: str) -> None:
    exif, xmp = picture.exif or b"", picture.xmp or b""
    options: dict[str, Any]
    match format:
        case "png":
            text = PngImagePlugin.PngInfo()
            if xmp:  # keyword, uncompressed, no language, no translation
                text.add(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
            options = {"format": "PNG", "compress_level": 2, "exif": exif, "pnginfo": text}
        case "jpg":
            options = {"format": "JPEG", "quality": 95, "subsampling": "4:4:4", "xmp": xmp}
            options["exif"] = EXIF_PREFIX + exif if exif else b""
        case "webp":
            options = {"format": "WEBP", "lossless": True, "exact": True, "method": 2}
            options |= {"exif": exif, "xmp": xmp}
        case "avif":
            options = {"format": "AVIF", "quality": 90, "subsampling": "4:4:4"}
            options |= {"exif": exif, "xmp": xmp}
        case _:
            options = {"format": "TIFF", "exif": tiff_tags(exif, xmp)}
    _image(picture).save(encoded, icc_profile=picture.icc or b"", **options)
