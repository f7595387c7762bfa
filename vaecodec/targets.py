"""Targets: the size of a file, or the likeness of its image, that decides its quality."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["KINDS", "NEAR", "Kind", "Target"]

NEAR = 0.2
"""The search for a quality looks for this share of what a target may be missed by."""


@dataclass(frozen=True)
class Kind:
    """What can be asked for.

    text: how a value is written. miss: of a value and the one asked for, how far it is off, where
    1 is as far as counts as met. curve: makes of a value what grows with quality nearly linearly;
    slope: by how much on photographs, from quality 0 to 100. aim: where to, as a share of what is
    asked for. of_size: whether it is of the file, and not of the image.
    """

    text: Callable[[float], str]
    miss: Callable[[float, float], float]
    curve: Callable[[float], float]
    slope: float
    aim: float = 1.0
    of_size: bool = False


def _excess(value: float, limit: float) -> float:
    """Return what a size misses a limit by: more than it is never met."""
    return math.inf if value > limit else (1 - value / limit) / 0.02


KINDS = {
    "bpp": Kind(
        text="{:.4g} bpp".format,
        miss=lambda value, asked: abs(value / asked - 1) / 0.02,
        curve=math.log,
        slope=2.8,
        of_size=True,
    ),
    "max-bytes": Kind(
        text="{:,.0f} bytes".format,
        miss=_excess,
        curve=math.log,
        slope=2.8,
        aim=1 - NEAR * 0.02 / 2,
        of_size=True,
    ),
    "psnr": Kind(
        text="{:.2f} dB".format,
        miss=lambda value, asked: abs(value - asked) / 0.1,
        curve=lambda value: min(value, 99.0),  # it is infinite for equal images
        slope=13.0,
    ),
    "ms-ssim": Kind(
        text="MS-SSIM {:.4f}".format,
        miss=lambda value, asked: abs(value - asked) / 0.0005,
        curve=lambda value: -math.log(max(1 - value, 1e-6)),
        slope=3.3,
    ),
}
"""Name -> what it is. Sizes are those of the whole file, with container, alpha and metadata."""


@dataclass(frozen=True)
class Target:
    """What was asked for: a kind, a key of KINDS, and its value.

    "bpp": bits per pixel, met within 2 %. "max-bytes": never exceeded, and at most 2 % left of it
    where the image can fill it. "psnr": dB over all samples, within 0.1. "ms-ssim": within 0.0005.
    strict: a target that cannot be met is an error, and not met as nearly as can be.
    Raises ValueError for what is no target.
    """

    kind: str
    value: float
    strict: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"the target is {self.kind!r}; one of {', '.join(KINDS)} expected")
        most = 1 if self.kind == "ms-ssim" else math.inf
        if not (0 < self.value <= most and math.isfinite(self.value)):
            raise ValueError(f"the target is {self.value} {self.kind}, which no file has")

    def __str__(self) -> str:
        """How it is written."""
        return self.text(self.value)

    def text(self, value: float) -> str:
        """Return a value of this kind as it is written."""
        return KINDS[self.kind].text(value)

    @property
    def is_of_size(self) -> bool:
        """Whether it is of the file, and not of the likeness of its image."""
        return KINDS[self.kind].of_size

    def settings(self) -> dict[str, str]:
        """Return what files say of it (docs/format.md, Settings)."""
        exact = self.value if self.is_of_size and self.value == int(self.value) else None
        return {self.kind: f"{self.value:.10g}" if exact is None else str(int(exact))}

    def miss(self, value: float) -> float:
        """Return how far a value is off, in what is promised."""
        return KINDS[self.kind].miss(value, self.value)

    def is_met(self, value: float) -> bool:
        """Return whether a value is what was asked for; a file may always be small."""
        return value <= self.value if self.kind == "max-bytes" else self.miss(value) <= 1
