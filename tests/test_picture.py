import numpy as np
import pytest

from vaecodec.errors import ImageError
from vaecodec.picture import Picture, from_array, strip


@pytest.mark.parametrize(
    ("shape", "colours", "has_alpha"),
    [
        ((4, 5), 1, False),
        ((4, 5, 1), 1, False),
        ((4, 5, 2), 1, True),
        ((4, 5, 3), 3, False),
        ((4, 5, 4), 3, True),
        ((1, 1), 1, False),
    ],
)
def test_arrays_of_one_to_four_channels_become_pictures(shape, colours, has_alpha):
    samples = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    picture = from_array(samples)
    planes = samples.reshape(*shape[:2], -1)
    assert np.array_equal(picture.pixels, planes[..., :colours])
    assert (picture.alpha is not None) == has_alpha
    assert picture.pixels.flags.c_contiguous
    if has_alpha:
        assert np.array_equal(picture.alpha, planes[..., -1])
        assert picture.alpha.flags.c_contiguous


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5, 3), np.uint16),
        np.zeros((4, 5, 5), np.uint8),
        np.zeros((4, 5, 0), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
    ],
)
def test_arrays_of_other_kinds_are_refused(samples):
    with pytest.raises(ValueError, match="expected uint8 samples"):
        from_array(samples)


def test_pictures_of_wrong_planes_are_refused():
    pixels = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(ValueError, match="expected uint8 pixels"):
        Picture(pixels[..., :2])
    with pytest.raises(ValueError, match="expected uint8 pixels"):
        Picture(pixels[..., 0])
    with pytest.raises(ValueError, match="expected uint8 alpha"):
        Picture(pixels, alpha=pixels[:3, :, 0])
    with pytest.raises(ValueError, match="expected uint8 alpha"):
        Picture(pixels, alpha=np.ones((4, 5)))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (65_536, 1), (1, 65_536), (20_001, 20_000)])
def test_sizes_that_no_file_can_hold_are_refused(shape):
    samples = np.broadcast_to(np.uint8(0), (*shape, 1))  # takes no memory
    with pytest.raises(ImageError, match=f"{shape[1]}x{shape[0]} pixels"):
        Picture(samples)


def test_the_largest_size_is_accepted():
    assert Picture(np.broadcast_to(np.uint8(0), (20_000, 20_000, 1))).pixels.size == 400_000_000


def test_strip_leaves_pixels_and_alpha():
    picture = from_array(np.zeros((2, 2, 4), np.uint8))
    full = Picture(picture.pixels, picture.alpha, icc=b"i", exif=b"e", xmp=b"x")
    bare = strip(full)
    assert (bare.icc, bare.exif, bare.xmp) == (None, None, None)
    assert bare.pixels is full.pixels
    assert bare.alpha is full.alpha
