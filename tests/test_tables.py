import struct
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaecodec.errors import ModelError
from vaecodec.tables import SIGNATURE, FrequencyTables

TOTAL = 1 << 24
INT32_MAX = 2**31 - 1


def tables_of(*rows: tuple[int, list[int]]) -> FrequencyTables:
    """Tables of the certain row and `rows`, each the smallest symbol and the inner boundaries."""
    low = [0, *(low for low, _ in rows)]
    cumulative = [[0, TOTAL], *([0, *inner, TOTAL] for _, inner in rows)]
    return FrequencyTables(
        np.array(low, np.int32), tuple(np.array(row, np.uint32) for row in cumulative)
    )


tables = st.lists(
    st.tuples(
        st.integers(-(2**31), INT32_MAX - 60),
        st.sets(st.integers(1, TOTAL - 1), min_size=1, max_size=60).map(sorted),
    ),
    max_size=6,
).map(lambda rows: tables_of(*rows))


def same(a: FrequencyTables, b: FrequencyTables) -> bool:
    pairs = zip(a.cumulative, b.cumulative, strict=True)
    return np.array_equal(a.low, b.low) and all(np.array_equal(x, y) for x, y in pairs)


@given(tables)
@settings(max_examples=60, deadline=None)
def test_tables_are_read_back_and_written_again_the_same(written: FrequencyTables) -> None:
    data = written.to_bytes()
    read = FrequencyTables.from_bytes(data)
    assert same(read, written)
    assert read.to_bytes() == data
    assert read.low.dtype == np.int32
    assert all(row.dtype == np.uint32 for row in read.cumulative)


def test_tables_take_3_bytes_an_entry_and_6_a_row() -> None:
    assert len(tables_of((0, [1, 2]), (0, [1])).to_bytes()) == 6 + (6 + 3 * 3) + (6 + 3 * 2)


def test_the_example_of_the_specification_is_what_to_bytes_writes() -> None:
    example = tables_of((-1, [1 << 22, 3 << 22, TOTAL - 1]))
    data = "56 5a 54 01 02 00 ff ff ff ff 04 00 00 00 40 00 00 80 ff ff 3f 01 00 00"
    assert example.to_bytes() == bytes.fromhex(data)


def test_tables_cannot_be_changed() -> None:
    written = tables_of((0, [1]))
    with pytest.raises(ValueError, match="read-only"):
        written.low[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        written.cumulative[1][1] = 2


# Damage and lies


def test_from_bytes_rejects_tables_cut_at_any_byte() -> None:
    data = tables_of((-3, [5, 70, 800]), (0, [9])).to_bytes()
    for end in range(len(data)):
        with pytest.raises(ModelError):
            FrequencyTables.from_bytes(data[:end])


@given(st.binary(max_size=60))
def test_from_bytes_raises_nothing_but_model_errors(data: bytes) -> None:
    for forged in (data, SIGNATURE + data, SIGNATURE + b"\2\0" + data):
        with suppress(ModelError):
            assert FrequencyTables.from_bytes(forged).to_bytes() == forged


def row_bytes(low: int, *frequencies: int) -> bytes:
    packed = b"".join(f.to_bytes(3, "little") for f in frequencies)
    return struct.pack("<iH", low, len(frequencies)) + packed


HALF = TOTAL // 2
LIES = {
    "another_signature": (b"VZT\x02\1\0", "signature"),
    "no_row": (SIGNATURE + b"\0\0", "0 rows"),
    "257_rows": (SIGNATURE + b"\1\1" + 256 * row_bytes(0, HALF, HALF), "257 rows"),
    "a_row_missing": (SIGNATURE + b"\3\0" + row_bytes(0, HALF, HALF), "damaged"),
    "a_row_too_many": (SIGNATURE + b"\1\0" + row_bytes(0, HALF, HALF), "1 rows in 6 bytes"),
    "one_entry": (SIGNATURE + b"\2\0" + row_bytes(0, TOTAL - 1), "row 1 do not add up"),
    "no_entry": (SIGNATURE + b"\2\0" + row_bytes(0), "damaged"),
    "a_sum_too_small": (SIGNATURE + b"\2\0" + row_bytes(0, HALF, HALF - 1), "do not add up"),
    "a_sum_too_large": (SIGNATURE + b"\2\0" + row_bytes(0, HALF, HALF + 1), "do not add up"),
    "a_frequency_of_0": (SIGNATURE + b"\2\0" + row_bytes(0, HALF, 0, HALF), "strictly"),
    "entries_beyond_int32": (
        SIGNATURE + b"\2\0" + row_bytes(INT32_MAX, HALF, HALF),
        "exceed int32",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_from_bytes_rejects(lie: str) -> None:
    data, message = LIES[lie]
    with pytest.raises(ModelError, match=message):
        FrequencyTables.from_bytes(data)


CERTAIN = np.array([0, TOTAL], np.uint32)
COIN = np.array([0, HALF, TOTAL], np.uint32)
WRONG: dict[str, Callable[[], FrequencyTables]] = {
    "low of int64": lambda: FrequencyTables(np.zeros(1, np.int64), (CERTAIN,)),
    "low of other length": lambda: FrequencyTables(np.zeros(2, np.int32), (CERTAIN,)),
    "no row": lambda: FrequencyTables(np.zeros(0, np.int32), ()),
    "row 0 not certain": lambda: FrequencyTables(np.zeros(1, np.int32), (COIN,)),
    "row 0 not of zeros": lambda: FrequencyTables(np.ones(1, np.int32), (CERTAIN,)),
    "row 1 certain": lambda: FrequencyTables(np.zeros(2, np.int32), (CERTAIN, CERTAIN)),
    "a row of int64": lambda: FrequencyTables(
        np.zeros(2, np.int32),
        (CERTAIN, COIN.astype(np.int64)),
    ),
    "too many entries": lambda: tables_of((0, list(range(1, 65_536)))),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_tables_reject(mistake: str) -> None:
    with pytest.raises(ValueError, match=r"expected|certain row"):
        WRONG[mistake]()
