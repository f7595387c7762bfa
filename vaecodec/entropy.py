"""Entropy coding of one tile: int32 symbols and their table rows <-> a payload; integers only.

Section "Tile payload" of docs/format.md. One rANS stream holds the symbols of all steps. It is a
stack: the encoder pushes the steps in reverse, so that the decoder can ask for them one by one, and
take from each what it needs to know the rows of the next.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from vaecodec.errors import FormatError
from vaecodec.rans import PortableCoder, constriction_coder
from vaecodec.tables import FrequencyTables
from vaecodec.varint import pack_varint, read_varint

__all__ = ["FrequencyTables", "Step", "TileDecoder", "encode_tile"]

Step = tuple[NDArray[np.int32], NDArray[np.uint8]]
"""Symbols, int32 (n,), and their rows, uint8 (n,)."""

_INT32 = np.iinfo(np.int32)


# Tile payload


def encode_tile(steps: Sequence[Step], tables: FrequencyTables, *, portable: bool = False) -> bytes:
    """Return the payload of a tile.

    steps: in the order of decoding; rows are below R, symbols of row 0 are zero, all others any
    int32. portable: do without constriction, for the same bytes. Raises ValueError for other steps.
    """
    make, models = _coder_and_models(tables, portable)
    checksum, overflows, pushes = 0, list[int](), list[tuple[NDArray[np.int32], int]]()
    for symbols, rows in steps:
        _check_symbols(symbols, rows)
        checksum = crc32(_little_endian(symbols), checksum)
        order, counts = _coding_order(rows, tables)
        entries, escaped = _to_entries(symbols[order], counts, tables)
        present = np.flatnonzero(counts)
        groups = np.split(entries, np.cumsum(counts[present])[:-1])
        pushes += zip(groups, present.tolist(), strict=False)  # without rows, one empty group
        overflows += escaped
    coder = make()
    for entries, row in reversed(pushes):
        coder.encode_reverse(entries, models[row])
    escapes = _pack_escapes(overflows)
    words: bytes = coder.get_compressed().astype("<u4").tobytes()
    return struct.pack("<I", checksum) + pack_varint(len(escapes)) + escapes + words


class TileDecoder:
    """Decodes one payload step by step, in the order of the steps given to `encode_tile`.

    The constructor and the methods raise FormatError for a payload that no `encode_tile` wrote, as
    soon as that shows: a wrong symbol may not show before `finish`.
    """

    def __init__(self, payload: bytes, tables: FrequencyTables, *, portable: bool = False) -> None:
        self._expected, escapes, words = _split(payload)
        make, self._models = _coder_and_models(tables, portable)
        self._coder = make(words)
        self._escapes = _EscapeReader(escapes)
        self._tables = tables
        self._checksum = 0

    def read(self, rows: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return the symbols of the next step, int32 (n,), for its rows, uint8 (n,)."""
        order, counts = _coding_order(rows, self._tables)
        symbols = np.zeros(len(rows), np.int32)
        if len(order):
            symbols[order] = self._read_coded(counts)
        self._checksum = crc32(_little_endian(symbols), self._checksum)
        return symbols

    def finish(self) -> None:
        """Check, after the last step, that the payload is used up and the symbols are right."""
        if not self._coder.is_empty():
            raise FormatError("a tile has words left behind its last symbol; it is damaged")
        self._escapes.finish()
        if self._checksum != self._expected:
            raise FormatError("the symbols of a tile do not match their checksum; it is damaged")

    def _read_coded(self, counts: NDArray[np.intp]) -> NDArray[np.int32]:
        """Return the next coded symbols in coding order; counts: of each row, (R,)."""
        decode, models = self._coder.decode, self._models
        present = np.flatnonzero(counts).tolist()
        entries = np.concatenate([decode(models[row], int(counts[row])) for row in present])
        lows = np.repeat(self._tables.low, counts)
        symbols: NDArray[np.int32] = entries + lows
        for i in np.flatnonzero(entries == np.repeat(self._tables.escape, counts)).tolist():
            symbols[i] = self._read_escaped(int(lows[i]), int(entries[i]))
        return symbols

    def _read_escaped(self, low: int, escape: int) -> int:
        overflow = self._escapes.read()
        symbol = overflow + (low if overflow < 0 else low + escape - 1)
        if not _INT32.min <= symbol <= _INT32.max:
            raise FormatError(f"a tile holds the symbol {symbol}, which is no int32; it is damaged")
        return symbol


def _split(payload: bytes) -> tuple[int, bytes, NDArray[np.uint32]]:
    """Return the checksum of the symbols, the escapes, and the words of a payload."""
    if len(payload) < 5:
        raise FormatError(f"a tile has {len(payload)} bytes; 5 or more were expected")
    size, start = read_varint(payload, 4, "the size of the escapes of a tile")
    left = len(payload) - start - size
    if left < 0 or left % 4:
        raise FormatError(
            f"a tile claims {size} bytes of escapes and has {size + left} for them and for words "
            "of 4 bytes; it is damaged"
        )
    words = np.frombuffer(payload, "<u4", left // 4, start + size).astype(np.uint32)
    if len(words) and words[-1] == 0:
        raise FormatError("the last word of a tile is zero, which no encoder writes; it is damaged")
    return struct.unpack_from("<I", payload)[0], payload[start : start + size], words


def _coder_and_models(tables: FrequencyTables, portable: bool) -> tuple[Any, Sequence[Any]]:
    coder = None if portable else constriction_coder()
    if coder is None:
        return PortableCoder, tables.portable_models
    return coder, tables.constriction_models


def _check_symbols(symbols: NDArray[np.int32], rows: NDArray[np.uint8]) -> None:
    if symbols.dtype != np.int32 or symbols.shape != rows.shape:
        raise ValueError(
            f"symbols are {symbols.dtype} {symbols.shape}; int32 of the shape of their rows, "
            f"{rows.shape}, expected"
        )
    if np.any(symbols[rows == 0]):
        raise ValueError("a symbol of row 0 is not zero; row 0 is not coded")


def _little_endian(symbols: NDArray[np.int32]) -> memoryview:
    return np.ascontiguousarray(symbols, "<i4").data


# Coding order


def _coding_order(
    rows: NDArray[np.uint8], tables: FrequencyTables
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions of a step's coded symbols in coding order, and each row's count, (R,).

    Rows ascending, within a row in the order of the step; row 0 is not coded.
    """
    if rows.dtype != np.uint8 or rows.ndim != 1:
        raise ValueError(f"rows are {rows.dtype} {rows.shape}; uint8 (n,) expected")
    coded = np.flatnonzero(rows != 0)
    coded_rows = rows[coded]
    counts = np.bincount(coded_rows, minlength=len(tables.low))
    if len(counts) > len(tables.low):
        raise ValueError(f"row {len(counts) - 1} was asked for; the tables have {len(tables.low)}")
    return coded[np.argsort(coded_rows, kind="stable")], counts


def _to_entries(
    symbols: NDArray[np.int32], counts: NDArray[np.intp], tables: FrequencyTables
) -> tuple[NDArray[np.int32], list[int]]:
    """Return the entries of symbols in coding order, int32, and the overflow of each escape."""
    entries = symbols.astype(np.int64) - np.repeat(tables.low, counts)
    escape = np.repeat(tables.escape, counts)
    outside = (entries < 0) | (entries >= escape)
    below, above = entries[outside], entries[outside] - escape[outside] + 1
    entries[outside] = escape[outside]
    return entries.astype(np.int32), np.where(below < 0, below, above).tolist()


# Escapes


def _pack_escapes(overflows: Sequence[int]) -> bytes:
    bits = "".join(map(_escape_bits, overflows))
    size = -(-len(bits) // 8)
    return int("0" + bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")


def _escape_bits(overflow: int) -> str:
    """Return side bit and Elias gamma code of an overflow (above its row > 0, below < 0)."""
    digits = f"{abs(overflow):b}"
    return ("1" if overflow > 0 else "0") + "0" * (len(digits) - 1) + digits


class _EscapeReader:
    """Reads overflows one by one; refuses what `_pack_escapes` does not write."""

    _WINDOW = 72  # bits: holds a code of at most 64 that begins at any bit of its first byte

    def __init__(self, escapes: bytes) -> None:
        self._escapes = escapes
        self._at = 0  # bits

    def read(self) -> int:
        first, skip = divmod(self._at, 8)
        octets = self._escapes[first : first + self._WINDOW // 8].ljust(self._WINDOW // 8, b"\0")
        behind = self._WINDOW - skip - 1  # bits of the window behind the side bit
        window = int.from_bytes(octets, "big") & ((2 << behind) - 1)
        above, gamma = divmod(window, 1 << behind)
        zeros = behind - gamma.bit_length()
        self._at += 1 + zeros + zeros + 1
        if zeros > 31 or self._at > 8 * len(self._escapes):
            raise FormatError("the escapes of a tile end inside a code or hold none; it is damaged")
        distance = gamma >> (behind - 2 * zeros - 1)
        return distance if above else -distance

    def finish(self) -> None:
        used = -(-self._at // 8)
        padding = int.from_bytes(self._escapes[used - 1 : used], "big") & ((1 << -self._at % 8) - 1)
        if used != len(self._escapes) or padding:
            raise FormatError(
                f"a tile has {len(self._escapes)} bytes of escapes and its symbols use {self._at} "
                "bits; bits left over were expected to be zero and fewer than 8"
            )
