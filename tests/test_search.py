import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from vaecodec import refine, search
from vaecodec.bundle import find
from vaecodec.codec import Codec
from vaecodec.container import Colour, Header, unpack
from vaecodec.errors import ModelError
from vaecodec.images import read
from vaecodec.metrics import mean_squared_error
from vaecodec.search import Cost, Plan, Point, Search, moved, soft_round
from vaecodec.targets import Target

WORD = 32
"""Bits that files come in: a search does not know where a file's last word ends."""

ONE = np.ones(1, np.float32)

V = np.linspace(-2.45, 2.45, 99, dtype=np.float32)


@pytest.fixture(scope="module")
def codec():
    return Codec("photo-1", "cpu")


@pytest.fixture(scope="module")
def photograph():
    sample = find("photo-1").path.parents[1] / "vaecodec" / "samples" / "flowers.webp"
    return read(sample).pixels[100:228, 60:252]


def cost_of(codec, pixels, quality, effort):
    data = codec.encode(pixels, quality, search=Search(effort))
    decoded = codec.decode_picture(data).pixels
    paid = refine.price(codec.model, round(64 * quality))
    return 8 * len(data) + paid * pixels.size * mean_squared_error(pixels, decoded)


# Steps


def point(y, slope=0.0, away=0.0):
    return Point(Cost(0.0, 0.0), np.full_like(y, slope), np.full_like(y, away))


def test_soft_rounding_is_steep_half_way_and_keeps_integers():
    integers = np.arange(-3, 4, dtype=np.float32)
    np.testing.assert_allclose(soft_round(integers, 6.0), integers, atol=1e-6)
    np.testing.assert_allclose(soft_round(integers + np.float32(0.5), 6.0), integers + 0.5)
    assert np.all(np.diff(soft_round(V, 6.0)) > 0)
    assert soft_round(np.float32([0.6]), 6.0) > 0.7


def test_latents_move_against_the_slope_and_not_far():
    y = np.zeros(3, np.float32)
    assert np.all(moved(point(y, slope=1.0), y, ONE, 70.0) < 0)
    steep = point(y)._replace(slope=np.float32([1e6, 0, -1e6]))
    np.testing.assert_allclose(moved(steep, y, ONE, 70.0), [-0.2, 0, 0.2], atol=1e-6)


def test_what_rounding_did_to_a_latent_is_not_mended_by_it():
    y = np.float32([0.45])
    pulled = point(y, slope=-20 * 0.45, away=0.45)  # rounded to 0, it is drawn back to where it was
    np.testing.assert_allclose(moved(pulled, y, ONE, 70.0), y, atol=1e-6)


def test_latents_move_less_where_errors_count_more():
    y = np.zeros(2, np.float32)
    found = moved(point(y, slope=1.0), y, np.float32([1, 4]), 70.0)
    np.testing.assert_allclose(found[0], 4 * found[1], rtol=1e-5)


# The search, of a made-up tile


class Bowl:
    """A slope towards latents of 1, for `improve`; `cost` is that of latents."""

    calls = 0

    def __init__(self, cost):
        self.tile = search.Tile(None, lambda y: Cost(0.0, float(cost(y))), None, ONE)

    def __call__(self, tile, y):
        self.calls += 1
        return Point(tile.cost(y), 30 * (np.round(y) - 1), np.zeros_like(y))


def to_one(y):
    return ((y - 1) ** 2).sum()


@pytest.mark.parametrize("steps", [s for s in search.EFFORTS if s])
def test_a_search_takes_the_gradients_of_its_effort(steps):
    slopes = Bowl(to_one)
    search.improve(slopes, slopes.tile, np.zeros(3, np.float32), Plan(steps))
    assert slopes.calls == steps


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_a_search_goes_downhill(steps):
    slopes = Bowl(to_one)
    y, cost = search.improve(slopes, slopes.tile, np.zeros(3, np.float32), Plan(steps))
    assert cost.total < 3
    assert np.all(y > 0)


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_a_search_that_only_finds_worse_returns_what_it_was_given(steps):
    slopes, start = Bowl(lambda y: (y**2).sum()), np.zeros(3, np.float32)
    y, cost = search.improve(slopes, slopes.tile, start, Plan(steps))
    assert y is start
    assert cost.total == 0


def test_a_longer_search_costs_no_more_than_a_shorter_one():
    random = np.random.default_rng(1)
    slopes = Bowl(lambda _y: random.random())
    start = np.zeros(3, np.float32)
    costs = []
    for steps in (1, 2, 4, 8):
        random = np.random.default_rng(1)  # the same numbers, whatever the latents
        costs.append(search.improve(slopes, slopes.tile, start, Plan(steps))[1].total)
    assert costs == sorted(costs, reverse=True)


def test_a_search_ends_when_its_time_is_over():
    slopes = Bowl(to_one)
    search.improve(slopes, slopes.tile, np.zeros(3, np.float32), Plan(100, 1e-9))
    assert slopes.calls <= 1


# The search, in files


@pytest.mark.parametrize("quality", [15, 80])
def test_more_effort_makes_a_file_that_costs_less(codec, photograph, quality):
    costs = [cost_of(codec, photograph, quality, effort) for effort in (0, 1, 2, 5)]
    assert all(b <= a + WORD for a, b in pairwise(costs))
    assert costs[3] < 0.99 * costs[0]


def test_effort_is_the_default_of_a_model_that_has_gradients(codec, photograph):
    default, explicit = codec.encode(photograph, 30), codec.encode(photograph, 30, search=Search(2))
    assert unpack(default).tiles == unpack(explicit).tiles
    assert unpack(default).tiles != unpack(codec.encode(photograph, 30, search=Search(0))).tiles


def test_a_file_says_the_effort_that_was_asked_for(codec, photograph):
    assert codec.encode(photograph, 30, search=Search(1)) != codec.encode(photograph, 30)
    assert b"effort=1" in codec.encode(photograph, 30, search=Search(1))
    assert b"effort" not in codec.encode(photograph, 30)


def test_the_cost_at_a_gradient_is_that_of_the_real_decoder(codec, photograph):
    height, width = photograph.shape[:2]
    header = Header(width, height, Colour.RGB, 30 * 64, codec.bundle.fingerprint)
    model, whole = codec.model, (slice(0, height // 16), slice(0, width // 16))
    y = model.analyse(photograph)
    prices = np.float32([[refine.price(model, header.quality)]])
    image = refine._Image(model, photograph, header, refine._inside(header), prices)
    tile = image.tile(*whole, y, refine._Quantiser(model, header.quality))
    gradients = refine._context_gradients(model)
    slopes = search.Slopes(model.prior, gradients, model.code_lengths, model.watch)
    scaled = y * model.gain(header.quality)
    here, expected = slopes(tile, scaled), tile.cost(scaled)
    found = here.cost
    assert found.rate == pytest.approx(expected.rate, rel=1e-6)
    assert found.distortion == pytest.approx(expected.distortion, rel=1e-4)
    assert here.slope.shape == here.away.shape == scaled.shape
    assert np.all(np.abs(here.away) <= 0.5)
    _, rows = model.quantised(scaled, header.quality)[0][1]
    certain = model.prior.positions(*scaled.shape[1:])[0][rows == 0]
    assert len(certain)
    assert not np.any(here.slope.reshape(-1)[certain])
    assert not np.any(here.away.reshape(-1)[certain])


def test_tiles_are_searched_with_their_neighbours_in_sight(codec, photograph):
    height, width = photograph.shape[:2]
    header = Header(width, height, Colour.RGB, 30 * 64, codec.bundle.fingerprint, tile=1)
    y = codec.model.analyse(photograph)
    better = codec.model.refined(photograph, y, header, Search(2))

    def cost(y):
        decoded = codec.model.reconstruct(y, header)[0]
        error = photograph.size * mean_squared_error(photograph, decoded)
        bits = 8 * sum(map(len, codec.model.payloads(y, header)))
        return bits + refine.price(codec.model, 30 * 64) * error

    assert cost(better) < 0.99 * cost(y)


def test_tiles_beyond_the_time_are_taken_as_they_are(codec, photograph, monkeypatch):
    height, width = photograph.shape[:2]
    header = Header(width, height, Colour.RGB, 30 * 64, codec.bundle.fingerprint, tile=1)
    y = codec.model.analyse(photograph)
    searched = []

    def improve(slopes, tile, part, plan):
        searched.append(plan.steps)
        return search.improve(slopes, tile, part, plan)

    monkeypatch.setattr(refine, "improve", improve)
    better, tiles = refine.refined(codec.model, photograph, y, header, Search(2, 1e-6))
    assert searched == [2]  # of the first; there are more
    assert len(tiles) > 4
    assert np.array_equal(better[:, 8:], y[:, 8:])


def test_the_border_of_an_image_counts_as_far_as_it_is_inside():
    header = Header(20, 5, Colour.RGB, 0, bytes(8))
    expected = np.zeros((2, 4), np.float32)
    expected[0] = np.array([1, 1, 0.5, 0]) * 5 / 8
    np.testing.assert_allclose(refine._inside(header), expected)


def test_weights_move_bits_to_where_they_are_large(codec, photograph):
    height, width = (-(-side // 16) * 2 for side in photograph.shape[:2])
    weight = np.full((height, width), 0.2, np.float32)
    weight[:, : width // 2] = 1.8
    half = photograph.shape[1] // 2

    def errors(search):
        decoded = codec.decode_picture(codec.encode(photograph, 30, search=search)).pixels
        return [
            mean_squared_error(photograph[:, s], decoded[:, s])
            for s in (slice(half), slice(half, None))
        ]

    plain, weighted = errors(Search(4)), errors(Search(4, weight=weight))
    assert weighted[0] < plain[0]
    assert weighted[1] > plain[1]


def test_a_target_of_size_is_met_by_the_better_file(codec, photograph):
    data = codec.encode(photograph, target=Target("max-bytes", 2000), search=Search(2))
    assert 1900 < len(data) <= 2000


def test_a_grey_image_can_be_searched(codec, photograph):
    grey = photograph[:, :, 1]
    data = codec.encode(grey, 30, search=Search(2))
    assert codec.decode(data).mode == "L"


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 200, 3)])
def test_images_of_any_size_can_be_searched(codec, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = codec.encode(pixels, 50, search=Search(4))
    assert codec.decode_picture(data).pixels.shape == shape


def test_a_model_without_gradients_says_so(tiny):
    codec = Codec(tiny, "cpu")
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert codec.encode(pixels, 30)  # the default is no effort
    with pytest.raises(ModelError, match="no gradients"):
        codec.encode(pixels, 30, search=Search(1))


@pytest.mark.parametrize(
    "wrong", [{"effort": 10}, {"effort": -1}, {"max_seconds": 0}, {"max_seconds": math.nan}]
)
def test_a_search_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        replace(Search(), **wrong)
