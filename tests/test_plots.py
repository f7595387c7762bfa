"""Figures of arrays: where everything is in them."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")

from tests.test_pictures import flat
from train import pictures, plots


def drawn(figure, tmp_path):
    """The pixels of a figure's PNG file, (H, W, 3)."""
    plots.save(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as image:
        return np.asarray(image.convert("RGB"))


def texts(figure):
    """All that is written in a figure."""
    found = [figure.get_suptitle()]
    for axes in figure.axes:
        ticks = [*axes.get_xticklabels(), *axes.get_yticklabels()]
        found += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        found += [tick.get_text() for tick in ticks]
    return [text for text in found if text]


# Where latents are


def test_the_first_latent_rises_to_the_right_and_the_second_upwards():
    latents = plots.lattice((-2, 2), (-1, 3), 5, 3)
    assert latents.dtype == np.float32
    grid = latents.reshape(3, 5, 2)
    assert grid[0, :, 0].tolist() == [-2, -1, 0, 1, 2]
    assert grid[:, 0, 1].tolist() == [3, 1, -1]
    assert (grid[..., 0] == grid[0, :, 0]).all()
    assert (grid[..., 1] == grid[:, :1, 1]).all()


def test_an_image_of_a_manifold_stands_at_its_latents_on_the_axes(tmp_path):
    x, y, columns, rows = (-2.0, 2.0), (-1.0, 3.0), 5, 3
    latents = plots.lattice(x, y, columns, rows)
    images = flat(*range(10, 160, 10), side=(40, 40))
    figure = plots.manifold(images, x, y, columns, "plane")
    pixels = drawn(figure, tmp_path)
    (axes,) = figure.axes
    for latent, image in zip(latents, images, strict=True):
        across, up = axes.transData.transform(latent)
        assert pixels[round(len(pixels) - up), round(across), 0] == image[0, 0, 0]
    assert {"plane", "$z_1$", "$z_2$", "-2", "3"} <= set(texts(figure))


def test_principal_axes_of_a_constructed_cloud_are_found():
    rng = np.random.default_rng(0)
    along, across = np.array([3, 4, 0]) / 5, np.array([4, -3, 0]) / 5
    a, b = 6 * rng.standard_normal(400), 2 * rng.standard_normal(400)
    a, b = a - a.mean(), b - b.mean()
    b -= a * (a @ b) / (a @ a)
    codes = (10 + np.outer(a, along) + np.outer(b, across)).astype(np.float32)
    points, shares = plots.principal(codes)
    assert points == pytest.approx(np.stack([a, b], 1), abs=1e-4)
    total = a @ a + b @ b
    assert shares == pytest.approx([a @ a / total, b @ b / total])


def test_codes_of_one_place_have_no_principal_axes_and_no_error():
    points, shares = plots.principal(np.ones((4, 3), np.float32))
    assert not points.any()
    assert shares.tolist() == [0, 0]


# Figures


def test_codes_of_two_dimensions_are_drawn_where_they_are():
    codes = np.array([[0, 1], [2, 3], [-1, 0.5]], np.float32)
    figure = plots.codes(codes, np.array([0, 1, 1], np.uint8), ["cat", "dog"], "codes")
    axes, bar = figure.axes
    (dots,) = axes.collections
    assert dots.get_offsets().tolist() == codes.tolist()
    assert dots.get_array().tolist() == [0, 1, 1]
    assert [tick.get_text() for tick in bar.get_yticklabels()] == ["cat", "dog"]
    assert {"$z_1$", "$z_2$", "codes", "label"} <= set(texts(figure))


def test_codes_of_more_dimensions_name_the_share_of_each_axis():
    codes = np.array([[0, 0, 3], [0, 0, -3], [0, 1, 0], [0, -1, 0]], np.float32)
    (axes,) = plots.codes(codes, None, [], "codes").axes
    assert axes.get_xlabel() == "principal axis 1: 90.0% of the variance"
    assert axes.get_ylabel() == "principal axis 2: 10.0% of the variance"


def test_each_row_of_a_comparison_is_labelled_at_its_height(tmp_path):
    first, second = flat(10, 20, 30, side=(8, 8)), flat(110, 120, 130, side=(8, 8))
    figure = plots.comparison([("some", [("one", first), ("two", second)])], 2, "title")
    pixels = drawn(figure, tmp_path)
    (axes,) = figure.axes
    heights = [len(pixels) - axes.transData.transform((2, y))[1] for y in axes.get_yticks()]
    left = round(axes.transData.transform((2, 0))[0])
    assert [pixels[round(h), left, 0] for h in heights] == [10, 110, 30, 130]
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels == ["one", "two", "one", "two"]
    assert {"title", "some"} <= set(texts(figure))


def test_wide_sets_of_samples_are_stacked_and_square_ones_stand_side_by_side():
    def boxes(count, columns):
        images = flat(*range(count), side=(28, 28))
        figure = plots.samples([("means", images), ("drawn", images)], columns, "prior")
        return [axes.get_position() for axes in figure.axes]

    above, below = boxes(10, 10)
    assert above.x0 == below.x0
    assert above.y0 > below.y1
    left, right = boxes(9, 3)
    assert left.y0 == right.y0
    assert left.x1 < right.x0


def test_each_image_is_enlarged_by_a_whole_number(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 20, 30, 3), np.uint8)
    figure = plots.samples([("means", images)], 3, "prior")
    pixels = drawn(figure, tmp_path)
    (axes,) = figure.axes
    box = axes.get_window_extent()
    zoom = round(box.width) // 92
    assert zoom == 9
    top, left = round(len(pixels) - box.y1), round(box.x0)
    shown = pixels[top : top + round(box.height), left : left + round(box.width)]
    assert np.array_equal(shown[::zoom, ::zoom], pictures.grid(images, 3, gap=1))
    assert np.array_equal(shown[zoom - 1 :: zoom, zoom - 1 :: zoom], shown[::zoom, ::zoom])
