"""Quality maps: what masks make of them, how files hold them, and what they do to pictures."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from tests.training import SAMPLES
from vaecodec import container, roi
from vaecodec.codec import Codec
from vaecodec.container import MAX_QUALITY
from vaecodec.errors import FormatError, ImageError
from vaecodec.images import read
from vaecodec.roi import DEPTH, QualityMap, map_of_mask, pack_map, read_map
from vaecodec.shapes import freed
from vaecodec.targets import Target


@pytest.fixture(scope="module")
def codec(tiny):
    return Codec(tiny, "cpu", 1)


@pytest.fixture(scope="module")
def photograph():
    return read(SAMPLES / "dog.webp").pixels[150:310, 100:270]


@pytest.fixture(scope="module")
def mask(photograph):
    """White in the middle."""
    found = np.zeros(photograph.shape[:2], np.uint8)
    found[48:112, 48:112] = 255
    return found


# Maps


def test_white_keeps_the_quality_black_loses_half_the_scale_and_grey_lies_between():
    mask = np.repeat([255, 170, 85, 0], 16).astype(np.uint8)[None].repeat(16, 0)
    qualities = map_of_mask(mask, 16, 64)
    assert qualities.levels.tolist() == [[0, 5, 10, 15]]
    third = DEPTH / 3
    assert qualities.qualities(MAX_QUALITY)[0] == pytest.approx(
        [6400, 6400 - third, 6400 - 2 * third, 3200], abs=1
    )


def test_no_quality_is_below_0():
    assert QualityMap(np.full((1, 1), 15, np.uint8)).qualities(100).tolist() == [[0]]


def test_a_mask_counts_by_its_mean_over_16_pixels_and_as_far_as_it_goes_at_the_border():
    mask = np.zeros((20, 17), np.uint8)
    mask[:8], mask[16:] = 255, 255
    assert map_of_mask(mask, 20, 17).levels.tolist() == [[8, 8], [0, 0]]


def test_a_white_mask_asks_for_nothing(codec, photograph):
    white = np.full(photograph.shape[:2], 255, np.uint8)
    assert map_of_mask(white, *white.shape) is None
    file = container.unpack(codec.encode(photograph, 60, roi=white))
    assert file.qualities is None
    assert file.made == b"roi"
    assert file.tiles == container.unpack(codec.encode(photograph, 60)).tiles


def test_a_mask_of_another_size_is_an_error_that_names_both_sizes(codec, photograph):
    with pytest.raises(ImageError, match="mask has 7x9 pixels, the image 170x160"):
        codec.encode(photograph, 60, roi=np.zeros((9, 7), np.uint8))


@pytest.mark.parametrize("kind", [bool, np.float32, np.int32])
def test_a_mask_of_another_type_is_an_error(codec, photograph, kind):
    with pytest.raises(ValueError, match=r"the mask is \w+ \(160, 170\); uint8 \(H, W\) expected"):
        codec.encode(photograph, 60, roi=np.ones(photograph.shape[:2], kind))
    with pytest.raises(ValueError, match="uint8"):
        codec.encode(photograph, 60, roi=np.ones((160, 170, 1), np.uint8))


def test_maps_come_back():
    levels = np.random.default_rng(0).integers(0, 16, (5, 7), np.uint8)
    found = read_map(pack_map(QualityMap(levels, 777)), 5, 7)
    assert found.depth == 777
    assert np.array_equal(found.levels, levels)


LEVELS = bytes([0, 15, 3, 4, 5, 6])


def payload(levels=LEVELS, depth=3200, more=b""):
    return struct.pack("<H", depth) + zlib.compress(levels) + more


LIES = {
    "nothing": (b"", "0 bytes; 3 or more"),
    "depth_only": (b"\x01\x00", "does not hold 6 levels"),
    "depth_0": (payload(depth=0), "depth 0; 1 to 6400"),
    "depth_6401": (payload(depth=6401), "depth 6401; 1 to 6400"),
    "level_16": (payload(b"\0\0\0\0\0\x10"), "level 16; 0 to 15"),
    "five_levels": (payload(LEVELS[:5]), "does not hold 6 levels and nothing else"),
    "seven_levels": (payload(LEVELS + b"\0"), "does not hold 6 levels and nothing else"),
    "a_gigabyte_of_levels": (payload(bytes(2**24)), "does not hold 6 levels and nothing else"),
    "bytes_behind_the_stream": (payload(more=b"\0"), "does not hold 6 levels and nothing else"),
    "a_stream_cut_off": (payload()[:-1], "does not hold 6 levels and nothing else"),
    "a_damaged_stream": (payload()[:-1] + b"?", "no zlib stream"),
    "no_stream": (b"\x80\x0cabcdefgh", "no zlib stream"),
}


@pytest.mark.parametrize("lie", LIES)
def test_read_map_rejects(lie):
    data, message = LIES[lie]
    with pytest.raises(FormatError, match=message):
        read_map(data, 2, 3)


def test_the_map_that_the_lies_are_made_from_is_true():
    assert read_map(payload(), 2, 3).levels.tobytes() == LEVELS


# Files


def error_of(pixels, decoded, where):
    return np.square(pixels.astype(float) - decoded)[where].mean()


def test_bits_go_where_the_mask_is_white(codec, photograph, mask):
    plain = codec.encode(photograph, 40)
    made = codec.encode_to(photograph, Target("max-bytes", len(plain)), roi=mask)
    assert len(made.data) <= len(plain)
    before, after = (codec.decode_picture(data).pixels for data in (plain, made.data))
    white = mask == 255
    assert error_of(photograph, after, white) < 0.8 * error_of(photograph, before, white)
    assert error_of(photograph, after, ~white) > error_of(photograph, before, ~white)
    middle = np.s_[3:7, 3:7]
    assert codec.bits(made.data)[middle].sum() > 1.2 * codec.bits(plain)[middle].sum()


@pytest.mark.parametrize("tile", [1, 16])
@pytest.mark.parametrize("colours", [1, 3])
def test_what_is_decoded_is_what_the_encoder_meant(codec, photograph, mask, tile, colours):
    pixels = photograph[:, :, :colours]
    qualities = map_of_mask(mask, *mask.shape)
    model = codec.model.mapped(qualities)
    header = replace(codec._header(pixels[None], 70), tile=tile)
    y = model.analyse(pixels)
    tiles = tuple(model.payloads(y, header))
    file = container.pack(container.Container(header, tiles, qualities=pack_map(qualities)))
    assert len(tiles) == (9 if tile == 1 else 1)
    assert np.array_equal(codec.decode_images(file), model.reconstruct(y, header))


def test_a_map_of_one_quality_gives_the_symbols_of_that_quality(codec, photograph):
    flat = QualityMap(np.full((10, 11), 15, np.uint8), 640)
    header = codec._header(photograph[None], 70)
    lower = codec._header(photograph[None], 60)
    y = codec.model.analyse(photograph)
    assert codec.model.mapped(flat).payloads(y, header) == codec.model.payloads(y, lower)


def test_side_information_has_the_best_quality_of_its_tile(codec):
    levels = np.full((4, 8), 15, np.uint8)
    levels[0, 7] = 5
    model = codec.model.mapped(QualityMap(levels, 1500))
    quality = model.quality(codec._header(np.zeros((1, 64, 128, 3), np.uint8), 50), *np.s_[:, 4:])
    assert quality.max() == 3200 - 500
    assert quality.min() == 3200 - 1500


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (65, 17)])
def test_a_mask_goes_with_any_size(codec, size):
    random = np.random.default_rng(3)
    pixels = random.integers(0, 256, (*size, 3), np.uint8)
    data = codec.encode(pixels, 80, roi=random.integers(0, 256, size, np.uint8))
    assert codec.decode_picture(data).pixels.shape == pixels.shape


@pytest.mark.parametrize(
    ("forged", "message"),
    [(pack_map(QualityMap(np.zeros((10, 10), np.uint8))), "hold 110 levels"), (b"", "0 bytes")],
)
def test_a_file_whose_map_lies_is_refused(codec, photograph, forged, message):
    file = container.unpack(codec.encode(photograph, 30))
    with pytest.raises(FormatError, match=message):
        codec.decode(container.pack(replace(file, qualities=forged)))


def test_a_file_whose_map_was_lost_is_refused(codec, photograph, mask):
    file = container.unpack(codec.encode(photograph, 60, roi=mask))
    with pytest.raises(FormatError, match="damaged"):
        codec.decode(container.pack(replace(file, qualities=None)))


def test_masks_and_targets_and_searches_are_told_of_in_the_file(codec, photograph, mask):
    data = codec.encode(photograph, target=Target("bpp", 0.3), roi=mask)
    assert container.unpack(data).made == b"bpp=0.3 roi"


# The graphs of released models


def test_freed_graphs_differ_in_nothing_but_the_shapes_they_declare(tiny):
    onnx = pytest.importorskip("onnx")
    graph = (tiny / "step1.onnx").read_bytes()
    changed = freed(graph, ("offset", "sigma4", "inverse"))
    assert len(changed) == len(graph)
    before, after = onnx.load_from_string(graph).graph, onnx.load_from_string(changed).graph
    assert before.node == after.node
    assert before.initializer == after.initializer
    free = [
        each.name
        for each in after.input
        if [d.HasField("dim_value") for d in each.type.tensor_type.shape.dim[2:]] == [False] * 2
    ]
    assert free == [each.name for each in after.input]
    assert freed(changed, ("offset",)) == changed


def test_a_name_that_no_input_has_frees_nothing(tiny):
    graph = (tiny / "step0.onnx").read_bytes()
    assert freed(graph, ("features", "mean", "nothing")) == graph


def test_the_depth_is_half_the_scale():
    assert roi.DEPTH == 50 * 64
