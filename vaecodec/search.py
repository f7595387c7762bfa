"""Encoder search: better latents for one image, found by following gradients; decoders never know.

The encoder network is trained to do well on all images. For the one at hand, the latents can be
moved downhill on rate + price * distortion (Campos et al., 2019, arXiv 1906.01156), where the rate
is that of the model's integer tables and the distortion that of its decoder. Gradients are taken
where latents are rounded as they will be coded, so each of them comes with the true cost of that
point. What rounding moved a latent by is taken out of its own gradient by the curvature, which is
known: rounding is at its best where steps are as wide as 12 / ln 2 bits per squared step make them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vaecodec import latents
from vaecodec.priors import Conditions, HyperPrior
from vaecodec.rates import CodeLengths
from vaecodec.runtime import Graph
from vaecodec.stages import Watch

__all__ = ["DEFAULT_EFFORT", "EFFORTS", "Cost", "Plan", "Search", "Slopes", "Tile", "improve"]

Real = NDArray[np.float32]


@dataclass(frozen=True)
class Search:
    """How hard an encoder looks for a better file of one image.

    effort: 0 (not at all) to 9, None for the default of the model. max_seconds: it takes what it
    has found after so long, about; loading the model not counted. weight: what the squared error of
    each 8x8 block counts, float32 (2h, 2w) for latents (C, h, w), None for 1.
    Raises ValueError for what is none of these.
    """

    effort: int | None = None
    max_seconds: float = math.inf
    weight: Real | None = None

    def __post_init__(self) -> None:
        if self.effort is not None and not 0 <= self.effort < len(EFFORTS):
            raise ValueError(f"the effort is {self.effort}; 0 to {len(EFFORTS) - 1} expected")
        if not self.max_seconds > 0:
            raise ValueError(f"{self.max_seconds} seconds to search in; more than 0 expected")

    def settings(self) -> dict[str, str]:
        """Return what files say of it (docs/format.md, Settings)."""
        return {} if self.effort is None else {"effort": str(self.effort)}


EFFORTS = (0, 1, 2, 3, 4, 6, 8, 12, 20, 32)
"""Gradients of each effort."""

DEFAULT_EFFORT = 2

_DAMPING, _COOLING = 70.0, 20.0
"""Bits per squared step: what a gradient is divided by at first, and what each later one adds to
that. It is far above the curvature, as all latents move at once and mend the same errors."""

_CURVATURE = 20.0
"""Of the cost along one latent, bits per squared step; 12 / ln 2 in theory, 12 to 20 measured."""

_SHARPNESS = 6.0
"""Of the soft rounding at which a latent sees its own distortion."""

_STRIDE = 0.2
"""How far a latent moves at most, in quantisation steps."""

_TRUST = 0.8
"""Weight of the gradient of the rate of later coding steps: their networks round, it does not."""


class Cost(NamedTuple):
    """What latents cost, in bits: their rate, and their distortion at its price."""

    rate: float
    distortion: float

    @property
    def total(self) -> float:
        """What the search makes small."""
        return self.rate + self.distortion


@dataclass(frozen=True)
class Plan:
    """How long to search: so many gradient steps, and no longer than so many seconds."""

    steps: int
    max_seconds: float = math.inf

    def __post_init__(self) -> None:
        if self.steps < 0 or not self.max_seconds > 0:
            raise ValueError(f"{self.steps} steps in {self.max_seconds} seconds; more expected")


@dataclass(frozen=True)
class Tile:
    """One tile to search in.

    conditions: of latents times gain, float32 (C, h, w): what the prior knows before them, and the
    bits that it takes. cost: of such latents, as they would be coded and decoded. distortion: of
    latents as the decoder gets them before inverse gain, in bits, and its gradient, (C, h, w), in
    bits per step. weight: what squared error counts at each position, float32 (h, w), 1 where it
    counts what the quality says.
    """

    conditions: Callable[[Real], tuple[Conditions, float]]
    cost: Callable[[Real], Cost]
    distortion: Callable[[Real], tuple[float, Real]]
    weight: Real


class Point(NamedTuple):
    """What latents cost as they would be coded, and where it falls; all float32 (C, h, w)."""

    cost: Cost
    slope: Real
    """Bits per step where all latents are rounded; 0 where symbols are certain."""
    away: Real
    """From its symbol to the soft rounding of each latent, in steps; 0 likewise."""


class Slopes:
    """Gradients of rate and distortion of a model's latents.

    gradients: of each coding step's network, None where it sees nothing of the latents.
    """

    def __init__(
        self,
        prior: HyperPrior,
        gradients: Sequence[Graph | None],
        lengths: CodeLengths,
        watch: Watch,
    ) -> None:
        self._prior, self._gradients, self._lengths = prior, gradients, lengths
        self._watch = watch

    def __call__(self, tile: Tile, y: Real) -> Point:
        """Return what there is to know around latents times gain, float32 (C, h, w)."""
        with self._watch("search"):
            return self._at(tile, y)

    def _at(self, tile: Tile, y: Real) -> Point:
        flat = y.reshape(-1)
        per_step, per_row, away, free = (np.empty_like(flat) for _ in range(4))
        conditions, bits = tile.conditions(y)

        def take(m: Real, rows: NDArray[np.uint8], at: NDArray[np.intp]) -> NDArray[np.int32]:
            nonlocal bits
            exact = flat[at] - m * np.float32(1 / latents.MEAN_UNIT)
            coded = (rows > 0).astype(np.float32)
            rounded = np.floor(exact + np.float32(0.5)) * coded
            symbols: NDArray[np.int32] = rounded.astype(np.int32)
            known = self._lengths.around(rows, symbols, exact < rounded)
            bits += float(known.bits.sum(dtype=np.float64))
            per_step[at], per_row[at] = known.per_step * coded, known.per_row * coded
            away[at], free[at] = (soft_round(exact, _SHARPNESS) - rounded) * coded, coded
            return symbols

        y16 = self._prior.code_given(conditions, take)
        context = self._of_context(conditions, y16, per_step, per_row)
        distortion, slope = tile.distortion(y16 / np.float32(latents.MEAN_UNIT))
        slope = (slope.reshape(-1) + np.float32(_TRUST) * context) * free + per_step
        return Point(Cost(bits, distortion), slope.reshape(y.shape), away.reshape(y.shape))

    def _of_context(self, conditions: Conditions, y16: Real, per_step: Real, per_row: Real) -> Real:
        """Return what latents change in the rate of later steps: bits per step, (C * h * w,)."""
        result, seen = np.zeros_like(per_step), np.zeros_like(per_step)
        all_positions = self._prior.positions(*y16.shape[1:])
        for positions, gradient in zip(all_positions, self._gradients, strict=True):
            if gradient is not None:
                mean, row = np.zeros_like(per_step), np.zeros_like(per_step)
                mean[positions] = per_step[positions] * np.float32(-1 / latents.MEAN_UNIT)
                row[positions] = per_row[positions]
                (d_y16,) = gradient(
                    **conditions.common,
                    inverse=conditions.inverse,
                    y16=(y16.reshape(-1) * seen).reshape(1, *y16.shape),
                    d_mean=mean.reshape(1, *y16.shape),
                    d_row=row.reshape(1, *y16.shape),
                )
                result += d_y16.reshape(-1) * seen * np.float32(latents.MEAN_UNIT)
            seen[positions] = 1
        return result


# The search


def improve(slopes: Slopes, tile: Tile, y: Real, plan: Plan) -> tuple[Real, Cost]:
    """Return latents times gain, float32 (C, h, w), that cost no more than `y`, and their cost.

    A longer search begins like a shorter one, and what it finds costs no more.
    """
    end = perf_counter() + plan.max_seconds
    best = y, Cost(math.inf, 0.0)
    for n in range(plan.steps):
        here = slopes(tile, y)
        best = min(best, (y, here.cost), key=_total)
        y = moved(here, y, tile.weight, _DAMPING + n * _COOLING)
        if perf_counter() >= end:
            break
    return min(best, (y, tile.cost(y)), key=_total)


def _total(found: tuple[Real, Cost]) -> float:
    return found[1].total


def moved(here: Point, y: Real, weight: Real, damping: float) -> Real:
    """Return latents times gain, float32 (C, h, w), moved downhill from `y`, which is `here`.

    Each latent sees the distortion where it is rounded softly itself and all others are as they
    would be coded. weight: as in `Tile`. damping: what the gradient is divided by, bits per squared
    step, where the weight is 1 or less.
    """
    slope = here.slope + np.float32(_CURVATURE) * weight * here.away
    result: Real = y - (slope / (np.float32(damping) * np.maximum(weight, 1))).clip(
        -_STRIDE, _STRIDE
    )
    return result


def soft_round(v: Real, sharpness: float) -> Real:
    """Return a smooth step function of `v` (Agustsson and Theis, 2020, arXiv 2006.09952)."""
    middle = np.floor(v) + np.float32(0.5)
    half = np.float32(2 * math.tanh(sharpness / 2))
    result: Real = middle + np.tanh(np.float32(sharpness) * (v - middle)) / half
    return result
