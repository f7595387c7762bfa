"""The rANS coder: its words, and that constriction codes exactly the integers it is given."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vaecodec import rans
from vaecodec.rans import (
    TOTAL,
    PortableCoder,
    constriction_coder,
    constriction_model,
    portable_model,
)
from vaecodec.tables import SIGNATURE, FrequencyTables

Row = NDArray[np.uint32]

# Rows with frequencies 1 at either end and in the middle, of two entries, of as many as possible.
HARD_ROWS = {
    "two entries, the first rare": [0, 1, TOTAL],
    "two entries, the second rare": [0, TOTAL - 1, TOTAL],
    "rare in the middle": [0, TOTAL // 3, TOTAL // 3 + 1, TOTAL // 3 + 2, TOTAL],
    "the specification's": [0, 1 << 22, 3 << 22, TOTAL - 1, TOTAL],
    "65535 entries, all rare but one": [*range(65_535), TOTAL],
    "65535 entries, all alike": [k * TOTAL // 65_535 for k in range(65_536)],
}
BUNDLES = Path(__file__).parents[1] / "exported"

rows = st.sets(st.integers(1, TOTAL - 1), min_size=1, max_size=60).map(
    lambda inner: np.array([0, *sorted(inner), TOTAL], np.uint32)
)


def entries_of(row: Row, seed: int, amount: int) -> NDArray[np.int32]:
    return np.random.default_rng(seed).integers(0, len(row) - 1, amount, np.int32)


def pushed(coder: Any, model: Any, entries: NDArray[np.int32]) -> Any:
    coder.encode_reverse(entries, model)
    return coder


# The words


GOLDEN = {  # entries in coding order of the specification's row -> words
    (): [],
    (0,): [],
    (0, 0, 0): [],
    (3,): [0xFFFFFF],
    (1, 2, 0, 3): [0x1B80000C],
    (3, 3, 3, 1, 0, 2): [16777215, 16777215, 1090519039, 6],
    (0, 1, 2, 3) * 8: [
        2248147567,
        3858759835,
        3995074588,
        772538372,
        638156803,
        637612035,
        637543939,
        304,
    ],
}


@pytest.mark.parametrize("entries", GOLDEN)
def test_words_are_the_golden_ones(entries: tuple[int, ...]) -> None:
    row = np.array(HARD_ROWS["the specification's"], np.uint32)
    coder = pushed(PortableCoder(), portable_model(row), np.array(entries, np.int32))
    assert coder.get_compressed().tolist() == GOLDEN[entries]


@given(rows, st.integers(0, 99), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_entries_are_popped_as_they_were_pushed(row: Row, seed: int, amount: int) -> None:
    entries, model = entries_of(row, seed, amount), portable_model(row)
    words = pushed(PortableCoder(), model, entries).get_compressed()
    coder = PortableCoder(words)
    assert np.array_equal(coder.decode(model, amount), entries)
    assert coder.is_empty()
    assert len(coder.get_compressed()) == 0


@given(rows, st.lists(st.integers(0, 2**32 - 1), max_size=20), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_any_words_are_what_their_entries_push(row: Row, words: list[int], amount: int) -> None:
    words = [*words, 7]  # the last is not zero
    model, coder = portable_model(row), PortableCoder(np.array(words, np.uint32))
    entries = coder.decode(model, amount)
    assert pushed(coder, model, entries).get_compressed().tolist() == words


def test_a_state_of_2_to_the_32_takes_no_word() -> None:
    coder = PortableCoder(np.array([5, 0, 2], np.uint32))
    assert coder.decode([0, TOTAL // 2, TOTAL], 1).tolist() == [0]
    assert coder.get_compressed().tolist() == [5, 0, 1]


def test_a_stream_costs_what_its_probabilities_say() -> None:
    row = np.array([0, TOTAL // 2, TOTAL // 4 * 3, TOTAL // 8 * 7, TOTAL], np.uint32)
    entries = np.repeat(np.arange(4, dtype=np.int32), [5000, 2500, 1250, 1250])
    words = pushed(PortableCoder(), portable_model(row), entries).get_compressed()
    assert 32 * len(words) == pytest.approx(5000 * 1 + 2500 * 2 + 2500 * 3, abs=64)


# constriction


@pytest.fixture
def library() -> Any:
    pytest.importorskip("constriction")
    coder = constriction_coder()
    assert coder is not None, "constriction is installed, and codes differently from docs/format.md"
    return coder


def assert_codes_these_integers(library: Any, row: Row) -> None:
    """Find where each entry begins and ends for constriction: exactly where the row says.

    A coder whose state is 2**32 + q decodes first the entry that holds the quantile q; the first
    and the last quantile of an entry fix its interval, and the intervals fix all that is coded.
    """
    model = constriction_model(row)
    for quantiles in (row[:-1], row[1:] - 1):
        coders = (library(np.array([q, 1], np.uint32)) for q in quantiles)
        assert [coder.decode(model) for coder in coders] == list(range(len(row) - 1))


def assert_codes_like_the_portable_coder(library: Any, row: Row) -> None:
    every = np.arange(len(row) - 1, dtype=np.int32)
    words = pushed(library(), constriction_model(row), every).get_compressed()
    expected = pushed(PortableCoder(), portable_model(row), every).get_compressed()
    assert words.dtype == expected.dtype
    assert np.array_equal(words, expected)
    assert np.array_equal(PortableCoder(words).decode(portable_model(row), len(every)), every)
    assert np.array_equal(library(words).decode(constriction_model(row), len(every)), every)


@pytest.mark.parametrize("name", HARD_ROWS)
def test_constriction_codes_the_integers_of_hard_rows(library: Any, name: str) -> None:
    row = np.array(HARD_ROWS[name], np.uint32)
    assert_codes_these_integers(library, row)
    assert_codes_like_the_portable_coder(library, row)


@given(rows)
@settings(max_examples=60, deadline=None)
def test_constriction_codes_the_integers_of_any_row(row: Row) -> None:
    pytest.importorskip("constriction")
    assert_codes_these_integers(constriction_coder(), row)
    assert_codes_like_the_portable_coder(constriction_coder(), row)


def released_tables() -> Iterator[Path]:
    """Yield the tables of every released bundle, whatever the files are called."""
    for path in sorted(BUNDLES.glob("*/*")):
        if path.is_file() and path.read_bytes().startswith(SIGNATURE):
            yield path


def test_constriction_codes_the_integers_of_every_released_table(library: Any) -> None:
    for path in released_tables():
        for row in FrequencyTables.from_bytes(path.read_bytes()).cumulative[1:]:
            assert_codes_these_integers(library, row)
            assert_codes_like_the_portable_coder(library, row)


def test_weights_of_constriction_add_up_without_rounding() -> None:
    for inner in HARD_ROWS.values():
        row = np.array(inner, np.uint32)
        weights = np.diff(row).astype(np.float32) - np.float32(1)  # half of the precision will do
        entries = len(weights)
        assert weights.sum(dtype=np.float32) == TOTAL - entries
        starts = np.append(0, np.cumsum(weights, dtype=np.float32)).astype(np.int64)
        assert np.array_equal(starts[:-1] + np.arange(entries), row[:-1])


@pytest.fixture
def forgotten() -> Iterator[None]:
    constriction_coder.cache_clear()
    yield
    constriction_coder.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_a_missing_constriction_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    assert constriction_coder() is None


@pytest.mark.usefixtures("forgotten")
def test_a_constriction_that_codes_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    constriction = pytest.importorskip("constriction")
    rounded = constriction.stream.model.Categorical(np.full(4, 0.25), perfect=False)
    monkeypatch.setattr(rans, "constriction_model", lambda _: rounded)
    assert constriction_coder() is None
