"""Integer frequency tables of Gaussians: computed once, at export; files are read with integers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vaecodec import latents
from vaecodec.rans import TOTAL
from vaecodec.tables import FrequencyTables

TAIL = 2.0**-20
"""Symbols less probable than this are left to the escape entry."""
LONGEST = 1025
"""Largest number of symbols in a row."""


def gaussian_masses(scale: float, count: int) -> NDArray[np.float64]:
    """Return the masses, float64 (2 * count + 1,), that N(0, scale**2) gives to -count..count."""
    edges = (np.arange(-count, count + 2) - 0.5) / (scale * math.sqrt(2))
    upper = np.array([math.erfc(e) for e in edges]) / 2
    lower = np.array([math.erfc(-e) for e in edges]) / 2
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


def gaussian_row(scale: float, longest: int) -> tuple[int, NDArray[np.uint32]]:
    """Return (smallest symbol, cumulative frequencies) of N(0, scale**2).

    The row has at most `longest` symbols, an odd number, and none beyond TAIL.
    """
    count = 1
    while count < longest // 2 and math.erfc((count + 0.5) / (scale * math.sqrt(2))) > TAIL:
        count += 1
    return -count, integer_row(gaussian_masses(scale, count))


def gaussian_tables() -> FrequencyTables:
    """Return the tables of the 64 scales of `latents.scales`; row 0 is certain."""
    return tables_of([gaussian_row(float(scale), LONGEST) for scale in latents.scales()[1:]])


def tables_of(rows: Sequence[tuple[int, NDArray[np.uint32]]]) -> FrequencyTables:
    """Return the tables of rows 1, 2, ..., each (smallest symbol, cumulative frequencies)."""
    certain = (0, np.array([0, TOTAL], np.uint32))
    lows, cumulative = zip(certain, *rows, strict=True)
    return FrequencyTables(np.array(lows, np.int32), cumulative)
