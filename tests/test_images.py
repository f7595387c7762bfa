import contextlib
import dataclasses
import io
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from vaecodec import images
from vaecodec.errors import FormatError, ImageError
from vaecodec.picture import Picture

RED = np.array([200, 30, 60], np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a b="\xc3\xa9"/></x:xmpmeta>'


def colours(height=5, width=7, channels=3, seed=0):
    """Random uint8 (H, W, channels), squeezed where there is one channel."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def read(data):
    return images.read(io.BytesIO(data))


def joined(picture):
    """Samples and alpha in one array, as `from_array` takes them."""
    planes = [picture.pixels] if picture.alpha is None else [picture.pixels, picture.alpha]
    return np.dstack(planes)


def exif_block(orientation=1, make="Maker"):
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = make
    tags[ExifTags.Base.Orientation] = orientation
    tags[ExifTags.IFD.Exif] = {ExifTags.Base.ISOSpeedRatings: 400}
    return tags.tobytes().removeprefix(b"Exif\0\0")


def profile(space, tags):
    """A version 2 ICC profile of that data space, Lab as connection space, tags given as bytes."""
    table, data = b"", b""
    for name, content in tags.items():
        at = 128 + 4 + 12 * len(tags) + len(data)
        table += name + struct.pack(">II", at, len(content))
        data += content.ljust(-(-len(content) // 4) * 4, b"\0")
    body = struct.pack(">I", len(tags)) + table + data
    head = struct.pack(
        ">I4sI4s4s4s", 128 + len(body), b"\0" * 4, 0x02400000, b"prtr", space, b"Lab "
    )
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">III", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body


def cmyk_profile():
    """CMYK that is like no press: L is 1 - K, and cyan alone turns it to a strong green."""
    ramp = bytes(range(256))
    corners = [
        (255 * (1 - k), 28 if c else 128, 228 if c else 128)
        for c in (0, 1)
        for m in (0, 1)
        for y in (0, 1)
        for k in (0, 1)
    ]
    identity = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536)
    lut = b"mft1" + bytes([0, 0, 0, 0, 4, 3, 2, 0]) + identity + ramp * 4
    lut += b"".join(bytes(corner) for corner in corners) + ramp * 3
    return profile(
        b"CMYK", {b"A2B0": lut, b"A2B1": lut, b"wtpt": xyz(), b"cprt": text(), b"desc": text()}
    )


def grey_profile(gamma):
    curve = b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))
    tags = {b"kTRC": curve, b"wtpt": xyz(), b"cprt": text(), b"desc": text()}
    data = bytearray(profile(b"GRAY", tags))
    data[12:16], data[20:24] = b"mntr", b"XYZ "
    return bytes(data)


def xyz():
    return b"XYZ " + struct.pack(">IIII", 0, 63190, 65536, 54061)


def text():
    return b"text" + bytes(4) + b"none\0"


# Modes


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4)])
def test_plain_modes_are_kept_sample_by_sample(mode, channels):
    samples = colours(channels=channels)
    picture = images.from_pillow(Image.fromarray(samples))
    assert Image.fromarray(samples).mode == mode
    assert np.array_equal(joined(picture), np.atleast_3d(samples))


def test_one_bit_becomes_black_and_white():
    samples = colours(channels=1) > 127
    picture = images.from_pillow(Image.fromarray(samples))
    assert np.array_equal(picture.pixels[..., 0], samples * np.uint8(255))
    assert picture.alpha is None


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I"])
def test_sixteen_bits_are_rounded_to_eight(mode):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    image = Image.frombytes("I;16", (256, 256), values.tobytes())
    if mode in ("I;16B", "I"):
        image = Image.fromarray(values.astype(">u2" if mode == "I;16B" else np.int32))
    picture = images.from_pillow(image)
    assert np.array_equal(picture.pixels[..., 0], np.round(values / 257))


@pytest.mark.parametrize("values", [[[-1, 5]], [[0, 65536]]])
def test_integers_that_are_not_sixteen_bits_are_refused(values):
    with pytest.raises(ImageError, match="0 to 65535 were expected"):
        images.from_pillow(Image.fromarray(np.array(values, np.int32)))


def test_floating_point_samples_are_refused():
    with pytest.raises(ImageError, match="mode F have no agreed meaning"):
        images.from_pillow(Image.new("F", (2, 2)))


def test_premultiplied_alpha_is_divided_out():
    half = Image.fromarray(np.tile(np.uint8([200, 100, 0, 128]), (1, 2, 1)))
    picture = images.from_pillow(half.convert("RGBa"))
    assert np.abs(picture.pixels.astype(int) - [200, 100, 0]).max() <= 1
    assert (picture.alpha == 128).all()
    grey = Image.fromarray(np.tile(np.uint8([200, 128]), (1, 2, 1)))
    assert abs(int(images.from_pillow(grey.convert("La")).pixels[0, 0, 0]) - 200) <= 1


def test_the_padding_of_RGBX_is_no_alpha():
    picture = images.from_pillow(Image.fromarray(colours()).convert("RGBX"))
    assert np.array_equal(picture.pixels, colours())
    assert picture.alpha is None


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_colour_spaces_become_rgb(mode):
    image = Image.fromarray(np.tile(RED, (4, 4, 1))).convert(mode)
    picture = images.from_pillow(image)
    assert np.abs(picture.pixels.astype(int) - RED).max() <= 4
    assert picture.alpha is None


def test_every_mode_of_pillow_is_converted_or_refused():
    for mode in (*Image.MODES, "I;16", "I;16L", "I;16B", "I;16N", "La", "PA", "RGBX", "RGBa"):
        if mode == "F":
            continue
        picture = images.from_pillow(Image.new(mode, (3, 2)))
        assert picture.pixels.shape[:2] == (2, 3)


# Palettes


def palette_image(colour_list, mode="P"):
    image = Image.new("P", (len(colour_list), 1))
    image.putpalette([value for colour in colour_list for value in colour])
    image.putdata(range(len(colour_list)))
    return image.convert(mode) if mode != "P" else image


def test_a_palette_of_colours_becomes_rgb():
    picture = images.from_pillow(palette_image([(1, 2, 3), (200, 30, 60)]))
    assert picture.pixels.tolist() == [[[1, 2, 3], [200, 30, 60]]]
    assert picture.alpha is None


def test_a_palette_of_greys_becomes_grey():
    picture = images.from_pillow(palette_image([(9, 9, 9), (200, 200, 200)]))
    assert picture.pixels.tolist() == [[[9], [200]]]


def test_a_colour_that_no_pixel_uses_does_not_count():
    image = palette_image([(9, 9, 9), (200, 30, 60)])
    image.putdata([0, 0])
    assert images.from_pillow(image).pixels.tolist() == [[[9], [9]]]


def test_a_palette_of_greys_with_an_rgb_profile_stays_rgb():
    image = palette_image([(9, 9, 9), (200, 200, 200)])
    picture = read(saved(image, "PNG", icc_profile=SRGB))
    assert picture.pixels.shape == (1, 2, 3)
    assert picture.icc == SRGB


def test_a_palette_with_alpha_keeps_it():
    picture = images.from_pillow(palette_image([(1, 2, 3), (200, 30, 60)], mode="PA"))
    assert (picture.alpha == 255).all()
    assert picture.pixels.tolist() == [[[1, 2, 3], [200, 30, 60]]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\x80"])
def test_transparency_of_a_palette_becomes_alpha(transparency):
    image = palette_image([(1, 2, 3), (200, 30, 60), (4, 5, 6)])
    picture = read(saved(image, "PNG", transparency=transparency))
    expected = [255, 0, 255] if transparency == 1 else [255, 0, 128]
    assert picture.alpha.tolist() == [expected]


def test_transparency_of_a_grey_palette_becomes_grey_and_alpha():
    image = palette_image([(1, 1, 1), (200, 200, 200)])
    picture = read(saved(image, "PNG", transparency=0))
    assert joined(picture).tolist() == [[[1, 0], [200, 255]]]


# Transparent colours


def png(width, height, depth, colour_type, rows, *chunks):
    """A PNG file made by hand: rows of raw bytes, other chunks before them."""

    def chunk(kind, payload):
        return (
            struct.pack(">I", len(payload))
            + kind
            + payload
            + struct.pack(">I", zlib.crc32(kind + payload))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    others = b"".join(chunk(kind, payload) for kind, payload in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + others + data + chunk(b"IEND", b"")


def test_a_transparent_grey_becomes_alpha():
    picture = read(png(3, 1, 8, 0, [b"\x05\x06\x05"], (b"tRNS", b"\0\x05")))
    assert joined(picture).tolist() == [[[5, 0], [6, 255], [5, 0]]]


def test_a_transparent_bit_becomes_alpha():
    picture = read(png(2, 1, 1, 0, [b"\x40"], (b"tRNS", b"\0\x01")))
    assert joined(picture).tolist() == [[[0, 255], [255, 0]]]


def test_a_transparent_rgb_colour_becomes_alpha():
    row = bytes([1, 2, 3, 1, 2, 4])
    picture = read(png(2, 1, 8, 2, [row], (b"tRNS", b"\0\1\0\2\0\3")))
    assert picture.alpha.tolist() == [[0, 255]]
    assert picture.pixels.tolist() == [[[1, 2, 3], [1, 2, 4]]]


def test_a_transparent_grey_of_16_bits_is_compared_before_rounding():
    picture = read(png(2, 1, 16, 0, [b"\x12\x34\x12\x35"], (b"tRNS", b"\x12\x34")))
    assert joined(picture).tolist() == [[[18, 0], [18, 255]]]


def test_a_transparent_rgb_colour_of_16_bits_is_found():
    row = b"\x12\x34\x56\x78\x9a\xbc" + b"\x13\x34\x56\x78\x9a\xbc"
    picture = read(png(2, 1, 16, 2, [row], (b"tRNS", row[:6])))
    assert picture.alpha.tolist() == [[0, 255]]
    assert picture.pixels.tolist() == [[[0x12, 0x56, 0x9A], [0x13, 0x56, 0x9A]]]


def test_a_stale_transparent_colour_beside_an_alpha_channel_is_ignored():
    image = Image.fromarray(colours(channels=4))
    image.info["transparency"] = 0
    assert np.array_equal(joined(images.from_pillow(image)), colours(channels=4))


def test_a_transparent_colour_of_another_kind_is_ignored():
    image = Image.fromarray(colours())
    image.info["transparency"] = 7
    assert images.from_pillow(image).alpha is None


def test_an_opaque_alpha_channel_is_kept():
    samples = np.dstack([colours(), np.full((5, 7), 255, np.uint8)])
    assert (read(saved(Image.fromarray(samples), "PNG")).alpha == 255).all()


# CMYK and profiles


def cyan(profile=None):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    return saved(image, "JPEG", quality=100, **({"icc_profile": profile} if profile else {}))


def test_cmyk_without_profile_is_converted_by_the_plain_formula():
    picture = read(cyan())
    assert np.abs(picture.pixels.astype(int) - [0, 255, 255]).max() <= 2
    assert picture.icc is None


def test_cmyk_is_converted_through_its_profile_which_is_then_left_out():
    data = cyan(cmyk_profile())
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == cmyk_profile()
    picture = read(data)
    red, green, blue = picture.pixels[8, 8].tolist()
    assert green > 200 > 100 > max(red, blue)  # cyan would be as blue as green
    assert picture.icc is None


@pytest.mark.parametrize("broken", [cmyk_profile()[:200], SRGB])
def test_cmyk_with_a_profile_that_does_not_work_is_converted_plainly(broken):
    picture = read(cyan(broken))
    assert np.abs(picture.pixels.astype(int) - [0, 255, 255]).max() <= 2


@pytest.mark.parametrize(
    ("channels", "icc", "kept"),
    [
        (3, SRGB, True),
        (1, SRGB, True),
        (1, grey_profile(1.8), True),
        (3, grey_profile(1.8), False),
        (3, cmyk_profile(), False),
        (3, b"no profile at all", False),
        (3, b"", False),
    ],
)
def test_a_profile_is_kept_where_it_describes_the_samples(channels, icc, kept):
    image = Image.fromarray(colours(channels=channels))
    image.info["icc_profile"] = icc
    assert images.from_pillow(image).icc == (icc if kept else None)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF"])
def test_orientation_is_applied_once_and_reset(format, orientation):
    upright = colours(height=2, width=3)
    stored_as = {1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1]}
    turned = upright.swapaxes(0, 1)
    stored_as |= {5: turned, 6: turned[::-1], 7: turned[::-1, ::-1], 8: turned[:, ::-1]}
    stored_as[6], stored_as[8] = np.rot90(upright, 1), np.rot90(upright, -1)
    stored = Image.fromarray(np.ascontiguousarray(stored_as[orientation]))
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    picture = read(saved(stored, format, exif=exif_block(orientation), **options))
    assert np.array_equal(picture.pixels, upright)
    tags = Image.Exif()
    tags.load(picture.exif)
    assert tags.get(ExifTags.Base.Orientation, 1) == 1
    assert tags[ExifTags.Base.Make] == "Maker"


def test_orientation_of_a_jpeg_is_applied():
    image = Image.fromarray(np.zeros((8, 16), np.uint8))
    assert read(saved(image, "JPEG", exif=b"Exif\0\0" + exif_block(6))).pixels.shape == (16, 8, 1)


def test_orientation_of_an_avif_is_applied():
    image = Image.fromarray(np.zeros((8, 16, 3), np.uint8))
    assert read(saved(image, "AVIF", exif=exif_block(6))).pixels.shape == (16, 8, 3)


def test_alpha_is_turned_with_the_pixels():
    samples = colours(height=2, width=3, channels=4)
    image = Image.fromarray(samples)
    image.info["exif"] = exif_block(6)
    assert np.array_equal(joined(images.from_pillow(image)), np.rot90(samples, -1))


def test_orientation_in_xmp_counts_where_exif_has_none():
    image = Image.fromarray(colours(height=2, width=3))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    picture = read(saved(image, "PNG", pnginfo=text))
    assert picture.pixels.shape == (3, 2, 3)
    assert picture.xmp == b'<x tiff:Orientation="1"/>'


def test_the_image_that_is_given_stays_as_it_was():
    samples = colours(channels=4)
    image = Image.fromarray(samples)
    image.info["exif"] = exif_block(6)
    before = dict(image.info)
    images.from_pillow(image)
    assert image.info == before
    assert np.array_equal(np.asarray(image), samples)


def test_tags_set_on_an_image_in_memory_are_kept():
    image = Image.fromarray(colours(height=2, width=3))
    image.getexif()[ExifTags.Base.Artist] = "A. Painter"
    image.getexif()[ExifTags.Base.Orientation] = 3
    picture = images.from_pillow(image)
    assert np.array_equal(picture.pixels, colours(height=2, width=3)[::-1, ::-1])
    assert b"A. Painter" in picture.exif


# Metadata


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_metadata_is_kept_byte_for_byte(format):
    options = {"exif": b"Exif\0\0" + exif_block(), "icc_profile": SRGB}
    if format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())
    else:
        options["xmp"] = XMP
    if format == "AVIF":  # its writer drops the orientation tag
        tags = Image.Exif()
        tags[ExifTags.Base.Make] = "Maker"
        options["exif"] = tags.tobytes()
    picture = read(saved(Image.fromarray(colours()), format, **options))
    assert picture.exif == options["exif"].removeprefix(b"Exif\0\0")
    assert picture.icc == SRGB
    assert picture.xmp == XMP


def test_descriptive_tags_of_a_tiff_are_kept_and_those_of_its_layout_are_not():
    tags = Image.Exif()
    tags.load(exif_block())
    tags[700] = XMP
    picture = read(saved(Image.fromarray(colours()), "TIFF", exif=tags, icc_profile=SRGB))
    kept = Image.Exif()
    kept.load(picture.exif)
    assert set(kept) == {ExifTags.Base.Make, ExifTags.Base.Orientation, ExifTags.IFD.Exif}
    assert kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 400
    assert picture.icc == SRGB
    assert picture.xmp == XMP


def test_a_picture_without_metadata_has_none():
    for format in ("PNG", "JPEG", "WEBP", "TIFF", "AVIF", "GIF", "BMP"):
        picture = read(saved(Image.fromarray(colours()), format))
        assert (picture.icc, picture.exif, picture.xmp) == (None, None, None), format


@pytest.mark.parametrize("block", [b"", b"garbage", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
def test_damaged_exif_does_not_cost_the_image(format, block):
    picture = read(saved(Image.fromarray(colours()), format, exif=block))
    assert picture.pixels.shape == (5, 7, 3)


@pytest.mark.parametrize("key", ["exif", "xmp"])
def test_a_text_that_calls_itself_metadata_does_not_cost_the_image(key):
    text = PngImagePlugin.PngInfo()
    text.add_itxt(key, "no metadata")
    assert read(saved(Image.fromarray(colours()), "PNG", pnginfo=text)).exif is None


@pytest.mark.parametrize("value", [0, 9])
def test_an_orientation_that_does_not_exist_is_not_stored(value):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = value
    picture = read(saved(Image.fromarray(colours()), "PNG", exif=exif.tobytes()))
    stored = Image.Exif()
    stored.load(picture.exif)
    assert stored[ExifTags.Base.Orientation] == 1


def test_a_damaged_exif_profile_of_imagemagick_does_not_cost_the_image():
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", "\nexif\n   10\nnot hexadecimal")
    assert read(saved(Image.fromarray(colours()), "PNG", pnginfo=text)).exif is None


# Files


def test_read_takes_paths_streams_and_pipes(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(saved(Image.fromarray(colours()), "PNG"))
    assert np.array_equal(images.read(path).pixels, colours())

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise io.UnsupportedOperation

    assert np.array_equal(images.read(Pipe(path.read_bytes())).pixels, colours())
    with pytest.raises(ImageError, match="not an image"):
        images.read(Pipe(b""))


def test_read_leaves_the_stream_open_and_closes_the_file(tmp_path):
    stream = io.BytesIO(saved(Image.fromarray(colours()), "PNG"))
    images.read(stream)
    assert not stream.closed
    path = tmp_path / "a.png"
    path.write_bytes(stream.getvalue())
    images.read(path)  # an open file would be a ResourceWarning, and so a failure
    path.unlink()


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM"])
def test_one_pixel_is_an_image(format):
    assert read(saved(Image.new("RGB", (1, 1), (9, 9, 9)), format)).pixels.shape[:2] == (1, 1)


def test_of_several_frames_the_first_is_read():
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "blue")]
    for format in ("TIFF", "GIF", "PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = saved(frames[0], format, save_all=True, append_images=frames[1:], **options)
        assert read(data).pixels[0, 0].tolist() == [255, 0, 0], format


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"This is a text file, not an image.\n" * 9, "not an image of a kind that Pillow reads"),
        (b"\x89VZ\r\n\x1a\n\x01", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image|damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "EPS is a drawing"),
    ],
)
def test_what_is_no_image_is_refused_in_one_line_that_names_the_file(tmp_path, content, reason):
    path = tmp_path / "input.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason) as caught:
        images.read(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        images.read(tmp_path / "none.png")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF", "BMP"])
def test_a_file_cut_anywhere_is_an_image_error_or_whole(format):
    whole = saved(Image.fromarray(colours(40, 40)), format)
    expected = read(whole).pixels
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        try:
            picture = read(whole[:length])
        except ImageError:
            continue
        assert np.array_equal(picture.pixels, expected), length  # the last bytes were not needed


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF"])
def test_a_file_with_a_changed_byte_is_an_image_error_or_an_image(format):
    random = np.random.default_rng(0)
    whole = saved(Image.fromarray(colours(40, 40)), format)
    for at in random.integers(0, min(len(whole), 400), 60):
        data = bytearray(whole)
        data[at] ^= random.integers(1, 256)
        with contextlib.suppress(ImageError):
            read(bytes(data))


def test_a_jpeg_cut_in_half_is_refused():
    whole = saved(Image.fromarray(colours(64, 64)), "JPEG")
    with pytest.raises(ImageError, match="truncated"):
        read(whole[: len(whole) // 2])


# Limits


def bmp_header(width, height):
    return b"BM" + struct.pack(
        "<IIIIiiHHIIiiII", 54, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (png(65535, 65535, 8, 2, []), "400 million"),
        (png(70000, 1, 8, 2, []), "70000x1 pixels"),
        (png(20001, 20000, 8, 2, []), "400 million"),
        (bmp_header(60000, 60000), "400 million"),
    ],
)
def test_headers_that_claim_too_much_are_refused_before_pixels_are_read(data, reason):
    with pytest.raises(ImageError, match=reason):
        read(data)


def test_large_images_within_the_limit_raise_no_warning_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8)  # 35 pixels are more than twice that
    assert read(saved(Image.fromarray(colours()), "PNG")).pixels.shape == (5, 7, 3)
    assert Image.MAX_IMAGE_PIXELS == 8


def test_pillows_own_limit_is_restored_after_threads_and_errors():
    before = Image.MAX_IMAGE_PIXELS
    good, bad = saved(Image.fromarray(colours()), "PNG"), png(65535, 65535, 8, 2, [])

    def work():
        for data in (good, bad) * 5:
            try:
                read(data)
            except ImageError:
                assert data is bad

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert before == Image.MAX_IMAGE_PIXELS


def test_an_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="0x4 pixels"):
        images.from_pillow(Image.new("RGB", (0, 4)))


# Writing


def picture(channels, **metadata):
    made = images.from_array(colours(channels=channels))
    return dataclasses.replace(made, **metadata)


def written(picture, format):
    stream = io.BytesIO()
    images.write(picture, stream, format)
    return stream.getvalue()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("format", ["png", "tiff", "webp"])
def test_lossless_formats_give_back_every_sample(format, channels):
    original = picture(channels)
    back = read(written(original, format))
    if format == "webp" and channels < 3:  # WebP has no grey
        original = dataclasses.replace(original, pixels=np.repeat(original.pixels, 3, axis=2))
    assert np.array_equal(joined(back), joined(original))


@pytest.mark.parametrize("format", images.FORMATS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transparent", [False, True])
def test_every_format_writes_every_kind_of_picture(format, channels, transparent):
    alpha = np.full((9, 6), 128, np.uint8) if transparent else None
    data = written(Picture(np.full((9, 6, channels), 90, np.uint8), alpha), format)
    assert Image.open(io.BytesIO(data)).format == {"jpg": "JPEG"}.get(format, format.upper())
    back = read(data)
    over_white = transparent and format == "jpg"
    assert np.abs(back.pixels.astype(int) - (172 if over_white else 90)).max() <= 2
    assert (back.alpha is not None) == (transparent and not over_white)
    assert back.alpha is None or np.abs(back.alpha.astype(int) - 128).max() <= 2


@pytest.mark.parametrize("format", images.FORMATS)
def test_every_format_writes_the_metadata(format):
    tags = Image.Exif()
    tags[ExifTags.Base.Make] = "Maker"
    exif = tags.tobytes().removeprefix(b"Exif\0\0")
    back = read(written(picture(3, icc=SRGB, exif=exif, xmp=XMP), format))
    assert back.icc == SRGB
    assert back.xmp == XMP
    kept = Image.Exif()
    kept.load(back.exif)
    assert kept[ExifTags.Base.Make] == "Maker"


def test_the_exif_directory_survives_tiff():
    back = read(written(picture(3, exif=exif_block()), "tiff"))
    tags = Image.Exif()
    tags.load(back.exif)
    assert tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ISOSpeedRatings] == 400


def test_layout_tags_in_an_exif_block_do_not_reach_a_tiff():
    tags = Image.Exif()
    tags[ExifTags.Base.PhotometricInterpretation] = 0  # white is zero
    tags[ExifTags.Base.ImageWidth] = 99
    tags[ExifTags.Base.Compression] = 6
    exif = tags.tobytes().removeprefix(b"Exif\0\0")
    back = read(written(picture(1, exif=exif), "tiff"))
    assert np.array_equal(back.pixels, picture(1).pixels)


def test_jpeg_lays_transparent_pictures_over_white():
    pixels, alpha = np.zeros((8, 16, 3), np.uint8), np.zeros((8, 16), np.uint8)
    alpha[:, 8:] = 128
    back = read(written(Picture(pixels, alpha), "jpg"))
    assert back.alpha is None
    assert np.abs(back.pixels[:, :8].astype(int) - 255).max() <= 1
    assert np.abs(back.pixels[:, 8:].astype(int) - 127).max() <= 1


def test_jpeg_is_written_without_chroma_subsampling():
    image = Image.open(io.BytesIO(written(picture(3), "jpg")))
    assert [component[1:3] for component in image.layer] == [(1, 1)] * 3


@pytest.mark.parametrize("format", ["webp", "avif"])
def test_grey_with_its_own_profile_becomes_srgb_where_grey_cannot_be_written(format):
    linear = Picture(np.full((8, 8, 1), 128, np.uint8), icc=grey_profile(1.0))
    back = read(written(linear, format))
    assert np.abs(back.pixels.astype(int) - 188).max() <= 2  # half the light in sRGB
    assert back.icc is None
    assert read(written(linear, "png")).icc == linear.icc


def test_colours_under_transparent_pixels_survive_webp():
    samples = np.dstack([colours(), np.zeros((5, 7), np.uint8)])
    back = read(written(images.from_array(samples), "webp"))
    assert np.array_equal(joined(back), samples)


@pytest.mark.parametrize(
    ("shape", "format", "reason"),
    [
        ((1, 16_384, 1), "webp", "16383 pixels at most, not 16384x1"),
        ((65_501, 1, 1), "jpg", "65500 pixels at most, not 1x65501"),
    ],
)
def test_sides_that_a_format_cannot_hold_are_refused(shape, format, reason):
    with pytest.raises(ImageError, match=reason):
        written(Picture(np.zeros(shape, np.uint8)), format)


@pytest.mark.parametrize("metadata", [{"exif": b"II*\0" + bytes(70_000)}, {"xmp": bytes(70_000)}])
def test_metadata_too_long_for_a_jpeg_is_an_image_error_and_writes_nothing(metadata):
    target = io.BytesIO()
    with pytest.raises(ImageError, match=r"cannot be written as jpg: .* too long"):
        images.write(picture(3, **metadata), target, "jpg")
    assert target.getvalue() == b""


def test_a_damaged_grey_profile_is_an_image_error_where_it_is_needed():
    broken = picture(1, icc=grey_profile(1.0)[:140])
    with pytest.raises(ImageError, match="cannot be written as webp"):
        written(broken, "webp")


def test_an_unknown_format_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="expected one of png, jpg, webp, avif, tiff, got 'bmp'"):
        images.write(picture(3), io.BytesIO(), "bmp")


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("a.png", "png"),
        ("a.PNG", "png"),
        ("a.jpg", "jpg"),
        ("a.jpeg", "jpg"),
        ("a.b.webp", "webp"),
        ("a.avif", "avif"),
        ("a.tif", "tiff"),
        ("a.TIFF", "tiff"),
    ],
)
def test_the_format_is_known_by_the_suffix(name, format):
    assert images.format_of(Path("folder.vz") / name) == format


@pytest.mark.parametrize("name", ["a", "a.gif", ".png", "png", "a.png.bak"])
def test_a_suffix_of_no_format_is_refused_with_the_list(name):
    with pytest.raises(
        ImageError, match=r"one of \.png, \.jpg, \.webp, \.avif, \.tiff, \.jpeg, \.tif"
    ):
        images.format_of(Path(name))


# Pillow


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "LA"), (3, "RGB"), (4, "RGBA")])
def test_a_picture_goes_to_pillow_and_back(channels, mode):
    original = picture(channels, icc=SRGB, exif=exif_block(), xmp=XMP)
    image = images.to_pillow(original)
    assert image.mode == mode
    assert image.getexif()[ExifTags.Base.Make] == "Maker"
    back = images.from_pillow(image)
    assert np.array_equal(joined(back), joined(original))
    assert (back.icc, back.exif, back.xmp) == (original.icc, original.exif, original.xmp)


# Alpha chunks


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (300, 2)])
def test_alpha_survives_as_the_png_that_the_format_demands(size):
    alpha = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    png = images.pack_alpha(alpha)
    start = struct.pack(">II", size[1], size[0]) + b"\x08\0"  # 8 bits, grey
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    assert png[16:26] == start
    back = images.read_alpha(png)
    assert np.array_equal(back, alpha)
    assert back.flags.writeable


def test_a_flat_alpha_plane_costs_next_to_nothing():
    assert len(images.pack_alpha(np.full((1000, 1000), 255, np.uint8))) < 3000


def test_damaged_alpha_is_a_format_error():
    png = images.pack_alpha(np.arange(600, dtype=np.uint8).reshape(20, 30))
    for size in range(len(png) - 4):  # but for the checksum of its empty last chunk
        with pytest.raises(FormatError):
            images.read_alpha(png[:size])
    damaged = bytearray(png)
    damaged[60] ^= 1
    with pytest.raises(FormatError, match="damaged"):
        images.read_alpha(bytes(damaged))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGB", "I;16"])
def test_alpha_in_a_png_of_another_mode_is_a_format_error(mode):
    with pytest.raises(FormatError, match="mode"):
        images.read_alpha(saved(Image.new(mode, (4, 4)), "PNG"))
    with pytest.raises(FormatError, match="damaged"):
        images.read_alpha(saved(Image.new("L", (4, 4)), "TIFF"))


def test_alpha_that_claims_too_many_pixels_is_a_format_error():
    png = bytearray(images.pack_alpha(np.zeros((4, 4), np.uint8)))
    png[16:24] = struct.pack(">II", 60_000, 60_000)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    with pytest.raises(FormatError, match="damaged"):
        images.read_alpha(bytes(png))
