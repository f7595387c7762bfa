import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaecodec import latents

QUALITIES = st.integers(0, latents.QUALITY_MAX)


@given(QUALITIES, st.integers(2, 64))
def test_a_quality_lies_between_two_levels(quality, levels):
    level, remainder = latents.level_position(quality, levels)
    assert 0 <= level <= levels - 2
    assert 0 <= remainder <= latents.QUALITY_MAX
    assert level * latents.QUALITY_MAX + remainder == quality * (levels - 1)


@given(QUALITIES, st.lists(st.integers(-(2**20), 2**20), min_size=2, max_size=9))
def test_integer_tables_are_interpolated_and_rounded_half_up(quality, column):
    (found,) = latents.interpolate(np.array(column, np.int64)[:, None], quality)
    level, remainder = latents.level_position(quality, len(column))
    low, high = column[level], column[level + 1]
    doubled = 2 * (low * (latents.QUALITY_MAX - remainder) + high * remainder)
    assert found == (doubled + latents.QUALITY_MAX) // (2 * latents.QUALITY_MAX)


@pytest.mark.parametrize("levels", [2, 3, 8, 9])
def test_the_ends_of_the_range_are_the_outer_levels(levels):
    table = np.arange(levels * 3).reshape(levels, 3) * 1000
    assert latents.interpolate(table, 0).tolist() == table[0].tolist()
    assert latents.interpolate(table, latents.QUALITY_MAX).tolist() == table[-1].tolist()


def test_scales_are_spaced_evenly_in_the_logarithm():
    scales = latents.scales()
    assert scales[0] == pytest.approx(latents.SCALE_MIN)
    assert scales[-1] == pytest.approx(latents.SCALE_MAX)
    assert np.allclose(np.diff(np.log(scales)), latents.LOG_SCALE_STEP)


def test_exponents_are_the_rounded_logarithm_of_the_scale():
    row8 = np.arange(-200, 1000)
    scale = np.log2(latents.SCALE_MIN) + row8 / 8 * latents.LOG_SCALE_STEP / math.log(2)
    expected = np.floor(scale + 0.5).clip(latents.EXPONENT_MIN, latents.EXPONENT_MAX)
    # The fixed-point line is off by less than 0.02 at its ends: an integer may be off there only.
    ties = np.abs(scale + 0.5 - np.rint(scale + 0.5)) < 0.02
    found = latents.exponents(row8)
    assert np.array_equal(found[~ties], expected[~ties])
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_step_codes_the_same_share_of_a_cell(steps):
    pattern = latents.step_of(8, 6, 10, steps)
    assert pattern.shape == (8, 6, 10)
    counts = np.bincount(pattern.reshape(-1), minlength=steps)
    assert counts.tolist() == [8 * 6 * 10 // steps] * steps
    for channel in pattern:  # and within each channel
        assert np.bincount(channel.reshape(-1)).tolist() == [60 // steps] * steps


def test_two_steps_make_a_checkerboard():
    pattern = latents.step_of(2, 4, 4, 2)
    y, x = np.indices((4, 4))
    assert np.array_equal(pattern[0], (y + x) % 2)
    assert np.array_equal(pattern[1], (y + x + 1) % 2)
