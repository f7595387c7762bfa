"""Tile payloads: identity on both coders, and one test for each way a payload can lie."""

import struct
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.test_tables import tables_of
from vaecodec.entropy import FrequencyTables, Step, TileDecoder, encode_tile
from vaecodec.errors import FormatError
from vaecodec.varint import pack_varint

TOTAL = 1 << 24
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


EXAMPLE = tables_of((-1, [1 << 22, 3 << 22, TOTAL - 1]))  # that of the specification
TABLES = tables_of(
    (-1, [1 << 22, 3 << 22, TOTAL - 1]),
    (-2, [10, 1 << 20, 15 << 20, (1 << 24) - 11, TOTAL - 1]),
    (-40, [k * 150_000 for k in range(1, 82)]),
    (7, [1]),
    (INT32_MIN, [1 << 23, TOTAL - 1]),
    (INT32_MAX - 2, [1 << 23, TOTAL - 1]),
)


def step(symbols: list[int], rows: list[int]) -> Step:
    return np.array(symbols, np.int32), np.array(rows, np.uint8)


def decode(
    payload: bytes, rows: list[NDArray[np.uint8]], tables: FrequencyTables, portable: bool
) -> list[NDArray[np.int32]]:
    decoder = TileDecoder(payload, tables, portable=portable)
    symbols = [decoder.read(step_rows) for step_rows in rows]
    decoder.finish()
    return symbols


@st.composite
def tiles(draw: st.DrawFn) -> list[Step]:
    """One to four steps of mostly small symbols, all rows, some escapes up to any int32."""
    near, far = st.integers(-6, 6), st.integers(INT32_MIN, INT32_MAX)
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        rows = draw(st.lists(st.integers(0, 6), max_size=40))
        symbols = [draw(near | near | near | far) if row else 0 for row in rows]
        steps.append(step(symbols, rows))
    return steps


# Identity


@given(tiles())
@settings(max_examples=80, deadline=None)
def test_symbols_are_decoded_as_they_were_encoded_on_either_coder(steps: list[Step]) -> None:
    payload = encode_tile(steps, TABLES)
    assert encode_tile(steps, TABLES, portable=True) == payload
    for portable in (False, True):
        decoded = decode(payload, [rows for _, rows in steps], TABLES, portable)
        for (symbols, _), found in zip(steps, decoded, strict=True):
            assert found.dtype == np.int32
            assert np.array_equal(found, symbols)


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("row", range(1, 7))
def test_escapes_hold_every_int32(row: int, portable: bool) -> None:
    extremes = [INT32_MIN, INT32_MIN + 1, -(2**30), 2**30, INT32_MAX - 1, INT32_MAX]
    first, entries = int(TABLES.low[row]), int(TABLES.escape[row])
    edges = [first - 1, first, first + entries - 1, first + entries]
    symbols = [s for s in (*extremes, *edges) if INT32_MIN <= s <= INT32_MAX]
    tile = [step(symbols, [row] * len(symbols))]
    payload = encode_tile(tile, TABLES, portable=portable)
    (found,) = decode(payload, [tile[0][1]], TABLES, portable)
    assert found.tolist() == symbols


def test_the_longest_escapes_take_64_bits() -> None:
    payload = encode_tile([step([INT32_MAX] * 3, [5] * 3)], TABLES)
    assert payload[4] == 3 * 8


@pytest.mark.parametrize("portable", [False, True])
def test_the_example_of_the_specification_is_what_encode_tile_writes(portable: bool) -> None:
    steps = [step([0, 1, 0, -1], [1, 1, 0, 1]), step([5, 0], [1, 0])]
    payload = encode_tile(steps, EXAMPLE, portable=portable)
    assert payload == bytes.fromhex("92c66c0a 01 90 0c00801b")


@pytest.mark.parametrize("portable", [False, True])
def test_a_tile_of_nothing_but_row_0_takes_5_bytes(portable: bool) -> None:
    payload = encode_tile([step([0] * 1000, [0] * 1000)], TABLES, portable=portable)
    assert payload == struct.pack("<I", crc32(bytes(4000))) + b"\0"
    assert not decode(payload, [np.zeros(1000, np.uint8)], TABLES, portable)[0].any()


def test_a_tile_of_no_step_takes_5_bytes() -> None:
    assert decode(encode_tile([], TABLES), [], TABLES, False) == []


def test_steps_may_be_strided_views() -> None:
    symbols, rows = step([1, 9, 0, 9, -1, 9], [1, 0, 2, 0, 3, 0])
    payload = encode_tile([(symbols[::2], rows[::2])], TABLES)
    assert decode(payload, [rows[::2]], TABLES, False)[0].tolist() == [1, 0, -1]


# Steps that cannot be encoded


MISTAKES = {
    "row 0 is not coded": [step([0, 1], [1, 0])],
    "symbols are int64": [(np.zeros(1, np.int64), np.zeros(1, np.uint8))],
    "rows are int32": [(np.zeros(1, np.int32), np.zeros(1, np.int32))],
    "int32 of the shape of their rows": [step([0, 0], [1])],
    "rows are uint8 .* expected": [(np.zeros((2, 2), np.int32), np.zeros((2, 2), np.uint8))],
    "row 7 was asked for; the tables have 7": [step([0], [7])],
}


@pytest.mark.parametrize("message", MISTAKES)
def test_encode_tile_rejects_steps_where(message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_tile(MISTAKES[message], TABLES)  # type: ignore[arg-type]


# Damage


def long_tile() -> list[Step]:
    random = np.random.default_rng(1)
    rows = random.integers(0, 4, 300, np.uint8)
    symbols = np.where(rows > 0, random.integers(-5, 6, 300), 0).astype(np.int32)
    return [(symbols[:120], rows[:120]), (symbols[120:], rows[120:])]


@pytest.mark.parametrize("portable", [False, True])
def test_decoder_rejects_a_payload_cut_at_any_byte(portable: bool) -> None:
    steps = long_tile()
    payload = encode_tile(steps, TABLES)
    for end in range(len(payload)):
        with pytest.raises(FormatError):
            decode(payload[:end], [rows for _, rows in steps], TABLES, portable)


@pytest.mark.parametrize("portable", [False, True])
def test_decoder_rejects_a_flip_of_any_bit(portable: bool) -> None:
    steps = long_tile()
    payload = encode_tile(steps, TABLES)
    for at in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[at // 8] ^= 1 << at % 8
        with pytest.raises(FormatError):
            decode(bytes(flipped), [rows for _, rows in steps], TABLES, portable)


@given(st.binary(max_size=30), st.lists(st.integers(0, 6), max_size=30), st.booleans())
@settings(max_examples=200, deadline=None)
def test_decoder_raises_nothing_but_format_errors(
    data: bytes, rows: list[int], empty: bool
) -> None:
    payload = bytes(5) + data if empty else data  # without escapes, most of it is words
    outcomes = []
    for portable in (False, True):
        try:
            decode(payload, [np.array(rows, np.uint8)], TABLES, portable)
            outcomes.append("decoded")
        except FormatError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]
    assert "\n" not in outcomes[0]


@given(st.binary(max_size=4), st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_escapes_that_decode_are_the_ones_that_are_encoded(escapes: bytes, amount: int) -> None:
    (_, rows) = escaped = step([9] * amount, [1] * amount)
    payload = encode_tile([escaped], TABLES)
    behind = pack_varint(len(escapes)) + escapes + payload[5 + payload[4] :]
    try:
        symbols = TileDecoder(bytes(4) + behind, TABLES).read(rows)
        forged = struct.pack("<I", crc32(symbols.astype("<i4").tobytes())) + behind
        decode(forged, [rows], TABLES, False)
    except FormatError:
        return
    assert encode_tile([(symbols, rows)], TABLES) == forged


# Lies. The rows are those of the specification's example: one escape, in the last entry.

ROWS = [np.array([1, 1, 0, 1], np.uint8), np.array([1, 0], np.uint8)]
CHECKSUM, WORDS = bytes.fromhex("92c66c0a"), bytes.fromhex("0c00801b")
LIES = {
    "nothing_at_all": (b"", "has 0 bytes; 5 or more"),
    "no_escape_size": (CHECKSUM, "has 4 bytes; 5 or more"),
    "escape_size_in_a_longer_form": (CHECKSUM + b"\x81\0\x90" + WORDS, "shortest form"),
    "escapes_beyond_the_payload": (CHECKSUM + b"\x06\x90" + WORDS, "claims 6 bytes"),
    "4_gigabytes_of_escapes": (CHECKSUM + b"\xff\xff\xff\xff\x0f" + WORDS, "claims 4294967295"),
    "half_a_word": (CHECKSUM + b"\x01\x90" + WORDS[:2], "has 3 for them and for words"),
    "last_word_is_zero": (CHECKSUM + b"\x01\x90" + WORDS + bytes(4), "last word .* is zero"),
    "no_words": (CHECKSUM + b"\0", "do not match their checksum"),
    "a_word_too_many": (CHECKSUM + b"\x01\x90" + b"\x01\0\0\0" + WORDS, "words left"),
    "another_word": (CHECKSUM + b"\x01\x90" + b"\x0c\0\x80\x1a", "words left"),
    "no_escapes": (CHECKSUM + b"\0" + WORDS, "escapes of a tile end inside a code"),
    "escapes_that_end_inside_a_code": (CHECKSUM + b"\x01\x84" + WORDS, "end inside a code"),
    "escapes_of_zeros": (CHECKSUM + b"\x14" + bytes(20) + WORDS, "end inside a code or hold none"),
    "an_escape_of_33_bits": (
        CHECKSUM + b"\x09\x80\0\0\0\x40" + bytes(4) + WORDS,
        "end inside a code or hold none",
    ),
    "an_escape_beyond_int32": (
        CHECKSUM + b"\x08\x80\0\0\0\xff\xff\xff\xff" + WORDS,
        "holds the symbol 4294967296, which is no int32",
    ),
    "an_escape_below_int32": (
        CHECKSUM + b"\x08\0\0\0\0\xff\xff\xff\xff" + WORDS,
        "holds the symbol -4294967296, which is no int32",
    ),
    "an_escape_too_many": (CHECKSUM + b"\x02\x90\x90" + WORDS, "has 2 bytes of escapes .* 6 bits"),
    "escapes_not_padded_with_zeros": (CHECKSUM + b"\x01\x91" + WORDS, "has 1 bytes of escapes"),
    "another_escape": (CHECKSUM + b"\x01\x94" + WORDS, "do not match their checksum"),
    "another_checksum": (b"\0" + CHECKSUM[1:] + b"\x01\x90" + WORDS, "do not match their checksum"),
}


@pytest.mark.parametrize("portable", [False, True])
@pytest.mark.parametrize("lie", LIES)
def test_decoder_rejects(lie: str, portable: bool) -> None:
    payload, message = LIES[lie]
    with pytest.raises(FormatError, match=message):
        decode(payload, ROWS, EXAMPLE, portable)


@pytest.mark.parametrize("portable", [False, True])
def test_decoder_rejects_a_step_left_out(portable: bool) -> None:
    with pytest.raises(FormatError, match="words left"):
        decode(CHECKSUM + b"\x01\x90" + WORDS, ROWS[:1], EXAMPLE, portable)


@pytest.mark.parametrize("portable", [False, True])
def test_decoder_rejects_a_symbol_of_row_0_too_many(portable: bool) -> None:
    with pytest.raises(FormatError, match="checksum"):
        decode(CHECKSUM + b"\x01\x90" + WORDS, [*ROWS, np.zeros(1, np.uint8)], EXAMPLE, portable)
