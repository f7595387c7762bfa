"""Gaussian bundles: what an export promises is shown, for two recipes; -m recipes: for all."""

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from tests import sets  # noqa: E402
from tests.test_train_gaussian import GAUSSIAN, shortened  # noqa: E402
from tests.training import ROOT  # noqa: E402
from train import transforms, vae_export  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.checkpoints import Weights  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.release import release  # noqa: E402
from vaecodec import container  # noqa: E402
from vaecodec.bundle import Bundle  # noqa: E402
from vaecodec.codec import Codec  # noqa: E402
from vaecodec.runtime import Graph  # noqa: E402

TWO = ["fashion-conv", "mnist-dense-5d"]
NAMES = [*TWO, *(pytest.param(n, marks=pytest.mark.recipes) for n in GAUSSIAN if n not in TWO)]


class Run:
    """A short run of a recipe, its bundle, and the folder of its sets."""

    def __init__(self, name, folder):
        torch.set_num_threads(1)
        self.recipe = shortened(name, epochs=2)
        self.data = sets.write(folder / "sets", self.recipe.data)
        self.folder, self.out = folder / "run", folder / "out"
        trainer = Trainer(self.recipe, [self.data], self.folder)
        trainer.start()
        for _ in range(8):
            trainer.one_step(1.0)
        trainer.save(self.folder)
        self.test = trainer.task.test.numpy()
        self.bundle = release(
            self.folder, self.out, name, [], 0, 50.0, "blots", measure=[self.data]
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    made = {}

    def run(name):
        if name not in made:
            made[name] = Run(name, tmp_path_factory.mktemp(name))
        return made[name]

    return run


@pytest.fixture(scope="module", params=NAMES)
def run(request, runs):
    return runs(request.param)


@pytest.fixture(scope="module")
def dense(runs):
    return runs("mnist-dense-5d")


# What is written


def test_graphs_compute_what_training_does(run):
    model = Weights(run.folder).model()
    pixels = torch.from_numpy(run.test[:9])
    with torch.no_grad():
        target = model.see(pixels)
        mean, log_variance = model.encoder(target)
        parameter = model.decoder(mean)
    found = Graph(run.bundle / "encoder.onnx")(pixels=run.test[:9])
    assert np.array_equal(found[2], target.numpy())
    for a, b in zip(found[:2], (mean, log_variance), strict=True):
        assert np.allclose(a, b, rtol=5e-3, atol=2e-2)
    shown, values = Graph(run.bundle / "decoder.onnx")(y=mean.numpy())
    assert np.allclose(values, parameter, rtol=5e-3, atol=5e-2)
    assert np.abs(shown.astype(int) - model.show(parameter).numpy()).max() <= 3


def test_a_code_survives_the_container(run):
    codec = Codec(run.bundle, "cpu", 1)
    (mean,) = (p.mean for p in codec.model.posteriors(run.test))
    decoder = Graph(run.bundle / "decoder.onnx", "cpu", 1)
    for quality in (0, 50, 100):
        data = codec.encode_images(run.test, quality)
        tables = codec.bundle.arrays("quality.npz")
        step, row = (tables[k][quality * 16 // 100] for k in ("step", "row"))
        wanted, _ = decoder(y=np.floor(mean / step + np.float32(0.5)) * step * (row > 0))
        assert np.array_equal(codec.decode_images(data), wanted)
        assert container.unpack(data).header.quality == quality * 64


def test_the_bundle_states_what_was_measured(run):
    Bundle.open(run.bundle).verify()
    manifest = json.loads((run.bundle / "manifest.json").read_text())
    (measured,) = manifest["measured"]
    result = Trainer(run.recipe, [run.data], run.folder)
    result.resume(run.folder)
    expected = result.task.validation([], 0).measure(result.model, result.device)
    assert measured["set"] == run.recipe.data.test
    assert measured["elbo"] == pytest.approx(expected.loss, rel=0.01)
    assert measured["kl"] == pytest.approx(expected.kl, rel=1e-3, abs=1e-3)
    assert manifest["likelihood"]["kind"] == run.recipe.model.likelihood.kind
    assert manifest["training"]["steps"] == 8
    card = (run.bundle / "README.md").read_text()
    assert f"negative ELBO {measured['elbo']:.2f} nats" in card


def test_large_weights_are_stored_in_8_bits_or_half_precision(run):
    for name in ("encoder.onnx", "decoder.onnx"):
        constants = onnx.load(run.bundle / name).graph.initializer
        large = {t.data_type for t in constants if np.prod(t.dims) >= transforms.SMALL}
        assert large <= {onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8}


def test_8_bits_and_a_scale_are_exact_once_they_are_rounded():
    weight = np.random.default_rng(0).standard_normal((40, 30)).astype(np.float32) / 30
    weight[3] = 0
    integers, scale = vae_export.in_8_bits(weight)
    again, same = vae_export.in_8_bits(integers * scale)
    assert np.array_equal(again, integers)
    assert np.array_equal(same[weight.any(1)], scale[weight.any(1)])
    assert np.abs(integers * scale - weight).max() <= np.abs(weight).max() / 127 / 2 * 1.01


def test_the_same_checkpoint_gives_the_same_bytes_in_any_process(dense, tmp_path):
    command = [sys.executable, "-m", "train", "export", dense.folder, "--name", "mnist-dense-5d"]
    command += ["--quality", "50", "--data", "blots", "--measure", dense.data, "--out", tmp_path]
    environment = os.environ | {"PYTHONHASHSEED": "12345", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {p.name: p.read_bytes() for p in (tmp_path / "mnist-dense-5d").iterdir()} == {
        p.name: p.read_bytes() for p in dense.bundle.iterdir()
    }


def test_evaluate_measures_the_test_set_of_the_recipe(dense, capsys):
    assert main(["evaluate", str(dense.bundle), str(dense.data), "--threads", "1"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    (measured,) = json.loads((dense.bundle / "manifest.json").read_text())["measured"]
    found = dict(pair.split(" ") for pair in line.split("  "))
    assert found == {name: str(value) for name, value in measured.items()}


# Steps and tables


def test_the_middle_level_has_the_noise_of_the_posterior():
    sigma = np.array([0.05, 0.1, 0.3, 0.94, 0.96])
    tables, quality = vae_export.quality_tables(sigma)
    step, row = quality["step"], quality["row"]
    assert step.shape == row.shape == (17, 5)
    assert np.allclose(step[8] / math.sqrt(12), sigma, rtol=2 ** (1 / 32) - 1 + 1e-6)
    assert np.allclose(step[:-4] / step[4:], 2)
    assert not row[:, 4].any()
    assert row[:, :4].all()
    assert row.max() == len(tables.low) - 1
    assert set(row[row > 0]) == set(range(1, len(tables.low)))


def test_tables_are_those_of_the_normal_on_the_grid():
    tables, quality = vae_export.quality_tables(np.array([0.02, 0.2]))
    for step, row in zip(quality["step"].ravel(), quality["row"].ravel(), strict=True):
        frequencies = np.diff(tables.cumulative[row].astype(np.int64)) / 2**24
        symbols = tables.low[row] + np.arange(len(frequencies) - 1)
        edges = (np.append(symbols, symbols[-1] + 1) - 0.5) * float(step)
        masses = np.diff([0.5 * math.erf(e / math.sqrt(2)) for e in edges])
        assert np.abs(frequencies[:-1] - masses).max() < 1e-4
        assert -edges[0] > 4


def test_dimensions_with_one_step_share_a_table():
    tables, quality = vae_export.quality_tables(np.full(300, 0.1))
    assert len(tables.low) == 1 + 17
    assert (quality["row"][3] == quality["row"][3, 0]).all()


# What is refused


def test_an_unfinished_run_is_refused():
    with pytest.raises(ValueError, match="never saved"):
        vae_export.quality_tables(np.array([0.1, np.nan]))


def test_posteriors_too_different_for_the_tables_are_refused():
    with pytest.raises(ValueError, match="a bundle has room for 255"):
        vae_export.quality_tables(np.geomspace(1e-6, 0.9, 400))


def changed(content, prefix, amount):
    """A graph with `amount` added to its first constant whose name begins with `prefix`."""
    model = onnx.load_from_string(content)
    tensor = next(t for t in model.graph.initializer if t.name.startswith(prefix))
    array = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array((array + amount).astype(array.dtype), tensor.name))
    return model.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    ("name", "prefix", "message"),
    [
        ("encoder.onnx", "encoder.mean.bias", "encoder_difference"),
        ("decoder.onnx", "decoder.leave.bias", "parameter_difference"),
    ],
)
def test_a_graph_that_differs_from_torch_is_refused(dense, monkeypatch, name, prefix, message):
    files = {p.name: p.read_bytes() for p in dense.bundle.iterdir() if p.suffix in PARTS}
    wrong = files | {name: changed(files[name], prefix, 0.1)}
    monkeypatch.setattr(vae_export, "files_of", lambda _model, _shape: wrong)
    with pytest.raises(ValueError, match=message):
        vae_export.write(Weights(dense.folder), dense.out / "wrong", "wrong", {})
    assert not (dense.out / "wrong").exists()


PARTS = (".onnx", ".bin", ".npz")


def test_a_quality_to_be_chosen_is_refused(dense, capsys):
    options = ["export", str(dense.folder), "--name", "other", "--out", str(dense.out)]
    assert main([*options, "--choose", str(dense.data)]) == 1
    assert "give --quality 50" in capsys.readouterr().err
    assert [p.name for p in dense.out.iterdir()] == ["mnist-dense-5d"]


def test_a_recipe_of_other_images_cannot_go_on(dense, tmp_path):
    other = dataclasses.replace(dense.recipe.model, latents=2)
    trainer = Trainer(dataclasses.replace(dense.recipe, model=other), [dense.data], tmp_path)
    with pytest.raises(ValueError, match=r"model\.latents 5 -> 2"):
        trainer.resume(dense.folder)
