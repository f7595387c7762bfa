"""Frequency tables: how probable each symbol is, in integers; made at export, read at run time.

Section "Tables of a model" of docs/format.md.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaecodec.errors import ModelError
from vaecodec.rans import TOTAL, constriction_model, portable_model

SIGNATURE = b"VZT\x01"
MAX_ROWS = 256  # row numbers are uint8
MAX_ENTRIES = 65_535  # entries of a row, the escape among them

_CERTAIN = np.array([0, TOTAL], np.uint32)  # row 0
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class FrequencyTables:
    """The tables of a model; row r holds where the prior says r.

    low: int32 (R,), R in 1..256, the smallest symbol of each row. cumulative: R arrays uint32
    (n_r + 1,), strictly increasing from 0 to 2**24: entry k of row r has the frequency
    cumulative[r][k + 1] - cumulative[r][k] of 2**24. Entries 0 .. n_r - 2 are the symbols
    low[r] .. low[r] + n_r - 2, the last entry is the escape (2 <= n_r <= 65535).
    Row 0 is certain: its symbols are zero and are not coded; it is low 0, cumulative (0, 2**24).

    Raises ValueError for anything else. Keeps the arrays and makes them read-only.
    """

    low: NDArray[np.int32]
    cumulative: tuple[NDArray[np.uint32], ...]

    def __post_init__(self) -> None:
        _check(self.low, self.cumulative)
        for array in (self.low, *self.cumulative):
            array.setflags(write=False)

    @cached_property
    def escape(self) -> NDArray[np.int32]:
        """int32 (R,): the escape entry of each row, n_r - 1."""
        return np.array([len(row) - 2 for row in self.cumulative], np.int32)

    @cached_property
    def portable_models(self) -> list[list[int]]:
        """The rows as PortableCoder takes them."""
        return [portable_model(row) for row in self.cumulative]

    @cached_property
    def constriction_models(self) -> list[Any]:
        """The rows as constriction's AnsCoder takes them; None for row 0."""
        return [None, *map(constriction_model, self.cumulative[1:])]

    def to_bytes(self) -> bytes:
        """Return the bytes that `from_bytes` reads; equal tables, equal bytes."""
        parts = [SIGNATURE, struct.pack("<H", len(self.low))]
        for low, cumulative in zip(self.low[1:], self.cumulative[1:], strict=True):
            parts.append(struct.pack("<iH", low, len(cumulative) - 1))
            frequencies = np.diff(cumulative).astype("<u4")
            parts.append(frequencies.view(np.uint8).reshape(-1, 4)[:, :3].tobytes())
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> FrequencyTables:
        """Return the tables that `to_bytes` wrote; raises ModelError where they are damaged."""
        if data[: len(SIGNATURE)] != SIGNATURE:
            raise ModelError("the tables of the model do not begin with their signature; damaged")
        try:
            return cls(*_read(data, len(SIGNATURE)))
        except (struct.error, ValueError) as error:
            raise ModelError(f"the tables of the model are damaged: {error}") from error


def _read(data: bytes, at: int) -> tuple[NDArray[np.int32], tuple[NDArray[np.uint32], ...]]:
    (rows,) = struct.unpack_from("<H", data, at)
    at += 2
    low, cumulative = [0], [_CERTAIN.copy()]
    for row in range(1, rows):
        row_low, entries = struct.unpack_from("<iH", data, at)
        octets = np.frombuffer(data, np.uint8, 3 * entries, at + 6).reshape(entries, 3)
        at += 6 + 3 * entries
        frequencies = octets @ np.array([1, 1 << 8, 1 << 16], np.int64)
        if frequencies.sum() != TOTAL:
            raise ValueError(f"the frequencies of row {row} do not add up to 2**24")
        low.append(row_low)
        cumulative.append(np.append(0, np.cumsum(frequencies)).astype(np.uint32))
    if rows == 0 or at != len(data):
        raise ValueError(f"{rows} rows in {at} bytes were found, {len(data)} bytes are there")
    return np.array(low, np.int32), tuple(cumulative)


def _check(low: NDArray[np.int32], cumulative: Sequence[NDArray[np.uint32]]) -> None:
    rows = len(cumulative)
    if low.dtype != np.int32 or low.shape != (rows,) or not 1 <= rows <= MAX_ROWS:
        raise ValueError(f"low is {low.dtype} {low.shape}, {rows} rows; int32 (1..256,) expected")
    if low[0] != 0 or not np.array_equal(cumulative[0], _CERTAIN):
        raise ValueError("row 0 is not the certain row: low 0, cumulative (0, 2**24)")
    for r, row in enumerate(cumulative):
        if row.dtype != np.uint32 or row.ndim != 1:
            raise ValueError(f"row {r} is {row.dtype} {row.shape}; uint32 (n + 1,) expected")
        if r > 0 and not 2 <= len(row) - 1 <= MAX_ENTRIES:
            raise ValueError(f"row {r} has {len(row) - 1} entries; 2 to {MAX_ENTRIES} expected")
        if row[0] != 0 or row[-1] != TOTAL or not np.all(row[1:] > row[:-1]):
            raise ValueError(f"row {r} does not increase strictly from 0 to 2**24")
        if int(low[r]) + len(row) - 2 > _INT32_MAX:
            raise ValueError(f"row {r} begins at {low[r]}; its entries would exceed int32")
