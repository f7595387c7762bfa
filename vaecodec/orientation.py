"""Which way up an image is stored: read from EXIF or XMP, applied to samples, and reset to 1.

EXIF blocks are patched in place and never rebuilt: makers' notes hold offsets that would break.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

from vaecodec.picture import Samples

__all__ = ["orientation_of", "reset_exif", "reset_xmp", "turn"]

EXIF_ORIENTATION = 0x0112
ENTRY_BYTES = 12
VALUE_TYPES = {1: "B", 3: "H", 4: "I"}  # BYTE, SHORT, LONG; writers should use SHORT

XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))([1-8])""")

TURNS: dict[int, Callable[[Samples], Samples]] = {
    2: lambda samples: samples[:, ::-1],
    3: lambda samples: samples[::-1, ::-1],
    4: lambda samples: samples[::-1],
    5: lambda samples: samples.swapaxes(0, 1),
    6: lambda samples: samples[::-1].swapaxes(0, 1),
    7: lambda samples: samples[::-1, ::-1].swapaxes(0, 1),
    8: lambda samples: samples[:, ::-1].swapaxes(0, 1),
}
"""What turns samples stored with that orientation upright; 1 and all other values need nothing."""


@dataclass(frozen=True)
class _Entry:
    """Where an EXIF block holds its orientation."""

    order: str  # "<" or ">", as struct writes it
    kind: str  # struct's letter for the value
    at: int  # byte offset of the value
    next_directory: int  # byte offset of the link to the second directory: the thumbnail


def orientation_of(exif: bytes | None, xmp: bytes | None) -> int:
    """Orientation, 1 to 8, by the EXIF block, or by the XMP packet where EXIF has none; else 1.

    Args:
        exif: a TIFF block (`II*` or `MM` first), or None. A damaged one has no orientation.
        xmp: UTF-8 XML, or None.
    """
    value = stated(exif) if exif else None
    if value is None:
        match = XMP_ORIENTATION.search(xmp) if xmp else None
        value = int(match[2]) if match else 1
    return value if value in TURNS else 1


def stated(exif: bytes) -> int | None:
    """Return what an EXIF block states, which need not be an orientation; None for nothing."""
    entry = _find(exif)
    if entry is None:
        return None
    value: int = struct.unpack_from(entry.order + entry.kind, exif, entry.at)[0]
    return value


def turn(samples: Samples, orientation: int) -> Samples:
    """Samples (H, W, ...) stored with `orientation`, turned upright; a view where it can be."""
    return TURNS[orientation](samples) if orientation in TURNS else samples


def reset_exif(exif: bytes) -> bytes:
    """The block with orientation 1 and its thumbnail, which is turned by now, unlinked."""
    entry = _find(exif)
    if entry is None:
        return exif
    block = bytearray(exif)
    struct.pack_into(entry.order + entry.kind, block, entry.at, 1)
    struct.pack_into(entry.order + "I", block, entry.next_directory, 0)
    return bytes(block)


def reset_xmp(xmp: bytes) -> bytes:
    """The packet with orientation 1 wherever it states one; of the same length."""
    return XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def _find(exif: bytes) -> _Entry | None:
    """The orientation entry of the first directory; None where it has none or is cut short."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        end = start + 2 + count * ENTRY_BYTES
        struct.unpack_from(order + "I", exif, end)
    except struct.error:
        return None
    for at in range(start + 2, end, ENTRY_BYTES):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == EXIF_ORIENTATION and kind in VALUE_TYPES:
            return _Entry(order, VALUE_TYPES[kind], at + 8, end)
    return None
