"""Data sets are untrusted input: what is there is read whole, what is not is refused in a line."""

import gzip
import io
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from vaecodec.datasets import HEAD, is_dataset, parse, read_images, read_labels, write_idx
from vaecodec.errors import ImageError

DIGITS = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 1), np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 256, (5, 4, 3, 3), np.uint8)
LABELS = struct.pack(">BBBBI", 0, 0, 8, 1, 5) + bytes([7, 2, 1, 0, 4])


def idx(*shape, data=b"", kind=8):
    return bytes([0, 0, kind, len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + data


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
    return stream.getvalue()


def zipped(files, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def saved(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


FILES = {f"{kind}/{n}.png": png(DIGITS[n]) for n, kind in enumerate("ccaab")}
IN_ORDER = DIGITS[[2, 3, 4, 0, 1]]


# What comes back


@pytest.mark.parametrize("images", [DIGITS, COLOURS, DIGITS[:1]])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_come_back_whatever_they_are_called(images, pack, tmp_path):
    data = pack(write_idx(images))
    assert np.array_equal(parse(data), images)
    (tmp_path / "no.jpg").write_bytes(data)
    assert np.array_equal(read_images(tmp_path / "no.jpg"), images)


def test_grey_is_written_as_mnist_is_and_colour_with_a_fourth_dimension():
    assert write_idx(DIGITS) == idx(5, 4, 3, data=DIGITS.tobytes())
    assert write_idx(COLOURS) == idx(5, 4, 3, 3, data=COLOURS.tobytes())


def test_a_gzip_file_of_several_members_is_one_file():
    data = write_idx(DIGITS)
    assert np.array_equal(parse(gzip.compress(data[:20]) + gzip.compress(data[20:])), DIGITS)


def test_a_zip_and_a_folder_of_the_same_files_are_the_same_in_the_order_of_paths(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped(FILES))
    for place in (saved(tmp_path / "folder", FILES), tmp_path / "a.zip"):
        assert np.array_equal(read_images(place), IN_ORDER)
        assert read_labels(place).tolist() == [0, 0, 1, 2, 2]
        assert np.array_equal(read_images(place / "c"), DIGITS[:2])


def test_what_is_no_image_by_its_name_or_hidden_is_passed_by(tmp_path):
    others = {"a/notes.txt": b"?", "__MACOSX/a/._2.png": b"?", ".cache/x.png": b"?", "e/": b""}
    assert np.array_equal(parse(zipped(FILES | others)), IN_ORDER)
    del others["e/"]
    assert np.array_equal(read_images(saved(tmp_path, FILES | others)), IN_ORDER)


def test_one_image_in_colour_makes_all_of_them_so():
    images = parse(zipped({"a.png": png(DIGITS[0]), "b.png": png(COLOURS[1])}))
    assert np.array_equal(images[0], np.repeat(DIGITS[0], 3, 2))
    assert np.array_equal(images[1], COLOURS[1])


def test_labels_come_from_an_idx_file(tmp_path):
    for data in (LABELS, gzip.compress(LABELS)):
        (tmp_path / "labels").write_bytes(data)
        assert read_labels(tmp_path / "labels").tolist() == [7, 2, 1, 0, 4]


def test_a_data_set_is_known_by_its_first_bytes(tmp_path):
    assert is_dataset(write_idx(DIGITS)[:HEAD])
    assert is_dataset(zipped(FILES)[:HEAD])
    assert is_dataset(zipped({}))
    with gzip.open(tmp_path / ("a long name " * 20), "wb") as stream:
        stream.write(write_idx(np.zeros((99, 30, 30, 1), np.uint8)))
    (packed,) = tmp_path.iterdir()
    assert is_dataset(packed.read_bytes()[:HEAD])
    others = b"", b"\0", b"\x1f\x8b", gzip.compress(b"<svg>"), b"\x1f\x8b\x07?", png(DIGITS[0])
    assert not any(map(is_dataset, others))


@pytest.mark.parametrize("kind", ["BMP", "DDS", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_no_image_is_taken_for_a_data_set(kind, mode):
    stream = io.BytesIO()
    Image.new(mode, (8, 8)).save(stream, kind)
    assert not is_dataset(stream.getvalue())


# What is refused

DAMAGED = {
    "no_data_set": (b"\x89PNG\r\n", "not a data set: neither an idx file of bytes"),
    "nothing": (b"", "4 bytes too early"),
    "shorts": (idx(1, 1, 1, data=b"??", kind=11), "not a data set"),
    "labels": (LABELS, "an idx file of labels; one of images was expected"),
    "two_dimensions": (idx(2, 3, data=bytes(6)), r"shape \(2, 3\); \(N, H, W\) or"),
    "two_colours": (idx(2, 3, 3, 2, data=bytes(36)), r"shape \(2, 3, 3, 2\)"),
    "255_dimensions": (idx(*[1] * 255, data=b"?"), "an idx file of shape"),
    "cut_in_the_shape": (idx(5, 4, 3)[:10], "6 bytes too early"),
    "cut_in_the_images": (write_idx(DIGITS)[:-1], "1 bytes too early; it was cut off"),
    "more_than_it_claims": (write_idx(DIGITS) + b"?", "bytes behind the last of 5"),
    "no_image": (idx(0, 4, 3), "there is no image"),
    "no_pixel": (idx(5, 0, 3), "3x0 pixels; each side has to be 1 to 65535"),
    "4_billion_images": (
        idx(2**32 - 1, 28, 28),
        "4294967295 images of 28x28 pixels; the limit is 400 million",
    ),
    "wide_images": (idx(1, 1, 70000), "70000x1 pixels; each side"),
    "images_that_are_not_there": (idx(100_000, 60, 60), "360000000 bytes too early"),
    "gzip_cut": (gzip.compress(write_idx(DIGITS))[:-9], "gzip data are damaged or cut off"),
    "gzip_of_something_else": (gzip.compress(b"something else"), "not a data set"),
    "gzip_with_a_wrong_checksum": (
        gzip.compress(write_idx(DIGITS))[:-8] + bytes(4) + (76).to_bytes(4, "little"),
        "gzip data are damaged",
    ),
    "zip_without_files": (zipped({}), "it has no image: no file in it ends in .png"),
    "zip_without_images": (zipped({"a.txt": b"?"}), "it has no image"),
    "zip_cut": (zipped(FILES)[:-9], "the zip is damaged"),
    "zip_of_no_image": (zipped({"a/b.png": b"no image"}), "a/b.png: not an image"),
    "images_of_two_sizes": (
        zipped({"a.png": png(DIGITS[0]), "b.png": png(DIGITS[0][:2])}),
        "b.png: 3x2 pixels, and the first image has 3x4; the images of a data set are of one size",
    ),
    "transparent_images": (
        zipped({"a.png": png(np.zeros((4, 4, 4), np.uint8))}),
        "a.png: it has transparent pixels",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_parse_refuses(damage):
    data, message = DAMAGED[damage]
    with pytest.raises(ImageError, match=message) as caught:
        parse(data)
    assert "\n" not in str(caught.value)


def test_opaque_alpha_is_left_out():
    pixels = np.dstack([COLOURS[0], np.full((4, 3), 255, np.uint8)])
    assert np.array_equal(parse(zipped({"a.png": png(pixels)}))[0], COLOURS[0])


def test_errors_name_the_file(tmp_path):
    (tmp_path / "a.gz").write_bytes(b"\x1f\x8b\x08?")
    with pytest.raises(ImageError, match=r"a\.gz: the gzip data are damaged"):
        read_images(tmp_path / "a.gz")
    (tmp_path / "a.zip").write_bytes(zipped(FILES | {"b/9.png": b"?"}))
    with pytest.raises(ImageError, match=r"a\.zip: b/9\.png: not an image"):
        read_images(tmp_path / "a.zip")
    with pytest.raises(ImageError, match=r"a\.zip/d: it has no image"):
        read_images(tmp_path / "a.zip" / "d")
    with pytest.raises(ImageError, match=r"a\.gz: an idx file of 3 dimensions; labels have one"):
        read_labels(saved(tmp_path, {"a.gz": write_idx(DIGITS)}) / "a.gz")
    with pytest.raises(FileNotFoundError):
        read_images(tmp_path / "missing")


def test_labels_of_folders_are_256_at_most(tmp_path):
    (tmp_path / "a.zip").write_bytes(zipped({f"{n:03}/a.png": b"" for n in range(256)}))
    assert read_labels(tmp_path / "a.zip").tolist() == list(range(256))
    (tmp_path / "a.zip").write_bytes(zipped({f"{n:03}/a.png": b"" for n in range(257)}))
    with pytest.raises(ImageError, match="images in 257 folders"):
        read_labels(tmp_path / "a.zip")


def test_a_bomb_is_not_unpacked():
    """50 MB that gzip packs into 200 kB behind an idx file of one image; 300 MB in a zip."""
    bomb = gzip.compress(write_idx(DIGITS[:1]) + bytes(50_000_000), 1)
    with pytest.raises(ImageError, match="bytes behind the last of 1"):
        parse(bomb)
    many = b"".join([gzip.compress(idx(400, 1000, 1000), 1), *[gzip.compress(bytes(10**6), 1)] * 9])
    with pytest.raises(ImageError, match="391000000 bytes too early"):
        parse(many)
    with pytest.raises(ImageError, match=r"a\.png: 300,000,000 bytes; the limit in a zip is"):
        parse(zipped({"a.png": bytes(300_000_000)}))


def test_nothing_but_image_errors_for_damage():
    for data in (gzip.compress(write_idx(DIGITS)), zipped(FILES)):
        for at in range(0, len(data), 3):
            with suppress(ImageError):
                parse(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            with pytest.raises(ImageError):
                parse(data[:at])
