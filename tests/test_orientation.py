import numpy as np
import pytest
from PIL import Image, ImageOps

from vaecodec.orientation import orientation_of, reset_exif, reset_xmp, turn

STORED = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


def exif(value=6, *, order="<", kind=3, tag=0x0112, thumbnail=False):
    """An EXIF block of one directory: an orientation between two other tags, and a link after."""
    endian = "little" if order == "<" else "big"
    size = {1: 1, 3: 2, 4: 4}.get(kind, 2)

    def number(n, width):
        return n.to_bytes(width, endian)

    def entry(tag, kind, value, size):
        return number(tag, 2) + number(kind, 2) + number(1, 4) + number(value, size).ljust(4, b"\0")

    entries = entry(0x0100, 3, 7, 2) + entry(tag, kind, value, size) + entry(0x0128, 3, 2, 2)
    head = (b"II" if order == "<" else b"MM") + number(42, 2) + number(8, 4)
    return head + number(3, 2) + entries + number(50 if thumbnail else 0, 4) + b"trailing bytes"


def xmp(value):
    return f'<x:xmpmeta tiff:Orientation="{value}"/>'.encode()


@pytest.mark.parametrize("value", range(1, 9))
def test_turn_equals_what_pillow_does_to_that_orientation(value):
    image = Image.fromarray(STORED)
    image.getexif()[0x0112] = value
    assert np.array_equal(turn(STORED, value), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("value", [0, 9, 255])
def test_orientations_that_do_not_exist_turn_nothing(value):
    assert orientation_of(exif(value), None) == 1
    assert np.array_equal(turn(STORED, value), STORED)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [1, 3, 4])
def test_orientation_is_read_and_reset_in_both_byte_orders_and_all_widths(order, kind):
    block = exif(8, order=order, kind=kind)
    assert orientation_of(block, None) == 8
    assert orientation_of(reset_exif(block), None) == 1


def test_reset_changes_the_orientation_and_the_link_to_the_thumbnail_only():
    block = exif(6, thumbnail=True)
    assert reset_exif(block) == exif(1)
    assert reset_exif(exif(6, order=">", thumbnail=True)) == exif(1, order=">")


def test_pillow_reads_the_reset_block():
    tags = Image.Exif()
    tags.load(reset_exif(exif(6)))
    assert dict(tags) == {0x0100: 7, 0x0112: 1, 0x0128: 2}


def test_exif_without_orientation_is_left_alone():
    block = exif(6, tag=0x0111)
    assert orientation_of(block, None) == 1
    assert reset_exif(block) is block


def test_orientation_of_an_odd_type_is_ignored():
    assert orientation_of(exif(6, kind=7), None) == 1


def test_exif_cut_anywhere_has_no_orientation_and_raises_nothing():
    block = exif(6)
    directory_end = 8 + 2 + 3 * 12 + 4
    for length in range(len(block)):
        cut = block[:length]
        assert orientation_of(cut, None) == (6 if length >= directory_end else 1)
        assert len(reset_exif(cut)) == length


def test_exif_goes_before_xmp():
    assert orientation_of(exif(6), xmp(3)) == 6
    assert orientation_of(exif(1), xmp(3)) == 1
    assert orientation_of(None, xmp(3)) == 3
    assert orientation_of(exif(tag=0x0111), xmp(3)) == 3
    assert orientation_of(None, None) == 1


@pytest.mark.parametrize(
    "packet",
    [
        b'<x tiff:Orientation="8" b="2"/>',
        b"<x tiff:Orientation='8' b='2'/>",
        b"<x tiff:Orientation = '8'/>",
        b"<x><tiff:Orientation>8</tiff:Orientation></x>",
        b"<x><tiff:Orientation>\n 8\n</tiff:Orientation></x>",
    ],
)
def test_xmp_orientation_is_reset_wherever_it_stands(packet):
    assert orientation_of(None, packet) == 8
    assert reset_xmp(packet) == packet.replace(b"8", b"1")
