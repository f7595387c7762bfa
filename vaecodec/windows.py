"""Running a network over an image in windows, so that memory does not grow with the image.

Each window is read with a margin as wide as the network sees (its halo), and only what lies inside
is kept: the result is the one of the whole image, up to float rounding, without seams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """A range of positions along one axis."""

    start: int
    stop: int
    """What the window is for: [start, stop)."""
    read_start: int
    read_stop: int
    """What has to be read for it: wider by the halo, cut off at the borders of the image."""


def windows(length: int, size: int, halo: int) -> Iterator[Window]:
    """Yield windows of at most `size` positions that cover 0..length."""
    for start in range(0, length, size):
        stop = min(start + size, length)
        yield Window(start, stop, max(start - halo, 0), min(stop + halo, length))


def windows2d(height: int, width: int, size: int, halo: int) -> Iterator[tuple[Window, Window]]:
    """Yield pairs (rows, columns) of windows that cover an area, in raster order."""
    for rows in windows(height, size, halo):
        for columns in windows(width, size, halo):
            yield rows, columns
