"""What symbols cost: code lengths in bits under the integer tables of a model, and their slopes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vaecodec.rans import TOTAL
from vaecodec.tables import FrequencyTables

__all__ = ["CodeLengths"]

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

    def between(
        self, rows: NDArray[np.integer], values: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (bits, bits per step) at real values: linear between the neighbouring symbols."""
        below = np.floor(values).astype(np.int32)
        low = self.bits(rows, below)
        slope = self.bits(rows, below + 1) - low
        return np.asarray(low + slope * (values - below), np.float32), slope

    def row_slope(
        self, rows: NDArray[np.integer], values: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return bits per row at real values: what a row more or less would change."""
        above, _ = self.between(np.minimum(rows.astype(np.intp) + 1, len(self._low) - 1), values)
        below, _ = self.between(np.maximum(rows.astype(np.intp) - 1, 1), values)
        return np.asarray((above - below) / 2, np.float32)
