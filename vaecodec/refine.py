"""The latents of a whole image, improved tile by tile (`vaecodec.search`).

A tile is searched with its neighbours held as they are: what the decoder makes of a tile depends on
theirs as far as its halo reaches, what a tile costs to code does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from vaecodec.bundle import Bundle
from vaecodec.container import POSITION, Header
from vaecodec.entropy import Step
from vaecodec.errors import ModelError
from vaecodec.latents import QUALITY_MAX, Quality
from vaecodec.priors import Conditions, HyperPrior
from vaecodec.rates import CodeLengths
from vaecodec.runtime import Graph
from vaecodec.search import DEFAULT_EFFORT, EFFORTS, Cost, Plan, Real, Search, Slopes, Tile, improve
from vaecodec.stages import Watch
from vaecodec.transforms import cut, tile_slices
from vaecodec.windows import Window

__all__ = ["BLOCK", "GRADIENT", "Searchable", "price", "refined"]

GRADIENT = "_gradient"
"""What the name of a graph's gradient ends in (`train/gradients.py`)."""

BLOCK = 8
"""Side, in pixels, of the blocks that distortion is weighted by."""


class Searchable(Protocol):
    """What is needed of a model: its latents, times gain, in quantisation steps."""

    bundle: Bundle
    watch: Watch

    @property
    def prior(self) -> HyperPrior:
        """The prior."""

    @property
    def code_lengths(self) -> CodeLengths:
        """What symbols cost."""

    def quality(self, header: Header, rows: slice, columns: slice) -> Quality:
        """Return the quality of a part of the positions: one, or that of each."""

    def gain(self, quality: Quality) -> Real:
        """Return the factors, (C, 1, 1 or h, w), between latents and those that are quantised."""

    def inverse_gain(self, quality: Quality) -> Real:
        """Return the factors, (C, 1, 1 or h, w), between quantised latents and the decoder's."""

    def halo(self, side: str) -> int:
        """Return the positions that a transform sees beyond an output, each way."""

    def graph(self, name: str) -> Graph:
        """Return a graph of the bundle."""

    def conditions(self, y: Real, quality: Quality) -> tuple[Conditions, Step]:
        """Return what the prior knows of a tile's latents from side information, and that."""

    def quantised(self, y: Real, quality: Quality) -> tuple[list[Step], Real]:
        """Return the coding steps of a tile's latents, and what is decoded of them."""


def refined(
    model: Searchable, pixels: NDArray[np.uint8], y: Real, header: Header, search: Search
) -> tuple[Real, list[list[Step]]]:
    """Return latents before gain, float32 (C, h, w), that cost no more than `y`, as they are coded.

    For effort 0 that is `y`, and no coding steps; else those of each tile.
    pixels: uint8 (H, W, 1 or 3). Raises ModelError where the model has no gradients.
    """
    default = DEFAULT_EFFORT if _lambdas(model) else 0
    gradients = EFFORTS[default if search.effort is None else search.effort]
    if gradients == 0:
        return y, []
    weight = _inside(header) * (1 if search.weight is None else search.weight)
    prices = _prices(model, model.quality(header, slice(None), slice(None)))
    image = _Image(model, pixels, header, weight, prices)
    result, settled, coded = y.copy(), np.empty_like(y), list[list[Step]]()
    tiles = tile_slices(header)
    if len(tiles) > 1:
        for rows, columns in tiles:
            quality = model.quality(header, rows, columns)
            part = y[:, rows, columns] * model.gain(quality)
            _, settled[:, rows, columns] = model.quantised(part, quality)
    slopes = Slopes(model.prior, _context_gradients(model), image.lengths, model.watch)
    end = perf_counter() + search.max_seconds
    for n, (rows, columns) in enumerate(tiles):
        left = end - perf_counter()
        quality = model.quality(header, rows, columns)
        gain = model.gain(quality)
        quantiser = _Quantiser(model, quality)
        tile = image.tile(rows, columns, settled, quantiser)
        part = y[:, rows, columns] * gain
        found = part
        if n == 0 or left > 0:
            share = max(left, 1e-3) / (len(tiles) - n)
            found, _ = improve(slopes, tile, part, Plan(gradients, share))
            result[:, rows, columns] = found / gain
        steps, settled[:, rows, columns] = quantiser(found)
        coded.append(steps)
    return result, coded


class _Quantiser:
    """A model's `quantised`, of a tile of one quality, that remembers what it was last asked."""

    def __init__(self, model: Searchable, quality: Quality) -> None:
        self._model, self._quality = model, quality
        self._asked: Real | None = None
        self._known: tuple[list[Step], Real]

    def __call__(self, latents: Real) -> tuple[list[Step], Real]:
        if latents is not self._asked:
            self._known = self._model.quantised(latents, self._quality)
            self._asked = latents
        return self._known


@dataclass(frozen=True)
class _Image:
    """What the search in every tile of an image needs.

    weight, prices: of squared errors in each 8x8 block, float32 (2h, 2w), or (1, 1) for one price.
    """

    model: Searchable
    pixels: NDArray[np.uint8]
    header: Header
    weight: Real
    prices: Real

    @property
    def lengths(self) -> CodeLengths:
        return self.model.code_lengths

    def tile(self, rows: slice, columns: slice, settled: Real, quantiser: _Quantiser) -> Tile:
        """Return the tile in the place `rows`, `columns`, its neighbours as in `settled`."""
        height, width = settled.shape[1:]
        halo = self.model.halo("decoder")
        across, down = _window(rows, height, halo), _window(columns, width, halo)
        around = settled[:, across.read, down.read].copy()
        place = (slice(None), across.inside, down.inside)
        quality = self.model.quality(self.header, rows, columns)
        inverse = self.model.inverse_gain(self.model.quality(self.header, across.read, down.read))
        target = cut(self.pixels, across, down)
        blocks = (
            slice(2 * across.read.start, 2 * across.read.stop),
            slice(2 * down.read.start, 2 * down.read.stop),
        )
        weight = np.ascontiguousarray((self.weight * self.prices)[blocks])
        height, width = (side // 2 for side in self.weight.shape)
        per_position = self.weight.reshape(height, 2, width, 2).mean((1, 3))[rows, columns]
        decoder, gradient = self.model.graph("decoder"), self.model.graph(f"decoder{GRADIENT}")

        def decoded(latents: Real) -> Real:
            around[place] = latents
            window: Real = (around * inverse)[None]
            return window

        def cost(latents: Real) -> Cost:
            steps, quantised = quantiser(latents)
            with self.model.watch("decoder"):
                (pixels,) = decoder(y=decoded(quantised))
            return Cost(self._bits(steps), float((_errors(pixels[0], target) * weight).sum()))

        def distortion(latents: Real) -> tuple[float, Real]:
            errors, d_y = gradient(
                y=decoded(latents), pixels=target[None], weight=weight[None, None]
            )
            slope: Real = (d_y[0] * inverse)[place]
            return float((errors * weight).sum(dtype=np.float64)), slope

        def conditions(latents: Real) -> tuple[Conditions, float]:
            known, side = self.model.conditions(latents, quality)
            return known, self._bits([side])

        return Tile(conditions, cost, distortion, per_position)

    def _bits(self, steps: list[Step]) -> float:
        return sum(float(self.lengths.bits(r, s).sum(dtype=np.float64)) for s, r in steps)


def _window(place: slice, length: int, halo: int) -> Window:
    return Window(place, slice(max(place.start - halo, 0), min(place.stop + halo, length)))


def _errors(pixels: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the sum of squared errors of each block of images, uint8 (8h, 8w, 3): (h, w)."""
    difference = pixels.astype(np.float32) - target
    lines = np.einsum("yxc,yxc->yx", difference, difference)
    height, width = (side // BLOCK for side in lines.shape)
    blocks: NDArray[np.float64] = lines.reshape(height, BLOCK, width, BLOCK).sum((1, 3), np.float64)
    return blocks


def _inside(header: Header) -> Real:
    """Return the share of each 8x8 block that lies inside the image: float32 (2h, 2w)."""
    shares = []
    for side in (header.height, header.width):
        starts = np.arange(0, -(-side // POSITION) * POSITION, BLOCK)
        shares.append(((side - starts) / BLOCK).clip(0, 1))
    return np.outer(*shares).astype(np.float32)


def _lambdas(model: Searchable) -> tuple[float, float] | None:
    """Return the lambdas of qualities 0 and 100; None where a bundle cannot be searched with."""
    found = model.bundle.manifest.get("search")
    return None if found is None else (found["lambda"][0], found["lambda"][1])


def price(model: Searchable, quality: int) -> float:
    """Return what the search pays for a squared error of a sample 0..255, in bits.

    Raises ModelError where the bundle has no gradients.
    """
    lambdas = _lambdas(model)
    if lambdas is None:
        raise ModelError(f"{model.bundle.name} has no gradients to search with; ask for effort 0")
    low, high = lambdas
    return float(low * (high / low) ** (quality / QUALITY_MAX) / 3)


def _prices(model: Searchable, quality: Quality) -> Real:
    """Return the price in each 8x8 block, float32 (2h, 2w), or of all of them, (1, 1)."""
    steps, place = np.unique(quality, return_inverse=True)
    prices = np.array([price(model, int(step)) for step in steps], np.float32)
    if not isinstance(quality, np.ndarray):
        return prices[None]
    return prices[place.reshape(quality.shape)].repeat(2, 0).repeat(2, 1)


def _context_gradients(model: Searchable) -> list[Graph | None]:
    """Return the gradient of each coding step that sees latents, None for the others."""
    steps = range(model.bundle.manifest["decoding"]["steps"])
    return [model.graph(f"step{k}{GRADIENT}") if k else None for k in steps]
