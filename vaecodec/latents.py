"""The integer rules that encoder, decoder and training share: units, quality, coding groups.

Everything here is a definition of the bit stream (docs/format.md, "Symbols of a tile") and is
written once: `train` imports it, so a network is trained under the rules that files obey.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from vaecodec.container import MAX_QUALITY

QUALITY_MAX = MAX_QUALITY
"""Quality is held in 1/64 of a step: 0..6400 stands for `--quality` 0..100."""

QUALITY_UNIT = QUALITY_MAX // 100

MEAN_UNIT = 16
"""Means of latents are integers in 1/16 of a quantisation step."""

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


def level_position(quality: int, levels: int) -> tuple[int, int]:
    """Return (level, remainder): `quality` lies remainder/6400 of the way to level + 1.

    `quality` is in 1/64 of a step, 0..6400; `levels` is the number of rows in the quality tables.
    """
    level, remainder = divmod(quality * (levels - 1), QUALITY_MAX)
    return (level, remainder) if level < levels - 1 else (levels - 2, QUALITY_MAX)


def interpolate(table: npt.NDArray[np.int64], quality: int) -> npt.NDArray[np.int64]:
    """Return the row of an integer quality table at `quality`: int64 (levels, n) -> (n,).

    Linear between levels, rounded half up, in integers.
    """
    level, remainder = level_position(quality, len(table))
    low, high = table[level].astype(np.int64), table[level + 1].astype(np.int64)
    mixed = low * (QUALITY_MAX - remainder) + high * remainder
    rounded: npt.NDArray[np.int64] = (mixed + QUALITY_MAX // 2) // QUALITY_MAX
    return rounded


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
