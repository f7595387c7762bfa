"""The model of photographs: pixels <-> the payloads of a file's tiles (family "hyperprior").

encode: pixels -> encoder -> latents -> for each tile: prior, quantise, entropy coder -> payload
decode: payload -> for each tile: prior, entropy decoder, dequantise -> latents -> decoder -> pixels
"""

from __future__ import annotations

import copy
import threading
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vaecodec import latents, refine, transforms
from vaecodec.bundle import Bundle
from vaecodec.container import Colour, Header
from vaecodec.entropy import Step, TileDecoder, encode_tile
from vaecodec.errors import FormatError, ImageError
from vaecodec.latents import Quality
from vaecodec.priors import Conditions, HyperPrior, QualityTables, Take
from vaecodec.rates import CodeLengths
from vaecodec.roi import QualityMap
from vaecodec.runtime import Device, Graph
from vaecodec.search import Search
from vaecodec.shapes import freed
from vaecodec.spending import bits_of_tile
from vaecodec.stages import Watch
from vaecodec.transforms import tile_slices


class Hyperprior:
    """A photo bundle made ready: pictures of any size, one in a file, at all qualities.

    Arguments as of `families.load`.
    """

    def __init__(
        self, bundle: Bundle, provider: Device, threads: int | None, portable: bool, watch: Watch
    ) -> None:
        self.bundle = bundle
        self._provider, self._threads = provider, threads
        self._portable, self.watch = portable, watch
        self._map: QualityMap | None = None
        self._lock = threading.RLock()
        self._graphs: dict[tuple[str, bool], Graph] = {}

    def quality_step(self, quality: float) -> int:
        """Return a quality 0..100 as files hold it, in 1/64 of a step."""
        return round(quality * latents.QUALITY_UNIT)

    def encode(
        self, images: NDArray[np.uint8], header: Header, search: Search | None
    ) -> list[bytes]:
        """Return the payload of each tile of the one image in `images`, uint8 (1, H, W, 1 or 3).

        Raises ImageError for several images.
        """
        if len(images) != 1:
            raise ImageError(f"{len(images)} images; a file of {self.bundle.name} holds one")
        y = self.analyse(images[0])
        y, tiles = refine.refined(self, images[0], y, header, search or Search())
        return [self._coded(steps) for steps in tiles] or self.payloads(y, header)

    def decode(self, header: Header, tiles: tuple[bytes, ...]) -> NDArray[np.uint8]:
        """Return the image, uint8 (1, H, W, 1 or 3), of the payloads of all tiles."""
        if header.images != 1:
            raise FormatError(
                f"the file holds {header.images} images; 1 was expected of {self.bundle.name}"
            )
        y = np.empty((self._channels, *transforms.positions(header)), np.float32)
        for (rows, columns), payload in zip(tile_slices(header), tiles, strict=True):
            quality = self.quality(header, rows, columns)
            y[:, rows, columns] = self.latents(payload, rows, columns, quality)
            y[:, rows, columns] *= self.inverse_gain(quality)
        return self._pixels(y, header)

    def bits(self, header: Header, tiles: tuple[bytes, ...]) -> NDArray[np.float64]:
        """Return the bits that each position cost, float64 (h, w), of the payloads of all tiles."""
        bits = np.empty(transforms.positions(header))
        for (rows, columns), payload in zip(tile_slices(header), tiles, strict=True):
            size = rows.stop - rows.start, columns.stop - columns.start
            quality = self.quality(header, rows, columns)
            bits[rows, columns] = bits_of_tile(
                self.prior, self.bundle.tables, self.code_lengths, payload, size, quality
            )
        return bits

    def mapped(self, qualities: QualityMap) -> Self:
        """Return this model for files with a quality map; it shares the networks."""
        other = copy.copy(self)
        other.__dict__.pop("prior", None)
        other._map = qualities
        return other

    def quality(self, header: Header, rows: slice, columns: slice) -> Quality:
        """Return the quality of a part of the positions: one, or that of each, int64 (h, w)."""
        if self._map is None:
            return header.quality
        part = QualityMap(self._map.levels[rows, columns], self._map.depth)
        return part.qualities(header.quality)

    def refined(
        self,
        pixels: NDArray[np.uint8],
        y: NDArray[np.float32],
        header: Header,
        search: Search | None,
    ) -> NDArray[np.float32]:
        """Return latents before gain, (C, h, w), that cost less than `y`, or `y` if there are none.

        pixels: uint8 (H, W, 1 or 3). search: None for the default. Raises ModelError where the
        bundle has no gradients to search with.
        """
        better, _ = refine.refined(self, pixels, y, header, search or Search())
        return better

    def payloads(self, y: NDArray[np.float32], header: Header) -> list[bytes]:
        """Return the payload of each tile of latents before gain, float32 (C, h, w)."""
        parts = [(y[:, r, c], self.quality(header, r, c)) for r, c in tile_slices(header)]
        return [self.payload(part * self.gain(quality), quality) for part, quality in parts]

    def reconstruct(self, y: NDArray[np.float32], header: Header) -> NDArray[np.uint8]:
        """Return what `decode` gives for the payloads of `y`, without entropy coding."""
        decoded = np.empty_like(y)
        for rows, columns in tile_slices(header):
            quality = self.quality(header, rows, columns)
            _, tile = self.quantised(y[:, rows, columns] * self.gain(quality), quality)
            decoded[:, rows, columns] = tile * self.inverse_gain(quality)
        return self._pixels(decoded, header)

    def _pixels(self, y: NDArray[np.float32], header: Header) -> NDArray[np.uint8]:
        """Return the image, uint8 (1, H, W, 1 or 3), of latents times inverse gain."""
        pixels = self.synthesise(y)[: header.height, : header.width]
        if header.colour == Colour.GREY:
            total = pixels.sum(2, dtype=np.uint16, keepdims=True)
            pixels = ((total + 1) // 3).astype(np.uint8)
        return np.ascontiguousarray(pixels)[None]

    # Transforms: pixels <-> latents before gain.

    def analyse(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return latents, float32 (C, ceil(H/16), ceil(W/16)), of pixels, uint8 (H, W, 1 or 3)."""
        graph, halo = self.graph("encoder"), self.halo("encoder")
        return transforms.analyse(graph, halo, self._channels, pixels, self.watch)

    def synthesise(self, y: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return pixels, uint8 (16h, 16w, 3), of latents times inverse gain, float32 (C, h, w)."""
        return transforms.synthesise(self.graph("decoder"), self.halo("decoder"), y, self.watch)

    # Latents <-> symbols of one tile.

    def payload(self, y: NDArray[np.float32], quality: Quality) -> bytes:
        """Return the payload of a tile from its latents times gain, float32 (C, h, w)."""
        return self._coded(self.quantised(y, quality)[0])

    def _coded(self, steps: list[Step]) -> bytes:
        with self.watch("entropy"):
            return encode_tile(steps, self.bundle.tables, portable=self._portable)

    def quantised(
        self, y: NDArray[np.float32], quality: Quality
    ) -> tuple[list[Step], NDArray[np.float32]]:
        """Quantise a tile's latents times gain, float32 (C, h, w).

        Returns its coding steps (symbols, rows), and the latents as `latents` gives them.
        """
        steps: list[Step] = []

        def quantise(
            values: NDArray[np.float32], means: NDArray[np.float32], rows: NDArray[np.uint8]
        ) -> NDArray[np.int32]:
            with self.watch("quantise"):
                difference = values - means / np.float32(latents.MEAN_UNIT)
                symbols = np.floor(difference + np.float32(0.5)).astype(np.int32)
                symbols[rows == 0] = 0
            steps.append((symbols, rows))
            return symbols

        def coded(values: NDArray[np.float32]) -> Take:
            flat = np.ascontiguousarray(values).reshape(-1)
            return lambda means, rows, at: quantise(flat[at], means, rows)

        height, width = y.shape[1:]
        with self.watch("prior"):
            z = self.side_information(y, quality)
            side = self.prior.code_side(height, width, quality, coded(z))
            y16 = self.prior.code(side, height, width, quality, coded(y))
        y16 /= np.float32(latents.MEAN_UNIT)
        return steps, y16

    def latents(
        self, payload: bytes, rows: slice, columns: slice, quality: Quality
    ) -> NDArray[np.float32]:
        """Return a tile's latents before inverse gain, float32 (C, h, w), from its payload."""

        def read(_m: NDArray[np.float32], rows: NDArray[np.uint8], _at: Any) -> NDArray[np.int32]:
            with self.watch("entropy"):
                return decoder.read(rows)

        height, width = rows.stop - rows.start, columns.stop - columns.start
        with self.watch("prior"):
            decoder = TileDecoder(payload, self.bundle.tables, portable=self._portable)
            side = self.prior.code_side(height, width, quality, read)
            y16 = self.prior.code(side, height, width, quality, read)
        with self.watch("entropy"):
            decoder.finish()
        y16 /= np.float32(latents.MEAN_UNIT)
        return y16

    def side_information(self, y: NDArray[np.float32], quality: Quality) -> NDArray[np.float32]:
        """Return z before rounding, float32 (Z, ceil(h/4), ceil(w/4))."""
        padding = [(0, 0), *((0, -side % latents.SIDE_STRIDE) for side in y.shape[1:])]
        with self.watch("side"):
            (z,) = self.graph("side")(y=np.pad(y, padding)[None])
        z *= latents.between_levels(self._gains["z_gain"], latents.side_quality(quality))
        side: NDArray[np.float32] = z[0]
        return side

    def conditions(self, y: NDArray[np.float32], quality: Quality) -> tuple[Conditions, Step]:
        """Return what the prior knows of a tile, y times gain, from its side information.

        And the coding step (symbols, rows) of that.
        """
        z = self.side_information(y, quality)
        steps: list[Step] = []

        def take(_m: NDArray[np.float32], rows: NDArray[np.uint8], at: NDArray[np.intp]) -> Any:
            symbols = np.floor(z.reshape(-1)[at] + np.float32(0.5)).astype(np.int32)
            steps.append((symbols, rows))
            return symbols

        height, width = y.shape[1:]
        side = self.prior.code_side(height, width, quality, take)
        return self.prior.conditions(side, height, width, quality), steps[0]

    # What the bundle holds, made ready when first needed.

    @cached_property
    def code_lengths(self) -> CodeLengths:
        """What symbols cost."""
        return CodeLengths(self.bundle.tables)

    @cached_property
    def prior(self) -> HyperPrior:
        """The prior, its graphs made ready."""
        steps = [self.graph(f"step{k}") for k in range(self.bundle.manifest["decoding"]["steps"])]
        tables = {k: self._quality[k] for k in ("row_offset", "z_row", "shift")}
        return HyperPrior(self.graph("hyper"), steps, QualityTables(**tables))

    @cached_property
    def _quality(self) -> dict[str, NDArray[Any]]:
        return self.bundle.arrays("quality.npz")

    @cached_property
    def _gains(self) -> dict[str, NDArray[Any]]:
        return self.bundle.arrays("gains.npz")

    def gain(self, quality: Quality) -> NDArray[np.float32]:
        """Return the factors, (C, 1, 1 or h, w), between latents and what is quantised."""
        return latents.between_levels(self._gains["gain"], quality)

    def inverse_gain(self, quality: Quality) -> NDArray[np.float32]:
        """Return the factors, (C, 1, 1 or h, w), between what is quantised and the decoder's."""
        return latents.between_levels(self._quality["inverse_gain"], quality)

    @property
    def _channels(self) -> int:
        return int(self.bundle.manifest["decoding"]["channels"])

    def halo(self, side: str) -> int:
        """Return the positions that the encoder or the decoder sees beyond an output, each way."""
        return int(self.bundle.manifest["halo"][side])

    def graph(self, name: str) -> Graph:
        """Return a graph of the bundle; a gradient's weights are those of what it belongs to."""
        base = name.removesuffix(refine.GRADIENT)
        of_transforms = base in ("encoder", "decoder")
        free = self._map is not None and not of_transforms
        with self._lock:
            if (name, free) not in self._graphs:
                file, owner = f"{name}.onnx", f"{base}.onnx"
                self._graphs[name, free] = Graph(
                    freed(self.bundle.read(file)) if free else self.bundle.source(file),
                    self._provider if of_transforms else "cpu",
                    self._threads,
                    weights={} if base == name else {owner: self.bundle.read(owner)},
                )
            return self._graphs[name, free]
