"""`python -m train`, as it is used."""

import os
import subprocess
import sys

import pytest
from PIL import Image

torch = pytest.importorskip("torch")

from tests.training import RECIPE, ROOT, SAMPLES, photographs  # noqa: E402
from train import evaluate  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.checkpoints import Weights  # noqa: E402
from train.evaluate import Row  # noqa: E402

COMMANDS = (
    *("fit", "evaluate", "export", "efforts", "gradients", "exact", "stress", "strip", "curves"),
    *("plot", "reproduce", "finetune", "standings", "monotony", "sheets", "pages"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("train")
    photographs(folder / "images")
    (folder / "test.toml").write_text(RECIPE)
    return folder


def fit(place, out, *options):
    return main(
        ["fit", str(place / "test.toml"), str(place / "images"), "--out", str(out), *options]
    )


def fails(capsys, *arguments):
    """The one line that a command says on stderr when it cannot do its work."""
    assert main([str(a) for a in arguments]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith("error: ")
    return message


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert "usage: python -m train" in text
    for name in COMMANDS if not command else ():
        assert f"\n    {name}" in text


def test_wrong_usage_is_status_2(place, capsys):
    for arguments in (
        [],
        ["fit", "photo-1", "no such folder", "--out", "x"],
        ["fit", "photo-1", str(place), "--out", "x", "--anneal", "2"],
        ["fit", "photo-1", str(place), "--out", "x", "--resume", str(place), "--continue", "x"],
        ["export", str(place), "--name", "x"],
        ["export", str(place), "--name", "x", "--quality", "150"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        assert stopped.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_run_is_fitted_resumed_exported_and_evaluated(place, tmp_path, capsys):
    pytest.importorskip("onnxscript")
    images, run = place / "images", tmp_path / "run"
    fit_options = ["--steps", "30", "--batch", "3", "--validate", str(images)]
    assert fit(place, run, *fit_options, "--validate-images", "1") == 0
    assert Weights(run).recipe.data.batch == 3
    assert "30 steps" in capsys.readouterr().err
    assert (run / "curve.tsv").is_file()
    assert fit(place, run, "--steps", "40") == 1
    assert f"{run} holds a run: --resume {run} goes on with it" in capsys.readouterr().err
    assert fit(place, run, "--steps", "40", "--patience", "1", "--resume", str(run)) == 1
    assert "name images to --validate on" in capsys.readouterr().err
    assert fit(place, tmp_path / "more", "--steps", "32", "--resume", str(run)) == 0
    assert Weights(tmp_path / "more").progress["steps"] == 32
    assert fit(place, tmp_path / "other", "--steps", "32", "--continue", str(run)) == 0

    options = ["export", str(run), "--name", "net", "--out", str(tmp_path), "--quality", "60"]
    assert main(options) == 0
    bundle = tmp_path / "net"
    assert capsys.readouterr().out.startswith(f"wrote {bundle}")

    tsv = tmp_path / "rows.tsv"
    options = ["evaluate", str(bundle), str(images), "--tsv", str(tsv), "--threads", "1"]
    assert main([*options, "--quality", "50", "--quality", "100"]) == 0
    told = capsys.readouterr().out
    assert "quality 50.0000  bpp" in told
    lines = [line.split("\t") for line in tsv.read_text().splitlines()]
    assert lines[0][:4] == ["image", "quality", "bytes", "bpp"]
    assert len(lines) == 1 + 3 * 2

    assert main(["exact", str(bundle), str(images), "--count", "1", "--quality", "100"]) == 0
    assert main(["stress", str(bundle), str(images), "--count", "2"]) == 0
    assert "generation 2" in capsys.readouterr().out


def test_curves_are_drawn_of_models_and_of_published_codecs(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    reference, rows = tmp_path / "reference.json", tmp_path / "rows.tsv"
    reference.write_text('{"codecs": {"old": {"bpp": [0.1, 1, 2], "psnr": [25, 30, 35]}}}')
    points = [Row("a", q, 1, 0.1 + q / 50, 26 + q / 10, 0.9, 50.0) for q in (0.0, 50.0, 100.0)]
    evaluate.write_tsv(points, rows)
    options = ["curves", reference, tmp_path / "c.png", "--rows", f"mine={rows}", "--codec"]
    assert main([*map(str, options), "Old one=old"]) in (0, None)
    with Image.open(tmp_path / "c.png") as image:
        assert image.width > 600
    assert "has no codec new; it has old" in fails(capsys, *options, "new")
    rows.write_text("image\tquality\n")
    assert "no table of `evaluate --tsv`" in fails(capsys, *options, "old")


def test_bd_rates_are_printed_for_a_whole_curve(tiny, tmp_path, capsys):
    reference = tmp_path / "reference.json"
    reference.write_text('{"codecs": {"old": {"bpp": [0.1, 1, 9], "psnr": [15, 25, 45]}}}')
    images = photographs(tmp_path / "images", 96)
    Image.new("RGB", (96, 96), "#808080").save(images / "blank.png")  # JPEG gives it back as it is
    options = ["evaluate", tiny, images, "--reference", reference, "--against", "old"]
    for quality in (0, 30, 60, 100):
        options += ["--quality", quality]
    assert main([str(o) for o in options]) == 0
    told = capsys.readouterr().out
    assert "BD-rate of each image against Pillow's JPEG" in told
    assert "BD-rate of the means against old: " in told
    assert "blank" not in told
    assert "nan" not in told


def test_errors_are_one_line(place, tmp_path, tiny, capsys):
    images, empty = place / "images", tmp_path / "empty"
    empty.mkdir()
    assert "no recipe" in fails(capsys, "fit", "photo-0", images, "--out", tmp_path)
    assert "none of the 0 image files" in fails(
        capsys, "fit", place / "test.toml", empty, "--out", tmp_path
    )
    assert "state.pt is not there" in fails(
        capsys, "fit", place / "test.toml", images, "--out", tmp_path, "--resume", empty
    )
    assert "holds no weights" in fails(
        capsys, "export", empty, "--name", "x", "--out", tmp_path, "--quality", 5
    )
    assert "no model" in fails(capsys, "evaluate", "photo-0", images)
    assert "0 images" in fails(capsys, "evaluate", tiny, empty)
    assert "no image" in fails(capsys, "exact", tiny, empty)
    assert "has no prior that runs" in fails(capsys, "exact", "mnist-conv-2d", empty)
    reference = tmp_path / "reference.json"
    reference.write_text('{"codecs": {"old": {}}}')
    assert "has no codec new; it has old" in fails(
        capsys,
        *("evaluate", tiny, images, "--quality", 5, "--reference", reference),
        *("--against", "new"),
    )


def test_images_of_one_name_are_not_mixed_up(tiny, tmp_path, capsys):
    for folder in ("a", "b"):
        photographs(tmp_path / folder, 64)
    message = fails(capsys, "evaluate", tiny, tmp_path / "a", tmp_path / "b")
    assert "6 images" in message
    assert "3 names" in message


# What `exact` proves


def test_exact_compares_every_way_of_decoding(tiny, tmp_path, capsys):
    pytest.importorskip("onnx")
    images = photographs(tmp_path / "images", 64)
    options = [
        "exact",
        str(tiny),
        str(images),
        "--count",
        "2",
        "--quality",
        "0",
        "--quality",
        "99.5",
    ]
    assert main(options) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "4 files in 18 ways: all equal"
    assert len(lines) == 19
    for way in ("1 threads, none, library", "2 threads, all, portable", "int64 NumPy, portable"):
        assert any(line.startswith(way) for line in lines)


def test_exact_fails_where_one_symbol_differs(tiny, tmp_path, capsys, monkeypatch):
    pytest.importorskip("onnx")
    from train import exact

    evaluate = exact.evaluate

    def off_by_one(model, inputs):
        outputs = evaluate(model, inputs)
        return outputs | ({"mean": outputs["mean"] + 1} if "mean" in outputs else {})

    monkeypatch.setattr(exact, "evaluate", off_by_one)
    images = photographs(tmp_path / "images", 64)
    assert main(["exact", str(tiny), str(images), "--count", "1", "--quality", "90"]) == 1
    told = capsys.readouterr().out
    assert "int64 NumPy, library                     1 files, 1 differ: city at 90" in told
    assert "SYMBOLS DIFFER" in told


# A machine with torch, NumPy and Pillow only

WITHOUT = """
import sys
absent = "click tqdm tensorboard platformdirs onnx onnxruntime onnxscript constriction scipy"
sys.modules.update(dict.fromkeys(absent.split()))
from train.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_fit_needs_torch_numpy_and_pillow_alone(place, tmp_path):
    arguments = ["fit", place / "test.toml", place / "images", "--out", tmp_path / "run"]
    arguments += ["--steps", "21", "--validate", place / "images"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no TensorBoard curves: tensorboard is not installed" in done.stderr
    assert "BD-rate" in done.stderr
    assert Weights(tmp_path / "run").progress["steps"] == 21
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_lines_are_told_where_there_is_no_terminal(capsys, monkeypatch):
    from train import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0)
    with progress.Progress("training") as bar:
        bar.update(0.25, "loss 1")
        bar.update(0.5)
    with progress.Progress("training", silent=True) as bar:
        bar.update(0.5)
    assert (
        capsys.readouterr().err
        == "training:  25%, 0.0 min left, loss 1\ntraining:  50%, 0.0 min left\n"
    )


def test_a_bar_is_drawn_on_a_terminal(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    from train import progress

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.Progress("training") as bar:
        bar.update(0.25, "loss 1")
        progress.say("a line")
    told = capsys.readouterr().err
    assert "25%" in told
    assert "loss 1" in told
    assert "a line" in told


def test_figures_are_drawn(tiny, tmp_path):
    pytest.importorskip("matplotlib")
    sample, target = SAMPLES / "dog.webp", tmp_path / "strip.png"
    options = ["strip", tiny, sample, target, "--box", 10, 10, 60, 50]
    assert main([str(o) for o in options]) == 0
    assert target.is_file()
