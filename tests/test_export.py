"""From a checkpoint to a bundle: what it promises is shown, and it is refused where it fails."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from tests.training import ROOT, SAMPLES, photographs, recipe  # noqa: E402
from train import export, transforms  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.checkpoints import Weights  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.recipes import Data, Model  # noqa: E402
from train.release import claims_image, release  # noqa: E402
from train.validation import pad  # noqa: E402
from vaecodec import bounds  # noqa: E402
from vaecodec.bundle import Bundle  # noqa: E402
from vaecodec.codec import Codec  # noqa: E402
from vaecodec.images import read  # noqa: E402
from vaecodec.runtime import Graph  # noqa: E402
from vaecodec.search import Search  # noqa: E402

CARD = {"default_quality": 50.0}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of few steps: enough that nothing is zero or at its start any more."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run")
    model = Model(24, 4, 16, 16, 2, 3, (1, 1), (1, 1), 0.25, 0.5)
    chosen = recipe(model=model, data=Data(128, 2, (1.0,)))
    trainer = Trainer(chosen, [photographs(folder / "images", 300)], folder)
    trainer.start()
    for _ in range(120):
        trainer.one_step(1.0)
    trainer.save(folder)
    return folder


@pytest.fixture(scope="module")
def weights(run):
    return Weights(run)


@pytest.fixture(scope="module")
def files(weights):
    return export.files_of(weights.model())


@pytest.fixture(scope="module")
def bundle(run, tmp_path_factory):
    return release(
        run, tmp_path_factory.mktemp("out"), "small", [], 80.0, 40.0, "three photographs"
    )


@pytest.fixture
def write(weights, tmp_path, monkeypatch):
    """Write a bundle of given files, as if they were what is exported."""

    def attempt(files):
        monkeypatch.setattr(export, "files_of", lambda _model: dict(files))
        export.write(weights, tmp_path / "bundle", "bundle", claims_image(), CARD)

    yield attempt
    assert not (tmp_path / "bundle").exists()


# What is written


def test_a_bundle_is_written_whole(bundle, weights):
    opened = Bundle.open(bundle)
    opened.verify()
    manifest = opened.manifest
    assert manifest["default_quality"] == 40.0
    assert manifest["data"] == "three photographs"
    assert manifest["claims"]["symbols_compared"] > 10_000
    assert manifest["training"]["recipe"]["model"]["channels"] == 24
    assert manifest["training"]["steps"] == weights.progress["steps"] == 120
    assert sorted(p.name for p in bundle.parent.iterdir()) == ["small"]


def test_costs_are_those_of_the_layers(bundle):
    cost = json.loads((bundle / "manifest.json").read_text())["cost"]
    block8 = (192 * 9 + 2 * 192 * 48) / 64
    block16 = (24 * 9 + 2 * 24 * 6) / 256
    transform = 192 * 192 / 64 + 192 * 4 * 24 / 256 + block8 + block16
    assert cost["decode"] - cost["prior"] == pytest.approx(transform / 1000, abs=0.002)
    assert cost["encode"] > transform / 1000 + cost["prior"]


def test_graphs_take_any_size_and_bytes_in_channels_last(files):
    encoder, decoder = Graph(files["encoder.onnx"]), Graph(files["decoder.onnx"])
    for height, width in ((16, 16), (48, 16), (64, 160)):
        (y,) = encoder(pixels=np.full((1, height, width, 3), 90, np.uint8))
        assert y.shape == (1, 24, height // 16, width // 16)
        (pixels,) = decoder(y=y)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (1, height, width, 3)


def test_large_weights_are_stored_in_half_precision(files):
    for name in ("encoder.onnx", "decoder.onnx"):
        kinds = {
            t.data_type
            for t in onnx.load_from_string(files[name]).graph.initializer
            if np.prod(t.dims) >= transforms.SMALL
        }
        assert kinds == {onnx.TensorProto.FLOAT16}


def test_weights_of_the_prior_are_stored_as_integers(files):
    kinds = {t.data_type for t in onnx.load_from_string(files["hyper.onnx"]).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert onnx.TensorProto.INT32 in kinds


@pytest.mark.parametrize("quality", [0, 33.3, 50, 100])
def test_the_estimate_of_training_is_the_file(bundle, weights, quality):
    """Within 1 %, and the container of at most 48 bytes."""
    codec, model = Codec(bundle, "cpu", 1), weights.model()
    pixels = read(SAMPLES / "flowers.webp").pixels
    with torch.no_grad():
        crops = pad(torch.from_numpy(pixels.copy()), 64)[None]
        bits = model(crops, torch.tensor([float(quality)])).bits.item()
    size = len(codec.encode(pixels, quality, search=Search(0)))
    assert size == pytest.approx(bits / 8 + 45, rel=0.01)


def test_the_same_checkpoint_gives_the_same_bytes_in_any_process(run, bundle, tmp_path):
    """String hashes differ between processes; nothing in a bundle may depend on their order."""
    command = [sys.executable, "-m", "train", "export", run, "--name", "small", "--quality", "40"]
    command += ["--data", "three photographs", "--out", tmp_path]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "small").iterdir()} == {
        p.name: p.read_bytes() for p in bundle.iterdir()
    }


def test_the_default_quality_is_the_lowest_that_looks_good_enough(monkeypatch):
    from train import evaluate

    asked = []

    def table(_codec, _folders, qualities, perceptual):
        assert perceptual
        asked.append(qualities[0])
        return [evaluate.Row("x", qualities[0], 1, 1.0, 30.0, 0.9, 50 + qualities[0] / 2)]

    monkeypatch.setattr(evaluate, "table", table)
    assert evaluate.choose_quality(None, [], 80.0) == (60, 80.0)
    assert len(asked) < 10
    with pytest.raises(ValueError, match=r"is 100\.00 at quality 100; 101 is asked"):
        evaluate.choose_quality(None, [], 101)


def test_fit_goes_on_from_a_bundle(run, bundle, tmp_path):
    """Without a checkpoint, at the pixels that it had seen."""
    seen = Weights(run).progress
    chosen = recipe(model=Model(24, 4, 16, 16, 2, 3, (1, 1), (1, 1), 0.25, 0.5))
    lines = ["seed = 3"]
    for section in ("model", "loss", "data", "optimiser"):
        lines.append(f"[{section}]")
        values = chosen.to_dict()[section].items()
        lines += [f"{k} = {json.dumps(v)}" for k, v in values]
    (tmp_path / "small.toml").write_text("\n".join(lines))
    out = ["--out", tmp_path / "on", "--steps", int(seen["steps"]) + 3, "--rate", "0.5"]
    arguments = ["fit", tmp_path / "small.toml", run / "images", "--from", bundle, *out]
    assert main([str(a) for a in arguments]) == 0
    found = Weights(tmp_path / "on").progress
    assert found["steps"] == seen["steps"] + 3
    assert found["pixels"] == seen["pixels"] + 3 * 2 * 64**2


# What is refused


def test_a_bundle_that_exists_is_never_overwritten(run, bundle, capsys):
    before = {p.name: p.read_bytes() for p in bundle.iterdir()}
    with pytest.raises(FileExistsError, match="a bundle never changes"):
        release(run, bundle.parent, "small", [], 80.0, 40.0, "")
    options = ["export", str(run), "--name", "small", "--out", str(bundle.parent), "--quality", "1"]
    assert main(options) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert {p.name: p.read_bytes() for p in bundle.iterdir()} == before


def test_a_prior_that_float32_cannot_hold_is_refused(write, files, monkeypatch):
    monkeypatch.setattr(bounds, "EXACT", 2**16)
    with pytest.raises(ValueError, match="float32 would round it"):
        write(files)


def test_a_second_export_with_other_bytes_is_refused(weights, files, tmp_path, monkeypatch):
    turns = iter([dict(files), dict(files) | {"tables.bin": b"other"}])
    monkeypatch.setattr(export, "files_of", lambda _model: next(turns))
    with pytest.raises(ValueError, match="a second export"):
        export.write(weights, tmp_path / "bundle", "bundle", claims_image(), CARD)


def changed(content, prefix, amount):
    """A graph with `amount` added to its first constant whose name begins with `prefix`."""
    model = onnx.load_from_string(content)
    tensor = next(t for t in model.graph.initializer if t.name.startswith(prefix))
    array = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array((array + amount).astype(array.dtype), tensor.name))
    return model.SerializeToString(deterministic=True)


def test_an_encoder_that_differs_from_torch_is_refused(write, files):
    wrong = changed(files["encoder.onnx"], "down.bias", 0.01)
    with pytest.raises(ValueError, match="the encoder's graph differs from torch"):
        write(files | {"encoder.onnx": wrong})


def test_a_decoder_that_differs_from_torch_is_refused(write, files):
    wrong = changed(files["decoder.onnx"], "leave.bias", 3.0)
    with pytest.raises(ValueError, match="the decoder's graph differs from torch by 3 of 255"):
        write(files | {"decoder.onnx": wrong})


@pytest.mark.parametrize("name", ["hyper.onnx", "step0.onnx", "step1.onnx"])
def test_integer_graphs_that_differ_from_training_are_refused(write, files, name):
    model = onnx.load_from_string(files[name])
    weight = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8][-1]
    with pytest.raises(ValueError, match="symbols or rows differ between torch and the graphs"):
        write(files | {name: changed(files[name], weight.name, 3)})


@pytest.mark.parametrize("path", ["/home/me/net.pt", "C:\\users\\me\\", "loop.py line 3"])
def test_a_graph_that_holds_a_path_is_refused(write, files, path):
    model = onnx.load_from_string(files["side.onnx"])
    model.graph.node[0].doc_string = path
    with pytest.raises(ValueError, match=r"side\.onnx holds a path"):
        write(files | {"side.onnx": model.SerializeToString(deterministic=True)})


def test_a_table_out_of_the_proven_range_is_refused(write, files, monkeypatch):
    narrow = bounds.INPUTS | {"offset": bounds.Range(-1, 1)}
    monkeypatch.setattr(bounds, "INPUTS", narrow)
    with pytest.raises(ValueError, match="the table row_offset reaches"):
        write(files)


def test_a_bundle_that_is_too_large_is_refused(write, files, monkeypatch):
    monkeypatch.setattr(export, "SIZE_LIMIT", 100_000)
    with pytest.raises(ValueError, match="100000 are allowed"):
        write(files)


def test_a_failed_export_leaves_nothing_behind(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "files_of", lambda _model: dict(files))
    monkeypatch.setattr(export, "SIZE_LIMIT", 100_000)
    with pytest.raises(ValueError, match="are allowed"):
        release(run, tmp_path, "small", [], 80.0, 40.0, "")
    assert list(tmp_path.iterdir()) == []
