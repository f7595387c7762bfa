"""Encoder search: better latents for one image, found by following gradients; decoders never know.

The encoder network is trained to do well on all images. For the one at hand, the latents can be
moved downhill on rate + price * distortion, where the rate is that of the model's integer tables
and the distortion that of its decoder (Campos et al., 2019, arXiv 1906.01156). Rounding has no
gradient: a few steps see it softened (Agustsson and Theis, 2020, arXiv 2006.09952); many steps see
each latent rounded up or down at random, the less so the longer they go on (stochastic Gumbel
annealing; Yang, Bamler and Mandt, 2020, arXiv 2006.04240).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
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


EFFORTS = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64)
"""Gradient steps of each effort."""

DEFAULT_EFFORT = 2

_SHORT = (0, 1, 2, 4)
"""Searches of so many steps round softly all the way."""

_LEAD = 2
"""Soft steps of a longer search, before roundings are sampled."""

_STRIDES = (0.03, 0.08)
"""How far a soft step goes at most, in quantisation steps: what costs less is taken. Busy textures
want the shorter one."""


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

    conditions: what the prior knows before the tile, from its side information. cost: of latents
    times gain, float32 (C, h, w), as they would be coded and decoded. distortion_slope: of
    latents as the decoder gets them before inverse gain, in bits per step, both (C, h, w).
    """

    conditions: Conditions
    cost: Callable[[Real], Cost]
    distortion_slope: Callable[[Real], Real]


class Slopes:
    """Gradients of rate and distortion of a model's latents through softened rounding.

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

    def __call__(self, tile: Tile, y: Real, rounding: Rounding) -> Real:
        """Return bits per step of latents times gain: float32 (C, h, w)."""
        with self._watch("search"):
            return self._at(tile, y, rounding)

    def _at(self, tile: Tile, y: Real, rounding: Rounding) -> Real:
        flat = y.reshape(-1)
        symbols, passed, d_mean, d_row, slope = (np.zeros_like(flat) for _ in range(5))

        def take(means: Real, rows: NDArray[np.uint8], at: NDArray[np.intp]) -> Real:
            soft, derivative = rounding(flat[at] - means / np.float32(latents.MEAN_UNIT))
            coded = rows > 0
            soft = soft * coded
            _, per_step = self._lengths.between(rows, soft)
            slope[at] = per_step * coded
            passed[at] = derivative
            d_mean[at] = slope[at] * derivative / -latents.MEAN_UNIT
            d_row[at] = self._lengths.row_slope(rows, soft) * coded
            symbols[at] = soft
            return soft

        y16 = self._prior.code_given(tile.conditions, take)
        distortion = tile.distortion_slope(y16 / np.float32(latents.MEAN_UNIT))
        total = (
            distortion.reshape(-1) + slope + self._of_context(tile.conditions, y16, d_mean, d_row)
        )
        result: Real = (total * passed).reshape(y.shape)
        return result

    def _of_context(self, conditions: Conditions, y16: Real, d_mean: Real, d_row: Real) -> Real:
        """Return what latents change in the rate of later steps: bits per step, (C * h * w,)."""
        result = np.zeros_like(d_mean)
        seen = np.zeros_like(d_mean)
        all_positions = self._prior.positions(*y16.shape[1:])
        for positions, gradient in zip(all_positions, self._gradients, strict=True):
            if gradient is not None:
                mean, row = np.zeros_like(d_mean), np.zeros_like(d_mean)
                mean[positions], row[positions] = d_mean[positions], d_row[positions]
                (d_y16,) = gradient(
                    **conditions.common,
                    inverse=conditions.inverse,
                    y16=(y16.reshape(-1) * seen).reshape(1, *y16.shape),
                    d_mean=mean.reshape(1, *y16.shape),
                    d_row=row.reshape(1, *y16.shape),
                )
                result += d_y16.reshape(-1) * seen * latents.MEAN_UNIT
            seen[positions] = 1
        return result


# Roundings: residuals of latents -> (symbols, their derivative), all float32 (n,)

Rounding = Callable[[Real], tuple[Real, Real]]


def soft_round(v: Real, sharpness: float = 4.0) -> tuple[Real, Real]:
    """Return a smooth step function of `v` and its derivative."""
    middle = np.floor(v) + np.float32(0.5)
    half = np.float32(2 * np.tanh(sharpness / 2))
    t = np.tanh(sharpness * (v - middle))
    return middle + t / half, sharpness * (1 - t * t) / half


def sampled(v: Real, temperature: float, random: np.random.Generator) -> tuple[Real, Real]:
    """Return `v` rounded up or down at random, nearly, and the derivative of that.

    The nearer a neighbour, the more often it is taken, and the lower the temperature, the more so.
    """
    floor = np.floor(v)
    up = (v - floor).clip(1e-4, 1 - 1e-4)
    down = 1 - up
    odds = (np.arctanh(up) - np.arctanh(down)) / temperature
    noise = random.random(v.shape, np.float32).clip(1e-6, 1 - 1e-6)
    share = 1 / (1 + np.exp(((np.log(noise / (1 - noise)) - odds) / temperature).clip(-40, 40)))
    steep = (1 / (1 - up * up) + 1 / (1 - down * down)) / (temperature * temperature)
    return floor + share, (share * (1 - share) * steep).clip(0, 4)


# The search


def improve(slopes: Slopes, tile: Tile, y: Real, plan: Plan) -> tuple[Real, Cost]:
    """Return latents times gain, float32 (C, h, w), that cost no more than `y`, and their cost.

    A longer search begins like a shorter one, and keeps what that would have found where it finds
    nothing better.
    """
    clock = _Clock(plan)
    best = y, tile.cost(y)
    short = plan.steps if plan.steps in _SHORT else min(plan.steps, _LEAD)
    for n in range(short):
        if clock.done(n, plan.steps) >= 1:
            return best
        slope = (slopes(tile, best[0], soft_round) / 4).clip(-1, 1)
        tried = [_costing(tile, best[0] - stride * slope) for stride in _STRIDES]
        lowest = min(tried, key=_total)
        if _total(lowest) >= _total(best):
            break  # and the next slope would be the same
        best = lowest
    if plan.steps > short:
        found = _annealed(slopes, tile, best[0], clock, plan.steps - short)
        best = min(best, _costing(tile, found), key=_total)
    return best


def _costing(tile: Tile, y: NDArray[np.floating]) -> tuple[Real, Cost]:
    found = np.asarray(y, np.float32)
    return found, tile.cost(found)


def _total(found: tuple[Real, Cost]) -> float:
    return found[1].total


class _Clock:
    """How far a search is."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self._start = plan, perf_counter()

    def done(self, step: int, steps: int) -> float:
        """Return the share of a walk of `steps` that is done after `step`, or of the time."""
        return max(step / steps, (perf_counter() - self._start) / self.plan.max_seconds)


def _annealed(slopes: Slopes, tile: Tile, y: Real, clock: _Clock, steps: int) -> Real:
    """Return where Adam walks to through sampled roundings that become certain."""
    random, y = np.random.default_rng(0), y.copy()
    mean, square = np.zeros_like(y), np.zeros_like(y)
    for n in range(1, steps + 1):
        done = clock.done(n, steps)
        temperature = max(0.1, 0.5 * math.exp(-2 * done))
        slope = slopes(tile, y, partial(sampled, temperature=temperature, random=random))
        mean += np.float32(0.1) * (slope - mean)
        square += np.float32(0.01) * (slope * slope - square)
        root = np.sqrt(square / np.float32(1 - 0.99**n)) + np.float32(1e-3)
        y -= np.float32(0.01 / (1 - 0.9**n)) * mean / root
        if done >= 1:
            break
    return y
