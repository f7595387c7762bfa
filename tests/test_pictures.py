"""Arrays of images as pictures, and small files of them."""

import numpy as np
import pytest
from PIL import Image

from train import pictures


def flat(*values, side=(2, 3), colours=1):
    """Images of one value each."""
    return np.stack([np.full((*side, colours), value, np.uint8) for value in values])


def test_a_grid_is_read_like_text_and_filled_up_with_white():
    picture = pictures.grid(flat(1, 2, 3, 4, 5), 3)
    assert picture.shape == (4, 9, 1)
    assert picture[::2, ::3, 0].tolist() == [[1, 2, 3], [4, 5, 255]]


def test_a_gap_is_between_images_and_not_around_them():
    picture = pictures.grid(flat(1, 2, 3, 4, colours=3), 2, gap=2)
    assert picture.shape == (2 + 2 + 2, 3 + 2 + 3, 3)
    assert picture[0, :, 0].tolist() == [1, 1, 1, 255, 255, 2, 2, 2]
    assert picture[:, -1, 2].tolist() == [2, 2, 255, 255, 4, 4]


def test_images_are_taken_at_equal_distances():
    images = flat(*range(10))
    assert pictures.spread(images, 4)[:, 0, 0, 0].tolist() == [0, 2, 5, 7]
    assert pictures.spread(images, 11)[:, 0, 0, 0].tolist() == list(range(10))


@pytest.mark.parametrize("colours", [1, 3])
def test_a_saved_picture_comes_back(tmp_path, colours):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, colours), np.uint8)
    pictures.save(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image).reshape(picture.shape), picture)


def test_a_shrunk_file_is_smaller_and_looks_the_same(tmp_path):
    greys = np.random.default_rng(0).integers(0, 32, (60, 80, 1), np.uint8) * 8
    path = tmp_path / "a.png"
    pictures.save(np.repeat(greys, 3, 2), path)
    before = path.stat().st_size
    assert pictures.shrink(path, 64) == path.stat().st_size < before
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image.convert("L")), greys[..., 0])
