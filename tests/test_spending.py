"""Where bits go: counted from the tables, and drawn."""

import numpy as np
import pytest

from tests.commands import ROOT
from tests.training import SAMPLES
from vaecodec import container, heatmap
from vaecodec.codec import Codec
from vaecodec.errors import FormatError, ModelError
from vaecodec.images import read
from vaecodec.picture import Picture


@pytest.fixture(scope="module")
def codec():
    return Codec(ROOT / "exported" / "photo-1", "cpu", 1)


@pytest.fixture(scope="module")
def photograph():
    return read(SAMPLES / "dog.webp").pixels[100:300, 100:370]


@pytest.mark.parametrize("quality", [20, 90])
def test_bits_of_all_positions_are_the_size_of_the_payload(codec, photograph, quality):
    data = codec.encode(photograph, quality)
    (payload,) = container.unpack(data).tiles
    bits = codec.bits(data)
    assert bits.shape == (13, 17)
    assert bits.min() >= 0
    assert bits.sum() / 8 == pytest.approx(len(payload) - 5, rel=0.01, abs=8)


def test_bits_of_escapes_are_counted(tiny):
    codec = Codec(tiny, "cpu", 1)
    noise = np.random.default_rng(1).integers(0, 2, (64, 80, 3), dtype=np.uint8) * 255
    data = codec.encode(noise, 100)
    (payload,) = container.unpack(data).tiles
    assert payload[4] > 5  # bytes of escapes
    assert codec.bits(data).sum() / 8 == pytest.approx(len(payload) - 5, rel=0.01)


def test_bits_go_where_the_picture_is_busy(codec, photograph):
    pixels = photograph.copy()
    pixels[:, 128:] = 90
    bits = codec.bits(codec.encode(pixels, 70))
    assert bits[:, :8].mean() > 10 * bits[:, 9:].mean()


def test_tiles_stand_in_their_places(codec, photograph):
    pixels = np.full((64, 2048, 3), 90, np.uint8)
    pixels[:, 1100:1300] = photograph[:64, :200]
    data = codec.encode(pixels, 70)
    assert len(container.unpack(data).tiles) == 2
    columns = codec.bits(data).sum(0)
    busy = slice(1088 // 16, 1312 // 16)
    assert columns[busy].mean() > 10 * np.delete(columns, busy).mean()


def test_bits_of_a_damaged_file_are_refused(codec, photograph):
    file = container.unpack(codec.encode(photograph[:32, :32], 50))
    tile = bytearray(file.tiles[0])
    tile[-6] ^= 1
    forged = container.pack(container.Container(file.header, (bytes(tile),)))
    with pytest.raises(FormatError):
        codec.bits(forged)


def test_a_model_of_whole_images_has_no_bits_of_places():
    folder = ROOT / "tests" / "golden" / "datasets"
    codec = Codec(folder / "patterns", "cpu", 1)
    with pytest.raises(ModelError, match="belong to whole images"):
        codec.bits((folder / "images.vz").read_bytes())


# The drawing


def test_colours_grow_lighter_in_equal_steps():
    colours = heatmap._colours().astype(float)
    assert colours.shape == (256, 3)
    lightness = colours @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > -0.5).all()
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).max() < 6
    assert lightness[0] < 30
    assert lightness[-1] > 230


@pytest.mark.parametrize(
    ("value", "top", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.31, 0.4, [0, 0.1, 0.2, 0.3, 0.4]),
        (1.0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (4.2, 5, [0, 1, 2, 3, 4, 5]),
        (11, 15, [0, 5, 10, 15]),
        (0.07, 0.08, [0, 0.02, 0.04, 0.06, 0.08]),
    ],
)
def test_the_bar_ends_at_a_round_number_above_nearly_all_values(value, top, ticks):
    assert heatmap._top(value) == pytest.approx(top)
    assert heatmap._ticks(heatmap._top(value)) == pytest.approx(ticks)


@pytest.mark.parametrize("value", 10.0 ** np.linspace(-4, 3, 100))
def test_every_value_has_a_bar(value):
    top = heatmap._top(value)
    assert value <= top <= 2 * value
    assert heatmap._ticks(top)[-1] == pytest.approx(top)


@pytest.mark.parametrize("size", [(1, 1), (50, 37), (330, 500)])
def test_each_cell_of_the_drawing_has_the_colour_of_its_value(size):
    height, width = size
    values = np.zeros((-(-height // 16), -(-width // 16)))
    values[0, 0] = 1.5 * min(16, height) * min(16, width)
    grey = Picture(np.full((height, width, 1), 128, np.uint8))
    drawn = heatmap.draw(grey, values, "a caption").pixels
    assert drawn.ndim == 3
    assert min(drawn.shape[:2]) > 320
    colours = heatmap._colours()
    margin = max(12, -(-320 // min(size)) * min(size) // 28)
    assert drawn[margin, margin].tolist() == colours[-1].tolist()
    if width > 16:
        scale = -(-320 // min(size))
        assert drawn[margin, margin + 17 * scale].tolist() == colours[0].tolist()


def test_a_long_thin_picture_is_drawn_no_larger_than_need_be():
    drawn = heatmap.draw(Picture(np.zeros((2, 3000, 3), np.uint8)), np.ones((1, 188)), "").pixels
    assert 3000 < drawn.shape[1] < 3300
    assert 100 < drawn.shape[0] < 300


def test_the_picture_shows_through():
    pixels = np.zeros((320, 320, 3), np.uint8)
    pixels[:, 160:] = 255
    drawn = heatmap.draw(Picture(pixels), np.ones((20, 20)), "").pixels
    assert drawn[100, 300].mean() > drawn[100, 100].mean() + 30
