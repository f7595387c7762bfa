"""A model beside other codecs: by what is measured, in the right order, and interrupted or not."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("ssimulacra2")

from PIL import Image

from train import monotony, standings, tsv
from train.__main__ import main
from train.evaluate import Row
from train.rivals import PNG, RIVALS
from vaecodec.bench import SAMPLES
from vaecodec.images import read


def rows(factor: float) -> list[Row]:
    """Two images, the second twice as dear, at three qualities."""
    return [
        Row(image, q, 1, times * factor * 0.1 * 2**q, 30 + q, 1 - 0.1 / 2**q, 10 * q)
        for image, times in (("a", 1), ("b", 2))
        for q in (0.0, 1.0, 2.0, 3.0, 4.0)
    ]


@pytest.fixture
def photograph():
    return read(SAMPLES / "city.webp").pixels


@pytest.fixture
def folder(tmp_path, photograph):
    (tmp_path / "images").mkdir()
    for name, part in (("a", photograph[:180, :200]), ("b", photograph[40:220, :180, :1])):
        pixels = np.ascontiguousarray(part)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        image.save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def test_a_codec_of_three_quarters_of_the_bits_saves_a_quarter_by_every_measure():
    for measure in standings.MEASURES:
        assert standings.saved(rows(0.75), rows(1), measure) == pytest.approx(-25)
    assert standings.between(rows(0.75), rows(1), "ms_ssim") == pytest.approx(-25, abs=0.5)
    assert standings.each_image(rows(0.75), rows(1)) == pytest.approx({"a": -25, "b": -25})


def test_points_that_are_no_better_for_more_bits_are_left_out():
    worse = [dataclasses.replace(r, psnr=31.0) if r.quality == 3 else r for r in rows(1)]
    bpp, psnr = standings.curve(worse, "psnr")
    assert psnr == [30, 31, 32, 34]
    assert bpp == pytest.approx([0.15, 0.3, 0.6, 2.4])


def test_values_at_a_rate_lie_on_the_curve():
    assert standings.at(rows(1), "psnr", [0.3, 0.3 * 2**0.5]) == pytest.approx([31, 31.5])


def test_the_report_goes_from_the_dearest_codec_to_the_cheapest():
    found = {"mine": rows(0.5), "JPEG": rows(1), "WebP": rows(0.75)}
    lines = standings.report(found, "mine").splitlines()
    names = [line.split(" | ")[0] for line in lines[2:5]]
    assert names == ["| JPEG", "| WebP", "| mine"]
    assert lines[3].startswith("| WebP | -25.0 | -25.0 | -25.0 | -33.3 | -33.3 | -33.3 |")
    assert "| a | +0.0 | -25.0 | -50.0 |" in lines


def test_a_model_is_measured_beside_all_rivals_and_nothing_twice(folder, tiny, tmp_path, capsys):
    arguments = ["standings", str(tiny), str(folder), "--effort", "0"]
    tsv = tmp_path / "rows.tsv"
    assert main([*arguments, "--tsv", str(tsv)]) == 0
    whole, report = tsv.read_text(), capsys.readouterr().out
    points = sum(len(rival.qualities) for rival in RIVALS.values()) + 9
    assert len(whole.splitlines()) == 1 + 2 * points
    assert report.count("| a |") == report.count("| b |") == 1
    tsv.write_text("".join(whole.splitlines(keepends=True)[:40]))
    assert main([*arguments, "--tsv", str(tsv)]) == 0
    assert sorted(tsv.read_text().splitlines()) == sorted(whole.splitlines())
    assert capsys.readouterr().out == report


@pytest.fixture
def only_jpeg(monkeypatch):
    monkeypatch.setattr(standings, "RIVALS", {"JPEG": RIVALS["JPEG"]})


@pytest.mark.usefixtures("only_jpeg")
def test_rows_at_another_effort_are_others(folder, tiny, tmp_path):
    arguments = ["standings", str(tiny), str(folder), "--tsv", str(tmp_path / "rows.tsv")]
    for effort in (["--effort", "0"], []):
        assert main([*arguments, *effort]) == 0
    lines = (tmp_path / "rows.tsv").read_text().splitlines()
    assert sum(" at effort 0\t" in line for line in lines) == 2 * 9
    assert sum(" at the default effort\t" in line for line in lines) == 2 * 9


@pytest.mark.usefixtures("only_jpeg")
def test_measures_that_small_images_do_not_have_are_left_out(tiny, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    with Image.open(SAMPLES / "flowers.webp") as image:
        image.crop((0, 0, 80, 64)).save(tmp_path / "images" / "small.png")
    arguments = ["standings", str(tiny), str(tmp_path / "images"), "--effort", "0"]
    assert main([*arguments, "--tsv", str(tmp_path / "rows.tsv")]) == 0
    out = capsys.readouterr().out
    assert "| MS-SSIM, dB: JPEG | – | – | – | – | – |" in out
    assert "nan" not in out


@pytest.mark.parametrize("text", ["", "codec\timage\n"])
def test_a_file_of_rows_is_begun_or_refused(tmp_path, text):
    path = tmp_path / "rows.tsv"
    path.write_text(text)
    if text:
        with pytest.raises(ValueError, match="has the columns codec, image; a, b expected"):
            tsv.resumed(path, ["a", "b"]).__enter__()
        return
    for _ in range(2):  # a run that ended before its first row, and the next one
        with tsv.resumed(path, ["a", "b"]) as (rows, _add):
            assert rows == []
    with tsv.resumed(path, ["a", "b"]) as (_, add):
        add(["x", 0.5])
    with tsv.resumed(path, ["a", "b"]) as (rows, _):
        assert rows == [["x", "0.5"]]
    assert path.read_text() == "a\tb\nx\t0.5\n"


def test_rivals_give_back_images_of_the_shape_they_took(photograph):
    grey = np.ascontiguousarray(photograph[:64, :48, :1])
    for rival in RIVALS.values():
        for pixels in (photograph[:64, :48], grey):
            data, decoded = rival(pixels, 90)
            assert decoded.shape == pixels.shape
            assert len(data) < pixels.size
            assert np.abs(decoded.astype(int) - pixels).mean() < 6
    assert np.array_equal(PNG(grey, 0)[1], grey)


def test_a_model_whose_bits_and_psnr_rise_has_no_exceptions(folder, tiny, capsys):
    assert main(["monotony", str(tiny), str(folder), "--effort", "0", "--step", "25"]) == 0
    assert "rise at each of 5 qualities" in capsys.readouterr().out


def test_a_quality_that_brings_nothing_is_named(folder, monkeypatch):
    def writer(_codec, _search):
        def write(pixels, quality):
            error = (pixels < 128) * 2 - 1
            far = np.array(100 - min(quality, 60))
            return bytes(int(quality) + 1), (pixels + error * far // 4).astype(np.uint8)

        return write

    monkeypatch.setattr(monotony, "writer", writer)
    found = monotony.exceptions(None, [folder], range(0, 101, 20), None)
    assert [line.split(":")[0] for line in found] == ["a at 80", "a at 100", "b at 80", "b at 100"]
