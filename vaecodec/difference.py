"""Files of a bundle as differences to those of the bundle that it was made from.

A fine-tuned network has the shape of the one it came from, so its files differ in their numbers
only, in the same places. `difference.npz` says by how much: of half-precision matrices in multiples
of steps, of integers in integers, and whatever else changed as it is. Everything here is computed
in operations that IEEE 754 rounds the same way everywhere: the result is the same bytes on every
machine. A difference is untrusted input.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vaecodec.arrays import Shape, member, opened

__all__ = ["FILE", "SIZES", "Change", "Kind", "apply", "changed", "pack", "unpack"]

FILE = "difference.npz"

MAX_SEGMENTS = 2**14
"""Of one file; a network has some thousand rows."""


class Kind(IntEnum):
    """What the numbers of a segment are, and how they change."""

    WORD = 0
    """4 bytes of any type, replaced."""
    HALF = 1
    """float16, a matrix: old + (step of the row * step of the column) * level, in float32."""
    BYTE = 2
    """int8: old + level, modulo 256."""


SIZES = {Kind.WORD: 4, Kind.HALF: 2, Kind.BYTE: 1}
"""Bytes of a number of each kind."""


@dataclass(frozen=True)
class Change:
    """How one file differs from its base.

    segments: int64 (n, 4), each the offset in bytes, rows and columns of the values and their
    `Kind`, ascending and apart. steps: float32, of each segment of HALF those of its rows, then
    those of its columns. levels: int8, those of all segments of HALF (column by column, which are
    alike) and BYTE in order. words: uint32, those of all segments of WORD in order.
    """

    segments: NDArray[np.int64]
    steps: NDArray[np.float32]
    levels: NDArray[np.int8]
    words: NDArray[np.uint32]


_KINDS: dict[str, tuple[str, Shape]] = {
    "segments": ("<i8", (4,)),
    "steps": ("<f4", ()),
    "levels": ("i1", ()),
    "words": ("<u4", ()),
}
"""Name of an array -> its type, and the shape of what it has one after the other."""


def apply(base: bytes, change: Change) -> bytes:
    """Return the file that differs from `base` by `change`.

    Raises ValueError where the change does not fit the base.
    """
    content = bytearray(base)
    _check(change, len(base))
    levels, steps, words = (_Parts(x) for x in (change.levels, change.steps, change.words))
    for offset, rows, columns, number in change.segments.tolist():
        kind, count = Kind(number), rows * columns
        if kind is Kind.WORD:
            values: NDArray[Any] = words.take(count)
        elif kind is Kind.BYTE:
            old = np.frombuffer(content, np.uint8, count, offset)
            values = old + levels.take(count).view(np.uint8)  # wraps around
        else:
            old = np.frombuffer(content, "<f2", count, offset).astype(np.float32)
            step = steps.take(rows)[:, None] * steps.take(columns)
            moves = step * levels.take(count).reshape(columns, rows).T.astype(np.float32)
            values = (old.reshape(rows, columns) + moves).astype("<f2")
        content[offset : offset + count * SIZES[kind]] = values.tobytes()
    return bytes(content)


class _Parts:
    """Hands out an array piece by piece."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values, self._at = values, 0

    def take(self, count: int) -> NDArray[Any]:
        """Return the next `count` values."""
        self._at += count
        return self._values[self._at - count : self._at]


def _check(change: Change, size: int) -> None:
    """Raise ValueError unless the change is one of a file of `size` bytes."""
    end = levels = steps = words = 0
    if change.segments.shape[1:] != (4,) or not np.isfinite(change.steps).all():
        raise ValueError("its segments are not what they have to be")
    for offset, rows, columns, kind in change.segments.tolist():
        count = rows * columns
        if kind not in SIZES or min(rows, columns) < 1 or not end <= offset <= size - count:
            raise ValueError("a segment is not what it has to be")
        end = offset + count * SIZES[Kind(kind)]
        levels += count * (kind != Kind.WORD)
        steps += (rows + columns) * (kind == Kind.HALF)
        words += count * (kind == Kind.WORD)
    expected = len(change.levels), len(change.steps), len(change.words)
    if end > size or (levels, steps, words) != expected:
        raise ValueError("its segments do not fit the file or the values that there are")


def pack(changes: dict[str, Change]) -> bytes:
    """Return the content of a difference file: changes by the name of the file that they are of."""
    buffer = io.BytesIO()
    # LZMA adapts to each column, whose levels are alike: an eighth less than with deflate.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        for name, change in changes.items():
            for key, (kind, _) in _KINDS.items():
                array = io.BytesIO()
                npy.write_array(array, getattr(change, key).astype(kind), (1, 0))
                entry = zipfile.ZipInfo(f"{name}/{key}.npy")  # dated 1980, as all of a bundle
                archive.writestr(entry, array.getvalue(), zipfile.ZIP_LZMA)
    return buffer.getvalue()


def changed(content: bytes) -> set[str]:
    """Return the names of the files that a difference file has changes of.

    Raises ValueError where it is damaged.
    """
    return {name.rpartition("/")[0] for name in opened(content).namelist()}


def unpack(content: bytes, name: str, size: int) -> Change:
    """Return the change of one file, of `size` bytes, out of the content of a difference file.

    No more than `size` numbers are allocated for values. Raises ValueError where it is damaged.
    """
    found = {}
    with opened(content) as archive:
        for key, (kind, columns) in _KINDS.items():
            most = MAX_SEGMENTS if key == "segments" else size

            def fits(shape: Shape, columns: Shape = columns, most: int = most) -> bool:
                return len(shape) > 0 and 0 <= shape[0] <= most and shape[1:] == columns

            expected = f"of at most {most} rows"
            found[key] = member(archive, f"{name}/{key}", np.dtype(kind), fits, expected)
    return Change(**found)
