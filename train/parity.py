"""The integer prior of a bundle, run on given latents: what the export compares with torch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train import exact
from train.symbols import prior_of
from vaecodec import latents
from vaecodec.runtime import Graph


class Int64Graph:
    """A graph evaluated on int64 instead of float32, with the interface of `runtime.Graph`."""

    def __init__(self, model: bytes) -> None:
        self._model = model
        self.inputs = Graph(model).inputs

    def __call__(self, **inputs: NDArray[np.generic]) -> tuple[NDArray[Any], ...]:
        outputs = exact.evaluate(self._model, inputs)
        kinds = {"row": np.uint8}
        return tuple(v[None].astype(kinds.get(k, np.float32)) for k, v in outputs.items())


def integer_symbols(
    files: Mapping[str, bytes], y: NDArray[np.float32], z: NDArray[np.int32], level: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return (symbols int32, rows uint8), both (C, h, w), of latents y times gain, given z."""
    with np.load(io.BytesIO(files["quality.npz"])) as arrays:
        levels = len(arrays["z_row"])
    symbols, rows = np.zeros(y.shape, np.int32), np.zeros(y.shape, np.uint8)
    flat = y.reshape(-1)

    def take(m: NDArray[Any], r: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.int32]:
        found = np.floor(flat[at] - m / latents.MEAN_UNIT + np.float32(0.5)).astype(np.int32)
        found[r == 0] = 0
        symbols.reshape(-1)[at], rows.reshape(-1)[at] = found, r
        return found

    quality = level * latents.QUALITY_MAX // (levels - 1)
    prior_of(files).code(z, y.shape[1], y.shape[2], quality, take)
    return symbols, rows
