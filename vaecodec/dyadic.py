"""Numbers m * 2**e: what the tensors of an integer graph hold, and what float32 adds exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["LARGEST", "Dyadic", "Int", "dyadic"]

Int = npt.NDArray[np.int64]

LARGEST = 2.0**52
"""Of any m that is reckoned with: int64 holds sums of them, and float64 their magnitudes."""


@dataclass(frozen=True)
class Dyadic:
    """Values m * 2**e: an int64 array and one exponent."""

    m: Int
    e: int

    def at(self, e: int) -> Int:
        """Return m for a smaller exponent."""
        return self.m << (self.e - e)


def dyadic(values: npt.ArrayLike) -> Dyadic:
    """Return float values as dyadic numbers; ValueError if 40 fractional bits do not hold them."""
    array = np.asarray(values, np.float64)
    for e in range(0, -41, -1):
        scaled = np.ldexp(array, -e)
        if not (np.abs(scaled) <= LARGEST).all():  # nor is NaN
            break
        if (scaled == np.rint(scaled)).all():
            return Dyadic(scaled.astype(np.int64), e)
    raise ValueError("a constant is no multiple of 2**-40, or too large")
