"""The classical VAEs: images of one size <-> the symbols of a whole data set (family "gaussian").

encode: pixels -> encoder -> means of the posterior -> quantise -> entropy coder -> payload
decode: payload -> entropy decoder -> dequantise -> latents -> decoder -> pixels

Section "Symbols of a data set" of docs/format.md. The prior of each latent is N(0, 1) whatever the
others are (Kingma and Welling, 2013, "Auto-encoding variational Bayes", arXiv 1312.6114), so that
rows depend on nothing but the quality, and all images are one coding step.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaecodec import latents
from vaecodec.bundle import Bundle
from vaecodec.container import Colour, Header
from vaecodec.entropy import TileDecoder, encode_tile
from vaecodec.errors import FormatError, ImageError, ModelError
from vaecodec.runtime import Device, Graph
from vaecodec.search import Search
from vaecodec.stages import Watch

BATCH = 256
"""Images that the networks see at once: bounds the memory for what is between their layers."""

MAX_SYMBOLS = 1 << 26
"""Of a file: what is nearly certain costs no bytes, so its size bounds neither time nor memory."""

_FARTHEST = 2.0**30  # of symbols: an encoder gone astray must not leave int32


class Posterior(NamedTuple):
    """What the encoder says of images: means and log-variances, float32 (N, D).

    target: the images as the model's likelihood sees them, float32 (N, c, h, w).
    """

    mean: NDArray[np.float32]
    log_variance: NDArray[np.float32]
    target: NDArray[np.float32]


class Gaussian:
    """A bundle of a classical VAE made ready: images of one size, any number in a file.

    shape: (H, W, C) of the images. dimensions: D, the latents of each. most_images: in a file.
    Arguments as of `families.load`; raises ModelError.
    """

    def __init__(
        self, bundle: Bundle, provider: Device, threads: int | None, portable: bool, watch: Watch
    ) -> None:
        decoding = bundle.manifest["decoding"]
        self.shape = (decoding["height"], decoding["width"], decoding["colours"])
        self.dimensions = int(decoding["dimensions"])
        self.most_images = MAX_SYMBOLS // self.dimensions
        self.bundle = bundle
        self._provider, self._threads = provider, threads
        self._portable, self._watch = portable, watch
        quality = bundle.arrays("quality.npz")
        self._steps: NDArray[np.float32] = quality["step"]
        self._rows: NDArray[np.uint8] = quality["row"]
        if self._rows.max() >= len(bundle.tables.low):
            raise ModelError(
                f"{bundle.path / 'quality.npz'} is damaged: it names row {self._rows.max()}, and "
                f"the tables have {len(bundle.tables.low)} rows; install the bundle again"
            )

    def quality_step(self, quality: float) -> int:
        """Return what stands in files, in 1/64 of a step, for the level nearest to a quality."""
        levels = len(self._steps)
        level = latents.nearest_level(round(quality * latents.QUALITY_UNIT), levels)
        return latents.QUALITY_MAX * level // (levels - 1)

    def encode(
        self, images: NDArray[np.uint8], header: Header, search: Search | None
    ) -> list[bytes]:
        """Return the payload of the one tile of images, uint8 (N, H, W, C).

        Raises ImageError where they are of another size, or too many, ModelError for a search.
        """
        if search is not None and search.effort != 0:
            raise ModelError(f"{self.bundle.name} cannot search for a better file; ask for none")
        if len(images) > self.most_images:
            raise ImageError(
                f"{len(images)} images; {self.bundle.name} takes {self.most_images} at most"
            )
        symbols = [self.symbols(p.mean, header.quality) for p in self.posteriors(images)]
        rows = self._rows_of(header)
        with self._watch("entropy"):
            step = np.concatenate(symbols).reshape(-1), rows
            return [encode_tile([step], self.bundle.tables, portable=self._portable)]

    def decode(self, header: Header, tiles: tuple[bytes, ...]) -> NDArray[np.uint8]:
        """Return the images, uint8 (N, H, W, C), of the payload of the one tile."""
        self._check_header(header)
        y = self.latents(header, tiles[0])
        images = np.empty((header.images, *self.shape), np.uint8)
        for start in range(0, len(y), BATCH):
            part = slice(start, start + BATCH)
            images[part] = self.synthesise(y[part])[0]
        return images

    # Transforms: images <-> latents.

    def posteriors(self, images: NDArray[np.uint8]) -> Iterator[Posterior]:
        """Yield what the encoder says of images, uint8 (N, H, W, C), BATCH at a time.

        Raises ImageError where they are of another size, ModelError for an encoder gone astray.
        """
        (height, width), (own_height, own_width) = images.shape[1:3], self.shape[:2]
        if (height, width) != (own_height, own_width):
            raise ImageError(
                f"{width}x{height} pixels; {self.bundle.name} takes {own_width}x{own_height} only: "
                "--resize scales images to that, --pad puts zeros around smaller ones"
            )
        for start in range(0, len(images), BATCH):
            part = np.ascontiguousarray(images[start : start + BATCH])
            with self._watch("encoder"):
                posterior = Posterior(*self._encoder(pixels=part))
            wanted = (len(part), self.dimensions)
            if posterior.mean.shape != wanted or not np.isfinite(posterior.mean).all():
                raise ModelError(f"the encoder of {self.bundle.name} gives no {wanted} numbers")
            yield posterior

    def synthesise(self, y: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Return the images, uint8 (N, H, W, C), of latents, float32 (N, D), and a parameter.

        The parameter, float32 (N, c, h, w), is that of the likelihood: logits of a Bernoulli, means
        of a normal. Raises ModelError for a decoder gone astray.
        """
        with self._watch("decoder"):
            pixels, parameter = self._decoder(y=y)
        if pixels.shape != (len(y), *self.shape) or pixels.dtype != np.uint8:
            raise ModelError(
                f"the decoder of {self.bundle.name} gives {pixels.dtype} {pixels.shape} for "
                f"{len(y)} images of {self.shape}"
            )
        return pixels, parameter

    # Latents <-> symbols.

    def symbols(self, mean: NDArray[np.float32], quality: int) -> NDArray[np.int32]:
        """Return the numbers of the cells that means, float32 (N, D), lie in: int32 (N, D)."""
        level = self._level(quality)
        with self._watch("quantise"):
            cells = np.floor(mean / self._steps[level] + np.float32(0.5))
            symbols: NDArray[np.int32] = cells.clip(-_FARTHEST, _FARTHEST).astype(np.int32)
            symbols[:, self._rows[level] == 0] = 0
        return symbols

    def latents(self, header: Header, payload: bytes) -> NDArray[np.float32]:
        """Return the latents of a payload, float32 (N, D)."""
        with self._watch("entropy"):
            decoder = TileDecoder(payload, self.bundle.tables, portable=self._portable)
            symbols = decoder.read(self._rows_of(header))
            decoder.finish()
        step = self._steps[self._level(header.quality)]
        y: NDArray[np.float32] = symbols.reshape(header.images, -1).astype(np.float32) * step
        return y

    def _rows_of(self, header: Header) -> NDArray[np.uint8]:
        """Return the row of every symbol of a file, uint8 (N * D,)."""
        return np.tile(self._rows[self._level(header.quality)], header.images)

    def _level(self, quality: int) -> int:
        return latents.nearest_level(quality, len(self._steps))

    def _check_header(self, header: Header) -> None:
        """Raise FormatError where a header tells of what no `encode` wrote, or of too much."""
        found = header.height, header.width, 1 if header.colour == Colour.GREY else 3
        if found != self.shape:
            raise FormatError(
                f"the file has images {_named(*found)}; those of {self.bundle.name} are "
                f"{_named(*self.shape)}"
            )
        rows, columns = header.tile_grid
        if rows * columns != 1:
            raise FormatError(
                f"the file has {rows} x {columns} tiles; 1 was expected of {self.bundle.name}"
            )
        if header.images > self.most_images:
            raise FormatError(
                f"the file claims {header.images} images; of {self.bundle.name} one has "
                f"{self.most_images} at most"
            )

    # What the bundle holds, made ready when first needed.

    @cached_property
    def _encoder(self) -> Graph:
        return Graph(self.bundle.source("encoder.onnx"), self._provider, self._threads)

    @cached_property
    def _decoder(self) -> Graph:
        return Graph(self.bundle.source("decoder.onnx"), self._provider, self._threads)


def _named(height: int, width: int, colours: int) -> str:
    return f"of {width}x{height} pixels in {'grey' if colours == 1 else 'colour'}"
