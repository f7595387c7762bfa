"""Curves of rate and quality out of what was measured, and what one saves over another."""

from __future__ import annotations

import math
from collections.abc import Iterable

from vaecodec.metrics import bd_rate, psnr
from vaecodec.picture import Samples

Curve = tuple[list[float], list[float]]
"""Rates (bits per pixel) and a quality (of any scale) of points."""

LOSSLESS = 100.0
"""dB that stand for an image which comes back as it was: it has no PSNR, and means need one."""


def decibels(original: Samples, decoded: Samples) -> float:
    """Return the PSNR of two images, uint8 (H, W, C), in dB, LOSSLESS at most."""
    return min(psnr(original, decoded), LOSSLESS)


def rising(bpp: Iterable[float], quality: Iterable[float]) -> Curve:
    """Return the points of a curve, rates ascending: those that are better than all of fewer bits.

    Points whose quality is NaN are left out.
    """
    rates: list[float] = []
    values: list[float] = []
    for rate, value in sorted(zip(bpp, quality, strict=True)):
        if value > (values[-1] if values else -math.inf):
            rates.append(rate)
            values.append(value)
    return rates, values


def saved(own: Curve, other: Curve) -> float:
    """Return the BD-rate of a curve to another, in percent; NaN where they share no quality."""
    try:
        return bd_rate(*rising(*other), *rising(*own))
    except ValueError:
        return math.nan
