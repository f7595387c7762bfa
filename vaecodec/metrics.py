"""What a codec is judged by: bits per pixel, PSNR, MS-SSIM and the Bjontegaard rate difference."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["MS_SSIM_MIN_SIDE", "bd_rate", "bits_per_pixel", "mean_squared_error", "ms_ssim", "psnr"]

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

PEAK = 255
BAND = 1 << 20
"""Samples whose squared error is summed at once: bounds the memory taken for large images."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of the five scales, finest first (Wang, Simoncelli, Bovik 2003)."""

WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
C1 = (0.01 * PEAK) ** 2
C2 = (0.03 * PEAK) ** 2

MS_SSIM_MIN_SIDE = (WINDOW_SIZE - 1) * 2 ** (len(SCALE_WEIGHTS) - 1) + 1
"""Shortest side, 161 pixels, at which the window still fits into the coarsest scale."""


def bits_per_pixel(size: int, width: int, height: int) -> float:
    """Rate of a file of `size` bytes that holds an image of width x height pixels."""
    return 8 * size / (width * height)


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio in dB over all samples; infinite where the images are equal.

    Args:
        a, b: uint8 (H, W) or (H, W, C), of one shape; or several images, (N, H, W, C).

    Raises:
        ValueError: not uint8, or the shapes differ.
    """
    squares = _squares(a, b)
    return 10 * math.log10(PEAK**2 * a.size / squares) if squares else math.inf


def mean_squared_error(a: Pixels, b: Pixels) -> float:
    """Mean of the squared differences of all samples; arguments and errors as of `psnr`."""
    return _squares(a, b) / a.size


def ms_ssim(a: Pixels, b: Pixels) -> float:
    """Multi-scale structural similarity, at most 1; 1 where the images are equal.

    Five scales, 11-tap Gaussian window of sigma 1.5 laid only where it fits whole, each scale half
    the one before (2x2 means; an odd last row or column is repeated), negative terms taken as 0.
    Computed per channel, then averaged over the channels.

    Args:
        a, b: uint8 (H, W) or (H, W, C), of one shape.

    Returns:
        The similarity; NaN where a side is shorter than MS_SSIM_MIN_SIDE, as it is undefined there.

    Raises:
        ValueError: not uint8, or the shapes differ.
    """
    _check_pair(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return math.nan
    channels_a, channels_b = np.atleast_3d(a), np.atleast_3d(b)
    planes = zip(np.moveaxis(channels_a, 2, 0), np.moveaxis(channels_b, 2, 0), strict=True)
    return float(np.mean([_plane_ms_ssim(plane_a, plane_b) for plane_a, plane_b in planes]))


def bd_rate(bpp_ref: ArrayLike, psnr_ref: ArrayLike, bpp: ArrayLike, psnr: ArrayLike) -> float:
    """Bjontegaard rate difference to a reference curve in percent; negative means fewer bits.

    Each curve is ln(bpp) as a piecewise cubic (PCHIP) of quality; the difference of the two is
    averaged over the qualities that both reach, in closed form.

    Args:
        bpp_ref, psnr_ref: the reference: bits per pixel above 0 and dB of at least two points, in
            any order, no two of the same dB.
        bpp, psnr: the curve to judge, likewise. Another quality than PSNR does as well.

    Raises:
        ValueError: a curve is not one, or the two have no quality in common.
    """
    x_ref, y_ref = _curve(bpp_ref, psnr_ref)
    x, y = _curve(bpp, psnr)
    low, high = max(x[0], x_ref[0]), min(x[-1], x_ref[-1])
    if low >= high:
        raise ValueError(
            f"the curves share no quality: one spans {x_ref[0]:.2f} to {x_ref[-1]:.2f}, "
            f"the other {x[0]:.2f} to {x[-1]:.2f}"
        )
    knots = np.union1d(x, x_ref)
    nodes = np.concatenate(([low], knots[(knots > low) & (knots < high)], [high]))
    middles = (nodes[:-1] + nodes[1:]) / 2
    ends = _pchip(x, y, nodes) - _pchip(x_ref, y_ref, nodes)
    inner = _pchip(x, y, middles) - _pchip(x_ref, y_ref, middles)
    # Between two nodes the difference is one cubic, and Simpson's rule is exact on a cubic.
    integral = np.sum(np.diff(nodes) / 6 * (ends[:-1] + 4 * inner + ends[1:]))
    return 100 * math.expm1(float(integral) / (high - low))


def _check_pair(a: Pixels, b: Pixels) -> None:
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise ValueError(f"expected two uint8 images, got {a.dtype} and {b.dtype}")
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"expected two images of one shape, got {a.shape} and {b.shape}")


def _squares(a: Pixels, b: Pixels) -> float:
    """Sum of squared differences, in bands."""
    _check_pair(a, b)
    a, b = a.reshape(-1), b.reshape(-1)
    return sum(_squared_error(a[i : i + BAND], b[i : i + BAND]) for i in range(0, len(a), BAND))


def _squared_error(a: Pixels, b: Pixels) -> float:
    """Sum of squared differences, exact: whole numbers far below 2**53."""
    difference = np.subtract(a, b, dtype=np.float64)
    return float(difference @ difference)


def _plane_ms_ssim(a: Pixels, b: Pixels) -> float:
    scaled_a, scaled_b = a.astype(np.float64), b.astype(np.float64)
    product = 1.0
    for weight in SCALE_WEIGHTS[:-1]:
        _, contrast = _ssim_terms(scaled_a, scaled_b)
        product *= max(contrast, 0.0) ** weight
        scaled_a, scaled_b = _half(scaled_a), _half(scaled_b)
    similarity, _ = _ssim_terms(scaled_a, scaled_b)
    return float(product * max(similarity, 0.0) ** SCALE_WEIGHTS[-1])


def _ssim_terms(a: Plane, b: Plane) -> tuple[float, float]:
    """Means over one scale of SSIM and of its contrast-structure factor."""
    mean_a, mean_b = _blur(a), _blur(b)
    mean_product = mean_a * mean_b
    mean_squares = mean_a**2 + mean_b**2
    covariance = _blur(a * b) - mean_product
    variances = _blur(a**2 + b**2) - mean_squares
    contrast = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * mean_product + C1) / (mean_squares + C1)
    return float(np.mean(luminance * contrast)), float(np.mean(contrast))


def _blur(plane: Plane) -> Plane:
    """Gaussian-weighted means of all whole windows: (H, W) -> (H - 10, W - 10)."""
    return _blur_columns(_blur_columns(plane).T).T


def _blur_columns(plane: Plane) -> Plane:
    rows = len(plane) - WINDOW_SIZE + 1
    taps = _window()
    blurred: Plane = taps[0] * plane[:rows]
    for offset in range(1, WINDOW_SIZE):
        blurred += taps[offset] * plane[offset : offset + rows]
    return blurred


def _window() -> Plane:
    distances = np.arange(WINDOW_SIZE) - WINDOW_SIZE // 2
    weights: Plane = np.exp(-(distances**2) / (2 * WINDOW_SIGMA**2))
    weights /= weights.sum()
    return weights


def _half(plane: Plane) -> Plane:
    """Means of 2x2 samples, an odd last row or column repeated: (H, W) -> (ceil H/2, ceil W/2)."""
    height, width = plane.shape
    even: Plane = np.pad(plane, ((0, height % 2), (0, width % 2)), mode="edge")
    total: Plane = even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return total / 4


def _curve(bpp: ArrayLike, quality: ArrayLike) -> tuple[Plane, Plane]:
    """Quality and ln(bpp), sorted by quality."""
    rates, x = np.asarray(bpp, np.float64), np.asarray(quality, np.float64)
    if x.ndim != 1 or x.shape != rates.shape or len(x) < 2:
        raise ValueError(
            f"expected two or more points of bpp and quality, got {rates.shape} and {x.shape}"
        )
    order = np.argsort(x)
    x, rates = x[order], rates[order]
    if not (np.isfinite(x).all() and np.isfinite(rates).all() and (rates > 0).all()):
        raise ValueError("expected finite qualities and finite rates above 0")
    if not (np.diff(x) > 0).all():
        raise ValueError("two points of a curve have the same quality: leave one out")
    return x, np.log(rates)


def _pchip(x: Plane, y: Plane, at: Plane) -> Plane:
    """Values at `at` of the monotone piecewise cubic through (x, y) (Fritsch and Butland 1984)."""
    steps, slopes = np.diff(x), _knot_slopes(x, y)
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(steps) - 1)
    h = steps[piece]
    t = (at - x[piece]) / h
    start = y[piece] + h * slopes[piece] * t
    rise = y[piece + 1] - y[piece]
    bend = 3 * rise - h * (2 * slopes[piece] + slopes[piece + 1])
    twist = h * (slopes[piece] + slopes[piece + 1]) - 2 * rise
    result: Plane = start + bend * t**2 + twist * t**3
    return result


def _knot_slopes(x: Plane, y: Plane) -> Plane:
    """Slope at each knot: harmonic mean of the secants beside it, 0 at a turning point."""
    steps = np.diff(x)
    secants = np.diff(y) / steps
    if len(secants) == 1:
        return np.repeat(secants, 2)
    slopes = np.zeros_like(x)
    same_way = secants[:-1] * secants[1:] > 0
    before, after = secants[:-1][same_way], secants[1:][same_way]
    weight_before = (steps[:-1] + 2 * steps[1:])[same_way]
    weight_after = (2 * steps[:-1] + steps[1:])[same_way]
    inverse = weight_before / before + weight_after / after
    slopes[1:-1][same_way] = (weight_before + weight_after) / inverse
    slopes[0] = _end_slope(steps[0], steps[1], secants[0], secants[1])
    slopes[-1] = _end_slope(steps[-1], steps[-2], secants[-1], secants[-2])
    return slopes


def _end_slope(step: float, next_step: float, secant: float, next_secant: float) -> float:
    """One-sided three-point slope, limited so that the end piece stays monotone."""
    slope = ((2 * step + next_step) * secant - step * next_secant) / (step + next_step)
    if slope * secant <= 0:
        return 0.0
    if secant * next_secant <= 0 and abs(slope) > 3 * abs(secant):
        return 3 * secant
    return slope
