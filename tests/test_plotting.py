"""Pictures of gaussian models, and the command that draws them."""

import shutil

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("matplotlib")
pytest.importorskip("torch")

from tests import gaussian_bundle
from train import plotting
from train.__main__ import main
from vaecodec.datasets import write_idx


class Plane:
    """Stands for a Bernoulli model with two latents, which are the logits of 2x2 images."""

    name, likelihood, shape, dimensions = "plane", "bernoulli", (2, 2, 1), 2

    def encode(self, images):
        means = images[:, 0, :, 0].astype(np.float32) / 255
        return means, np.log(np.full_like(means, 0.5))

    def decode(self, latents):
        logits = np.repeat(latents.reshape(-1, 1, 1, 2), 2, 2)
        pixels = np.rint(255 / (1 + np.exp(-logits))).astype(np.uint8)
        return np.moveaxis(pixels, 1, 3), logits


def shown(axes):
    """The picture that an axes shows, its first channel."""
    (image,) = axes.images
    return np.asarray(image.get_array())[..., 0]


def test_samples_of_a_bernoulli_model_are_its_means_and_draws_of_them():
    figure = plotting.samples(Plane(), 40, 40, seed=1)
    means, draws = (shown(axes) for axes in figure.axes)
    corners = np.add.outer(np.arange(0, 120, 3), [0, 1]).reshape(-1)
    means, draws = means[corners][:, corners], draws[corners][:, corners]
    assert set(np.unique(draws)) == {0, 255}
    for low, high in ((30, 90), (90, 165), (165, 225)):
        where = (means >= low) & (means < high)
        assert draws[where].mean() == pytest.approx(means[where].mean(), abs=12)
    again = plotting.samples(Plane(), 40, 40, seed=1).axes
    assert np.array_equal(shown(again[1])[corners][:, corners], draws)
    other = plotting.samples(Plane(), 40, 40, seed=2).axes
    assert not np.array_equal(shown(other[0]), shown(again[0]))


def test_a_manifold_is_what_its_latents_decode_to():
    figure = plotting.manifold(Plane(), (-2, 2), (-1, 3), 5, 3)
    picture = shown(figure.axes[0]).astype(float)
    logits = np.log(picture / (255 - picture))
    assert logits[0, ::2] == pytest.approx([-2, 0, 2], abs=0.05)
    assert logits[::2, 1] == pytest.approx([3, 2, 1, 0, -1], abs=0.15)


def test_a_traversal_begins_with_the_dimension_that_says_most():
    images = np.zeros((4, 2, 2, 1), np.uint8)
    images[:, :, 1] = 200
    figure = plotting.traversal(Plane(), images, index=3, dimensions=2, columns=3)
    beside, ways = figure.axes
    names = [tick.get_text() for tick in ways.get_yticklabels()]
    assert names == ["$z_{2}$, KL 0.40 nats", "$z_{1}$, KL 0.10 nats"]
    assert [tick.get_text() for tick in ways.get_xticklabels()] == ["-3", "0", "3"]
    low, middle, high = 12, 128, 243
    code = 175  # sigmoid(200 / 255)
    picture = shown(ways)
    assert picture[0, [1, 4, 7]].tolist() == pytest.approx([low, middle, high], abs=1)
    assert picture[0, [0, 3, 6]].tolist() == [middle] * 3
    assert picture[3, [0, 3, 6]].tolist() == pytest.approx([low, middle, high], abs=1)
    assert picture[3, [1, 4, 7]].tolist() == pytest.approx([code] * 3, abs=1)
    assert shown(beside)[[0, 2], 1].tolist() == pytest.approx([200, code], abs=1)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, and an idx file of images with its labels."""
    folder = tmp_path_factory.mktemp("plot")
    gaussian_bundle.write(folder / "pattern")
    images = gaussian_bundle.images(60)
    (folder / "some-images-idx3-ubyte").write_bytes(write_idx(images))
    labels = bytes([0, 0, 8, 1, 0, 0, 0, 60, *(k % 3 for k in range(60))])
    (folder / "some-labels-idx1-ubyte").write_bytes(labels)
    return folder


def plot(place, target, kind, *options):
    model = place / "pattern"
    return main([str(o) for o in ("plot", model, kind, *options, "-o", target)])


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("reconstructions", ["--rows", 2]),
        ("samples", ["--rows", 2, "--columns", 10, "--seed", 3]),
        ("codes", ["--names", "a,b,c"]),
        ("traversal", ["--index", 59]),
    ],
)
def test_each_kind_is_drawn(place, tmp_path, capsys, kind, options):
    data = [] if kind == "samples" else [place / "some-images-idx3-ubyte"]
    assert plot(place, tmp_path / "a.png", kind, *data, *options) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a.png'}\n"
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        assert 300 <= image.width <= 1200
        assert 150 <= image.height <= 1200
    assert plot(place, tmp_path / "b.png", kind, *data, *options) == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_labels_lie_beside_images_or_are_their_folders(place, tmp_path):
    labels = plotting.labels_for(place / "some-images-idx3-ubyte")
    assert labels.tolist() == [k % 3 for k in range(60)]
    shutil.copy(place / "some-images-idx3-ubyte", tmp_path / "a-images-idx3-ubyte")
    assert plotting.labels_for(tmp_path / "a-images-idx3-ubyte") is None
    image = Image.new("L", (4, 4))
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "set" / name)
    assert plotting.labels_for(tmp_path / "set").tolist() == [0, 1, 1]
    assert plotting.labels_for(tmp_path / "set" / "dog") is None


def test_larger_images_of_a_folder_are_cropped(place, tmp_path):
    Image.new("L", (9, 7), 40).save(tmp_path / "plate.png")
    networks = plotting.Networks(place / "pattern")
    images = plotting.images_for(networks, tmp_path)
    assert images.shape == (plotting.CROPS, 4, 4, 1)
    assert set(np.unique(images)) == {40}


def test_what_cannot_be_drawn_is_an_error_of_one_line(place, tmp_path, tiny, capsys):
    def fails(*options):
        assert main([str(o) for o in ("plot", *options, "-o", tmp_path / "a.png")]) == 1
        message = capsys.readouterr().err
        assert message.startswith("error: ")
        assert message.count("\n") == 1
        return message

    model, data = place / "pattern", place / "some-images-idx3-ubyte"
    assert "3 latent dimensions; a manifold is drawn of 2" in fails(model, "manifold")
    assert "codes needs DATA" in fails(model, "codes")
    assert "image 60 of 60; 0 to 59" in fails(model, "traversal", data, "--index", 60)
    assert "hyperprior model; plot draws" in fails(tiny, "samples")
    (tmp_path / "wide").write_bytes(write_idx(np.zeros((2, 4, 5, 1), np.uint8)))
    assert "takes 4x4 and 1" in fails(model, "codes", tmp_path / "wide")
