"""A second decoder of tile payloads, slow and plain, written from the text of docs/format.md."""

import struct
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from tests.test_entropy import TABLES, long_tile
from vaecodec.entropy import FrequencyTables, encode_tile


def decode_by_the_book(
    payload: bytes, rows_of_steps: list[NDArray[np.uint8]], tables: FrequencyTables
) -> list[list[int]]:
    size = payload[4]  # of less than 128 bytes of escapes
    bits = "".join(f"{byte:08b}" for byte in payload[5 : 5 + size])
    words = [word for (word,) in struct.iter_unpack("<I", payload[5 + size :])]
    s = 0
    for _ in range(2):
        s = s << 32 | words.pop() if words else s

    def decode_entry(cumulative: list[int]) -> int:
        nonlocal s
        q = s % 2**24
        k = next(k for k in range(len(cumulative)) if cumulative[k] <= q < cumulative[k + 1])
        s = (s >> 24) * (cumulative[k + 1] - cumulative[k]) + q - cumulative[k]
        if s < 2**32 and words:
            s = s << 32 | words.pop()
        return k

    def decode_escape(low: int, high: int) -> int:
        nonlocal bits
        zeros = bits.index("1", 1) - 1
        side, distance = bits[0], int(bits[1 + zeros : 2 + 2 * zeros], 2)
        bits = bits[2 + 2 * zeros :]
        return high + distance if side == "1" else low - distance

    def decode_symbol(r: int) -> int:
        low, n = int(tables.low[r]), len(tables.cumulative[r]) - 1
        k = decode_entry(tables.cumulative[r].tolist())
        return low + k if k < n - 1 else decode_escape(low, low + n - 2)

    steps = []
    for rows in rows_of_steps:
        symbols = [0] * len(rows)
        for r in range(1, len(tables.low)):
            for p in np.flatnonzero(rows == r):
                symbols[p] = decode_symbol(r)
        steps.append(symbols)
    assert s == 0
    assert not words
    assert len(bits) < 8
    assert "1" not in bits
    checksum = crc32(b"".join(struct.pack(f"<{len(step)}i", *step) for step in steps))
    assert payload[:4] == struct.pack("<I", checksum)
    return steps


def test_a_decoder_written_from_the_specification_decodes_the_same() -> None:
    steps = long_tile()
    payload = encode_tile(steps, TABLES)
    assert 0 < payload[4] < 128
    found = decode_by_the_book(payload, [rows for _, rows in steps], TABLES)
    assert found == [symbols.tolist() for symbols, _ in steps]
