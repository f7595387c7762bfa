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
from vaecodec.search import Cost, Plan, Search, sampled, soft_round
from vaecodec.targets import Target

WORD = 32
"""Bits that files come in: a search does not know where a file's last word ends."""

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


# Roundings


def test_soft_rounding_has_the_derivative_it_says():
    step = 1e-3
    slope = (soft_round(V + np.float32(step))[0] - soft_round(V - np.float32(step))[0]) / (2 * step)
    middle = np.abs(V - np.floor(V) - 0.5) < 0.49  # its pieces meet at integers
    np.testing.assert_allclose(slope[middle], soft_round(V)[1][middle], rtol=0.02, atol=0.02)


def test_soft_rounding_keeps_integers():
    integers = np.arange(-3, 4, dtype=np.float32)
    np.testing.assert_allclose(soft_round(integers)[0], integers, atol=1e-6)


def test_sampled_rounding_is_between_the_neighbours_and_ends_at_the_nearer_one():
    random = np.random.default_rng(0)
    rounded, _ = sampled(V, 0.5, random)
    assert np.all((rounded >= np.floor(V)) & (rounded <= np.floor(V) + 1))
    clear = np.abs(V - np.round(V)) < 0.2
    certain, _ = sampled(V, 0.05, random)
    np.testing.assert_allclose(certain[clear], np.round(V)[clear], atol=1e-3)


def test_sampled_rounding_goes_to_the_nearer_neighbour_more_often():
    random = np.random.default_rng(0)
    rounded, _ = sampled(np.full(10_000, 0.3, np.float32), 0.5, random)
    assert 0.15 < np.mean(rounded > 0.5) < 0.45


# The search, of a made-up tile


class Bowl:
    """A slope towards latents of 1, for `improve`."""

    calls = 0

    def __call__(self, _tile, y, _rounding):
        self.calls += 1
        return 8 * (y - 1)


def tile_of(cost):
    return search.Tile(None, lambda y: Cost(0.0, float(cost(y))), None)


@pytest.mark.parametrize("steps", search.EFFORTS)
def test_a_search_takes_the_steps_of_its_effort(steps):
    slopes = Bowl()
    search.improve(
        slopes, tile_of(lambda y: ((y - 1) ** 2).sum()), np.zeros(3, np.float32), Plan(steps)
    )
    assert slopes.calls == steps  # each of them finds something better here


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_a_search_goes_downhill(steps):
    start = np.zeros(3, np.float32)
    y, cost = search.improve(Bowl(), tile_of(lambda y: ((y - 1) ** 2).sum()), start, Plan(steps))
    assert cost.total < 3
    assert np.all(y > 0)


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_a_search_that_only_finds_worse_returns_what_it_was_given(steps):
    start = np.zeros(3, np.float32)
    y, cost = search.improve(Bowl(), tile_of(lambda y: (y**2).sum()), start, Plan(steps))
    assert y is start
    assert cost.total == 0


def test_a_search_ends_when_its_time_is_over():
    slopes = Bowl()
    start = np.zeros(3, np.float32)
    search.improve(slopes, tile_of(lambda y: ((y - 1) ** 2).sum()), start, Plan(100, 1e-9))
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
