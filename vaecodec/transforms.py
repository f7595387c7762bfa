"""The transforms over pictures of any size: pixels <-> latents, in windows.

Networks see windows with a margin as wide as their reach (the halo of the bundle), and only what
lies inside is kept: the result is that of the whole picture, up to float rounding, without seams,
in memory that does not grow with it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vaecodec.container import POSITION, Header, tile_boxes
from vaecodec.runtime import Graph
from vaecodec.stages import Watch
from vaecodec.windows import Window, windows2d

WINDOW = 1024
"""Side of the windows in pixels."""


def analyse(
    graph: Graph, halo: int, channels: int, pixels: NDArray[np.uint8], watch: Watch
) -> NDArray[np.float32]:
    """Return latents, float32 (C, ceil(H/16), ceil(W/16)), of pixels, uint8 (H, W, 1 or 3).

    graph: the encoder. halo: positions that it sees beyond an output, each way.
    """
    height, width = (-(-side // POSITION) for side in pixels.shape[:2])
    y = np.empty((channels, height, width), np.float32)
    for rows, columns in windows2d(height, width, WINDOW // POSITION, halo):
        with watch("encoder"):
            (result,) = graph(pixels=cut(pixels, rows, columns)[None])
        y[:, rows.place, columns.place] = result[0, :, rows.inside, columns.inside]
    return y


def synthesise(graph: Graph, halo: int, y: NDArray[np.float32], watch: Watch) -> NDArray[np.uint8]:
    """Return pixels, uint8 (16h, 16w, 3), of latents times inverse gain, float32 (C, h, w).

    graph: the decoder. halo: as in `analyse`.
    """
    height, width = y.shape[1:]
    pixels = np.empty((height * POSITION, width * POSITION, 3), np.uint8)
    for rows, columns in windows2d(height, width, WINDOW // POSITION, halo):
        part = np.ascontiguousarray(y[:, rows.read, columns.read])
        with watch("decoder"):
            (result,) = graph(y=part[None])
        inside = result[0, scaled(rows.inside), scaled(columns.inside)]
        pixels[scaled(rows.place), scaled(columns.place)] = inside
    return pixels


def scaled(positions: slice) -> slice:
    """Return the pixels of a range of latent positions."""
    return slice(positions.start * POSITION, positions.stop * POSITION)


def cut(pixels: NDArray[np.uint8], rows: Window, columns: Window) -> NDArray[np.uint8]:
    """Return the RGB pixels that a window reads, uint8 (16h, 16w, 3).

    Grey becomes RGB; beyond the right and lower border the last pixels are repeated.
    """
    wanted = scaled(rows.read), scaled(columns.read)
    part = pixels[wanted]
    missing = [(0, w.stop - w.start - have) for w, have in zip(wanted, part.shape[:2], strict=True)]
    part = np.pad(part, [*missing, (0, 0)], "edge")
    return np.ascontiguousarray(np.broadcast_to(part, (*part.shape[:2], 3)))


def tile_slices(header: Header) -> list[tuple[slice, slice]]:
    """Return (rows, columns) of latent positions of each tile, in the order of the file."""
    return [
        (slice(y0 // POSITION, -(-y1 // POSITION)), slice(x0 // POSITION, -(-x1 // POSITION)))
        for x0, y0, x1, y1 in tile_boxes(header)
    ]


def positions(header: Header) -> tuple[int, int]:
    """Return the latent positions (h, w) of an image."""
    return -(-header.height // POSITION), -(-header.width // POSITION)
