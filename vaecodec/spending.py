"""Where the bits of a file go: what each 16 x 16 pixels cost."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vaecodec.container import Header
from vaecodec.entropy import FrequencyTables, TileDecoder
from vaecodec.latents import SIDE_STRIDE, Quality
from vaecodec.priors import HyperPrior
from vaecodec.rates import CodeLengths

__all__ = ["Accountable", "bits_of_tile"]


@runtime_checkable
class Accountable(Protocol):
    """A model that knows what each part of an image cost."""

    def bits(self, header: Header, tiles: tuple[bytes, ...]) -> NDArray[np.float64]:
        """Return the bits of each position of the latents, float64 (h, w)."""


def bits_of_tile(
    prior: HyperPrior,
    tables: FrequencyTables,
    lengths: CodeLengths,
    payload: bytes,
    size: tuple[int, int],
    quality: Quality,
) -> NDArray[np.float64]:
    """Return the bits of each position of a tile, float64 (h, w), from its payload.

    size: (h, w). A position has the symbols of all channels of y there, and its share of those of
    z: they belong to 4 x 4 positions, or to as many of them as there are. Raises FormatError.
    """
    height, width = size
    found: list[NDArray[np.float64]] = []

    def read(
        _m: NDArray[np.float32], rows: NDArray[np.uint8], at: NDArray[np.intp]
    ) -> NDArray[np.int32]:
        symbols = decoder.read(rows)
        bits = np.bincount(at % places, lengths.bits(rows, symbols), places)
        found.append(bits.astype(np.float64))
        return symbols

    decoder = TileDecoder(payload, tables)
    _, side_height, side_width = prior.side_shape(height, width)
    places = side_height * side_width
    side = prior.code_side(height, width, quality, read)
    z = found.pop().reshape(side_height, side_width)
    places = height * width
    prior.code(side, height, width, quality, read)
    decoder.finish()
    y: NDArray[np.float64] = np.sum(found, 0).reshape(height, width)
    return y + _spread(z, height, width)


def _spread(z: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Return bits of side information, (h / 4, w / 4), shared out among positions, (h, w)."""
    rows, columns = np.arange(height) // SIDE_STRIDE, np.arange(width) // SIDE_STRIDE
    shares = np.outer(np.bincount(rows), np.bincount(columns))
    spread: NDArray[np.float64] = (z / shares)[np.ix_(rows, columns)]
    return spread
