import numpy as np
import pytest
from PIL import Image, ImageCms

from vaecodec.errors import ImageError
from vaecodec.fitting import changed, in_colours, pad, picture_in_colours, resize
from vaecodec.picture import Picture

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (3, 6, 5, 1), np.uint8)
RGB = RANDOM.integers(0, 256, (3, 6, 5, 3), np.uint8)


@pytest.mark.parametrize("images", [GREY, RGB])
def test_resize_is_lanczos_of_each_image(images):
    found = resize(images, 9, 4)
    assert found.shape == (3, 9, 4, images.shape[3])
    for before, after in zip(images, found, strict=True):
        wanted = Image.fromarray(before.squeeze()).resize((4, 9), Image.Resampling.LANCZOS)
        assert np.array_equal(after.squeeze(), np.asarray(wanted))


def test_resize_to_the_size_it_has_changes_nothing():
    assert np.array_equal(resize(RGB, 6, 5), RGB)


def test_pad_puts_images_in_the_middle_of_zeros():
    found = pad(RGB, 9, 7)
    assert found.shape == (3, 9, 7, 3)
    assert np.array_equal(found[:, 1:7, 1:6], RGB)
    assert found.sum(dtype=int) == RGB.sum(dtype=int)


@pytest.mark.parametrize(("height", "width"), [(5, 9), (9, 4)])
def test_pad_does_not_crop(height, width):
    with pytest.raises(ImageError, match=f"5x6 pixels cannot be padded to {width}x{height}; --res"):
        pad(GREY, height, width)


def test_alpha_is_changed_with_the_pixels():
    picture = Picture(RGB[0], GREY[0, ..., 0], exif=b"kept")
    padded = changed(picture, pad, 8, 8)
    assert np.array_equal(padded.alpha[1:7, 1:6], picture.alpha)
    assert padded.exif == b"kept"
    assert changed(picture, resize, 2, 3).alpha.shape == (2, 3)


def test_grey_is_what_pillow_makes_of_colours():
    for colour, grey in zip(RGB, in_colours(RGB, 1), strict=True):
        assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(colour).convert("L")))


def test_grey_is_repeated_in_colour_and_comes_back():
    assert np.array_equal(in_colours(GREY, 3), np.repeat(GREY, 3, 3))
    assert np.array_equal(in_colours(in_colours(GREY, 3), 1), GREY)


def test_a_picture_keeps_the_profile_that_describes_its_new_colours():
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert picture_in_colours(Picture(RGB[0], icc=srgb), 1).icc == srgb
    assert picture_in_colours(Picture(GREY[0], icc=srgb), 3).icc == srgb


def test_a_profile_of_grey_that_is_damaged_is_left_out():
    damaged = bytes(16) + b"GRAY" + bytes(200)
    found = picture_in_colours(Picture(GREY[0], icc=damaged), 3)
    assert found.icc is None
    assert np.array_equal(found.pixels, np.repeat(GREY[0], 3, 2))
    assert picture_in_colours(Picture(GREY[0], icc=damaged), 1).icc == damaged
