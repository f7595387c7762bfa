import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from train import efforts
from train.__main__ import main
from vaecodec.bench import SAMPLES

QUALITIES = (20.0, 60.0, 90.0)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    with Image.open(SAMPLES / "flowers.webp") as image:
        for n in range(2):
            image.crop((96 * n, 200, 96 * n + 96, 264)).save(tmp_path / "images" / f"{n}.png")
    return tmp_path / "images"


def test_each_image_is_measured_once_at_each_quality_and_effort(
    folder, tiny, tmp_path, monkeypatch
):
    tsv = tmp_path / "rows.tsv"
    rows = efforts.table("photo-1", [folder], (0, 1), QUALITIES, tsv)
    assert len(rows) == 2 * 2 * 3
    assert {(r.image, r.effort) for r in rows} == {("0", 0), ("1", 0), ("0", 1), ("1", 1)}
    monkeypatch.setattr(efforts, "measure", None)  # nothing is left to do
    again = efforts.table("photo-1", [folder], (0, 1), QUALITIES, tsv)
    assert [(r.image, r.quality, r.effort) for r in again] == [
        (r.image, r.quality, r.effort) for r in rows
    ]
    with pytest.raises(TypeError):  # the rows are another model's
        efforts.table(str(tiny), [folder], (0,), QUALITIES, tsv)
    np.testing.assert_allclose([r.bpp for r in again], [r.bpp for r in rows], rtol=1e-4)


def test_the_command_reports_what_efforts_buy(folder, tmp_path, capsys):
    options = ["--effort", "0", "--effort", "2", "--tsv", str(tmp_path / "rows.tsv")]
    options += [o for q in QUALITIES for o in ("--quality", str(q))]
    assert main(["efforts", "photo-1", str(folder), *options]) in (0, None)
    out = capsys.readouterr().out
    assert "effort 0: BD-rate against effort 0 +0.00 %" in out
    assert "effort 2: BD-rate against effort 0 -" in out
    assert "effort 2 costs more than 0: on no image" in out


def test_images_left_worse_off_are_named():
    def row(effort, cost):
        return efforts.Row("m", "a", 4096, 50.0, effort, 1.0, 30.0, cost, 0.1, 100.0)

    rows = [row(0, 1.0), row(1, 0.9), row(2, 0.95)]
    assert efforts._worse(rows, 0, 1) == []
    assert efforts._worse(rows, 1, 2) == ["a at 50 (+5.556 %)"]
