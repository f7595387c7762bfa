"""Varints: integers of 0 to 2**32 - 1 in 1 to 5 bytes; section "Varint" of docs/format.md."""

from __future__ import annotations

from vaecodec.errors import FormatError


def pack_varint(value: int) -> bytes:
    """Return `value` (0 .. 2**32-1) as LEB128: 7 bits a byte, low bits first, in 1 to 5 bytes."""
    if not 0 <= value < 1 << 32:
        raise ValueError(f"a varint holds 0 to 2**32 - 1, not {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes | memoryview, at: int, what: str) -> tuple[int, int]:
    """Return the varint of `data` at offset `at`, and the offset behind it.

    Raises FormatError, naming `what` was to be read, when the varint is cut off, exceeds
    2**32 - 1, or is not in its shortest form.
    """
    value = 0
    for index, byte in enumerate(data[at : at + 5]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if byte == 0 and index > 0:
                raise FormatError(f"{what} is not in its shortest form; the file is damaged")
            if value >= 1 << 32:
                break
            return value, at + index + 1
    if len(data) - at < 5:
        raise FormatError(f"the file ends inside {what}; it was cut off")
    raise FormatError(f"{what} is larger than 2**32 - 1; the file is damaged")
