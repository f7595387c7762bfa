import math

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator
from scipy.signal import convolve2d

from vaecodec.metrics import MS_SSIM_MIN_SIDE, bd_rate, bits_per_pixel, ms_ssim, psnr

# Means over the 24 Kodak images, Pillow 13: JPEG optimised 4:2:0 at quality 10, 15 ... 95, WebP
# method 6, AVIF at speed 6 in 4:2:0; and the BD-rates that they had by scipy's interpolation.
JPEG_BPP = [
    *(0.25551, 0.35868, 0.44915, 0.53342, 0.6101, 0.68295, 0.74326, 0.81039, 0.86919),
    *(0.92994, 1.00491, 1.09781, 1.21301, 1.34434, 1.54904, 1.83557, 2.31538, 3.30606),
]
JPEG_PSNR = [
    *(26.6718, 28.1448, 29.1445, 29.8926, 30.4915, 31.013, 31.422, 31.8221, 32.1738),
    *(32.5154, 32.9076, 33.3596, 33.9167, 34.5221, 35.37, 36.4615, 38.034, 40.5604),
]
WEBP_BPP = [
    *(0.15452, 0.21742, 0.27442, 0.37749, 0.47621, 0.57722, 0.67273, 0.76866),
    *(0.87727, 0.93904, 1.15431, 1.44755, 1.92966, 2.79823, 3.79433),
]
WEBP_PSNR = [
    *(26.9808, 28.1086, 28.9319, 30.1936, 31.2283, 32.2019, 33.0089, 33.7324),
    *(34.4809, 34.872, 36.1841, 37.6061, 39.4463, 41.6598, 43.0011),
]
AVIF_BPP = [0.12436, 0.24846, 0.49573, 0.72181, 1.00539, 1.4253, 1.90828, 2.81178]
AVIF_PSNR = [27.2945, 29.6072, 32.4778, 34.2916, 36.1322, 38.2399, 39.9105, 41.8716]


def noisy(image, amplitude, seed=0):
    noise = np.random.default_rng(seed).integers(-amplitude, amplitude + 1, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def scene():
    """A picture with edges, slopes and texture: uint8 (203, 177, 3), both sides odd."""
    y, x = np.mgrid[:203, :177]
    grey = 90 + 60 * np.sin(x / 9) * np.cos(y / 14) + 40 * ((x // 31 + y // 23) % 2)
    return noisy(np.stack([grey, grey[::-1], grey * 0.8 + 20], axis=2).astype(np.uint8), 6, seed=1)


# bits per pixel


def test_bits_per_pixel_counts_every_byte_of_the_file():
    assert bits_per_pixel(49_152, 768, 512) == 1.0


# psnr


def test_psnr_of_equal_images_is_infinite(scene):
    assert psnr(scene, scene.copy()) == math.inf


def test_psnr_of_black_and_white_is_zero():
    black = np.zeros((3, 5, 3), np.uint8)
    assert psnr(black, black + 255) == 0.0


def test_psnr_of_errors_of_one_is_48_dB():
    black = np.zeros((300, 4), np.uint8)
    assert psnr(black, black + 1) == pytest.approx(20 * math.log10(255), abs=1e-12)


def test_psnr_is_taken_over_all_samples_of_all_bands():
    a = np.zeros((600, 2, 3), np.uint8)
    b = a.copy()
    b[599, 1, 2] = 60
    assert psnr(a, b) == pytest.approx(10 * math.log10(255**2 * a.size / 3600), abs=1e-12)


def test_psnr_does_not_wrap_around():
    a = np.array([[0, 255]], np.uint8)
    assert psnr(a, a[:, ::-1].copy()) == 0.0


@pytest.mark.parametrize("metric", [psnr, ms_ssim])
def test_metrics_refuse_what_cannot_be_compared(metric):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match="one shape"):
        metric(image, image[:7])
    with pytest.raises(ValueError, match="one shape"):
        metric(image[:0], image[:0])
    with pytest.raises(ValueError, match="uint8"):
        metric(image, image / 255)


# ms_ssim


def reference_ms_ssim(a, b):
    """The definition, one channel at a time, with a two-dimensional window."""
    grid = np.arange(-5, 6)
    window = np.exp(-(grid[:, None] ** 2 + grid[None, :] ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def local(plane):
        return convolve2d(plane, window, mode="valid")

    def one_channel(x, y):
        result = 1.0
        for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
            mean_x, mean_y = local(x), local(y)
            variance_x, variance_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
            covariance = local(x * y) - mean_x * mean_y
            term = (2 * covariance + 7.65**2) / (variance_x + variance_y + 7.65**2)
            if scale == 4:
                term = term * (2 * mean_x * mean_y + 2.55**2) / (mean_x**2 + mean_y**2 + 2.55**2)
            result *= max(term.mean(), 0) ** weight
            x, y = halved(x), halved(y)
        return result

    def halved(plane):
        rows, columns = [-(-side // 2) for side in plane.shape]
        clamp = [
            np.minimum(np.arange(2 * n), side - 1)
            for n, side in zip((rows, columns), plane.shape, strict=True)
        ]
        return plane[np.ix_(*clamp)].reshape(rows, 2, columns, 2).mean(axis=(1, 3))

    channels = [(a[..., c].astype(float), b[..., c].astype(float)) for c in range(a.shape[2])]
    return np.mean([one_channel(x, y) for x, y in channels])


def test_ms_ssim_of_equal_images_is_one(scene):
    assert ms_ssim(scene, scene.copy()) == pytest.approx(1, abs=1e-12)


def test_ms_ssim_equals_its_definition_on_odd_sides(scene):
    for amplitude in (3, 40):
        other = noisy(scene, amplitude)
        assert ms_ssim(scene, other) == pytest.approx(reference_ms_ssim(scene, other), abs=1e-9)


def test_ms_ssim_is_symmetric_and_falls_with_noise(scene):
    few, many = ms_ssim(scene, noisy(scene, 5)), ms_ssim(scene, noisy(scene, 50))
    assert 0 < many < few < 1
    assert ms_ssim(noisy(scene, 5), scene) == pytest.approx(few, abs=1e-12)


def test_ms_ssim_of_a_negative_is_zero(scene):
    assert ms_ssim(scene, 255 - scene) == 0


def test_ms_ssim_of_grey_is_that_of_its_plane(scene):
    grey, other = scene[..., 0], noisy(scene, 9)[..., 0]
    assert ms_ssim(grey, other) == ms_ssim(grey[..., None], other[..., None])


def test_ms_ssim_is_undefined_below_its_shortest_side(scene):
    small = scene[: MS_SSIM_MIN_SIDE - 1]
    least = scene[:MS_SSIM_MIN_SIDE, :MS_SSIM_MIN_SIDE]
    assert MS_SSIM_MIN_SIDE == 161
    assert math.isnan(ms_ssim(small, small))
    assert ms_ssim(least, least) == pytest.approx(1)


# bd_rate


@pytest.mark.parametrize(
    ("bpp", "quality", "percent"),
    [(WEBP_BPP, WEBP_PSNR, -34.55), (AVIF_BPP, AVIF_PSNR, -45.46), (JPEG_BPP, JPEG_PSNR, 0)],
)
def test_bd_rate_of_known_codecs_on_kodak(bpp, quality, percent):
    assert bd_rate(JPEG_BPP, JPEG_PSNR, bpp, quality) == pytest.approx(percent, abs=0.006)


def test_bd_rate_of_half_the_bits_is_minus_fifty():
    half = np.array(JPEG_BPP) / 2
    assert bd_rate(JPEG_BPP, JPEG_PSNR, half, JPEG_PSNR) == pytest.approx(-50, abs=1e-9)


def test_bd_rate_does_not_depend_on_the_order_of_points():
    shuffled = np.random.default_rng(0).permutation(len(WEBP_BPP))
    mixed = np.array(WEBP_BPP)[shuffled], np.array(WEBP_PSNR)[shuffled]
    expected = bd_rate(JPEG_BPP, JPEG_PSNR, WEBP_BPP, WEBP_PSNR)
    assert bd_rate(JPEG_BPP, JPEG_PSNR, *mixed) == expected


@pytest.mark.parametrize("points", [2, 3, 4, 9])
@pytest.mark.parametrize("seed", range(5))
def test_bd_rate_equals_scipys_pchip_on_any_curve(points, seed):
    random = np.random.default_rng(seed)
    x, x_ref = (np.sort(random.uniform(25, 45, points)) for _ in range(2))
    x[0] = x_ref[0] = 24.0
    # Not monotone, with a flat stretch: turning points and ends are where interpolations differ.
    y, y_ref = (random.integers(-2, 3, points) / 2 for _ in range(2))
    low, high = max(x[0], x_ref[0]), min(x[-1], x_ref[-1])
    areas = [PchipInterpolator(*curve).integrate(low, high) for curve in ((x, y), (x_ref, y_ref))]
    expected = 100 * math.expm1((areas[0] - areas[1]) / (high - low))
    assert bd_rate(np.exp(y_ref), x_ref, np.exp(y), x) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("bpp", "quality", "reason"),
    [
        ([0.5], [30], "two or more points"),
        ([0.5, 1, 2], [30, 31], "two or more points"),
        ([0, 1], [30, 32], "above 0"),
        ([0.5, math.nan], [30, 32], "finite"),
        ([0.5, 1], [30, math.inf], "finite"),
        ([0.5, 1], [30, 30], "same quality"),
        ([0.5, 1], [50, 60], "share no quality: one spans 26.67 to 40.56"),
    ],
)
def test_bd_rate_refuses_what_is_no_curve(bpp, quality, reason):
    with pytest.raises(ValueError, match=reason):
        bd_rate(JPEG_BPP, JPEG_PSNR, bpp, quality)
