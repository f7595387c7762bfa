"""Windows that cover an area: what each is for, and what has to be read for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Window(NamedTuple):
    """A range of positions along one axis."""

    place: slice
    """The positions that the window is for."""
    read: slice
    """What has to be read for them: wider by the halo, cut off at the borders of the area."""

    @property
    def inside(self) -> slice:
        """`place`, counted from the start of `read`."""
        return slice(self.place.start - self.read.start, self.place.stop - self.read.start)


def windows(length: int, size: int, halo: int) -> Iterator[Window]:
    """Yield windows of at most `size` positions that cover 0..length."""
    for start in range(0, length, size):
        stop = min(start + size, length)
        read = slice(max(start - halo, 0), min(stop + halo, length))
        yield Window(slice(start, stop), read)


def windows2d(height: int, width: int, size: int, halo: int) -> Iterator[tuple[Window, Window]]:
    """Yield pairs (rows, columns) of windows that cover an area, in raster order."""
    for rows in windows(height, size, halo):
        for columns in windows(width, size, halo):
            yield rows, columns
