"""The .vz container: header, metadata and tile payloads <-> bytes.

Follows docs/format.md section by section, with its names. Nothing is allocated on the word of a
file: each size is compared with the bytes that are there, each dimension with its limit, first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from zlib import crc32

from vaecodec.errors import FormatError
from vaecodec.settings import read_settings
from vaecodec.varint import pack_varint, read_varint

# Signature and version

SIGNATURE = b"\x89VZ\r\n\x1a\n"  # not text, not UTF-8, and broken by any translation of line ends
VERSION = 1
PREFIX = SIGNATURE + bytes([VERSION])

# Limits

MAX_SIDE = 65_535  # pixels
MAX_PIXELS = 400_000_000
MAX_QUALITY = 6_400  # in 1/64 of a step: 100 * 64
MAX_TILE = 32  # in TILE_UNIT: what a decoder holds of a tile is that of 2048 x 2048 pixels at most
POSITION = 16  # pixels: side of one position of the latents
TILE_UNIT = 64  # pixels: side of one position of side information, the coarsest latents
DEFAULT_TILE = 16  # in TILE_UNIT: what the encoder writes, tiles of 1024 x 1024 pixels
FINGERPRINT_BYTES = 8

# Chunks


def pack_chunk(kind: str, payload: bytes) -> bytes:
    """Return one chunk: type (1 byte), size (varint), payload, CRC-32 of all three (u32 LE)."""
    body = kind.encode("ascii") + pack_varint(len(payload)) + payload
    return body + struct.pack("<I", crc32(body))


@dataclass(frozen=True)
class _Chunk:
    kind: str  # one ASCII letter
    payload: memoryview
    size: int  # bytes in the file, framing included


def _read_chunk(data: memoryview, at: int) -> _Chunk:
    kind = chr(data[at])
    if not (kind.isascii() and kind.isalpha()):
        raise FormatError(f"byte {at} is {data[at]:#04x}, not the type of a chunk (a letter)")
    size, start = read_varint(data, at + 1, f"the size of chunk {kind!r}")
    end = start + size
    if end + 4 > len(data):
        left = max(len(data) - start - 4, 0)
        raise FormatError(
            f"chunk {kind!r} claims {size} bytes and {left} are left; the file was cut off"
        )
    (expected,) = struct.unpack_from("<I", data, end)
    if crc32(data[at:end]) != expected:
        raise FormatError(f"chunk {kind!r} at byte {at} does not match its checksum; it is damaged")
    return _Chunk(kind, data[start:end], end + 4 - at)


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yield the chunks behind the checked signature and version, each with its checksum checked."""
    if not data:
        raise FormatError("the file is empty; a .vz file was expected")
    if data[: len(SIGNATURE)] != SIGNATURE[: len(data)]:
        raise FormatError("this is not a .vz file: it does not begin with its signature")
    if len(data) < len(PREFIX):
        raise FormatError(f"the file ends inside its signature, after {len(data)} bytes")
    if data[len(SIGNATURE)] != VERSION:
        raise FormatError(
            f"format version {data[len(SIGNATURE)]} is not known to this vaecodec, which reads "
            f"version {VERSION}; a newer vaecodec may read it"
        )
    view, at = memoryview(data), len(PREFIX)
    while at < len(data):
        chunk = _read_chunk(view, at)
        yield chunk
        at += chunk.size


def chunk_sizes(data: bytes) -> list[tuple[str, int]]:
    """Return (type, bytes in the file with framing) of each chunk of a .vz, in file order.

    With 8 bytes of signature and version they are the whole file. Raises FormatError for damage.
    """
    return [(chunk.kind, chunk.size) for chunk in _chunks(data)]


# Header chunk 'H'


class Colour(IntEnum):
    """What the pixels of an image are; the values are those of the file."""

    GREY = 0
    RGB = 1


@dataclass(frozen=True)
class Header:
    """What a file says of itself; raises FormatError for what no file may say.

    width, height: pixels of each image, 1 to 65535, at most 400 million in all. quality: 0 to
    6400, in 1/64 of a step. model: the 8 bytes of the fingerprint of the model that wrote the file.
    tile: side of the square tiles in units of 64 pixels, 1 to 32; an image no larger is one tile.
    images: how many images of this size there are, 1 or more.
    """

    width: int
    height: int
    colour: Colour
    quality: int
    model: bytes
    tile: int = DEFAULT_TILE
    images: int = 1

    def __post_init__(self) -> None:
        if self.images < 1:
            raise FormatError(f"the file holds {self.images} images; 1 or more were expected")
        for name, side in (("width", self.width), ("height", self.height)):
            if not 1 <= side <= MAX_SIDE:
                raise FormatError(f"the {name} is {side}; 1 to {MAX_SIDE} pixels were expected")
        if self.pixels > MAX_PIXELS:
            what = "the image has" if self.images == 1 else f"{self.images} images have each"
            raise FormatError(
                f"{what} {self.width} x {self.height} pixels, more than the limit of "
                f"{MAX_PIXELS // 1_000_000} million"
            )
        if not 0 <= self.quality <= MAX_QUALITY:
            raise FormatError(f"the quality is {self.quality}/64; 0 to {MAX_QUALITY}/64 expected")
        if len(self.model) != FINGERPRINT_BYTES:
            raise FormatError(f"the fingerprint has {len(self.model)} bytes; 8 were expected")
        if not 1 <= self.tile <= MAX_TILE:
            raise FormatError(f"the tile size is {self.tile}; 1 to {MAX_TILE} was expected")

    @property
    def pixels(self) -> int:
        """Pixels of all images together."""
        return self.width * self.height * self.images

    @property
    def tile_grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        side = self.tile * TILE_UNIT
        return -(-self.height // side), -(-self.width // side)


def tile_boxes(header: Header) -> list[tuple[int, int, int, int]]:
    """Return the tiles in file order as (x0, y0, x1, y1) in pixels, x1 and y1 exclusive."""
    side = header.tile * TILE_UNIT
    return [
        (x, y, min(x + side, header.width), min(y + side, header.height))
        for y in range(0, header.height, side)
        for x in range(0, header.width, side)
    ]


def _pack_header(header: Header) -> bytes:
    sizes = (header.width, header.height, header.images)
    fixed = struct.pack("<BH8s", header.colour, header.quality, header.model)
    return b"".join(map(pack_varint, sizes)) + fixed + pack_varint(header.tile)


def _read_header(payload: memoryview) -> Header:
    at = 0
    width, at = read_varint(payload, at, "the width in the header")
    height, at = read_varint(payload, at, "the height in the header")
    images, at = read_varint(payload, at, "the number of images in the header")
    if len(payload) < at + 11:
        raise FormatError(f"the header has {len(payload)} bytes, too few for its fields")
    colour, quality, model = struct.unpack_from("<BH8s", payload, at)
    tile, at = read_varint(payload, at + 11, "the tile size in the header")
    if at != len(payload):
        raise FormatError(f"the header has {len(payload) - at} bytes behind its last field")
    if colour not in list(Colour):
        raise FormatError(f"the colour kind is {colour}; 0 (grey) or 1 (RGB) was expected")
    return Header(width, height, Colour(colour), quality, model, tile, images)


# Metadata 'i', 'e', 'x', settings 'm', alpha 'A', quality map 'Q', tiles 'T'

_OPTIONAL = {"i": "icc", "e": "exif", "x": "xmp", "m": "made", "A": "alpha", "Q": "qualities"}
_ORDER = "HiexmAQT"  # each at most once, but 'T' as often as there are tiles
_MIN_TILE_CHUNK = 1 + 1 + 5 + 4  # type, size, checksum of symbols and escape length, CRC-32


@dataclass(frozen=True)
class Container:
    """A whole file, its payloads not yet looked into; raises FormatError for the impossible.

    tiles: payloads in raster order, as many as the header's grid has. alpha: an 8-bit greyscale
    PNG of the size of the image. icc: an ICC profile. exif: a TIFF block, without "Exif" before
    it. xmp: UTF-8. made: what the encoder was asked for (`vaecodec.settings`). qualities: a quality
    map (`vaecodec.roi`). None where there is none, all but `made` where there are several images.
    """

    header: Header
    tiles: tuple[bytes, ...]
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    made: bytes | None = None
    qualities: bytes | None = None

    def __post_init__(self) -> None:
        rows, columns = self.header.tile_grid
        if len(self.tiles) != rows * columns:
            raise FormatError(
                f"the file has {len(self.tiles)} tiles; its header tells of {rows} x {columns}"
            )
        kept = [f for k, f in _OPTIONAL.items() if k != "m" and getattr(self, f) is not None]
        if self.header.images > 1 and kept:
            raise FormatError(
                f"the file has {self.header.images} images and {kept[0]}, which belongs to one only"
            )
        if self.alpha is not None:
            _check_alpha(self.header, self.alpha)
        if self.made is not None:
            read_settings(self.made)


def _check_alpha(header: Header, png: bytes) -> None:
    """Compare the fixed first 26 bytes of a PNG with what an alpha chunk may hold."""
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", header.width, header.height)
    if png[:26] != start + bytes([8, 0]):  # bit depth 8, colour type 0 (greyscale)
        raise FormatError(
            f"the alpha chunk is not an 8-bit greyscale PNG of {header.width} x {header.height}"
        )


def pack(container: Container) -> bytes:
    """Return the file that `unpack` reads back as `container`; equal containers, equal bytes."""
    parts = [PREFIX, pack_chunk("H", _pack_header(container.header))]
    for kind, field in _OPTIONAL.items():
        if (payload := getattr(container, field)) is not None:
            parts.append(pack_chunk(kind, payload))
    return b"".join([*parts, *(pack_chunk("T", tile) for tile in container.tiles)])


def unpack(data: bytes) -> Container:
    """Return what the file `data` holds.

    Raises FormatError for anything that is not a whole, undamaged version 1 file. Unknown
    ancillary chunks are skipped; payloads of tiles are copied, not looked into.
    """
    chunks = _chunks(data)
    first = next(chunks, None)
    if first is None or first.kind != "H":
        found = "nothing" if first is None else f"a chunk {first.kind!r}"
        raise FormatError(f"the file begins with {found}; its header chunk 'H' was expected")
    header = _read_header(first.payload)
    _check_room_for_tiles(header, len(data))
    optional: dict[str, bytes] = {}
    tiles: list[bytes] = []
    last = "H"
    for chunk in chunks:
        last = _check_place(chunk.kind, last)
        if chunk.kind == "T":
            tiles.append(bytes(chunk.payload))
        elif chunk.kind in _OPTIONAL:
            optional[_OPTIONAL[chunk.kind]] = bytes(chunk.payload)
    return Container(header, tuple(tiles), **optional)


def _check_room_for_tiles(header: Header, size: int) -> None:
    rows, columns = header.tile_grid
    if rows * columns * _MIN_TILE_CHUNK > size:
        raise FormatError(
            f"the header tells of {rows} x {columns} tiles, more than fit into the file's {size} "
            "bytes; it was cut off or is damaged"
        )


def _check_place(kind: str, last: str) -> str:
    """Return the last known type when a chunk `kind` may follow `last`; else raise FormatError."""
    if kind not in _ORDER:
        if kind.isupper():
            raise FormatError(
                f"the file needs its chunk {kind!r}, unknown to this vaecodec; "
                "a newer vaecodec may read it"
            )
        if last == "T":
            raise FormatError(f"chunk {kind!r} stands behind a tile; nothing may follow the tiles")
        return last
    if kind == last != "T":
        raise FormatError(f"the file has a second chunk {kind!r}; one at most was expected")
    if _ORDER.index(kind) < _ORDER.index(last):
        raise FormatError(
            f"chunk {kind!r} stands behind chunk {last!r}; the order is {', '.join(_ORDER)}"
        )
    return kind
