"""vaecodec encode to a target or with a mask; vaecodec info of what comes of it."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.commands import ROOT, contents, fails, run, runs
from tests.training import SAMPLES
from vaecodec import container

DATA_SETS = ROOT / "tests" / "golden" / "datasets"


@pytest.fixture(autouse=True)
def _models(tiny, monkeypatch):
    monkeypatch.setenv("VAECODEC_MODELS", str(tiny.parent))


@pytest.fixture
def png(tmp_path):
    """A photograph of 170x180 pixels in a folder of its own."""
    path = tmp_path / "img.png"
    with Image.open(SAMPLES / "dog.webp") as image:
        image.crop((100, 150, 270, 330)).save(path)
    return path


@pytest.fixture
def encode(tiny, png):
    """Arguments that encode with the tiny bundle."""
    return ["encode", png, "--model", tiny, "--provider", "cpu", "--threads", "1"]


@pytest.fixture
def mask(tmp_path):
    """A folder with masks: good, and of another size."""
    folder = tmp_path / "masks"
    folder.mkdir()
    levels = np.zeros((180, 170), np.uint8)
    levels[50:130, 50:130] = 255
    Image.fromarray(levels).save(folder / "good.png")
    Image.fromarray(levels).convert("RGB").save(folder / "colour.png")
    Image.fromarray(levels[:50]).save(folder / "small.png")
    return folder


def info(path, *arguments):
    return json.loads(runs("info", path, "--json", *arguments).stdout)


@pytest.mark.parametrize(
    ("option", "value", "low", "high"),
    [("--bpp", "0.3", 0.294, 0.306), ("--max-bytes", "1200", 0, 1200 * 8 / 170 / 180)],
)
def test_a_size_is_met(encode, png, option, value, low, high):
    report = runs(*encode, option, value).stderr
    facts = info(png.with_suffix(".vz"))
    assert low <= facts["bpp"] <= high
    assert facts["made"] == {option[2:]: value}
    assert report.endswith(f" bpp, quality {facts['quality']:g}\n")


@pytest.mark.parametrize(
    ("option", "value", "reported", "within"),
    [("--psnr", "30", r", (\S+) dB, ", 0.1), ("--ms-ssim", "0.93", r", MS-SSIM (\S+), ", 0.0006)],
)
def test_a_likeness_is_met_and_reported(encode, png, option, value, reported, within):
    report = runs(*encode, option, value, "--strict").stderr
    (found,) = re.findall(reported, report)
    assert float(found) == pytest.approx(float(value), abs=within)
    said = runs("info", png.with_suffix(".vz")).stdout
    assert f"\nmade for {option[2:]} {value}\n" in said
    assert "\nm settings " in said


def test_a_target_out_of_reach_is_said_and_the_nearest_file_written(encode, png):
    result = runs(*encode, "--psnr", "70")
    warning, report = result.stderr.splitlines()
    assert warning.startswith(f"Warning: {png}: 70.00 dB cannot be met: this image has ")
    assert warning.endswith(" dB is the nearest")
    assert "quality" in report
    assert png.with_suffix(".vz").exists()


def test_quiet_says_nothing_of_a_target_out_of_reach(encode):
    assert runs(*encode, "--psnr", "70", "--quiet").stderr == ""


@pytest.mark.parametrize(
    "target", [("--psnr", "70", "--strict"), ("--bpp", "30", "--strict"), ("--max-bytes", "60")]
)
def test_what_cannot_be_had_is_an_error_that_names_the_range(encode, png, target):
    message = fails(png.parent, *encode, *target)
    assert message.startswith(f"Error: {png}: ")
    assert "this image has" in message or "a file of this image has" in message


def test_ms_ssim_of_a_small_image_is_an_error(encode, png):
    with Image.open(png) as image:
        image.crop((0, 0, 100, 100)).save(png)
    assert "100x100 pixels; MS-SSIM needs 161 on each side" in fails(
        png.parent, *encode, "--ms-ssim", "0.9"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--bpp", "1", "--quality", "50"), "--quality and --bpp exclude each other"),
        (("--psnr", "40", "--ms-ssim", "0.9"), "--psnr and --ms-ssim exclude each other"),
        (("--quality", "0", "--max-bytes", "9"), "--quality and --max-bytes exclude"),
        (("--strict",), "--strict goes with --bpp, --max-bytes, --psnr or --ms-ssim"),
        (("--bpp", "0"), "0.0 is not in the range x>0"),
        (("--bpp", "nan"), "'nan' is not in the range x>0"),
        (("--psnr", "inf"), "'inf' is not in the range x>0"),
        (("--ms-ssim", "1.5"), "1.5 is not in the range 0<x<=1"),
        (("--max-bytes", "0"), "0 is not in the range x>=1"),
        (("--max-bytes", "1.5"), "'1.5' is not a valid integer range"),
    ],
)
def test_wrong_use_is_said(encode, png, arguments, message):
    before = contents(png.parent)
    result = run(*encode, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert contents(png.parent) == before


def test_models_of_one_size_have_no_targets_and_no_masks(tmp_path, mask):
    model = DATA_SETS / "patterns"
    for option in (("--bpp", "1"), ("--max-bytes", "100"), ("--roi", mask / "good.png")):
        message = fails(
            tmp_path, "encode", DATA_SETS / "images.idx", "--model", model, *option,
            "-o", tmp_path / "a.vz",
        )  # fmt: skip
        assert "for one image" in message
    size = json.loads(runs("models", model, "--json").stdout)[0]["image_shape"]
    one = tmp_path / "one.png"
    Image.new("L" if size[2] == 1 else "RGB", (size[1], size[0])).save(one)
    assert "ask for a quality" in fails(tmp_path, "encode", one, "--model", model, "--bpp", "1")
    Image.new("L", (size[1], size[0])).save(mask / "one.png")
    message = fails(tmp_path, "encode", one, "--model", model, "--roi", mask / "one.png")
    assert "codes all of an image at one quality" in message


# Masks


@pytest.mark.parametrize("name", ["good.png", "colour.png"])
def test_a_mask_moves_bits_and_the_file_says_so(encode, png, mask, name):
    runs(*encode, "--max-bytes", "1200", "--roi", mask / name)
    facts = info(png.with_suffix(".vz"))
    assert facts["bytes"] <= 1200
    assert facts["quality_map"] is True
    assert facts["made"] == {"max-bytes": "1200", "roi": ""}
    said = runs("info", png.with_suffix(".vz")).stdout
    assert "and lower, by a map" in said
    assert "made for max-bytes 1200, roi" in said
    assert "\nQ quality map " in said
    runs("decode", png.with_suffix(".vz"), "-o", png.with_suffix(".tiff"))


def test_a_mask_of_another_size_is_an_error_that_names_both(encode, png, mask):
    message = fails(png.parent, *encode, "--roi", mask / "small.png")
    assert "the mask has 170x50 pixels, the image 170x180" in message


def test_a_mask_that_is_no_image_is_an_error_that_names_it(encode, png, mask):
    (mask / "text.png").write_text("text")
    assert str(mask / "text.png") in fails(png.parent, *encode, "--roi", mask / "text.png")


def test_a_plain_file_has_no_word_of_settings(encode, png):
    runs(*encode, "--quality", "40")
    facts = info(png.with_suffix(".vz"))
    assert facts["made"] == {}
    assert facts["quality_map"] is False
    assert [kind for kind, _ in facts["chunks"]] == ["H", "T"]


def test_settings_of_a_later_encoder_are_shown(encode, png):
    runs(*encode)
    path = png.with_suffix(".vz")
    file = container.unpack(path.read_bytes())
    made = container.Container(file.header, file.tiles, made=b"glow=3 effort=2")
    path.write_bytes(container.pack(made))
    assert "\nmade for glow 3, effort 2\n" in runs("info", path).stdout


# Maps of bits


@pytest.fixture
def vz(encode, png):
    runs(*encode, "--quality", "60")
    return png.with_suffix(".vz")


def test_info_draws_where_the_bits_go(vz, tiny):
    plain = runs("info", vz).stdout
    target = vz.with_name("map.png")
    assert runs("info", vz, "--map", target, "--model", tiny).stdout == plain
    with Image.open(target) as drawn:
        assert drawn.mode == "RGB"
        assert drawn.width > 340
        assert drawn.height > 360
        assert len(drawn.convert("P").getcolors()) > 20


def test_info_replaces_a_drawing_only_when_told_to(vz):
    target = vz.with_name("map.webp")
    runs("info", vz, "--map", target)
    assert "exists; -f/--force replaces it" in fails(vz.parent, "info", vz, "--map", target)
    runs("info", vz, "--map", target, "-f")


def test_info_draws_images_only(vz):
    assert "no known image format" in fails(vz.parent, "info", vz, "--map", vz.with_name("map.txt"))


def test_info_cannot_draw_a_data_set(tmp_path):
    arguments = ("--map", tmp_path / "map.png", "--model", DATA_SETS / "patterns")
    message = fails(tmp_path, "info", DATA_SETS / "images.vz", *arguments)
    assert "belong to whole images" in message


def test_info_without_the_model_draws_nothing(vz, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setenv("VAECODEC_MODELS", str(empty))
    message = fails(tmp_path, "info", vz, "--map", vz.with_name("map.png"))
    assert info(vz)["model"] in message
