"""The integer rules that encoder, decoder and training share: units, quality, coding groups.

Everything here is a definition of the bit stream (docs/format.md, "Symbols of a tile") and is
written once: `train` imports it, so a network is trained under the rules that files obey.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from vaecodec.container import MAX_QUALITY, POSITION, TILE_UNIT

QUALITY_MAX = MAX_QUALITY
"""Quality is held in 1/64 of a step: 0..6400 stands for `--quality` 0..100."""

QUALITY_UNIT = QUALITY_MAX // 100

SIDE_STRIDE = TILE_UNIT // POSITION
"""Side information has one position for so many of latents, each way."""

MEAN_UNIT = 16
"""Means of latents are integers in 1/16 of a quantisation step."""

Quality = int | npt.NDArray[np.int64]
"""Of all positions of a tile, or of each of them, (h, w); in 1/64 of a step, 0..6400."""

ROWS = 64
"""Rows of the scale table. Row 0 is certain: its symbols are zero and are not coded."""

ROW_UNIT = 8
"""Scale indices are predicted in 1/8 of a row, then rounded."""

SCALE_MIN, SCALE_MAX = 0.11, 256.0
"""Standard deviations of row 0 and of row 63, in quantisation steps; the rows between are
spaced evenly in the logarithm."""

LOG_SCALE_STEP = math.log(SCALE_MAX / SCALE_MIN) / (ROWS - 1)
"""ln of the ratio of neighbouring rows' standard deviations (0.123)."""

# log2 of a row's standard deviation as a fixed-point line: (row8 * SLOPE + OFFSET) >> 16 is
# round(log2(scale)) for a scale index in 1/8 rows. Integers, so that it is the same everywhere.
_SLOPE = round(LOG_SCALE_STEP / ROW_UNIT / math.log(2) * 65536)
_OFFSET = round(math.log2(SCALE_MIN) * 65536) + 32768
EXPONENT_MIN, EXPONENT_MAX = -2, 8


def scales() -> npt.NDArray[np.float64]:
    """Return the standard deviation of each row, float64 (64,), in quantisation steps."""
    return SCALE_MIN * np.exp(LOG_SCALE_STEP * np.arange(ROWS, dtype=np.float64))


def level_position(quality: Any, levels: int) -> tuple[Any, Any]:
    """Return (level, remainder): `quality` lies remainder/6400 of the way to level + 1.

    `quality` is in 1/64 of a step, 0..6400, one or an array of them (`Quality`), and so are level
    and remainder; `levels` is the number of rows in the quality tables.
    """
    position = quality * (levels - 1)
    level = np.minimum(position // QUALITY_MAX, levels - 2)
    return level, position - QUALITY_MAX * level


def nearest_level(quality: int, levels: int) -> int:
    """Return the level that `quality`, in 1/64 of a step, is nearest to; of two, the higher one.

    For models that have no quality between two levels (docs/format.md, "Symbols of a data set").
    """
    return (quality * (levels - 1) + QUALITY_MAX // 2) // QUALITY_MAX


def interpolate(table: npt.NDArray[np.int64], quality: Quality) -> npt.NDArray[np.int64]:
    """Return the row of an integer quality table at `quality`: int64 (levels, n) -> (n,).

    Linear between levels, rounded half up, in integers. With a quality for each of (h, w)
    positions it is (n, h, w).
    """
    level, remainder = level_position(quality, len(table))
    columns = table.T.astype(np.int64)
    low, high = columns[:, level], columns[:, level + 1]
    mixed = low * (QUALITY_MAX - remainder) + high * remainder
    rounded: npt.NDArray[np.int64] = (mixed + QUALITY_MAX // 2) // QUALITY_MAX
    return rounded


def between_levels(table: npt.NDArray[np.float32], quality: Quality) -> npt.NDArray[np.float32]:
    """Return gains (n, 1, 1) at a quality from a table (L, n): linear in the logarithm.

    At a quality for each of (h, w) positions they are (n, h, w).
    """
    if isinstance(quality, np.ndarray):
        steps, place = np.unique(quality, return_inverse=True)
        columns = [between_levels(table, int(step)).reshape(-1) for step in steps]
        return np.stack(columns, 1)[:, place.reshape(quality.shape)]
    level, remainder = level_position(quality, len(table))
    share = float(remainder) / QUALITY_MAX
    gains = table[level] ** (1 - share) * table[level + 1] ** share
    column: npt.NDArray[np.float32] = gains.astype(np.float32).reshape(-1, 1, 1)
    return column


def side_quality(quality: Quality) -> int:
    """Return the quality that side information of a tile has: the best of its positions."""
    return int(np.max(quality))


def exponents(row8: Any) -> Any:
    """Return round(log2(scale)), clipped to -2..8, for scale indices `row8` in 1/8 rows.

    Takes and gives an integer NumPy array or torch tensor of any shape. It normalises context and
    means: 2**exponent is the scale that a channel has before anything is known of the image.
    """
    return ((row8 * _SLOPE + _OFFSET) >> 16).clip(EXPONENT_MIN, EXPONENT_MAX)


def step_of(channels: int, height: int, width: int, steps: int) -> npt.NDArray[np.uint8]:
    """Return the coding step of every latent: uint8 (channels, height, width), 0..steps-1.

    With one step everything is coded at once. With two, positions form a checkerboard; with four,
    the phases of a 2x2 cell, diagonal neighbours first. The pattern is rotated by one step from
    channel to channel, so that every step decodes a share of every position (Li et al., 2023,
    "Neural Video Compression with Diverse Contexts", arXiv 2302.14402).
    """
    phase = np.array([[0, 2], [3, 1]]) * steps // 4
    y, x, c = np.arange(height) % 2, np.arange(width) % 2, np.arange(channels)
    return ((phase[y][:, x][None] + c[:, None, None]) % steps).astype(np.uint8)
