import gzip
import io
import json

import numpy as np
import pytest
from PIL import Image

from tests import gaussian_bundle
from tests.commands import fails, runs
from vaecodec.bench import Bench
from vaecodec.codec import Codec
from vaecodec.dataset_bench import elbo, measure
from vaecodec.datasets import write_idx
from vaecodec.errors import ImageError, VaecodecError
from vaecodec.rivals import RIVALS, rivals

IMAGES = gaussian_bundle.images(600)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return gaussian_bundle.write(tmp_path_factory.mktemp("model") / "patterns")


@pytest.fixture
def options(model):
    return "--model", model, "--provider", "cpu", "--threads", 1, "--runs", 1


@pytest.fixture
def idx(tmp_path):
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(write_idx(IMAGES)))
    return path


# The command


def test_a_data_set_is_measured_beside_common_formats(model, idx, options):
    found = json.loads(runs("bench", idx, "-q", 50, "-q", 51, *options, "--json", "-").stdout)
    (measured,) = found["data_sets"]
    assert (measured["name"], measured["images"]) == ("digits.gz", 600)
    assert (measured["width"], measured["height"]) == (4, 4)
    first, second = measured["rows"]
    data = Codec(model, "cpu", 1).encode_images(IMAGES, 50)
    assert first["bytes"] == second["bytes"] == len(data)  # of one level
    assert len(data) - 50 < first["payload"] < len(data) - 30
    assert first["encode"].keys() >= {"encoder", "quantise", "entropy", "container", "total"}
    assert first["decode"].keys() >= {"decoder", "entropy", "container", "total"}
    assert [rival["name"] for rival in measured["rivals"]] == [*RIVALS, "idx.gz"]


def test_the_tables_show_what_was_measured(idx, options):
    text = runs("bench", idx, *options).stdout
    assert "digits.gz: 600 images of 4x4\nnegative ELBO -" in text
    for words in (
        "bits per dimension",
        "bits/image",
        "images/s",
        "WebP lossless",
        "encoder network",
    ):
        assert words in text
    assert [line.split()[0] for line in text.splitlines() if line[:2] in ("20", "50", "80")] == [
        *("20", "50", "80")
    ]
    assert "write a PNG" not in text


def test_a_folder_and_a_single_image_are_data_sets(tmp_path, options):
    Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "a.png")
    arguments = ("bench", tmp_path, tmp_path / "a.png", "-q", 50, *options, "--json", "-")
    folder, single = json.loads(runs(*arguments).stdout)["data_sets"]
    assert folder["rows"][0]["bytes"] == single["rows"][0]["bytes"] <= 64
    assert folder["images"] == single["images"] == 1


def test_it_says_what_it_needs(tmp_path, idx, options):
    message = fails(tmp_path, "bench", *options)
    assert message == "Error: patterns takes images of one size: name a data set as FILE or DIR\n"
    assert "leave out --process" in fails(tmp_path, "bench", idx, "--process", *options)
    idx.write_bytes(write_idx(IMAGES[:, :3]))
    assert f"{idx}: 4x3 pixels; patterns takes 4x4 only" in fails(tmp_path, "bench", idx, *options)


# What is measured


@pytest.mark.parametrize("colours", [1, 3])
def test_the_elbo_is_that_of_the_model(tmp_path, colours):
    codec = Codec(gaussian_bundle.write(tmp_path / "patterns", colours), "cpu", 1)
    images = gaussian_bundle.images(3000, colours)
    sigma, spread = 0.1, gaussian_bundle.SIGMA
    found = elbo(codec.model, {"kind": "normal", "sigma": sigma}, images)

    samples = images.reshape(len(images), 16, colours) / 255
    patterns = gaussian_bundle.PATTERNS * gaussian_bundle.CONTRAST / 255
    means = np.einsum("nsc,ds->nd", samples - 128 / 255, patterns) / (patterns[0] @ patterns[0])
    means /= colours
    left = samples - 128 / 255 - (means @ patterns)[..., None]
    noise = 3 * spread**2 * (patterns[0] @ patterns[0]) * colours
    squares = (left**2).sum((1, 2)).mean() + noise
    constant = 16 * colours * np.log(sigma * np.sqrt(2 * np.pi))
    assert found.reconstruction == pytest.approx(squares / (2 * sigma**2) + constant, abs=0.1)
    divergence = (spread**2 + means**2 - 1 - np.log(spread**2)).sum(1).mean() / 2
    assert found.divergence == pytest.approx(divergence, rel=1e-4)
    nats = found.reconstruction + found.divergence
    bits = nats / (16 * colours * np.log(2)) + 8
    assert found.bits_per_dimension == pytest.approx(bits, rel=1e-6)


def test_the_elbo_is_the_same_every_time(model):
    codec, kind = Codec(model, "cpu", 1), {"kind": "normal", "sigma": 0.1}
    assert elbo(codec.model, kind, IMAGES) == elbo(codec.model, kind, IMAGES)


def test_a_model_of_photographs_or_of_another_size_is_refused(tiny, model):
    with pytest.raises(VaecodecError, match="takes one image at a time, not a data set"):
        measure(Bench(tiny, "cpu", 1, runs=1), "digits", IMAGES, [50])
    with pytest.raises(ImageError, match="takes 4x4 only"):
        measure(Bench(model, "cpu", 1, runs=1), "digits", IMAGES[:, :3], [50])


@pytest.mark.parametrize("colours", [1, 3])
def test_rivals_are_files_of_each_image(colours):
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (5, 20, 30, colours), np.uint8)
    found = {rival.name: rival for rival in rivals(images)}
    assert found["PNG"].mse == found["WebP lossless"].mse == found["idx.gz"].mse == 0
    assert 0 < found["JPEG 75"].mse < found["JPEG 50"].mse
    sizes = []
    for image in images:
        stream = io.BytesIO()
        Image.fromarray(image.squeeze()).save(stream, "JPEG", quality=50, optimize=True)
        sizes.append(stream.tell())
    assert found["JPEG 50"].bytes == np.mean(sizes)
