import dataclasses
import json
import math
import subprocess

import numpy as np
import pytest
from PIL import Image

from tests.commands import fails, process, runs
from vaecodec import images
from vaecodec.bench import QUALITIES, SAMPLES, Bench, check_round_trip, photographs
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.errors import ImageError, VaecodecError
from vaecodec.picture import Picture
from vaecodec.stages import Stopwatch, unwatched

ENCODE = {"encoder", "side", "prior", "quantise", "entropy", "container", "rest", "total", "read"}
DECODE = {"container", "prior", "entropy", "decoder", "rest", "total", "write"}


def smooth(height, width):
    """Smooth pixels, uint8 (height, width, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x + y, 2 * y % 256, 255 - x], axis=2).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """A folder with two images and a text."""
    Image.fromarray(smooth(37, 50)).save(tmp_path / "b.png")
    Image.fromarray(smooth(161, 170)).save(tmp_path / "a.webp", lossless=True)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


@pytest.fixture
def bench(tiny):
    """Arguments that measure the tiny bundle once."""
    return ("bench", "--model", tiny, "--provider", "cpu", "--threads", 1, "--runs", 1)


# The command


def test_a_directory_is_measured_image_by_image_and_in_total(folder, bench, tiny):
    result = runs(*bench, folder, "-q", 30, "-q", 70, "--json", folder / "out.json")
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith(("a.webp", "b.png", "all"))] == [
        *(["a.webp", "30"], ["a.webp", "70"], ["b.png", "30"], ["b.png", "70"]),
        *(["all", "2"], ["all", "2"]),
    ]
    for fact in ("provider cpu", "cores", "numpy", "onnxruntime", "Mpixel/s", "encoder network"):
        assert fact in result.stdout
    assert result.stderr == ""
    measured = json.loads((folder / "out.json").read_text())
    assert measured["fingerprint"] == Bundle.open(tiny).fingerprint.hex()
    assert (measured["provider"], measured["threads"], measured["runs"]) == ("cpu", 1, 1)
    assert [(row["image"], row["quality"]) for row in measured["images"]] == [
        *(("a.webp", 30), ("a.webp", 70), ("b.png", 30), ("b.png", 70))
    ]


def test_json_to_stdout_takes_the_place_of_tables(folder, bench, tiny):
    data = json.loads(runs(*bench, folder / "b.png", "--json", "-").stdout)
    default = Bundle.open(tiny).default_quality
    assert [row["quality"] for row in data["images"]] == sorted({default, *QUALITIES})
    row = data["images"][0]
    assert row["ms_ssim"] is None  # too small an image for it
    assert row["bpp"] == pytest.approx(8 * row["bytes"] / (37 * 50))


def test_process_measures_whole_commands(folder, bench):
    data = json.loads(runs(*bench, folder / "b.png", "--process", "--json", "-").stdout)
    assert set(data["process"]) == {"encode", "decode", "help"}
    assert 0 < data["process"]["help"] < data["process"]["encode"]
    assert data["images"][0]["encode"]["total"] < data["process"]["encode"]


@pytest.mark.slow
def test_without_files_it_measures_what_comes_with_the_package(bench):
    text = process(*bench, "-q", 40, text=True).stdout
    assert text.count(".webp") == 3
    assert "768x512" in process(*bench, "--process", text=True).stdout


def test_an_existing_json_file_is_replaced_only_by_force(folder, bench):
    out = folder / "out.json"
    out.touch()
    assert "-f/--force" in fails(folder, *bench, folder / "b.png", "--json", out)
    runs(*bench, folder / "b.png", "-q", 10, "--json", out, "--force")
    assert json.loads(out.read_text())


def test_what_cannot_be_measured_is_an_error_of_one_line(folder, bench):
    assert f"{folder / 'notes.txt'}: not an image" in fails(folder, *bench, folder / "notes.txt")
    assert "No such file" in fails(folder, *bench, folder / "missing.png")
    (folder / "empty").mkdir()
    assert "has no image" in fails(folder, *bench, folder / "empty")


def test_a_command_that_fails_within_is_told(folder, bench, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "Error: it did not work\n")
    monkeypatch.setattr("vaecodec.speed.subprocess.run", lambda *_, **__: failed)
    message = fails(folder, *bench, folder / "b.png", "--process", "-q", 10)
    assert "vaecodec encode" in message
    assert message.endswith("failed: Error: it did not work\n")


# What is measured


def test_stages_add_up_to_the_total(folder, tiny):
    row = Bench(tiny, "cpu", 1, runs=1).measure(folder / "a.webp", 40)
    assert row.encode.keys() == ENCODE
    assert row.decode.keys() == DECODE
    for seconds in (row.encode, row.decode):
        parts = {k: v for k, v in seconds.items() if k not in ("total", "read", "write")}
        assert sum(parts.values()) == pytest.approx(seconds["total"])
        assert all(value >= 0 for value in parts.values())
    assert (row.width, row.height, row.quality) == (170, 161, 40)
    assert 0 < row.ms_ssim < 1
    assert math.isfinite(row.psnr)


def test_the_bytes_are_those_of_the_file(folder, tiny):
    row = Bench(tiny, "cpu", 1, runs=1).measure(folder / "b.png", 40)
    assert row.bytes == len(Codec(tiny, "cpu", 1).encode(smooth(37, 50), 40))


def test_a_round_trip_that_loses_something_is_refused(folder):
    alpha = np.zeros((4, 5), np.uint8)
    whole = Picture(smooth(4, 5), alpha, b"icc", b"exif", b"xmp")
    check_round_trip(folder, whole, whole)
    changes = {
        "pixels": Picture(smooth(5, 5)),
        "alpha": dataclasses.replace(whole, alpha=alpha + 1),
        "no alpha": dataclasses.replace(whole, alpha=None),
        "icc": dataclasses.replace(whole, icc=None),
        "exif": dataclasses.replace(whole, exif=b"other"),
        "xmp": dataclasses.replace(whole, xmp=b""),
    }
    for changed in changes.values():
        with pytest.raises(VaecodecError, match=r"c[ao]me back"):
            check_round_trip(folder, whole, changed)


def test_images_are_found_in_the_order_given_and_by_name_within(folder):
    assert photographs([folder / "b.png", folder]) == [
        folder / "b.png",
        folder / "a.webp",
        folder / "b.png",
    ]
    with pytest.raises(ImageError, match="has no image"):
        photographs([folder / "b.png", SAMPLES.parent / "commands"])


def test_three_photographs_come_with_the_package():
    found = photographs([])
    assert [path.name for path in found] == ["city.webp", "dog.webp", "flowers.webp"]
    assert all(images.read(path).pixels.shape == (576, 576, 3) for path in found)
    note = (SAMPLES / "README.md").read_text()
    assert "gianni-rosato/gb82-image-set" in note
    assert "CC0 1.0" in note


# The stopwatch


def test_an_inner_stage_is_not_counted_twice(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("vaecodec.stages.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch("outer"), watch("inner"):
        pass
    assert watch.reset() == {"inner": 3.0, "outer": 7.0}
    assert watch.seconds == {}


def test_stretches_of_a_stage_are_added_up_even_where_one_fails(monkeypatch):
    clock = iter([0.0, 1.0, 5.0, 7.0])
    monkeypatch.setattr("vaecodec.stages.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch("stage"):
        pass
    with pytest.raises(KeyError), watch("stage"):
        raise KeyError
    assert watch.seconds == {"stage": 3.0}


def test_unwatched_stages_do_nothing():
    with unwatched("encoder"), unwatched("prior"):
        pass
