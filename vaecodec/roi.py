"""Quality maps: positions of an image that are coded at a lower quality than others.

Section "Quality map" of docs/format.md.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vaecodec.container import MAX_QUALITY, POSITION
from vaecodec.errors import FormatError, ImageError

__all__ = ["DEPTH", "QualityMap", "map_of_mask", "pack_map", "read_map"]

DEPTH = MAX_QUALITY // 2
"""How much lower the quality is where a mask is black, in 1/64 of a step."""

_LEVELS = 15  # 0 is the quality of the header


@dataclass(frozen=True, eq=False)
class QualityMap:
    """What the quality of each position is less than that of the header.

    levels: uint8 (h, w), 0..15, in fifteenths of depth. depth: in 1/64 of a quality step, 1..6400.
    """

    levels: NDArray[np.uint8]
    depth: int = DEPTH

    def qualities(self, step: int) -> NDArray[np.int64]:
        """Return the quality step of each position, int64 (h, w), for that of the header."""
        less = (self.depth * self.levels.astype(np.int64) + _LEVELS // 2) // _LEVELS
        return np.maximum(step - less, 0)


def map_of_mask(mask: NDArray[np.uint8], height: int, width: int) -> QualityMap | None:
    """Return the map of a mask, uint8 (H, W), for an image; None where it is white all over.

    White, 255, keeps the quality, black loses DEPTH, and grey lies between. Raises ImageError for a
    mask of another size than the image, ValueError for one of another dtype or rank.
    """
    if mask.dtype != np.uint8 or mask.ndim != 2:
        raise ValueError(f"the mask is {mask.dtype} {mask.shape}; uint8 (H, W) expected")
    if mask.shape != (height, width):
        found = f"{mask.shape[1]}x{mask.shape[0]}"
        raise ImageError(
            f"the mask has {found} pixels, the image {width}x{height}; make them equal"
        )
    padded = np.pad(mask, ((0, -height % POSITION), (0, -width % POSITION)), "edge")
    rows, columns = (side // POSITION for side in padded.shape)
    white = padded.reshape(rows, POSITION, columns, POSITION).mean((1, 3)) / 255
    levels = np.rint(_LEVELS * (1 - white)).astype(np.uint8)
    return QualityMap(levels) if levels.any() else None


def pack_map(qualities: QualityMap) -> bytes:
    """Return the payload of a chunk that `read_map` reads back."""
    return struct.pack("<H", qualities.depth) + zlib.compress(qualities.levels.tobytes(), 9)


def read_map(payload: bytes, height: int, width: int) -> QualityMap:
    """Return the map, of `height` x `width` positions, that a payload holds.

    Raises FormatError for a payload that breaks the rules of the format.
    """
    if len(payload) < 2:
        raise FormatError(f"the quality map has {len(payload)} bytes; 3 or more were expected")
    (depth,) = struct.unpack_from("<H", payload)
    if not 1 <= depth <= MAX_QUALITY:
        raise FormatError(f"the quality map has depth {depth}; 1 to {MAX_QUALITY} was expected")
    levels = np.frombuffer(_inflated(payload[2:], height * width), np.uint8)
    if levels.max() > _LEVELS:
        raise FormatError(f"the quality map has level {levels.max()}; 0 to {_LEVELS} was expected")
    return QualityMap(levels.reshape(height, width), depth)


def _inflated(data: bytes, size: int) -> bytes:
    """Return what zlib made into `data`, which has to be `size` bytes."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, size + 1)
    except zlib.error:
        raise FormatError("the quality map is no zlib stream; it is damaged") from None
    if len(found) != size or not stream.eof or stream.unused_data:
        raise FormatError(f"the quality map does not hold {size} levels and nothing else")
    return found
