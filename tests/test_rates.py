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


@pytest.mark.parametrize("row", [1, 20, 63])
def test_what_is_around_a_symbol_is_what_its_neighbours_cost(lengths, row):
    symbols = np.array([-400, -3, 0, 1, 40])
    rows = np.full(len(symbols), row, np.uint8)
    below = np.zeros(len(symbols), np.bool_)
    found, under = lengths.around(rows, symbols, below), lengths.around(rows, symbols, ~below)
    bits = lengths.bits(rows, symbols)
    np.testing.assert_array_equal(found.bits, bits)
    np.testing.assert_allclose(found.per_step, lengths.bits(rows, symbols + 1) - bits, atol=1e-5)
    np.testing.assert_allclose(under.per_step, bits - lengths.bits(rows, symbols - 1), atol=1e-5)
    wider, narrower = np.minimum(rows + 1, 63), np.maximum(rows - 1, 1)
    expected = (lengths.bits(wider, symbols) - lengths.bits(narrower, symbols)) / 2
    np.testing.assert_allclose(found.per_row, expected, atol=1e-5)


def test_far_escapes_cost_what_they_do_and_have_slopes(lengths):
    rows, symbols = np.array([5, 5], np.uint8), np.array([10**6, -(2**31)], np.int64)
    found = lengths.around(rows, symbols, np.array([True, False]))
    np.testing.assert_array_equal(found.bits, lengths.bits(rows, symbols))
    assert np.all(np.abs(found.per_step) < 32)


def test_a_wider_row_makes_zeros_dearer_and_large_symbols_cheaper(lengths):
    rows, symbols = np.array([20, 20]), np.array([0, 6])
    slopes = lengths.around(rows, symbols, np.array([False, False])).per_row
    assert slopes[0] > 0 > slopes[1]


def test_only_zero_is_possible_in_row_0(lengths):
    bits = lengths.bits(np.array([0, 0]), np.array([0, 1]))
    assert bits[0] == 0
    assert bits[1] > 1000
