"""Data sets, and images for models of one size, on the command line."""

import gzip
import io
import json
import sys
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests import gaussian_bundle
from tests.commands import fails, process, run, runs
from vaecodec.codec import Codec
from vaecodec.commands import console
from vaecodec.datasets import parse, write_idx

IMAGES = gaussian_bundle.images(300)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return gaussian_bundle.write(tmp_path_factory.mktemp("model") / "patterns")


@pytest.fixture(scope="module")
def decoded(model):
    codec = Codec(model, "cpu", 1)
    return codec.decode_images(codec.encode_images(IMAGES))


@pytest.fixture
def options(model):
    return "--model", model, "--provider", "cpu", "--threads", 1


@pytest.fixture
def idx(tmp_path):
    """A gzipped idx file whose name does not say so."""
    path = tmp_path / "digits"
    path.write_bytes(gzip.compress(write_idx(IMAGES)))
    return path


@pytest.fixture
def vz(idx, options):
    runs("encode", idx, *options)
    return idx.with_suffix(".vz")


def save(path, pixels):
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(path)
    return path


# Data sets


def test_an_idx_file_becomes_one_file_and_an_idx_file_again(idx, options, decoded):
    before = len(idx.read_bytes())
    said = runs("encode", idx, *options).stderr
    size = len(idx.with_suffix(".vz").read_bytes())
    assert said == (
        f"{idx}: 300 images of 4x4, {before:,} bytes -> {idx.with_suffix('.vz')}: "
        f"{size:,} bytes, {8 * size / 300:.2f} bits per image\n"
    )
    said = runs("decode", idx.with_suffix(".vz"), *options).stderr
    assert "digits.idx: 300 images of 4x4, 4,816 bytes" in said
    assert idx.with_suffix(".idx").read_bytes() == write_idx(decoded)


@pytest.mark.parametrize(
    ("arguments", "name", "unpack"),
    [
        (("-o", "a.idx"), "a.idx", bytes),
        (("-o", "a.IDX.GZ"), "a.IDX.GZ", gzip.decompress),
        (("--format", "idx", "-o", "a.bin"), "a.bin", bytes),
        (("--format", "idx"), "digits.idx", bytes),
    ],
)
def test_several_images_are_decoded_to_idx(
    vz, options, decoded, arguments, name, unpack, monkeypatch
):
    monkeypatch.chdir(vz.parent)
    runs("decode", vz, *arguments, *options[:2])
    assert unpack((vz.parent / name).read_bytes()) == write_idx(decoded)


def test_a_gzipped_output_holds_no_time(vz, options):
    for name in ("a.idx.gz", "b.idx.gz"):
        runs("decode", vz, "-o", vz.with_name(name), *options[:2])
    assert vz.with_name("a.idx.gz").read_bytes() == vz.with_name("b.idx.gz").read_bytes()
    assert vz.with_name("a.idx.gz").read_bytes()[4:8] == bytes(4)


@pytest.mark.parametrize("arguments", [("-o", "a.png"), ("--format", "png"), ("-o", "a.jpg")])
def test_several_images_are_no_png(vz, options, arguments, monkeypatch):
    monkeypatch.chdir(vz.parent)
    message = fails(vz.parent, "decode", vz, *arguments, *options[:2])
    assert "holds 300 images, which" in message
    assert "cannot; name an output that ends in .idx or .idx.gz" in message


def test_an_existing_idx_is_not_replaced_by_default(vz, options):
    vz.with_suffix(".idx").touch()
    assert "digits.decoded.idx" in runs("decode", vz, *options[:2]).stderr
    assert vz.with_suffix(".idx").read_bytes() == b""
    assert "-f/--force" in fails(
        vz.parent, "decode", vz, "-o", vz.with_suffix(".idx"), *options[:2]
    )


def test_data_sets_go_through_stdin_and_stdout(idx, options, decoded):
    data = process("encode", "-", *options, input=idx.read_bytes()).stdout
    found = process("decode", "-", *options[:2], input=data).stdout
    assert found == write_idx(decoded)


def test_a_folder_and_a_zip_are_data_sets(tmp_path, options, decoded):
    (tmp_path / "some.images").mkdir()
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for i, image in enumerate(IMAGES[:9]):
            path = save(tmp_path / "some.images" / f"{i}.png", image)
            archive.write(path, f"test/{i}.png")
    said = runs("encode", tmp_path / "some.images", *options).stderr
    assert f"{tmp_path / 'some.images'}: 9 images of 4x4 -> {tmp_path / 'some.images.vz'}: " in said
    data = (tmp_path / "some.images.vz").read_bytes()
    for i, place in enumerate(("some.zip", "some.zip/test")):
        runs("encode", tmp_path / place, "-o", tmp_path / f"{i}.vz", *options)
        assert (tmp_path / f"{i}.vz").read_bytes() == data
    runs("decode", tmp_path / "0.vz", *options[:2])
    assert np.array_equal(parse((tmp_path / "0.idx").read_bytes()), decoded[:9])


def test_one_image_is_decoded_to_idx_on_request(tmp_path, options, decoded):
    save(tmp_path / "a.png", IMAGES[0])
    runs("encode", tmp_path / "a.png", *options)
    runs("decode", tmp_path / "a.vz", "-o", tmp_path / "a.idx", *options[:2])
    assert (tmp_path / "a.idx").read_bytes() == write_idx(decoded[:1])
    runs("decode", tmp_path / "a.vz", "-o", tmp_path / "b.png", *options[:2])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "b.png")), decoded[0, ..., 0])


def test_a_photo_model_takes_one_image(tmp_path, idx, tiny):
    for place in (idx, tmp_path):
        message = fails(tmp_path, "encode", place, "--model", tiny, "-o", tmp_path / "a.vz")
        assert f"{place}: a data set or a directory; tiny takes one image, of any size" in message


@pytest.mark.parametrize("data", [b"\0\0\x08\x03", gzip.compress(b"\0\0\x08\x03?"), b"PK\3\4"])
def test_a_damaged_data_set_is_an_error_that_names_it(tmp_path, options, data):
    (tmp_path / "a").write_bytes(data)
    assert fails(tmp_path, "encode", tmp_path / "a", *options).startswith(
        f"Error: {tmp_path / 'a'}: "
    )
    assert "stdin: " in fails(tmp_path, "encode", "-", *options, stdin=data)


def test_what_is_not_there_is_an_error(tmp_path, options):
    message = fails(tmp_path, "encode", tmp_path / "a", *options)
    assert message == f"Error: {tmp_path / 'a'}: No such file or directory\n"
    (tmp_path / "empty").mkdir()
    assert "empty: it has no image" in fails(tmp_path, "encode", tmp_path / "empty", *options)


# The size of images


def test_another_size_is_an_error_that_says_which_it_is(tmp_path, options):
    path = save(tmp_path / "a.png", np.zeros((3, 5, 3), np.uint8))
    message = fails(tmp_path, "encode", path, *options)
    assert f"{path}: 5x3 pixels; patterns takes 4x4 only: --resize scales " in message
    assert "--pad puts zeros around" in message


def test_resize_and_pad_make_it_the_size(tmp_path, options, model):
    small = IMAGES[0][:2, :2]
    path = save(tmp_path / "a.png", small)
    codec = Codec(model, "cpu", 1)
    lanczos = Image.fromarray(small[..., 0]).resize((4, 4), Image.Resampling.LANCZOS)
    for option, wanted in (("--resize", np.asarray(lanczos)), ("--pad", np.pad(small[..., 0], 1))):
        runs("encode", path, option, "--force", *options)
        assert (tmp_path / "a.vz").read_bytes() == codec.encode(wanted)


def test_resize_and_pad_work_on_data_sets(tmp_path, options, model):
    (tmp_path / "a.idx").write_bytes(write_idx(IMAGES[:5, :3]))
    runs("encode", tmp_path / "a.idx", "--pad", *options)
    padded = np.pad(IMAGES[:5, :3], ((0, 0), (0, 1), (0, 0), (0, 0)))
    assert (tmp_path / "a.vz").read_bytes() == Codec(model, "cpu", 1).encode_images(padded)


def test_pad_does_not_crop(tmp_path, options):
    path = save(tmp_path / "a.png", np.zeros((3, 5, 1), np.uint8))
    message = fails(tmp_path, "encode", path, "--pad", *options)
    assert f"{path}: 5x3 pixels cannot be padded to 4x4; --resize scales them" in message


@pytest.mark.parametrize("fit", ["--resize", "--pad"])
def test_a_model_of_any_size_has_no_use_for_resize_and_pad(tmp_path, tiny, fit):
    path = save(tmp_path / "a.png", np.zeros((3, 5, 1), np.uint8))
    message = fails(tmp_path, "encode", path, fit, "--model", tiny)
    assert message == f"Error: tiny takes images of any size; leave out {fit}\n"


def test_colour_becomes_grey_for_a_grey_model(tmp_path, options):
    for name, image in (("a.png", IMAGES[0]), ("b.png", np.repeat(IMAGES[0], 3, 2))):
        runs("encode", save(tmp_path / name, image), *options)
    assert (tmp_path / "a.vz").read_bytes() == (tmp_path / "b.vz").read_bytes()


# What is said


def test_info_says_how_many_images_and_what_each_takes(vz):
    size = len(vz.read_bytes())
    text = runs("info", vz).stdout
    assert text.startswith(f"{vz}: 300 images of 4x4 grey\n")
    assert f"{size:,} bytes, {8 * size / 300:.2f} bits per image, {size / 600:.3f} bpp" in text
    facts = json.loads(runs("info", "--json", vz).stdout)
    assert (facts["images"], facts["bpp"]) == (300, 8 * size / 4800)


def test_info_says_nothing_of_that_for_one_image(tmp_path, options):
    runs("encode", save(tmp_path / "a.png", IMAGES[0]), *options)
    text = runs("info", tmp_path / "a.vz").stdout
    assert text.startswith(f"{tmp_path / 'a.vz'}: 4x4 grey\n")
    assert "per image" not in text


def test_a_data_set_draws_a_bar_of_its_batches(model, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(console, "LONG_WORK", 1)
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    with console.Console(quiet=False).bar("encoding", 4, 4, 300) as watch:
        Codec(model, "cpu", 1, watch=watch).encode_images(IMAGES)
    assert "100%" in stderr.getvalue()


def test_models_lists_a_model_of_one_size(model):
    text = runs("models", model).stdout
    assert "patterns" in text
    assert "images           of 4x4 pixels, grey" in text
    assert "verified" in text


def test_verbose_says_what_did_the_work(idx, options):
    assert "model patterns (" in runs("encode", idx, "-v", *options).stderr
    assert run("encode", idx, "--quiet", "--force", *options).stderr == ""


def test_models_are_listed_with_the_quality_that_was_measured():
    said = runs("models").stdout
    section = said.split("mnist-conv-2d  ")[1].split("\n\n")[1]
    assert section.splitlines()[1].split()[1] == "50"
