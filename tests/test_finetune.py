"""A bundle of one's own: trained on from a released one, a difference to it, better or refused."""

import copy
import io
import json
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")

from PIL import Image  # noqa: E402

from tests.commands import process  # noqa: E402
from tests.training import ROOT, photographs, recipe  # noqa: E402
from train import adopt, compare, curvature, derive, export, finetune, holdout, moves  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.curves import decibels  # noqa: E402
from train.keeping import keep  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.nets import Output, depth_to_space, space_to_depth  # noqa: E402
from train.photo import PhotoTask, probe_of  # noqa: E402
from train.prior import WEIGHT_MAX  # noqa: E402
from train.recipes import Data, Loss, Model  # noqa: E402
from train.release import release  # noqa: E402
from train.validation import _point, pad  # noqa: E402
from vaecodec import difference  # noqa: E402
from vaecodec.bundle import Bundle, available, find  # noqa: E402
from vaecodec.codec import Codec  # noqa: E402
from vaecodec.difference import Kind  # noqa: E402
from vaecodec.errors import ModelError  # noqa: E402
from vaecodec.images import read  # noqa: E402


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with a model that has seen photographs for a few steps: easily improved on."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("base")
    model = Model(24, 4, 16, 16, 2, 3, (1, 1), (1, 1), 0.25, 0.5)
    loss = Loss(0.0008, 0.25, 0.02, "logistic")
    chosen = recipe(model=model, data=Data(128, 2, (1.0,)), loss=loss)
    trainer = Trainer(chosen, [photographs(folder / "images", 300)], folder / "run")
    trainer.start()
    for _ in range(30):
        trainer.one_step(1.0)
    trainer.save(folder / "run")
    release(folder / "run", folder / "models", "small", [], 80.0, 40.0, "three photographs")
    return folder / "models"


@pytest.fixture(autouse=True)
def looked_for(models, tmp_path, monkeypatch):
    monkeypatch.setenv("VAECODEC_MODELS", f"{models}:{tmp_path}")


@pytest.fixture
def plaids(tmp_path):
    """A folder of pictures far from photographs, one of them grey, one not readable."""
    folder = tmp_path / "plaids"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        lines = np.repeat(random.integers(0, 60, (2, 12, 3)), 8, 1) + random.integers(
            0, 90, (2, 1, 3)
        )
        picture = np.maximum(lines[0][:, None], lines[1][None]).astype(np.uint8)
        mode = Image.fromarray(picture).convert("L" if number == 1 else "RGB")
        mode.save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"no image")
    return folder


def tune(plaids, tmp_path, *more, minutes="0.05"):
    arguments = ["finetune", plaids, "--from", "small", "--name", "mine", "--out", tmp_path, *more]
    return main([*map(str, arguments), "--minutes", minutes])


# Adoption

TABLES = ("gains.npz", "quality.npz")


def test_a_network_comes_out_of_its_bundle_as_it_went_in(models):
    bundle = Bundle.open(models / "small")
    files = export.files_of(adopt.network_of(bundle))
    for name in ("hyper.onnx", "step0.onnx", "step1.onnx", "side.onnx", "tables.bin"):
        assert files[name] == bundle.read(name), name
    for name in ("quality.npz", "gains.npz"):
        assert files[name] == bundle.read(name), name
    for name in ("encoder.onnx", "decoder.onnx"):
        for new, old in zip(tensors(files[name]), tensors(bundle.read(name)), strict=True):
            assert np.abs(new - old).max() <= 1e-3 * np.abs(old).max()


def test_the_released_model_comes_out_bit_by_bit():
    bundle = find("photo-1")
    files = export.files_of(adopt.network_of(bundle))
    # Of gains the logarithm is trained, and the two functions round differently on each machine.
    assert {n for n, content in files.items() if content != bundle.read(n)} <= {*TABLES}
    for name in TABLES:
        new, old = (np.load(io.BytesIO(content)) for content in (files[name], bundle.read(name)))
        assert new.keys() == old.keys()
        for key in old:
            np.testing.assert_allclose(new[key], old[key], rtol=1e-6 * (old[key].dtype.kind == "f"))


def tensors(graph):
    found = onnx.load_from_string(graph).graph.initializer
    return [onnx.numpy_helper.to_array(t).astype(np.float64) for t in found if t.dims]


def test_a_model_of_another_family_is_refused():
    with pytest.raises(ModelError, match="mnist-conv-2d is a gaussian model"):
        adopt.network_of(find("mnist-conv-2d"))


# Differences


@pytest.fixture(scope="module")
def settled(models):
    """A network whose weights moved, and how it was before it was rounded."""
    return rounded(models, 0.02)


def rounded(models, size):
    """The base, a network whose weights moved by `size` root mean squares, both; see above."""
    bundle = Bundle.open(models / "small")
    torch.manual_seed(0)
    base, network = adopt.network_of(bundle), adopt.recipe_of(bundle).build().eval()
    network.load_state_dict(base.state_dict())
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += size * parameter.square().mean().sqrt() * torch.randn_like(parameter)
    before = copy.deepcopy(network)
    seen = curvature.observe(network, lambda: probe(network), 3)
    return SimpleNamespace(
        bundle=bundle,
        base=base,
        before=before,
        network=network,
        steps=moves.settle(network, base, seen),
        seen=seen,
    )


LAMBDAS = torch.tensor([0.01, 0.1])


def smooth(seed=0):
    """Crops, uint8 (2, 128, 128, 3), and qualities for them."""
    generator = torch.Generator().manual_seed(seed)
    crops = torch.randint(0, 30, (2, 128, 128, 1), generator=generator).cumsum(1).cumsum(2)
    return crops.expand(-1, -1, -1, 3).to(torch.uint8), torch.tensor([20.0, 80.0])


def probe(network):
    return probe_of(network(*smooth()), LAMBDAS, 0.03)


def test_rounded_moves_come_out_of_the_difference_as_they_went_in(settled):
    assert settled.steps.keys() == {"encoder.onnx", "decoder.onnx", "side.onnx"}
    wanted = export.files_of(settled.network)
    found = derive.derive(settled.bundle, wanted, settled.steps)
    assert set(found.own) == {"quality.npz", "gains.npz"}
    assert set(found.changes) == {name for name in wanted if name.endswith(".onnx")}
    for name, content in wanted.items():
        if name in found.changes:
            for new, old in zip(tensors(found.files[name]), tensors(content), strict=True):
                # The first and last layer are multiplied by 255: a last bit can differ.
                np.testing.assert_allclose(new, old, rtol=2**-10, atol=1e-7, err_msg=name)
                assert (new != old).mean() < 0.01
    change = found.changes["decoder.onnx"]
    assert (change.segments[:, 3] == Kind.HALF).sum() == 4  # those of 1024 weights and more
    size = len(difference.pack({"decoder.onnx": change}))
    assert size < 0.5 * len(change.levels) + 4 * len(change.words) + 4 * len(change.steps) + 1000


@pytest.mark.parametrize("name", ["blocks8.0.widen", "blocks16.0.narrow", "up"])
def test_weights_are_whole_steps_from_those_of_the_base(settled, name):
    rows, columns = map(torch.from_numpy, settled.steps["decoder.onnx"][f"{name}.weight_half"])
    if name.endswith("narrow"):
        rows = rows / settled.network.decoder.get_submodule(name.removesuffix(".narrow")).scale
    new, old = (m.decoder.get_submodule(name).weight for m in (settled.network, settled.base))
    assert (len(rows), len(columns)) == new.flatten(1).shape
    levels = (new - old).flatten(1) / (rows[:, None] * columns)
    # A weight has 24 binary digits of its own, whatever its step.
    near = 1e-3 + 2**-22 * old.flatten(1).abs() / (rows[:, None] * columns)
    assert ((levels - levels.round()).abs() < near).all()
    assert 0 < levels.abs().max() < derive.MOST_STEPS + 0.5


def nearest(moved, factor):
    rows, columns = moved.steps(factor)
    step = rows[:, None] * columns
    return step * (moved.moves / step).round()


def test_what_layers_compute_changes_less_than_with_moves_rounded_to_the_nearest(settled):
    before = list(moves._moved(settled.before, settled.base, settled.seen))
    factor, better = moves._factor(before), []
    for m in before:
        now = curvature.as_matrix(m.layer, settled.network.get_submodule(m.name).weight).double()
        errors = [now - m.origin - m.moves, nearest(m, factor) - m.moves]
        moment, cost = settled.seen[m.name].inputs, settled.seen[m.name].outputs
        mine, theirs = (torch.trace(e.mT * cost @ e @ moment).item() for e in errors)
        better.append(mine / theirs)
    assert len(better) > 20
    assert max(better) < 1.1
    assert np.median(better) < 0.6


def test_the_probe_shows_what_errors_of_an_output_cost():
    """Squared errors alone: means of squared gradients come to the curvature, here known."""
    torch.manual_seed(0)
    blocks = torch.zeros(1, 3, 50, 50, requires_grad=True)
    weights = torch.tensor([1.0, 2.0, 0.5]).view(3, 1, 1)
    found = torch.zeros(3)
    for _ in range(20):
        output = Output(torch.zeros(1), torch.zeros(1), weights * blocks, None)
        (gradient,) = torch.autograd.grad(probe_of(output, torch.ones(1), 1.0), blocks)
        found += gradient.square().mean((0, 2, 3)) / 20
    # loss = 255**2 * mean((weight * error)**2) has the curvature 2 * 255**2 * weight**2 / count
    wanted = 2 * 255**2 * weights.flatten() ** 2 / blocks.numel()
    assert torch.allclose(found, wanted, rtol=1e-4)


def test_a_matrix_that_saw_nothing_is_rounded_to_the_nearest_steps(settled):
    seen = {
        name: curvature.Seen(torch.zeros_like(s.inputs), torch.zeros_like(s.outputs))
        for name, s in settled.seen.items()
    }
    for m in moves._moved(settled.before, settled.base, seen):
        if m.unit is None:
            rows, columns = m.steps(1e-16)
            levels = moves._rounded(m, rows, columns)
            assert torch.equal(levels, (m.moves / (rows[:, None] * columns)).round())


def test_integers_of_the_prior_stay_within_their_bounds(models):
    found = rounded(models, 1.0)
    layer, origin = (m.prior.steps[1].inner for m in (found.network, found.base))
    unit = torch.exp2(origin.exponents()).view(-1, 1, 1, 1)
    levels = (layer.weight - origin.weight) / unit
    assert torch.equal(levels, levels.round())
    assert levels.abs().max() > 50
    assert (layer.weight / unit).abs().max() <= WEIGHT_MAX


@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_a_layer_with_a_stride_is_a_matrix_of_patches_or_of_phases(kind):
    torch.manual_seed(0)
    layer = kind(5, 3, 2, stride=2, bias=False)
    x = torch.randn(2, 5, 4, 6)
    found = curvature.as_matrix(layer, layer.weight) @ curvature.inputs_of(layer, x)
    assert torch.allclose(found, curvature.outputs_of(layer, layer(x)), atol=1e-6)


def test_a_graph_of_another_shape_is_kept_whole(models):
    bundle = Bundle.open(models / "small")
    other = bundle.read("encoder.onnx")
    found = derive.derive(bundle, {"decoder.onnx": other}, {})
    assert found.own == found.files == {"decoder.onnx": other}
    assert not found.changes


# Which images


def test_every_tenth_image_is_held_out_and_every_tenth_of_the_others_set_aside(tmp_path):
    cases = (2, 1, 0), (10, 1, 0), (11, 1, 1), (14, 1, 1), (40, 4, 4), (300, 20, 8)
    for count, expected, apart in cases:
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            Image.new("L", (1, 1)).save(folder / f"{number:03}.png")
        images = holdout.split([folder])
        assert len(images.held_out) == expected
        assert len(images.set_aside) == apart
        assert len(images.training) == count - expected - apart
        assert len({*images.training, *images.set_aside, *images.held_out}) == count


def test_images_held_out_are_named_and_not_trained_on(plaids):
    images = holdout.split([plaids], [plaids / "1.png", plaids / "3.png"])
    assert [path.name for path in images.held_out] == ["1.png", "3.png"]
    assert images.set_aside == []  # of so few
    assert [path.name for path in images.training] == ["0.png", "2.png", "4.png", "broken.png"]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_images_are_an_error(tmp_path, plaids, capsys, count):
    folder = tmp_path / "few"
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.png").write_bytes((plaids / "0.png").read_bytes())
    assert tune(folder, tmp_path) == 1
    assert f"has {count} images; 2 or more" in capsys.readouterr().err


def test_a_folder_of_unreadable_images_is_an_error(tmp_path, capsys):
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"no image")
    assert tune(folder, tmp_path) == 1
    assert "3 images; 2 or more that can be read" in capsys.readouterr().err


def test_crops_fit_most_images(tmp_path, models):
    def crop_for(*sides):
        files = []
        for number, side in enumerate(sides):
            files.append(tmp_path / f"{number}.png")
            Image.new("L", (side, side + 9)).save(files[-1])
        data = finetune.recipe_for(Bundle.open(models / "small"), files).data
        return data.crop, data.batch

    assert crop_for(300, 300) == (128, 1)  # the recipe's
    assert crop_for(*[100] * 10) == (64, 4)
    assert crop_for(20, 40) == (64, 4)
    assert crop_for(20, *[300] * 19) == (128, 1)


@pytest.mark.parametrize(("count", "share"), [(2, 0.5), (5, 0.5), (10, 0.75), (500, 0.995)])
def test_the_fewer_the_images_the_lower_the_rates(tmp_path, models, count, share):
    Image.new("L", (64, 64)).save(tmp_path / "0.png")
    bundle = Bundle.open(models / "small")
    usual = adopt.recipe_of(bundle).optimiser
    found = finetune.recipe_for(bundle, [tmp_path / "0.png"] * count).optimiser
    for name in ("muon", "adamw", "linear", "tables"):
        assert getattr(found, name) == pytest.approx(share * getattr(usual, name)), name
    assert (found.clip, found.average) == (usual.clip, usual.average)


# Grey


def test_estimates_of_grey_pictures_are_those_of_files(models, plaids):
    bundle = Bundle.open(models / "small")
    network = adopt.network_of(bundle)
    with torch.no_grad():  # colours apart, one of them beyond what bytes hold: as files have it
        network.decoder.leave.bias.view(64, 3)[:, 0] += 0.4
        network.decoder.leave.bias.view(64, 3)[:, 2] -= 0.4
    pixels = read(plaids / "1.png").pixels
    image = torch.from_numpy(np.repeat(pixels, 3, 2))
    with torch.no_grad():
        _, estimate, _ = _point(network, image, 50.0)
        output = network(pad(image, 64)[None], torch.tensor([50.0]))
    height, width, _ = pixels.shape
    colours = (depth_to_space(output.blocks)[0, :height, :width] * 255).numpy()
    found = np.clip(np.floor(colours + 0.5), 0, 255)
    assert estimate == decibels(pixels, ((found.sum(2, keepdims=True) + 1) // 3).astype(np.uint8))
    # And training sees every colour by itself, not what their mean makes up for.
    wrong = (colours.clip(0, 255) - pixels) ** 2 / 255**2
    assert output.squared_error.item() >= 0.9 * wrong.mean()


# How much is kept


@pytest.mark.parametrize(("best", "share"), [(1.2, 1.0), (0.7, 0.7), (0.3, 0.25), (-1.0, 0.25)])
def test_as_much_is_kept_as_costs_least(best, share):
    base, network = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    with torch.no_grad():
        base.weight.fill_(3.0)
        network.weight.fill_(5.0)
        network.bias.copy_(base.bias)
    found = keep(network, base, lambda: abs(network.weight.item() - (3 + 2 * best)))
    assert found == share
    assert network.weight.item() == pytest.approx(3 + 2 * share)


def test_what_is_kept_is_chosen_by_the_same_crops_each_time(plaids, models):
    bundle = Bundle.open(models / "small")
    chosen, network = adopt.recipe_of(bundle), adopt.network_of(bundle)
    task = PhotoTask(chosen, [plaids / "0.png"], torch.device("cpu"), 0, network)
    cost = task.cost_on([plaids / "1.png", plaids / "broken.png"], 2)
    first = cost()
    assert cost() == first
    with torch.no_grad():
        network.decoder.leave.bias += 0.1
    assert cost() > 1.1 * first


# The command


def test_a_short_run_improves_and_its_files_open_after_a_restart(plaids, tmp_path, models, capsys):
    held = plaids / "1.png"
    assert tune(plaids, tmp_path, "--holdout", held, "--data", "plaids", minutes="0.1") == 0
    shown = capsys.readouterr()
    assert "skipped" in shown.err
    assert "broken.png" in shown.err
    gain = re.search(r"against small \| \| (-[\d.]+) %", shown.out)
    assert float(gain[1]) < -5
    for rival in ("JPEG", "WebP", "AVIF", "PNG"):
        assert rival in shown.out
    bundle = Bundle.open(tmp_path / "mine")
    bundle.verify()
    assert bundle.manifest["data"] == "plaids"
    assert bundle.manifest["training"]["images"] == 4  # one cannot be read
    assert not {"licence", "default_quality_ssimulacra2"} & bundle.manifest.keys()
    assert bundle.base.name == "small"
    assert not (bundle.path / "decoder.onnx").exists()
    options = {"env": {"VAECODEC_MODELS": f"{models}:{tmp_path}"}}
    result = process("encode", held, "-o", tmp_path / "a.vz", "--model", "mine", **options)
    assert result.returncode == 0, result.stderr
    assert process("decode", tmp_path / "a.vz", "-o", tmp_path / "a.png", **options).returncode == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "L"
        found = Codec(bundle, "cpu").decode((tmp_path / "a.vz").read_bytes())
        assert np.array_equal(np.asarray(image), np.asarray(found).reshape(image.size[::-1]))
    home = {"env": {"VAECODEC_MODELS": str(models), "XDG_DATA_HOME": str(tmp_path / "other")}}
    assert process("models", "pack", bundle.path, "-o", tmp_path / "m.vzm", **home).returncode == 0
    result = process("models", "add", tmp_path / "m.vzm", **home)
    assert result.returncode == 0, result.stderr
    result = process("decode", tmp_path / "a.vz", "-o", tmp_path / "b.png", **home)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_model_that_gained_nothing_is_refused(plaids, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare.Comparison, "gain", 0.1)
    assert tune(plaids, tmp_path, minutes="0.001") == 1
    error = capsys.readouterr().err
    assert "mine is no better than small" in error
    assert "| against small |" in error  # where it is worse
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plaids"]


@pytest.mark.parametrize("part", ["prior", "decoder"])
def test_a_part_can_be_trained_alone(plaids, tmp_path, part):
    # A grey one, as others come of other colours than the four that there are to learn from.
    assert tune(plaids, tmp_path, "--only", part, "--holdout", plaids / "1.png") == 0
    bundle, base = Bundle.open(tmp_path / "mine"), find("small")
    changed = {n for n in base.manifest["files"] if bundle.read(n) != base.read(n)}
    assert changed & {"decoder.onnx", "step0.onnx"} == {
        "decoder.onnx" if part == "decoder" else "step0.onnx"
    }
    assert "encoder.onnx" not in changed
    assert "gains.npz" not in changed or part == "prior"


def test_a_tuned_model_can_be_tuned_on(plaids, tmp_path, monkeypatch):
    grey = ["--holdout", plaids / "1.png"]
    assert tune(plaids, tmp_path, *grey) == 0
    (tmp_path / "mine").rename(tmp_path / "first")
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    (tmp_path / "first" / "manifest.json").write_text(json.dumps(manifest | {"name": "first"}))
    arguments = ["finetune", plaids, "--from", "first", "--name", "mine", "--out", tmp_path]
    monkeypatch.setattr(compare.Comparison, "gain", -0.1)  # six seconds more may gain nothing
    assert main([*map(str, [*arguments, *grey]), "--minutes", "0.1"]) == 0
    bundle = Bundle.open(tmp_path / "mine")
    assert bundle.base.name == "small"
    assert bundle.manifest["training"]["from"] == "first"
    recipes = [find(name).manifest["training"]["recipe"] for name in ("first", "mine")]
    assert recipes[0] == recipes[1]


def test_what_moved_before_and_is_left_alone_is_kept(plaids, tmp_path, monkeypatch):
    monkeypatch.setattr(compare.Comparison, "gain", -0.1)
    grey = ["--holdout", plaids / "1.png"]
    assert tune(plaids, tmp_path, *grey) == 0
    (tmp_path / "mine").rename(tmp_path / "first")
    manifest = json.loads((tmp_path / "first" / "manifest.json").read_text())
    (tmp_path / "first" / "manifest.json").write_text(json.dumps(manifest | {"name": "first"}))
    arguments = ["finetune", plaids, "--from", "first", "--name", "mine", "--out", tmp_path, *grey]
    assert main([*map(str, arguments), "--minutes", "0.01", "--only", "decoder"]) == 0
    blocks = space_to_depth(smooth()[0]).float() / 255
    with torch.no_grad():
        names = "small", "first", "mine"
        small, first, mine = (adopt.network_of(find(name)).encoder(blocks) for name in names)
    assert (mine - first).norm() < 0.6 * (first - small).norm()  # 0.3; 0.96 if not seen


def test_a_name_that_is_taken_is_refused_before_the_training(plaids, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    assert tune(plaids, tmp_path, minutes="600") == 1
    assert "exists" in capsys.readouterr().err


def test_the_name_of_a_model_elsewhere_is_refused(plaids, tmp_path, models, capsys):
    out = tmp_path / "elsewhere"
    arguments = ["finetune", plaids, "--from", "small", "--name", "small", "--out", out]
    assert main([*map(str, arguments), "--minutes", "600"]) == 1
    assert f"{models / 'small'} is a model of the name small" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("wrong", ["file", "holdout"])
def test_what_cannot_be_written_or_measured_is_said_before_the_training(
    plaids, tmp_path, capsys, wrong
):
    place = tmp_path / "file"
    place.write_text("no folder")
    more = ["--out", place] if wrong == "file" else ["--holdout", plaids / "broken.png"]
    assert tune(plaids, tmp_path, *more, minutes="600") == 1
    error = capsys.readouterr().err
    assert ("File exists" if wrong == "file" else "2 or more that can be read") in error


def test_a_base_that_is_not_installed_is_refused(plaids, tmp_path, models, capsys, monkeypatch):
    monkeypatch.setenv("VAECODEC_MODELS", "")
    arguments = ["finetune", plaids, "--from", models / "small", "--name", "mine"]
    assert main([*map(str, arguments), "--out", str(tmp_path / "out")]) == 1
    assert "vaecodec models add" in capsys.readouterr().err


def run(code, plaids, tmp_path, models, minutes):
    """A process that fine-tunes after some code of the test's."""
    arguments = ["finetune", plaids, "--from", "small", "--name", "mine", "--out", tmp_path]
    arguments += ["--minutes", minutes, "--holdout", plaids / "1.png"]
    arguments = [*map(str, arguments)]
    program = f"{code}\nfrom train.__main__ import main\nraise SystemExit(main({arguments}))"
    environment = {"VAECODEC_MODELS": str(models), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_measures_what_was_reached(plaids, tmp_path, models):
    process = run("", plaids, tmp_path, models, 5)
    for line in process.stderr:
        if "images cannot be read" in line:  # the others are: training begins
            break
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    Bundle.open(tmp_path / "mine").verify()


@pytest.mark.parametrize("place", ["_write", "compare", "_complete"])
def test_a_run_that_is_killed_leaves_no_bundle(plaids, tmp_path, models, place):
    code = f"""
import os, signal
from train import finetune
real = finetune.{place}
def last(*arguments):
    {"real(*arguments)" if place != "compare" else ""}
    os.kill(os.getpid(), signal.SIGKILL)
finetune.{place} = last
"""
    process = run(code, plaids, tmp_path, models, 0.02)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert any(tmp_path.glob(".draft-*/mine/manifest.json"))  # it came as far as that
    assert not list(available([tmp_path]))


# What is measured


def test_the_middle_of_a_large_image_is_measured():
    pixels = np.arange(100 * 200, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 1)
    found = compare.middle(pixels, 5000)
    assert found.shape == (50, 100, 1)
    assert np.array_equal(found, pixels[25:75, 50:150])
    assert compare.middle(np.zeros((20_000, 3, 1), np.uint8), 1e9).shape == (16_383, 3, 1)
    assert compare.middle(pixels, 1e9).shape == pixels.shape


def test_a_bundle_pays_for_itself_where_it_saves_bits():
    slow = compare.Curve([1.0] * 4 + [2.0] * 5, list(range(9)))
    better = compare.Curve([v / 2 for v in slow.bpp], slow.psnr)
    found = compare.Comparison(["a"], 8000.0, slow, better, {}, 1.0)
    assert found.gain == pytest.approx(-50)
    assert found.pays_after(9_999, 0.0) == 20  # 500 bytes an image
    assert found.pays_after(9_999, 100.0) == 10
    assert compare.Comparison(["a"], 8.0, better, slow, {}, 1.0).pays_after(1, 0.0) is None


def test_sheets_are_made_of_a_data_set(tmp_path):
    from vaecodec.datasets import write_idx

    images = np.random.default_rng(0).integers(0, 256, (9, 5, 4, 1), dtype=np.uint8)
    (tmp_path / "set").write_bytes(write_idx(images))
    shape = ["--rows", "2", "--columns", "2"]
    assert main(["sheets", str(tmp_path / "set"), "--out", str(tmp_path / "sheets"), *shape]) == 0
    names = sorted(p.name for p in (tmp_path / "sheets").iterdir())
    assert names == ["sheet-000.png", "sheet-001.png"]
    with Image.open(tmp_path / "sheets" / "sheet-001.png") as sheet:
        found = np.asarray(sheet)
    assert found.shape == (10, 8)
    assert np.array_equal(found[5:, 4:], images[7, :, :, 0])


def test_pages_are_drawn_alike_each_time(tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.effect_noise((300, 200), 90).save(tmp_path / "photographs" / "noise.png")
    for out in ("one", "two"):
        assert main(["pages", str(tmp_path / "photographs"), "--out", str(tmp_path / out)]) == 0
    names = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.png"))
    assert [sum(n.parts[0] == part for n in names) for part in ("train", "fonts", "colours")] == [
        *(5, 4, 4)
    ]
    pages = []
    for name in names:
        with Image.open(tmp_path / "one" / name) as one, Image.open(tmp_path / "two" / name) as two:
            assert one.size == (1024, 832)
            assert one.tobytes() == two.tobytes()
            pages.append(one.tobytes())
    assert len({*pages}) == 13
    (tmp_path / "empty").mkdir()
    assert main(["pages", str(tmp_path / "empty"), "--out", str(tmp_path / "three")]) == 1
