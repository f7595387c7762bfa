import numpy as np
import pytest

from vaecodec.bundle import find
from vaecodec.entropy import encode_tile
from vaecodec.rates import CodeLengths


@pytest.fixture(scope="module")
def tables():
    return find("photo-1").tables


@pytest.fixture(scope="module")
def lengths(tables):
    return CodeLengths(tables)


def test_the_sum_of_code_lengths_is_the_size_of_a_payload(tables, lengths):
    random = np.random.default_rng(0)
    rows = random.integers(0, 64, 20_000).astype(np.uint8)
    scales = 0.11 * np.exp(0.123 * rows)
    symbols = np.round(random.standard_normal(len(rows)) * scales).astype(np.int32)
    symbols[::97] *= 40  # escapes among them
    symbols[rows == 0] = 0
    bits = lengths.bits(rows, symbols).sum(dtype=np.float64)
    payload = 8 * len(encode_tile([(symbols, rows)], tables))
    assert bits <= payload <= bits + 8 * 24


@pytest.mark.parametrize("symbol", [-(2**31), -5000, 3000, 10**6, 2**31 - 1])
def test_escapes_cost_what_their_code_takes(tables, lengths, symbol):
    row = 5
    low = int(tables.low[row])
    high = low + len(tables.cumulative[row]) - 3
    distance = symbol - high if symbol > high else low - symbol
    frequency = int(np.diff(tables.cumulative[row].astype(np.int64))[-1])
    expected = 24 - np.log2(frequency) + 1 + 2 * (distance.bit_length() - 1) + 1
    found = lengths.bits(np.array([row]), np.array([symbol], np.int64))
    assert float(found[0]) == pytest.approx(expected, abs=1e-4)


def test_between_symbols_lengths_are_linear(lengths):
    rows = np.array([20, 20, 20], np.uint8)
    bits, slope = lengths.between(rows, np.array([1.0, 1.25, 2.0], np.float32))
    ends = lengths.bits(rows[:2], np.array([1, 2]))
    assert bits.dtype == slope.dtype == np.float32
    np.testing.assert_allclose(bits, [ends[0], ends[0] + (ends[1] - ends[0]) / 4, ends[1]], 1e-5)
    np.testing.assert_allclose(slope[:2], ends[1] - ends[0], 1e-5)


def test_a_wider_row_makes_zeros_dearer_and_large_symbols_cheaper(lengths):
    slopes = lengths.row_slope(np.array([20, 20]), np.array([0.0, 6.0], np.float32))
    assert slopes[0] > 0 > slopes[1]


def test_only_zero_is_possible_in_row_0(lengths):
    bits = lengths.bits(np.array([0, 0]), np.array([0, 1]))
    assert bits[0] == 0
    assert bits[1] > 1000
