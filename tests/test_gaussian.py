"""The classical VAEs: a data set in one stream, and every way in which its file can lie."""

import shutil
import struct
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests import gaussian_bundle
from tests.test_format import decode_by_the_book
from vaecodec import container, gaussian
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.container import Colour
from vaecodec.datasets import read_images
from vaecodec.entropy import encode_tile
from vaecodec.errors import FormatError, ImageError, ModelError
from vaecodec.latents import nearest_level
from vaecodec.rans import TOTAL

NUMBER = 3000
QUALITIES = (0, 50, 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return gaussian_bundle.write(tmp_path_factory.mktemp("gaussian") / "patterns")


@pytest.fixture(scope="module")
def codec(folder):
    return Codec(folder, "cpu", 1)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    folder = gaussian_bundle.write(tmp_path_factory.mktemp("gaussian") / "colours", colours=3)
    return Codec(folder, "cpu", 1)


IMAGES = gaussian_bundle.images(NUMBER)


def squared_error(a, b):
    return np.mean((a.astype(float) - b) ** 2)


def symbols_of(codec, images, quality):
    """Symbols (N, D) and the row of each, as encoding has them."""
    step = codec.model.quality_step(quality)
    symbols = [codec.model.symbols(p.mean, step) for p in codec.model.posteriors(images)]
    rows = codec.bundle.arrays("quality.npz")["row"][nearest_level(step, gaussian_bundle.LEVELS)]
    return np.concatenate(symbols), np.broadcast_to(rows, (len(images), len(rows)))


# What comes back


@pytest.mark.parametrize("number", [1, 2, gaussian.BATCH, gaussian.BATCH + 1])
def test_as_many_images_come_back_as_went_in(codec, number):
    data = codec.encode_images(IMAGES[:number])
    found = codec.decode_images(data)
    assert found.shape == IMAGES[:number].shape
    assert found.dtype == np.uint8
    assert container.unpack(data).header.images == number


def test_images_do_not_depend_on_those_around_them(codec):
    alone = [codec.decode_images(codec.encode_images(IMAGES[i : i + 1]))[0] for i in range(300)]
    assert np.array_equal(alone, codec.decode_images(codec.encode_images(IMAGES[:300])))


def test_quality_lowers_the_error_to_that_of_its_step(codec):
    errors, sizes = [], []
    for quality in QUALITIES:
        data = codec.encode_images(IMAGES, quality)
        errors.append(squared_error(codec.decode_images(data), IMAGES))
        sizes.append(len(data))
    assert errors == sorted(errors, reverse=True)
    assert sizes == sorted(sizes)
    noise = 2 * (gaussian_bundle.CONTRAST * gaussian_bundle.SIGMA) ** 2  # of two latents
    assert errors[1] == pytest.approx(noise, rel=0.05)  # the noise that the posterior has


def test_a_latent_that_is_not_coded_is_zero(codec):
    symbols, rows = symbols_of(codec, IMAGES, 100)
    assert not symbols[:, ~gaussian_bundle.CODED].any()
    assert not rows[:, ~gaussian_bundle.CODED].any()
    assert symbols[:, gaussian_bundle.CODED].any(0).all()


def test_the_portable_coder_writes_and_reads_the_same_file(codec, folder):
    portable = Codec(folder, "cpu", 1, portable=True)
    data = codec.encode_images(IMAGES)
    assert portable.encode_images(IMAGES) == data
    assert np.array_equal(portable.decode_images(data), codec.decode_images(data))


def test_a_picture_is_coded_as_a_data_set_of_one(codec):
    image = Image.fromarray(IMAGES[0, ..., 0])
    data = codec.encode(image)
    assert data == codec.encode_images(IMAGES[:1])
    assert np.array_equal(np.asarray(codec.decode(data)), codec.decode_images(data)[0, ..., 0])


def test_alpha_and_metadata_of_one_image_are_kept(codec):
    image = Image.fromarray(np.dstack([IMAGES[0], np.arange(16).reshape(4, 4, 1)]).astype(np.uint8))
    image.info["xmp"] = b"<x/>"
    decoded = codec.decode(codec.encode(image))
    assert np.array_equal(np.asarray(decoded)[..., 1].ravel(), np.arange(16))
    assert decoded.info["xmp"] == b"<x/>"


def test_colours_become_those_of_the_model(codec, coloured):
    colours = np.repeat(IMAGES[:9], 3, 3)
    assert codec.encode_images(colours) == codec.encode_images(IMAGES[:9])
    assert codec.encode(colours[0]) == codec.encode(IMAGES[0])
    assert coloured.encode_images(IMAGES[:9]) == coloured.encode_images(colours)
    assert coloured.encode(IMAGES[0]) == coloured.encode(colours[0])
    assert coloured.decode_images(coloured.encode_images(colours)).shape == colours.shape
    assert coloured.decode(coloured.encode(colours[0])).mode == "RGB"


# Size


@pytest.mark.parametrize("quality", QUALITIES)
def test_a_data_set_is_as_long_as_its_tables_say(codec, quality):
    """At most the code length under the tables, and 1 %, and 64 bytes."""
    tables = codec.bundle.tables
    symbols, rows = symbols_of(codec, IMAGES, quality)
    bits = 0.0
    for symbol, row in zip(symbols[rows > 0].tolist(), rows[rows > 0].tolist(), strict=True):
        entry, frequencies = symbol - int(tables.low[row]), np.diff(tables.cumulative[row])
        assert 0 <= entry < len(frequencies) - 1, "an escape; its code would have to be counted"
        bits -= np.log2(frequencies[entry] / TOTAL)
    size = len(codec.encode_images(IMAGES, quality))
    assert bits / 8 < size <= bits / 8 * 1.01 + 64


def test_one_image_takes_at_most_64_bytes(codec):
    assert max(len(codec.encode_images(IMAGES[i : i + 1], 100)) for i in range(50)) <= 64


@pytest.mark.parametrize("value", [1e6, -1e6, 1e30])
def test_latents_beyond_the_tables_come_back_as_escapes(codec, value):
    model, header = codec.model, container.unpack(codec.encode_images(IMAGES[:1])).header
    symbols = model.symbols(np.full((1, gaussian_bundle.DIMENSIONS), value, np.float32), 3200)
    _, rows = symbols_of(codec, IMAGES[:1], 50)
    y = model.latents(header, encode_tile([(symbols[0], rows[0])], codec.bundle.tables))
    step = codec.bundle.arrays("quality.npz")["step"][8]
    assert np.array_equal(y[0], symbols[0].astype(np.float32) * step)
    assert abs(symbols[0, 0]) >= min(abs(value), 2**30) // 2


# The specification


@pytest.mark.parametrize("portable", [False, True], ids=["library", "portable"])
def test_the_golden_data_set_opens_for_ever(portable):
    golden = Path(__file__).parent / "golden" / "datasets"
    codec = Codec(golden / "patterns", "cpu", 1, portable=portable)
    codec.bundle.verify()
    data = (golden / "images.vz").read_bytes()
    (payload,) = container.unpack(data).tiles
    assert payload[4] > 0, "bytes of escapes"
    found, stored = codec.decode_images(data), read_images(golden / "images.idx")
    assert found.shape == stored.shape == (200, 4, 4, 1)
    assert np.abs(found.astype(int) - stored).max() <= 1


def test_a_decoder_written_from_the_specification_decodes_the_same(codec):
    file = container.unpack(codec.encode_images(IMAGES[:40], 80))
    quality = codec.bundle.arrays("quality.npz")
    level = (file.header.quality * (len(quality["row"]) - 1) + 3200) // 6400
    rows = [quality["row"][level][i % 3] for i in range(3 * file.header.images)]
    (symbols,) = decode_by_the_book(file.tiles[0], [np.array(rows)], codec.bundle.tables)
    y = np.array(symbols, np.float32).reshape(40, 3) * quality["step"][level]
    assert np.array_equal(y, codec.model.latents(file.header, file.tiles[0]))


def test_files_hold_the_quality_of_a_level(codec):
    levels = [codec.model.quality_step(quality / 10) for quality in range(1001)]
    assert sorted(set(levels)) == [400 * level for level in range(17)]
    assert levels == sorted(levels)
    assert codec.model.quality_step(50) == 3200
    assert [nearest_level(q, 17) for q in (0, 199, 200, 599, 600, 6199, 6200, 6400)] == [
        *(0, 0, 1, 1, 2, 15, 16, 16)
    ]


# What is refused


@pytest.mark.parametrize("shape", [(1, 5, 4, 1), (2, 4, 5, 3), (1, 28, 28, 1)])
def test_images_of_another_size_are_refused_with_what_to_do(codec, shape):
    images = np.zeros(shape, np.uint8)
    message = f"{shape[2]}x{shape[1]} pixels; patterns takes 4x4 only: --resize .* --pad "
    with pytest.raises(ImageError, match=message):
        codec.encode_images(images)
    with pytest.raises(ImageError, match=message):
        codec.encode(images[0])


def test_arrays_of_another_kind_are_wrong_use(codec):
    for images in (IMAGES[0], IMAGES.astype(float), np.zeros((1, 4, 4, 2), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8 images"):
            codec.encode_images(images)
    with pytest.raises(ImageError, match="there is no image"):
        codec.encode_images(IMAGES[:0])


def test_several_images_are_not_one(codec):
    with pytest.raises(FormatError, match="holds 2 images, not one; decode_images returns all"):
        codec.decode(codec.encode_images(IMAGES[:2]))


def test_a_photo_model_codes_one_image(tiny):
    photo = Codec(tiny, "cpu", 1)
    assert photo.encode_images(IMAGES[:1]) == photo.encode(IMAGES[0])
    with pytest.raises(ImageError, match="2 images; a file of tiny holds one"):
        photo.encode_images(IMAGES[:2])
    file = container.unpack(photo.encode(IMAGES[0]))
    forged = container.pack(replace(file, header=replace(file.header, images=2)))
    with pytest.raises(FormatError, match="2 images; 1 was expected of tiny"):
        photo.decode_images(forged)


LIES = {
    "wide": ({"width": 5}, "of 5x4 pixels in grey; those of patterns are of 4x4 pixels in grey"),
    "high": ({"height": 1024}, "of 4x1024 pixels in grey"),
    "coloured": ({"colour": Colour.RGB}, "of 4x4 pixels in colour"),
    "an_image_more": ({"images": 4}, "does not match|damaged"),
    "an_image_less": ({"images": 2}, "does not match|damaged"),
    "another_level": ({"quality": 3600}, "does not match|damaged"),
    "25_million_images": ({"images": 25_000_000}, r"claims 25000000 images; .* 22369621 at most"),
}


@pytest.mark.parametrize("lie", LIES)
def test_decode_refuses_a_file_that_claims_to_be(codec, lie):
    change, message = LIES[lie]
    file = container.unpack(codec.encode_images(IMAGES[:3]))
    with pytest.raises(FormatError, match=message):
        codec.decode_images(container.pack(replace(file, header=replace(file.header, **change))))


def test_decode_refuses_more_than_one_tile(folder):
    codec = Codec(folder, "cpu", 1)
    codec.model.shape = (65, 64, 1)  # as that of a model of larger images
    file = container.unpack(Codec(folder, "cpu", 1).encode_images(IMAGES[:1]))
    header = replace(file.header, height=65, width=64, tile=1)
    with pytest.raises(FormatError, match=r"2 x 1 tiles; 1 was expected of patterns"):
        codec.model.decode(header, file.tiles * 2)


def test_a_damaged_payload_is_a_format_error(codec):
    file = container.unpack(codec.encode_images(IMAGES[:200]))
    payload = file.tiles[0]
    for at in range(len(payload)):
        damaged = payload[:at] + bytes([payload[at] ^ 1 << at % 8]) + payload[at + 1 :]
        with pytest.raises(FormatError):
            codec.decode_images(container.pack(replace(file, tiles=(damaged,))))


# Bundles that are damaged behind a true manifest


def changed(folder, tmp_path, name, data):
    """A copy of the bundle with another file in it."""
    copy = tmp_path / "patterns"
    shutil.copytree(folder, copy)
    (copy / name).write_bytes(data)
    return copy


def test_a_row_that_the_tables_lack_is_refused(folder, tmp_path):
    steps, rows, _ = gaussian_bundle.quality()
    data = gaussian_bundle.npz(step=steps, row=np.where(rows == 17, 18, rows).astype(np.uint8))
    copy = changed(folder, tmp_path, "quality.npz", data)
    with pytest.raises(ModelError, match=r"names row 18, and the tables have 18 rows; install"):
        Codec(copy, "cpu", 1)


def test_graphs_of_another_shape_are_refused(folder, coloured, tmp_path):
    other = (coloured.bundle.path / "decoder.onnx").read_bytes()
    codec = Codec(changed(folder, tmp_path, "decoder.onnx", other), "cpu", 1)
    data = codec.encode_images(IMAGES[:2])
    with pytest.raises(ModelError, match=r"gives uint8 \(2, 4, 4, 3\) for 2 images of \(4, 4, 1\)"):
        codec.decode_images(data)


def test_an_encoder_that_gives_no_numbers_is_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gaussian_bundle, "PATTERNS", gaussian_bundle.PATTERNS * np.nan)
    codec = Codec(changed(folder, tmp_path, "encoder.onnx", gaussian_bundle.encoder(1)), "cpu", 1)
    with pytest.raises(ModelError, match=r"the encoder of patterns gives no \(1, 3\) numbers"):
        codec.encode_images(IMAGES[:1])


def test_the_fingerprint_is_that_of_the_specification(folder):
    decoding = b'{"colours":1,"dimensions":3,"height":4,"levels":17,"width":4}'
    names = ("decoder.onnx", "tables.bin", "quality.npz")
    parts = [decoding, *((folder / name).read_bytes() for name in names)]
    digest = sha256(b"".join(struct.pack("<Q", len(part)) + part for part in parts))
    bundle = Bundle.open(folder)
    assert bundle.fingerprint == digest.digest()[:8]
    bundle.verify()
