"""The symbols of a file, decoded by whatever computes the prior's graphs. Needs no torch."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaecodec import container
from vaecodec.entropy import TileDecoder
from vaecodec.latents import Quality
from vaecodec.priors import HyperPrior, QualityTables
from vaecodec.roi import read_map
from vaecodec.runtime import Graph
from vaecodec.shapes import freed
from vaecodec.tables import FrequencyTables
from vaecodec.transforms import positions, tile_slices


def prior_of(files: Mapping[str, bytes], graph: Callable[[bytes], Any] = Graph) -> HyperPrior:
    """Return the prior of a bundle's files, its graphs made ready by `graph`."""
    with np.load(io.BytesIO(files["quality.npz"])) as arrays:
        tables = QualityTables(*(arrays[k] for k in ("row_offset", "z_row", "shift")))
    steps = sorted(n for n in files if n.startswith("step"))
    hyper, *coding = (graph(freed(files[name])) for name in ("hyper.onnx", *steps))
    return HyperPrior(hyper, coding, tables)


def digest(
    data: bytes, prior: HyperPrior, tables: FrequencyTables, *, portable: bool = False
) -> str:
    """Return the SHA-256, hexadecimal, of the z and y (in 1/16) of a file's tiles, as int32."""
    file = container.unpack(data)
    found = hashlib.sha256()
    for place, payload in zip(tile_slices(file.header), file.tiles, strict=True):
        decoder = TileDecoder(payload, tables, portable=portable)

        def take(
            _means: NDArray[np.float32],
            rows: NDArray[np.uint8],
            _positions: NDArray[np.intp],
            decoder: TileDecoder = decoder,
        ) -> NDArray[np.int32]:
            return decoder.read(rows)

        quality: Quality = file.header.quality
        if file.qualities is not None:
            qualities = read_map(file.qualities, *positions(file.header))
            quality = qualities.qualities(file.header.quality)[place]
        height, width = (part.stop - part.start for part in place)
        z = prior.code_side(height, width, quality, take)
        y16 = prior.code(z, height, width, quality, take)
        decoder.finish()
        for array in (z, y16):
            found.update(array.astype("<i4").tobytes())
    return found.hexdigest()
