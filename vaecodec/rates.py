"""What symbols cost: code lengths in bits under the integer tables of a model, and their slopes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaecodec.rans import TOTAL
from vaecodec.tables import FrequencyTables

__all__ = ["CodeLengths", "Surroundings"]

_FORBIDDEN = 1e6  # bits of a symbol other than 0 in row 0, which is not coded


class CodeLengths:
    """Code lengths of symbols under each row of a model's tables, escapes included.

    Lengths are those of an ideal coder, log2(2**24 / frequency); rANS comes within bytes of their
    sum. Symbols, rows and lengths have one shape.
    """

    def __init__(self, tables: FrequencyTables) -> None:
        self._low = tables.low.astype(np.int64)
        self._high = self._low + tables.escape - 1
        self._reach = max(1, int(-self._low.min()), int(self._high.max()))
        self._width = 2 * self._reach + 1
        lengths = [
            np.log2(TOTAL) - np.log2(np.diff(row.astype(np.int64))) for row in tables.cumulative
        ]
        self._escape = np.array([row[-1] for row in lengths])
        table = np.empty((len(lengths), self._width), np.float32)
        symbols = np.arange(-self._reach, self._reach + 1)
        for row, coded in enumerate(lengths):
            table[row] = self._escaped(np.full(len(symbols), row), symbols)
            first = int(self._low[row]) + self._reach
            table[row, first : first + len(coded) - 1] = coded[:-1]
        table[0] = np.where(symbols == 0, 0.0, _FORBIDDEN)
        self._table = table.reshape(-1)
        self._step = np.append(np.diff(self._table), np.float32(0))  # to the symbol that follows
        rows = np.arange(len(table))
        beside = table[np.minimum(rows + 1, len(rows) - 1)] - table[np.maximum(rows - 1, 1)]
        self._per_row = beside.reshape(-1) / 2

    def bits(self, rows: NDArray[np.integer], symbols: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return the code lengths of integer symbols: float32, bits."""
        inside = symbols.clip(-self._reach, self._reach)
        found: NDArray[np.float32] = self._table[
            rows.astype(np.intp) * self._width + inside + self._reach
        ]
        if (far := inside != symbols).any():
            found[far] = self._escaped(rows[far], symbols[far])
        return found

    def _escaped(
        self, rows: NDArray[np.integer], symbols: NDArray[np.integer]
    ) -> NDArray[np.float64]:
        """Return the code lengths of symbols outside their rows: entry, side bit, Elias gamma."""
        low, high = self._low[rows], self._high[rows]
        distance = np.maximum(np.maximum(low - symbols, symbols - high), 1)
        bits: NDArray[np.float64] = self._escape[rows] + 2 + 2 * np.floor(np.log2(distance))
        return bits

    def around(
        self,
        rows: NDArray[np.integer],
        symbols: NDArray[np.integer],
        below: NDArray[np.bool_],
    ) -> Surroundings:
        """Return what integer symbols cost and what changes would; far escapes as at the end.

        below: whether a change is towards the symbol below, and not the one above.
        """
        inside = symbols.clip(1 - self._reach, self._reach - 1)
        at = rows * np.intp(self._width) + inside + self._reach
        bits = self._table[at]
        if (far := inside != symbols).any():
            bits[far] = self.bits(rows[far], symbols[far])
        return Surroundings(bits, self._step[at - below], self._per_row[at])


class Surroundings(NamedTuple):
    """Code lengths at symbols, in bits, and their slopes there, all float32 and of one shape."""

    bits: NDArray[np.float32]
    per_step: NDArray[np.float32]
    """Bits per step, from the symbol below or to the one above."""
    per_row: NDArray[np.float32]
    """Bits per row: half of the difference between those beside it."""
