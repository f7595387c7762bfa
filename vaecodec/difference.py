"""Files of a bundle as differences to those of the bundle that it was made from.

A fine-tuned network has the shape of the one it came from, so its files differ in their numbers
only, in the same places. `difference.npz` says by how much: of half-precision weights in multiples
of a step, of integers in integers, and whatever else changed as it is. Everything here is computed
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

__all__ = ["FILE", "SIZES", "Change", "Kind", "apply", "changed", "pack", "unpack"]

FILE = "difference.npz"


class Kind(IntEnum):
    """What the numbers of a segment are, and how they change."""

    WORD = 0
    """4 bytes of any type, replaced."""
    HALF = 1
    """float16: old + step * level, added in float32."""
    BYTE = 2
    """int8: old + level, modulo 256."""


SIZES = {Kind.WORD: 4, Kind.HALF: 2, Kind.BYTE: 1}
"""Bytes of a number of each kind."""


@dataclass(frozen=True)
class Change:
    """How one file differs from its base.

    segments: int64 (n, 3), each the offset in bytes, the number of values and their `Kind`,
    ascending and apart. steps: float32 (n,), of segments of HALF. levels: int8, those of all
    segments of HALF and BYTE in order. words: uint32, those of all segments of WORD in order.
    """

    segments: NDArray[np.int64]
    steps: NDArray[np.float32]
    levels: NDArray[np.int8]
    words: NDArray[np.uint32]


_KINDS = {"segments": ("<i8", 2), "steps": ("<f4", 1), "levels": ("i1", 1), "words": ("<u4", 1)}
"""Name of an array -> its type and number of dimensions."""


def apply(base: bytes, change: Change) -> bytes:
    """Return the file that differs from `base` by `change`.

    Raises ValueError where the change does not fit the base.
    """
    content = bytearray(base)
    _check(change, len(base))
    levels, words = _Parts(change.levels), _Parts(change.words)
    for (offset, count, number), step in zip(change.segments.tolist(), change.steps, strict=True):
        kind = Kind(number)
        if kind is Kind.WORD:
            values: NDArray[Any] = words.take(count)
        elif kind is Kind.BYTE:
            old = np.frombuffer(content, np.uint8, count, offset)
            values = old + levels.take(count).view(np.uint8)  # wraps around
        else:
            old = np.frombuffer(content, "<f2", count, offset).astype(np.float32)
            values = (old + step * levels.take(count).astype(np.float32)).astype("<f2")
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
    end, levels, words = 0, 0, 0
    if change.segments.shape != (len(change.steps), 3) or not np.isfinite(change.steps).all():
        raise ValueError("its segments are not what they have to be")
    for offset, count, kind in change.segments.tolist():
        if kind not in SIZES or not 0 < count <= size or not end <= offset <= size:
            raise ValueError("a segment is not what it has to be")
        end = offset + count * SIZES[Kind(kind)]
        levels += count * (kind != Kind.WORD)
        words += count * (kind == Kind.WORD)
    if end > size or levels != len(change.levels) or words != len(change.words):
        raise ValueError("its segments do not fit the file or the values that there are")


def pack(changes: dict[str, Change]) -> bytes:
    """Return the content of a difference file: changes by the name of the file that they are of."""
    buffer = io.BytesIO()
    arrays = {
        f"{name}/{key}": getattr(change, key).astype(kind)
        for name, change in changes.items()
        for key, (kind, _) in _KINDS.items()
    }
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def changed(content: bytes) -> set[str]:
    """Return the names of the files that a difference file has changes of.

    Raises ValueError where it is damaged.
    """
    return {name.rpartition("/")[0] for name in _opened(content).namelist()}


def unpack(content: bytes, name: str, size: int) -> Change:
    """Return the change of one file, of `size` bytes, out of the content of a difference file.

    Nothing larger than `size` and a few bytes is allocated. Raises ValueError where it is damaged.
    """
    archive = _opened(content)
    arrays = {
        key: _array(archive, f"{name}/{key}.npy", np.dtype(kind), dimensions, size)
        for key, (kind, dimensions) in _KINDS.items()
    }
    return Change(**arrays)


def _opened(content: bytes) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is no zip file: {error}") from error


def _array(
    archive: zipfile.ZipFile, member: str, kind: np.dtype[Any], dimensions: int, limit: int
) -> NDArray[Any]:
    """Return an array of a zip file of arrays, of at most `limit` values."""
    try:
        with archive.open(member) as stream:
            npy.read_magic(stream)
            shape, _, dtype = npy.read_array_header_1_0(stream)
            count = int(np.prod(shape, dtype=object))
            if dtype != kind or len(shape) != dimensions or not 0 <= count <= limit:
                raise ValueError(f"{member} is {dtype} {shape}")
            data = stream.read(count * kind.itemsize)
            return np.frombuffer(data, kind, count).reshape(shape)
    except Exception as error:  # what zipfile, zlib and NumPy raise for damage has no common root
        raise ValueError(f"{member} cannot be read: {error}") from error
