"""Priors: from the latents decoded so far to the mean and the table row of each that follows.

Section "Symbols of a tile" of docs/format.md. Integers only: the networks are integer graphs that
float32 computes exactly (vaecodec/bounds.py proves it), and run on the CPU provider always.
Encoder and decoder walk the same path and differ in where a symbol comes from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaecodec import latents
from vaecodec.latents import SIDE_STRIDE, Quality
from vaecodec.runtime import Graph

Take = Callable[[NDArray[np.float32], NDArray[np.uint8], NDArray[np.intp]], NDArray[Any]]
"""take(means, rows, positions) -> symbols: where the symbols of one coding step come from.

means: float32 (n,), integers in 1/16 of a quantisation step; rows: uint8 (n,); positions: intp
(n,), into the flattened latents (C, h, w). Returns int32 (n,); for y, a search may return float32.
"""

_KEPT = 4
"""Sizes of tiles whose positions are kept: those of one image, each of them 10 MB or less."""

_SYMBOL_LIMIT = 2**15
"""Symbols are clipped to this magnitude before they enter a network, so that it stays exact."""


@dataclass(frozen=True)
class QualityTables:
    """Integer tables with a row per quality level, all int32.

    row_offset: (L, C), scale indices of y in 1/8 rows. z_row: (L, Z), of z in 1/8 rows.
    shift: (L, P), added to the features of the hyper decoder, in their unit.
    """

    row_offset: NDArray[np.int32]
    z_row: NDArray[np.int32]
    shift: NDArray[np.int32]


@dataclass(frozen=True)
class Conditions:
    """What is known of y before any of it: inputs of the networks of all steps.

    common: features (1, P, h, w), offset and sigma4 (1, C, 1, 1), or (1, C, h, w) where positions
    have qualities of their own. inverse: likewise, of steps that see what is decoded already.
    """

    common: Mapping[str, NDArray[np.float32]]
    inverse: NDArray[np.float32]


class HyperPrior:
    """Side information z, coded under a row per channel, then y in steps given z.

    Ballé et al., 2018 (arXiv 1802.01436) and Minnen et al., 2018 (arXiv 1809.02736); steps as in
    He et al., 2021 (arXiv 2103.15306).
    """

    def __init__(self, hyper: Graph, steps: list[Graph], tables: QualityTables) -> None:
        self._hyper, self._steps, self._tables = hyper, steps, tables
        self._patterns: dict[tuple[int, int], list[NDArray[np.intp]]] = {}

    def side_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Return the shape (Z, h/4, w/4) of z for latents of `height` x `width` positions."""
        channels = self._tables.z_row.shape[1]
        return channels, -(-height // SIDE_STRIDE), -(-width // SIDE_STRIDE)

    def code_side(self, height: int, width: int, quality: Quality, take: Take) -> NDArray[np.int32]:
        """Code z; return it, int32 (Z, ceil(height/4), ceil(width/4))."""
        shape = self.side_shape(height, width)
        step = latents.side_quality(quality)
        eighths = latents.interpolate(self._tables.z_row.astype(np.int64), step)
        rows = ((eighths + latents.ROW_UNIT // 2) // latents.ROW_UNIT).clip(1, latents.ROWS - 1)
        per_symbol = np.repeat(rows.astype(np.uint8), shape[1] * shape[2])
        means = np.zeros(len(per_symbol), np.float32)
        return take(means, per_symbol, np.arange(len(per_symbol))).reshape(shape)

    def code(
        self, z: NDArray[np.int32], height: int, width: int, quality: Quality, take: Take
    ) -> NDArray[np.float32]:
        """Code y of `height` x `width` positions, given z.

        Returns the latents as the decoder knows them, float32 (C, height, width), integers in 1/16
        of a quantisation step.
        """
        return self.code_given(self.conditions(z, height, width, quality), take)

    def conditions(
        self, z: NDArray[np.int32], height: int, width: int, quality: Quality
    ) -> Conditions:
        """Return what is known of y of `height` x `width` positions from z and the quality.

        Where each position has a quality of its own, the networks have to take (1, n, h, w) for
        what is (1, n, 1, 1) else (`vaecodec.shapes`).
        """
        offset = latents.interpolate(self._tables.row_offset.astype(np.int64), quality)
        exponent = latents.exponents(offset)
        of_features = _as_wide(quality, -height % SIDE_STRIDE, -width % SIDE_STRIDE)
        shift = latents.interpolate(self._tables.shift.astype(np.int64), of_features)
        features = self._hyper(z=_network_input(z), shift=_per_channel(shift))[0]
        common = {
            "features": np.ascontiguousarray(features[:, :, :height, :width]),
            "offset": _per_channel(offset),
            "sigma4": _per_channel(np.ldexp(1.0, exponent + 2)),
        }
        return Conditions(common, _per_channel(np.ldexp(1.0, 8 - exponent)))

    def code_given(self, conditions: Conditions, take: Take) -> NDArray[np.float32]:
        """Code y given what is known of it; returns it as `code` does."""
        _, _, height, width = conditions.common["features"].shape
        y16 = np.zeros((1, conditions.inverse.shape[1], height, width), np.float32)
        flat = y16.reshape(-1)
        for positions, step in zip(self.positions(height, width), self._steps, strict=True):
            context = {"y16": y16, "inverse": conditions.inverse} if "y16" in step.inputs else {}
            mean, row = step(**conditions.common, **context)
            means = mean.reshape(-1)[positions]
            symbols = take(means, row.reshape(-1)[positions], positions)
            limited = symbols.clip(-_SYMBOL_LIMIT, _SYMBOL_LIMIT).astype(np.float32)
            flat[positions] = limited * latents.MEAN_UNIT + means
        latent: NDArray[np.float32] = y16[0]
        return latent

    def positions(self, height: int, width: int) -> list[NDArray[np.intp]]:
        """Return, for each step, the flat positions that it codes, ascending."""
        key = height, width
        found = self._patterns.get(key)
        if found is None:
            channels, count = self._tables.row_offset.shape[1], len(self._steps)
            pattern = latents.step_of(channels, height, width, count).reshape(-1)
            found = [np.flatnonzero(pattern == k) for k in range(count)]
            if len(self._patterns) >= _KEPT:
                self._patterns.clear()
            self._patterns[key] = found
        return found


def _network_input(values: NDArray[np.int32]) -> NDArray[np.float32]:
    return values.clip(-_SYMBOL_LIMIT, _SYMBOL_LIMIT).astype(np.float32)[None]


def _per_channel(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Return values (n,) as (1, n, 1, 1), or (n, h, w) as (1, n, h, w)."""
    flat = values[:, None, None] if values.ndim == 1 else values
    return flat.astype(np.float32)[None]


def _as_wide(quality: Quality, rows: int, columns: int) -> Quality:
    """Return the qualities of positions with so many rows and columns more, like the last."""
    if not isinstance(quality, np.ndarray):
        return quality
    return np.pad(quality, ((0, rows), (0, columns)), "edge")
