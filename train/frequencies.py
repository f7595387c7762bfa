"""Integer frequency tables of densities: computed once, at export; files are read with integers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vaecodec import latents
from vaecodec.rans import TOTAL
from vaecodec.tables import FrequencyTables

TAIL = 2.0**-20
"""Symbols less probable than this are left to the escape entry."""
LONGEST = 1025
"""Largest number of symbols in a row."""
LOGISTIC = math.sqrt(3) / math.pi
"""Scale parameter of a logistic distribution whose standard deviation is 1."""


def _gaussian_tail(distance: float, scale: float) -> float:
    return math.erfc(distance / (scale * math.sqrt(2))) / 2


def _logistic_tail(distance: float, scale: float) -> float:
    return 1 / (1 + math.exp(min(distance / (scale * LOGISTIC), 700)))


TAILS: Mapping[str, Callable[[float, float], float]] = {
    "gaussian": _gaussian_tail,
    "logistic": _logistic_tail,
}
"""Density of mean 0 -> the mass beyond a distance, at a standard deviation."""


def masses(density: str, scale: float, count: int) -> NDArray[np.float64]:
    """Return the masses, float64 (2 * count + 1,), that a key of TAILS gives to -count..count."""
    edges = np.arange(-count, count + 2) - 0.5
    upper = np.array([TAILS[density](float(e), scale) for e in edges])
    lower = np.array([TAILS[density](-float(e), scale) for e in edges])
    # Differences of the smaller tail keep their precision far from the middle.
    return np.where(edges[:-1] < 0, np.diff(lower), -np.diff(upper))


def integer_row(masses: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Return cumulative frequencies, uint32 (n + 2,), of n symbols and the escape, in 2**24.

    Each entry gets at least 1; what is missing or too much goes to the most probable symbol.
    """
    escape = max(1.0 - float(masses.sum()), 0.0)
    frequencies = np.maximum(np.rint(np.append(masses, escape) * TOTAL), 1).astype(np.int64)
    frequencies[np.argmax(frequencies)] += TOTAL - frequencies.sum()
    return np.concatenate([[0], np.cumsum(frequencies)]).astype(np.uint32)


def row_of(density: str, scale: float, longest: int) -> tuple[int, NDArray[np.uint32]]:
    """Return (smallest symbol, cumulative frequencies) of a key of TAILS.

    The row has at most `longest` symbols, an odd number, and none beyond TAIL.
    """
    count = 1
    while count < longest // 2 and 2 * TAILS[density](count + 0.5, scale) > TAIL:
        count += 1
    return -count, integer_row(masses(density, scale, count))


def scale_tables(density: str) -> FrequencyTables:
    """Return the tables of the 64 scales of `latents.scales`; row 0 is certain."""
    return tables_of([row_of(density, float(scale), LONGEST) for scale in latents.scales()[1:]])


def tables_of(rows: Sequence[tuple[int, NDArray[np.uint32]]]) -> FrequencyTables:
    """Return the tables of rows 1, 2, ..., each (smallest symbol, cumulative frequencies)."""
    certain = (0, np.array([0, TOTAL], np.uint32))
    lows, cumulative = zip(certain, *rows, strict=True)
    return FrequencyTables(np.array(lows, np.int32), cumulative)
