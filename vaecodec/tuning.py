"""From a target to a quality: a few files of one image are tried, until one of them does.

The encoder network runs once. Its latents are scaled, quantised and coded (for a target of size),
or quantised and decoded (for one of likeness), at one quality after another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vaecodec import metrics
from vaecodec.container import MAX_QUALITY, Header
from vaecodec.errors import ImageError, TargetError
from vaecodec.search import Search
from vaecodec.targets import KINDS, NEAR, Target

__all__ = ["Met", "Pack", "Trials", "Tunable", "meet", "seek", "solve"]

Pack = Callable[[Header, Sequence[bytes]], bytes]
"""pack(header, payloads) -> the whole file."""

_PATIENCE = 6
"""Evaluations after which the search halves what is left, as its guesses were no good, and ends
where a target is just met."""


@runtime_checkable
class Tunable(Protocol):
    """A model whose latents, computed once, become a file of any quality between 0 and 100."""

    def analyse(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return latents of pixels, uint8 (H, W, 1 or 3)."""

    def payloads(self, y: NDArray[np.float32], header: Header) -> list[bytes]:
        """Return the payload of each tile of latents."""

    def refined(
        self,
        pixels: NDArray[np.uint8],
        y: NDArray[np.float32],
        header: Header,
        search: Search | None,
    ) -> NDArray[np.float32]:
        """Return better latents at a quality; `y` itself where a search finds or does nothing."""

    def reconstruct(self, y: NDArray[np.float32], header: Header) -> NDArray[np.uint8]:
        """Return what the payloads of latents are decoded to, uint8 (1, H, W, 1 or 3)."""


@dataclass(frozen=True)
class Met:
    """A file made to a target.

    value: what it has of what was asked for. problem: why that is not it; None where it is.
    """

    data: bytes
    header: Header
    value: float
    problem: str | None

    @property
    def quality(self) -> float:
        """The quality, 0..100, that the target led to."""
        return 100 * self.header.quality / MAX_QUALITY


class Trials:
    """The files of one image at any quality, each made once, and what they have of a target.

    y: latents of the image. pixels: uint8 (H, W, 1 or 3), what likeness is measured to. header: of
    the files, with the quality to begin at. Raises ImageError where MS-SSIM is undefined.
    """

    def __init__(
        self,
        target: Target,
        model: Tunable,
        y: NDArray[np.float32],
        pixels: NDArray[np.uint8],
        header: Header,
        pack: Pack,
    ) -> None:
        if target.kind == "ms-ssim" and min(pixels.shape[:2]) < metrics.MS_SSIM_MIN_SIDE:
            raise ImageError(
                f"{header.width}x{header.height} pixels; MS-SSIM needs "
                f"{metrics.MS_SSIM_MIN_SIDE} on each side: take --psnr"
            )
        self.target, self._model, self._y = target, model, y
        self._pixels, self._header, self._pack = pixels, header, pack
        self.start = header.quality
        self._files: dict[int, bytes] = {}
        self.values: dict[int, float] = {}

    def header(self, step: int) -> Header:
        """Return the header at a quality step."""
        return replace(self._header, quality=step)

    def file(self, step: int) -> bytes:
        """Return the file at a quality step."""
        if step not in self._files:
            header = self.header(step)
            self._files[step] = self._pack(header, self._model.payloads(self._y, header))
        return self._files[step]

    def value(self, step: int) -> float:
        """Return the bpp, bytes, dB or similarity at a quality step."""
        if step not in self.values:
            self.values[step] = self._measure(step)
        return self.values[step]

    def _measure(self, step: int) -> float:
        if self.target.kind == "max-bytes":
            return len(self.file(step))
        if self.target.kind == "bpp":
            return 8 * len(self.file(step)) / self._header.pixels
        (decoded,) = self._model.reconstruct(self._y, self.header(step))
        measure = metrics.psnr if self.target.kind == "psnr" else metrics.ms_ssim
        return measure(self._pixels, decoded)


def meet(trials: Trials, plain: Trials | None = None) -> Met:
    """Return the file that meets a target as nearly as was found.

    plain: of the same image without a search, which can meet what lies at an end of the scale where
    searched latents just miss it. Raises TargetError where a limit in bytes cannot be kept, or a
    strict target not be met.
    """
    target, step = trials.target, seek(trials)
    if plain is not None and not target.is_met(trials.value(step)):
        other = seek(plain)
        if target.miss(plain.value(other)) < target.miss(trials.value(step)):
            trials, step = plain, other
    problem = None if target.is_met(trials.value(step)) else _problem(trials, step)
    if problem is not None and (target.strict or target.kind == "max-bytes"):
        raise TargetError(problem)
    return Met(trials.file(step), trials.header(step), trials.value(step), problem)


def seek(trials: Trials) -> int:
    """Return the quality step that meets a target as nearly as was found."""
    target = trials.target
    kind = KINDS[target.kind]

    def enough(step: int) -> bool:
        return target.miss(trials.value(step)) <= (NEAR if len(trials.values) < _PATIENCE else 1)

    solve(
        lambda step: kind.curve(trials.value(step)),
        kind.curve(target.value * kind.aim),
        enough,
        trials.start,
        kind.slope / MAX_QUALITY,
    )
    if not target.is_met(trials.value(_nearest(trials))):
        for step in range(0, MAX_QUALITY + 1, MAX_QUALITY // 4):  # more may not have meant better
            trials.value(step)
    return _nearest(trials)


def _nearest(trials: Trials) -> int:
    """Return the step that misses least; of equal sizes the best, of equal likenesses the least."""
    target = trials.target

    def order(step: int) -> tuple[float, float]:
        miss = target.miss(trials.value(step))
        return miss, -step if target.is_of_size and math.isfinite(miss) else step

    return min(trials.values, key=order)


def solve(
    evaluate: Callable[[int], float],
    goal: float,
    enough: Callable[[int], bool],
    start: int,
    slope: float,
) -> None:
    """Evaluate quality steps, 0..6400, until one is good enough or none is left that could be.

    evaluate: of a step, what grows with it as a whole, not always from one to the next. goal: the
    value looked for. enough: whether a step that was evaluated will do. start: the first step.
    slope: what one step is expected to add.

    A secant while only one side of the goal is known, then false position, then bisection.
    """
    low, high = -1, MAX_QUALITY + 1  # nearest steps known to be below the goal and above it
    values: dict[int, float] = {}
    step = start
    while low < step < high:
        values[step] = evaluate(step)
        if enough(step):
            return
        if values[step] < goal:
            low = step
        else:
            high = step
        step = _guess(values, low, high, goal, slope)


def _guess(values: dict[int, float], low: int, high: int, goal: float, slope: float) -> int:
    """Return the next step to try between two; one of them where nothing is between."""
    if low in values and high in values:
        if len(values) >= _PATIENCE:
            return (low + high) // 2
        share = (goal - values[low]) / (values[high] - values[low])
        guess = low + share * (high - low)
    elif len(values) >= _PATIENCE:
        return low + 1 if high in values else high - 1  # an end: is the goal within reach at all
    else:
        (first, *_, last) = [*values, *values]
        if first != last:
            found = (values[last] - values[first]) / (last - first)
            slope = found if found > slope / 4 else slope
        guess = last + (goal - values[last]) / slope
    return max(low + 1, min(high - 1, round(guess)))


def _problem(trials: Trials, step: int) -> str:
    """Return why a step, the nearest that was found, does not meet the target."""
    target = trials.target
    low, high = target.text(min(trials.values.values())), target.text(max(trials.values.values()))
    if target.kind == "max-bytes":
        return f"{target} cannot be kept: a file of this image has {low} at least"
    nearest = target.text(trials.value(step))
    return f"{target} cannot be met: this image has {low} to {high}, and {nearest} is the nearest"
