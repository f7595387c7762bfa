import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaecodec.errors import FormatError
from vaecodec.varint import pack_varint, read_varint

ENCODINGS = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    300: "ac02",
    16383: "ff7f",
    16384: "808001",
    2**32 - 1: "ffffffff0f",
}


@pytest.mark.parametrize(("value", "encoding"), ENCODINGS.items())
def test_varint_has_the_bytes_of_the_specification(value: int, encoding: str) -> None:
    assert pack_varint(value).hex() == encoding


@given(st.integers(0, 2**32 - 1), st.binary(max_size=3), st.binary(max_size=8))
def test_varint_is_read_back_at_any_offset(value: int, before: bytes, behind: bytes) -> None:
    data = before + pack_varint(value) + behind
    assert read_varint(data, len(before), "it") == (value, len(data) - len(behind))


@given(st.binary(max_size=7))
def test_varint_that_is_read_is_the_one_that_is_written(data: bytes) -> None:
    try:
        value, end = read_varint(data, 0, "it")
    except FormatError:
        return
    assert pack_varint(value) == data[:end]


@pytest.mark.parametrize("value", [-1, 2**32])
def test_pack_varint_rejects_what_it_cannot_hold(value: int) -> None:
    with pytest.raises(ValueError, match="a varint holds 0 to"):
        pack_varint(value)


@pytest.mark.parametrize("data", ["", "80", "ffffffff"])
def test_read_varint_rejects_one_that_is_cut_off(data: str) -> None:
    with pytest.raises(FormatError, match="ends inside the width"):
        read_varint(bytes.fromhex(data), 0, "the width")


@pytest.mark.parametrize("data", ["8000", "808000", "ffffffff00", "8080808000"])
def test_read_varint_rejects_a_longer_form(data: str) -> None:
    with pytest.raises(FormatError, match="the width is not in its shortest form"):
        read_varint(bytes.fromhex(data), 0, "the width")


@pytest.mark.parametrize("data", ["ffffffff1f", "8080808010", "ffffffffff", "808080808000"])
def test_read_varint_rejects_33_bits(data: str) -> None:
    with pytest.raises(FormatError, match="the width is larger than 2\\*\\*32 - 1"):
        read_varint(bytes.fromhex(data), 0, "the width")
