"""What a .vz file says of itself: plain data, without decoding, and without NumPy."""

from __future__ import annotations

from typing import Any

from vaecodec import container
from vaecodec.container import Colour
from vaecodec.settings import read_settings


def inspect(data: bytes) -> dict[str, Any]:
    """Return what a .vz file says of itself, without decoding its pixels: plain JSON data.

    images: how many; width, height: of each; colour "grey" or "RGB"; alpha, icc, exif, xmp (whether
    it has them); quality 0..100; quality_map (whether parts have a lower one); made: name -> value,
    as text, of each setting that the encoder was asked for; model (fingerprint, hexadecimal);
    bytes; bpp; tiles; chunks: [type, bytes] each. Raises FormatError.
    """
    file = container.unpack(data)
    header = file.header
    return {
        "images": header.images,
        "width": header.width,
        "height": header.height,
        "colour": "grey" if header.colour == Colour.GREY else "RGB",
        "alpha": file.alpha is not None,
        "icc": file.icc is not None,
        "exif": file.exif is not None,
        "xmp": file.xmp is not None,
        "quality": 100 * header.quality / container.MAX_QUALITY,
        "quality_map": file.qualities is not None,
        "made": {} if file.made is None else read_settings(file.made),
        "model": header.model.hex(),
        "bytes": len(data),
        "bpp": 8 * len(data) / header.pixels,
        "tiles": len(file.tiles),
        "chunks": [list(pair) for pair in container.chunk_sizes(data)],
    }
