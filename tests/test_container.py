"""The container: identity, and one test for each way a file can lie, named after the lie."""

import re
import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vaecodec.container import (
    DEFAULT_TILE,
    MAX_PIXELS,
    MAX_TILE,
    SIGNATURE,
    Colour,
    Container,
    Header,
    chunk_sizes,
    pack,
    pack_chunk,
    tile_boxes,
    unpack,
)
from vaecodec.errors import FormatError
from vaecodec.settings import pack_settings, read_settings
from vaecodec.varint import pack_varint

PREFIX = SIGNATURE + b"\x01"
MODEL = bytes(range(8))
FORMAT = Path(__file__).parents[1] / "docs" / "format.md"


def png_start(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    size = struct.pack(">IIBB", width, height, depth, colour)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + size + b"\0\0\0 and so on"


def chunk(kind: bytes, payload: bytes = b"") -> bytes:
    """A chunk of less than 128 bytes with a right checksum, whatever it says."""
    body = kind + bytes([len(payload)]) + payload
    return body + struct.pack("<I", crc32(body))


def settings_chunk(payload: bytes) -> bytes:
    return pack_chunk("m", payload)


def head(
    sides: str = "05 03",
    images: str = "01",
    colour: str = "00",
    quality: str = "80 0c",
    tile: str = "10",
    more: str = "",
) -> bytes:
    """A header chunk, its fields in hexadecimal."""
    fields = bytes.fromhex(sides + images + colour + quality) + MODEL + bytes.fromhex(tile + more)
    return chunk(b"H", fields)


TILE = chunk(b"T", b"\x92\xc6\x6c\x0a\x00")
SAMPLE = Container(
    Header(130, 70, Colour.RGB, 3200, MODEL, tile=1),
    tiles=tuple(bytes([i]) * (5 + 40 * i) for i in range(6)),
    alpha=png_start(130, 70),
    icc=b"a profile",
    exif=b"II*\0",
    xmp=b"",
    made=b"effort=9 psnr=40",
    qualities=b"a map",
)


def headers_of(
    width: st.SearchStrategy[int], height: st.SearchStrategy[int], tile: st.SearchStrategy[int]
) -> st.SearchStrategy[Header]:
    return st.builds(
        Header,
        width=width,
        height=height,
        colour=st.sampled_from(Colour),
        quality=st.integers(0, 6400),
        model=st.binary(min_size=8, max_size=8),
        tile=tile,
    )


headers = headers_of(  # of 100 tiles at most
    st.integers(1, 300), st.integers(1, 300), st.integers(1, MAX_TILE)
) | headers_of(st.integers(1, 65535), st.integers(1, 6103), st.just(MAX_TILE))


@st.composite
def containers(draw: st.DrawFn) -> Container:
    header = draw(headers)
    rows, columns = header.tile_grid
    payload = draw(st.binary(min_size=5, max_size=200))
    return Container(
        header,
        tuple(payload + bytes(n) for n in range(rows * columns)),
        alpha=draw(st.none() | st.just(png_start(header.width, header.height))),
        icc=draw(st.none() | st.binary(max_size=200)),
        exif=draw(st.none() | st.binary(max_size=200)),
        xmp=draw(st.none() | st.binary(max_size=200)),
        qualities=draw(st.none() | st.binary(max_size=200)),
        made=draw(st.none() | st.just(b"effort=9 max-bytes=20000 roi")),
    )


@given(containers())
@settings(max_examples=60, deadline=None)
def test_unpack_returns_what_was_packed(container: Container) -> None:
    data = pack(container)
    assert unpack(data) == container
    assert type(unpack(data).header.colour) is Colour
    assert sum(size for _, size in chunk_sizes(data)) + len(PREFIX) == len(data)


def test_the_number_of_images_comes_back_and_takes_its_bytes_in_the_header_only() -> None:
    one = Container(Header(28, 28, Colour.GREY, 3200, MODEL), (bytes(5),))
    many = replace(one, header=replace(one.header, images=10_000))
    assert unpack(pack(many)) == many
    assert len(pack(many)) == len(pack(one)) + 1


def test_the_example_of_the_specification_is_what_pack_writes() -> None:
    blocks = re.findall(r"(?:^    (?:[0-9a-f]{2} ?)+\n)+", FORMAT.read_text("utf-8"), re.M)
    (example,) = [data for data in map(bytes.fromhex, blocks) if data.startswith(SIGNATURE)]
    payload = bytes.fromhex("92c66c0a 01 90 0c00801b")
    container = Container(Header(5, 3, Colour.GREY, 50 * 64, MODEL), (payload,))
    assert pack(container) == example
    assert unpack(example) == container
    assert chunk_sizes(example) == [("H", 21), ("T", 16)]


def tile_payload(escapes: int, words: int) -> bytes:
    return b"csum" + pack_varint(escapes) + bytes(escapes) + bytes(4 * words)


@pytest.mark.parametrize(
    ("width", "height", "tile", "escapes", "words", "around"),
    [
        (1, 1, DEFAULT_TILE, 0, 1, 40),
        (768, 512, DEFAULT_TILE, 127, 10_000, 44),
        (1024, 1024, DEFAULT_TILE, 128, 600_000, 46),
        (2048, 2048, MAX_TILE, 2**21, 2_000_000, 48),
    ],
)
def test_an_image_of_one_tile_has_at_most_48_bytes_around_its_escapes_and_words(
    width: int, height: int, tile: int, escapes: int, words: int, around: int
) -> None:
    header = Header(width, height, Colour.RGB, 6400, b"\xff" * 8, tile)
    data = pack(Container(header, (tile_payload(escapes, words),)))
    assert len(data) - escapes - 4 * words == around <= 48


@pytest.mark.parametrize(
    ("escapes", "words", "around"), [(0, 1, 11), (127, 10_000, 13), (2**21, 2_000_000, 17)]
)
def test_a_further_tile_adds_at_most_17_bytes(escapes: int, words: int, around: int) -> None:
    payload = tile_payload(escapes, words)
    two, three = (
        len(pack(Container(Header(64 * n, 64, Colour.RGB, 0, MODEL, tile=1), (payload,) * n)))
        for n in (2, 3)
    )
    assert three - two - escapes - 4 * words == around <= 17


@given(headers)
@settings(max_examples=60, deadline=None)
def test_tile_boxes_cover_the_image_in_raster_order(header: Header) -> None:
    boxes = tile_boxes(header)
    rows, columns = header.tile_grid
    assert len(boxes) == rows * columns
    assert sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes) == header.width * header.height
    assert boxes == sorted(boxes, key=lambda box: (box[1], box[0]))
    assert boxes[-1][2:] == (header.width, header.height)


@pytest.mark.parametrize("tile", [DEFAULT_TILE, MAX_TILE])
def test_an_image_no_larger_than_its_tile_is_one_tile(tile: int) -> None:
    for width, height in ((1, 1), (64 * tile, 1), (64 * tile, 64 * tile)):
        header = Header(width, height, Colour.GREY, 0, MODEL, tile)
        assert tile_boxes(header) == [(0, 0, width, height)]
    assert replace(header, width=64 * tile + 1).tile_grid == (1, 2)


def test_the_encoder_writes_tiles_of_1024_pixels() -> None:
    header = Header(2000, 1024, Colour.GREY, 0, MODEL)
    assert tile_boxes(header) == [(0, 0, 1024, 1024), (1024, 0, 2000, 1024)]


def test_tile_boxes_are_squares_of_64_pixels_but_for_the_last() -> None:
    header = Header(130, 70, Colour.GREY, 0, MODEL, tile=1)
    assert tile_boxes(header)[:3] == [(0, 0, 64, 64), (64, 0, 128, 64), (128, 0, 130, 64)]
    assert tile_boxes(header)[3:] == [(0, 64, 64, 70), (64, 64, 128, 70), (128, 64, 130, 70)]


# Damage


def test_unpack_rejects_a_file_cut_at_any_byte() -> None:
    data = pack(SAMPLE)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            unpack(data[:end])


def test_unpack_rejects_a_flip_of_any_bit() -> None:
    data = pack(SAMPLE)
    for at in range(len(data)):
        for bit in range(8):
            with pytest.raises(FormatError):
                unpack(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])


def test_unpack_rejects_a_byte_removed_or_doubled_anywhere() -> None:
    data = pack(SAMPLE)
    for at in range(len(data)):
        for changed in (data[:at] + data[at + 1 :], data[: at + 1] + data[at:]):
            if changed != data:
                with pytest.raises(FormatError):
                    unpack(changed)


@given(st.lists(st.tuples(st.sampled_from(b"HTiexmAQqZ"), st.binary(max_size=30)), max_size=6))
@settings(max_examples=200, deadline=None)
def test_unpack_raises_nothing_but_format_errors(chunks: list[tuple[int, bytes]]) -> None:
    data = PREFIX + b"".join(chunk(bytes([kind]), payload) for kind, payload in chunks)
    for forged in (data, PREFIX + head() + data[8:], PREFIX + head() + data[8:] + TILE):
        with suppress(FormatError):
            unpack(forged)


# Lies: whole files with right checksums that say what cannot be

LIES = {
    "empty": (b"", "the file is empty"),
    "not_a_vz": (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a .vz file"),
    "cut_in_the_signature": (PREFIX[:5], "ends inside its signature"),
    "signature_only": (PREFIX, "begins with nothing; its header chunk 'H'"),
    "line_ends_translated": (PREFIX.replace(b"\r\n", b"\n") + head() + TILE, "not a .vz file"),
    "version_2": (SIGNATURE + b"\x02" + head() + TILE, "version 2 .* newer vaecodec"),
    "version_0": (SIGNATURE + b"\x00" + head() + TILE, "version 0 "),
    "no_header": (PREFIX + TILE, "begins with a chunk 'T'"),
    "metadata_before_the_header": (PREFIX + chunk(b"i") + head() + TILE, "begins with a chunk 'i'"),
    "two_headers": (PREFIX + head() + head() + TILE, "a second chunk 'H'"),
    "header_behind_metadata": (
        PREFIX + head() + chunk(b"i") + head() + TILE,
        "'H' stands behind chunk 'i'",
    ),
    "header_too_short": (PREFIX + chunk(b"H", b"\x05\x03\x01\x00"), "too few for its fields"),
    "header_without_tile_size": (PREFIX + head(tile=""), "ends inside the tile size"),
    "header_too_long": (PREFIX + head(more="00") + TILE, "1 bytes behind its last field"),
    "width_0": (PREFIX + head("00 03") + TILE, "the width is 0"),
    "height_0": (PREFIX + head("05 00") + TILE, "the height is 0"),
    "width_65536": (PREFIX + head("808004 03") + TILE, "the width is 65536"),
    "65535_x_65535_pixels": (PREFIX + head("ffff03 ffff03") + TILE, "limit of 400 million"),
    "width_in_a_longer_form": (PREFIX + head("8500 03") + TILE, "shortest form"),
    "no_image": (PREFIX + head(images="00") + TILE, "0 images; 1 or more were expected"),
    "four_billion_images": (
        PREFIX + head(images="ffffffff0f") + TILE,
        "4294967295 images have each 5 x 3 pixels, more than the limit of 400 million",
    ),
    "alpha_of_two_images": (
        PREFIX + head(images="02") + chunk(b"A", png_start(5, 3)) + TILE,
        "2 images and alpha, which belongs to one only",
    ),
    "metadata_of_two_images": (
        PREFIX + head(images="02") + chunk(b"e") + TILE,
        "2 images and exif, which belongs to one only",
    ),
    "profile_of_two_images": (PREFIX + head(images="02") + chunk(b"i") + TILE, "2 images and icc"),
    "packet_of_two_images": (PREFIX + head(images="02") + chunk(b"x") + TILE, "2 images and xmp"),
    "quality_map_of_two_images": (
        PREFIX + head(images="02") + chunk(b"Q") + TILE,
        "2 images and qualities, which belongs",
    ),
    "two_quality_maps": (PREFIX + head() + 2 * chunk(b"Q") + TILE, "a second chunk 'Q'"),
    "quality_map_behind_a_tile": (PREFIX + head() + TILE + chunk(b"Q"), "'Q' stands behind chunk"),
    "unknown_colour": (PREFIX + head(colour="02") + TILE, "colour kind is 2"),
    "quality_101": (PREFIX + head(quality="40 19") + TILE, "quality is 6464/64"),
    "tile_size_0": (PREFIX + head(tile="00") + TILE, "tile size is 0; 1 to 32 was expected"),
    "tile_size_33": (PREFIX + head(tile="21") + TILE, "tile size is 33; 1 to 32 was expected"),
    "3000_x_3000_pixels_in_50_bytes": (
        PREFIX + head("b817 b817") + TILE,
        "3 x 3 tiles, more than fit",
    ),
    "no_tile": (PREFIX + head(), "has 0 tiles; its header tells of 1 x 1"),
    "one_tile_of_two": (PREFIX + head("41 03", tile="01") + TILE, "1 tiles; .* 1 x 2"),
    "two_tiles_of_one": (PREFIX + head() + TILE + TILE, "2 tiles; .* 1 x 1"),
    "a_million_tiles": (PREFIX + head("ffff03 d72f", tile="01") + TILE, "more than fit"),
    "metadata_behind_a_tile": (PREFIX + head() + TILE + chunk(b"e"), "'e' stands behind chunk 'T'"),
    "unknown_chunk_behind_a_tile": (PREFIX + head() + TILE + chunk(b"q"), "nothing may follow"),
    "bytes_behind_the_last_tile": (PREFIX + head() + TILE + b"PK\3\4", "the file was cut off"),
    "zeros_behind_the_last_tile": (PREFIX + head() + TILE + bytes(9), "not the type of a chunk"),
    "two_profiles": (PREFIX + head() + 2 * chunk(b"i") + TILE, "a second chunk 'i'"),
    "metadata_out_of_order": (
        PREFIX + head() + chunk(b"x") + chunk(b"i") + TILE,
        "'i' stands behind chunk 'x'; the order is H, i, e, x, m, A, Q, T",
    ),
    "unknown_critical_chunk": (PREFIX + head() + chunk(b"K") + TILE, "'K', .* newer vaecodec"),
    "type_is_no_letter": (PREFIX + head() + chunk(b"1") + TILE, "not the type of a chunk"),
    "type_is_no_ascii": (PREFIX + head() + chunk(b"\xe9") + TILE, "not the type of a chunk"),
    "size_beyond_the_file": (PREFIX + b"H\x40" + bytes(20), "claims 64 bytes and 16 are left"),
    "size_of_4_gigabytes": (PREFIX + b"H\xff\xff\xff\xff\x0f", "claims 4294967295 bytes and 0"),
    "size_that_does_not_end": (PREFIX + b"H" + b"\x80" * 9, "larger than 2\\*\\*32"),
    "size_in_a_longer_form": (PREFIX + b"H\x80\x00" + bytes(9), "shortest form"),
    "wrong_checksum": (PREFIX + head()[:-1] + b"?" + TILE, "'H' .* does not match its checksum"),
    "wrong_checksum_of_an_unknown_chunk": (
        PREFIX + head() + chunk(b"q")[:-1] + b"?" + TILE,
        "'q' .* does not match its checksum",
    ),
    "settings_behind_alpha": (
        PREFIX + head() + chunk(b"A", png_start(5, 3)) + settings_chunk(b"roi") + TILE,
        "'m' stands behind chunk 'A'",
    ),
    "settings_twice": (PREFIX + head() + 2 * settings_chunk(b"roi") + TILE, "a second chunk 'm'"),
    "no_settings": (PREFIX + head() + settings_chunk(b"") + TILE, "0 bytes; 1 to 255 were"),
    "settings_of_256_bytes": (
        PREFIX + head() + settings_chunk(b"a=" + b"9" * 254) + TILE,
        "256 bytes; 1 to 255 were",
    ),
    "a_setting_twice": (PREFIX + head() + settings_chunk(b"a=1 b a=2") + TILE, "'a' twice"),
    "a_setting_without_a_name": (PREFIX + head() + settings_chunk(b"=1") + TILE, "hold '=1'"),
    "a_setting_without_its_value": (PREFIX + head() + settings_chunk(b"a=") + TILE, "hold 'a='"),
    "two_spaces_between_settings": (PREFIX + head() + settings_chunk(b"a  b") + TILE, "hold ''"),
    "a_space_behind_the_settings": (PREFIX + head() + settings_chunk(b"a ") + TILE, "hold ''"),
    "a_line_break_behind_the_settings": (
        PREFIX + head() + settings_chunk(b"a=1\n") + TILE,
        r"hold 'a=1\\n'",
    ),
    "settings_in_capitals": (PREFIX + head() + settings_chunk(b"A=1") + TILE, "hold 'A=1'"),
    "settings_that_are_no_ascii": (
        PREFIX + head() + settings_chunk(b"a=\xb2") + TILE,
        "hold 'a=\xb2'",
    ),
    "settings_with_an_escape_code": (
        PREFIX + head() + settings_chunk(b"a=\x1b[2J") + TILE,
        r"hold 'a=\\x1b\[2J'",
    ),
    "alpha_is_no_png": (PREFIX + head() + chunk(b"A", b"alpha") + TILE, "alpha chunk is not"),
    "alpha_of_another_size": (
        PREFIX + head() + chunk(b"A", png_start(65535, 65535)) + TILE,
        "not an 8-bit greyscale PNG of 5 x 3",
    ),
    "alpha_of_16_bits": (PREFIX + head() + chunk(b"A", png_start(5, 3, 16)) + TILE, "alpha chunk"),
    "alpha_in_colour": (PREFIX + head() + chunk(b"A", png_start(5, 3, 8, 2)) + TILE, "alpha chunk"),
}


@pytest.mark.parametrize("lie", LIES)
def test_unpack_rejects(lie: str) -> None:
    data, message = LIES[lie]
    with pytest.raises(FormatError, match=message):
        unpack(data)


def test_the_file_that_the_lies_are_made_from_is_true() -> None:
    container = unpack(PREFIX + head() + TILE)
    assert container == Container(Header(5, 3, Colour.GREY, 3200, MODEL), (TILE[2:-4],))


def test_unpack_skips_unknown_ancillary_chunks() -> None:
    data = PREFIX + head() + chunk(b"q", b"?") + chunk(b"i", b"icc") + 2 * chunk(b"z") + TILE
    assert unpack(data).icc == b"icc"
    assert chunk_sizes(data)[1] == ("q", 7)


def test_settings_that_a_later_encoder_may_write_are_accepted() -> None:
    data = PREFIX + head() + settings_chunk(b"effort=3 glow=1.5e+3") + TILE
    assert read_settings(unpack(data).made or b"") == {"effort": "3", "glow": "1.5e+3"}


def test_settings_come_back_in_their_order() -> None:
    asked = {"psnr": "40", "effort": "9", "roi": ""}
    assert pack_settings(asked) == b"psnr=40 effort=9 roi"
    assert list(read_settings(pack_settings(asked)).items()) == list(asked.items())


def test_settings_are_for_files_of_several_images_too() -> None:
    many = Container(Header(5, 3, Colour.GREY, 0, MODEL, images=2), (bytes(5),), made=b"effort=0")
    assert unpack(pack(many)) == many


@pytest.mark.parametrize("asked", [{}, {"a b": "1"}, {"a": "1 b"}, {"a": "1" * 300}])
def test_settings_that_no_file_may_say_are_not_packed(asked: dict[str, str]) -> None:
    with pytest.raises(FormatError):
        pack_settings(asked)


# Headers that are not to be written


@pytest.mark.parametrize(
    "field",
    [
        {"width": 0},
        {"height": 65536},
        {"width": 20_001, "height": 20_000},
        {"quality": -1},
        {"quality": 6401},
        {"model": b"short"},
        {"tile": 0},
        {"tile": 33},
        {"images": 0},
        {"width": 2000, "height": 2000, "images": 101},
    ],
)
def test_header_rejects_what_no_file_may_say(field: dict[str, object]) -> None:
    with pytest.raises(FormatError):
        replace(SAMPLE.header, **field)  # type: ignore[arg-type]


def test_the_largest_image_is_as_large_as_the_limit_says() -> None:
    assert Header(20_000, 20_000, Colour.GREY, 0, MODEL).tile_grid == (20, 20)
    assert Header(2000, 2000, Colour.GREY, 0, MODEL, images=100).pixels == MAX_PIXELS
    assert MAX_PIXELS == 20_000**2


def test_container_rejects_another_number_of_tiles_than_its_header_tells() -> None:
    with pytest.raises(FormatError, match="5 tiles; its header tells of 2 x 3"):
        replace(SAMPLE, tiles=SAMPLE.tiles[:5])
