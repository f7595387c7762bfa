"""encode() and decode(): the two mirrored paths between a picture and a .vz file.

encode: pixels -> encoder -> latents -> for each tile: prior, quantise, entropy coder -> file
decode: file -> for each tile: prior, entropy decoder, dequantise -> latents -> decoder -> pixels
"""

from __future__ import annotations

import threading
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vaecodec import container, latents, transforms
from vaecodec.bundle import DEFAULT_MODEL, Bundle, find, find_fingerprint
from vaecodec.container import Colour, Container, Header, tile_boxes
from vaecodec.entropy import Step, TileDecoder, encode_tile
from vaecodec.picture import Picture, from_array
from vaecodec.priors import SIDE_STRIDE, HyperPrior, QualityTables
from vaecodec.runtime import Graph, resolve
from vaecodec.stages import Watch, unwatched
from vaecodec.transforms import STRIDE

if TYPE_CHECKING:
    from PIL.Image import Image


class Codec:
    """A model made ready: encodes pictures and decodes files. Safe to use from several threads.

    model: a name, or the directory of a bundle. provider: "auto" (CUDA where it works, else the
    CPU), "cpu" or "cuda", for the transforms; priors run on the CPU always. threads: of each
    network, None for all cores. portable: do without the entropy coding library, for the same
    bytes. watch: told of every stage, for those who measure (`vaecodec.stages`). Raises ModelError
    and ProviderError.
    """

    def __init__(
        self,
        model: str | Path | Bundle = DEFAULT_MODEL,
        provider: str = "auto",
        threads: int | None = None,
        *,
        portable: bool = False,
        watch: Watch = unwatched,
    ) -> None:
        self.bundle = model if isinstance(model, Bundle) else find(model)
        self.provider = resolve(provider)
        self._threads, self._portable, self._watch = threads, portable, watch
        self._lock = threading.RLock()

    def encode(
        self, image: Picture | Image | NDArray[np.uint8], quality: float | None = None
    ) -> bytes:
        """Return a .vz file of an image.

        image: a Pillow image, or uint8 (H, W), (H, W, 1 to 4): grey, with alpha, RGB, with alpha.
        quality: 0..100 in steps of 1/64, None for the model's default.
        Raises ImageError, and ValueError for a quality out of range.
        """
        picture = as_picture(image)
        height, width, colours = picture.pixels.shape
        step = quality_step(self.bundle.default_quality if quality is None else quality)
        colour = Colour.GREY if colours == 1 else Colour.RGB
        header = Header(width, height, colour, step, self.bundle.fingerprint)
        y = self.analyse(picture.pixels)
        y *= self._gain(step)
        tiles = [self.payload(y[:, rows, columns], step) for rows, columns in _tile_slices(header)]
        with self._watch("container"):
            alpha = None if picture.alpha is None else _pack_alpha(picture.alpha)
            file = Container(header, tuple(tiles), alpha, picture.icc, picture.exif, picture.xmp)
            return container.pack(file)

    def decode(self, data: bytes) -> Image:
        """Return the Pillow image (L, LA, RGB or RGBA) of a .vz file; metadata is in its `info`.

        Raises FormatError, and ModelError where the file was written with another model.
        """
        from vaecodec.images import to_pillow

        return to_pillow(self.decode_picture(data))

    def decode_picture(self, data: bytes) -> Picture:
        """Return the Picture of a .vz file; errors as in `decode`."""
        with self._watch("container"):
            file = container.unpack(data)
            alpha = None if file.alpha is None else _read_alpha(file.alpha)
        header = file.header
        if header.model != self.bundle.fingerprint:
            find_fingerprint(header.model, self.bundle.path)  # raises: says which is needed
        y = np.empty((self._channels, *_positions(header)), np.float32)
        for (rows, columns), payload in zip(_tile_slices(header), file.tiles, strict=True):
            y[:, rows, columns] = self.latents(payload, rows, columns, header.quality)
        y *= self._inverse_gain(header.quality)
        pixels = self.synthesise(y)[: header.height, : header.width]
        if header.colour == Colour.GREY:
            total = pixels.sum(2, dtype=np.uint16, keepdims=True)
            pixels = ((total + 1) // 3).astype(np.uint8)
        return Picture(np.ascontiguousarray(pixels), alpha, file.icc, file.exif, file.xmp)

    # Transforms: pixels <-> latents before gain.

    def analyse(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return latents, float32 (C, ceil(H/16), ceil(W/16)), of pixels, uint8 (H, W, 1 or 3)."""
        graph, halo = self._graph("encoder"), self._halo("encoder")
        return transforms.analyse(graph, halo, self._channels, pixels, self._watch)

    def synthesise(self, y: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return pixels, uint8 (16h, 16w, 3), of latents times inverse gain, float32 (C, h, w)."""
        return transforms.synthesise(self._graph("decoder"), self._halo("decoder"), y, self._watch)

    # Latents <-> symbols of one tile.

    def payload(self, y: NDArray[np.float32], quality: int) -> bytes:
        """Return the payload of a tile from its latents times gain, float32 (C, h, w)."""
        with self._watch("prior"):
            steps = self.symbols(y, quality)
        with self._watch("entropy"):
            return encode_tile(steps, self.bundle.tables, portable=self._portable)

    def symbols(self, y: NDArray[np.float32], quality: int) -> list[Step]:
        """Return the coding steps (symbols, rows) of a tile's latents times gain, (C, h, w)."""
        steps: list[Step] = []

        def quantise(
            values: NDArray[np.float32], means: NDArray[np.float32], rows: NDArray[np.uint8]
        ) -> NDArray[np.int32]:
            with self._watch("quantise"):
                difference = values - means / np.float32(latents.MEAN_UNIT)
                symbols = np.floor(difference + np.float32(0.5)).astype(np.int32)
                symbols[rows == 0] = 0
            steps.append((symbols, rows))
            return symbols

        height, width = y.shape[1:]
        z = self._side_information(y, quality).reshape(-1)
        flat = np.ascontiguousarray(y).reshape(-1)
        side = self._prior.code_side(height, width, quality, lambda m, r, at: quantise(z[at], m, r))
        self._prior.code(side, height, width, quality, lambda m, r, at: quantise(flat[at], m, r))
        return steps

    def latents(
        self, payload: bytes, rows: slice, columns: slice, quality: int
    ) -> NDArray[np.float32]:
        """Return a tile's latents before inverse gain, float32 (C, h, w), from its payload."""

        def read(_m: NDArray[np.float32], rows: NDArray[np.uint8], _at: Any) -> NDArray[np.int32]:
            with self._watch("entropy"):
                return decoder.read(rows)

        height, width = rows.stop - rows.start, columns.stop - columns.start
        with self._watch("prior"):
            decoder = TileDecoder(payload, self.bundle.tables, portable=self._portable)
            side = self._prior.code_side(height, width, quality, read)
            y16 = self._prior.code(side, height, width, quality, read)
        with self._watch("entropy"):
            decoder.finish()
        y16 /= np.float32(latents.MEAN_UNIT)
        return y16

    def _side_information(self, y: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
        """Return z before rounding, float32 (Z, ceil(h/4), ceil(w/4))."""
        padding = [(0, 0), *((0, -side % SIDE_STRIDE) for side in y.shape[1:])]
        with self._watch("side"):
            (z,) = self._graph("side")(y=np.pad(y, padding)[None])
        z *= _between_levels(self._gains["z_gain"], quality)
        side: NDArray[np.float32] = z[0]
        return side

    # What the bundle holds, made ready when first needed.

    @cached_property
    def _prior(self) -> HyperPrior:
        steps = [self._graph(f"step{k}") for k in range(self.bundle.manifest["decoding"]["steps"])]
        tables = {k: self._quality[k] for k in ("row_offset", "z_row", "shift")}
        return HyperPrior(self._graph("hyper"), steps, QualityTables(**tables))

    @cached_property
    def _quality(self) -> dict[str, NDArray[Any]]:
        return self.bundle.arrays("quality.npz")

    @cached_property
    def _gains(self) -> dict[str, NDArray[Any]]:
        return self.bundle.arrays("gains.npz")

    def _gain(self, quality: int) -> NDArray[np.float32]:
        return _between_levels(self._gains["gain"], quality)

    def _inverse_gain(self, quality: int) -> NDArray[np.float32]:
        return _between_levels(self._quality["inverse_gain"], quality)

    @property
    def _channels(self) -> int:
        return int(self.bundle.manifest["decoding"]["channels"])

    def _halo(self, side: str) -> int:
        return int(self.bundle.manifest["halo"][side])

    def _graph(self, name: str) -> Graph:
        with self._lock:
            graphs: dict[str, Graph] = self.__dict__.setdefault("_graphs", {})
            if name not in graphs:
                provider = self.provider if name in ("encoder", "decoder") else "cpu"
                graphs[name] = Graph(self.bundle.path / f"{name}.onnx", provider, self._threads)
            return graphs[name]


def _between_levels(table: NDArray[np.float32], quality: int) -> NDArray[np.float32]:
    """Return gains (n, 1, 1) at a quality from a table (L, n): linear in the logarithm."""
    level, remainder = latents.level_position(quality, len(table))
    share = remainder / latents.QUALITY_MAX
    gains = table[level] ** (1 - share) * table[level + 1] ** share
    column: NDArray[np.float32] = gains.astype(np.float32).reshape(-1, 1, 1)
    return column


def _positions(header: Header) -> tuple[int, int]:
    """Return the latent positions (h, w) of an image."""
    return -(-header.height // STRIDE), -(-header.width // STRIDE)


def _tile_slices(header: Header) -> list[tuple[slice, slice]]:
    """Return (rows, columns) of latent positions of each tile, in the order of the file."""
    return [
        (slice(y0 // STRIDE, -(-y1 // STRIDE)), slice(x0 // STRIDE, -(-x1 // STRIDE)))
        for x0, y0, x1, y1 in tile_boxes(header)
    ]


def quality_step(quality: float) -> int:
    """Return a quality 0..100 in 1/64 of a step, as files hold it; ValueError out of range."""
    if not 0 <= quality <= 100:
        raise ValueError(f"the quality is {quality}; 0 to 100 expected")
    return round(quality * latents.QUALITY_UNIT)


def as_picture(image: Picture | Image | NDArray[np.uint8]) -> Picture:
    """Return the Picture of a Pillow image or of an array; a Picture passes."""
    if isinstance(image, Picture):
        return image
    if isinstance(image, np.ndarray):
        return from_array(image)
    from vaecodec.images import from_pillow

    return from_pillow(image)


def _pack_alpha(alpha: NDArray[np.uint8]) -> bytes:
    from vaecodec.images import pack_alpha

    return pack_alpha(alpha)


def _read_alpha(png: bytes) -> NDArray[np.uint8]:
    from vaecodec.images import read_alpha

    return read_alpha(png)


@lru_cache(maxsize=4)
def _codec(model: str | Path, provider: str, threads: int | None) -> Codec:
    return Codec(model, provider, threads)


def encode(
    image: Picture | Image | NDArray[np.uint8],
    quality: float | None = None,
    *,
    model: str | Path = DEFAULT_MODEL,
    provider: str = "auto",
) -> bytes:
    """Return a .vz file of an image: `Codec.encode` of the codec of `model`, kept for next time."""
    return _codec(model, provider, None).encode(image, quality)


def decode(data: bytes, *, models: str | Path | None = None, provider: str = "auto") -> Image:
    """Return the Pillow image of a .vz file, with the bundle that it names.

    models: where to look for the bundle, instead of the search path (`bundle.search_path`).
    """
    place = None if models is None else Path(models)
    bundle = find_fingerprint(container.unpack(data).header.model, place)
    return _codec(bundle.path, provider, None).decode(data)
