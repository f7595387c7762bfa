"""The gaussian family in training: recipes, networks, epochs, stopping."""

import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from tests import sets  # noqa: E402
from train import recipes, vae_data  # noqa: E402
from train.__main__ import main  # noqa: E402
from train.checkpoints import Weights, load_state  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.schedule import Plan  # noqa: E402
from train.vae import VaeResult  # noqa: E402
from train.vae_nets import Conv, Likelihood, TransposedConv, kl  # noqa: E402
from vaecodec import likelihood  # noqa: E402
from vaecodec.errors import ImageError  # noqa: E402

GAUSSIAN = sorted(
    p.stem for p in recipes.FOLDER.glob("*.toml") if 'family = "gaussian"' in p.read_text()
)


def shortened(name, **changes):
    """A recipe whose epoch is a fraction of a second."""
    recipe = recipes.load(name)
    few = (320, 100) if recipe.data.patches else None
    data = dataclasses.replace(recipe.data, patches=few, batch=min(recipe.data.batch, 64))
    return dataclasses.replace(recipe, data=data, **changes)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sets.write(tmp_path_factory.mktemp("sets") / "mnist", recipes.load(DENSE).data)


DENSE = "mnist-dense-2d"


@pytest.fixture
def trainer(digits, tmp_path):
    return Trainer(shortened(DENSE, epochs=3), [digits], tmp_path / "run")


def fit(trainer):
    trainer.start()
    trainer.fit(trainer.task.planned(Plan(60)), trainer.task.validation([], 0))
    return trainer


def picture(path):
    with Image.open(path) as image:
        return np.array(image)


def curve(folder):
    return [line.split("\t") for line in (folder / "curve.tsv").read_text().splitlines()]


# Every recipe


@pytest.mark.parametrize("name", GAUSSIAN)
def test_two_epochs_lower_the_loss(name, tmp_path):
    recipe = shortened(name, epochs=2, patience=None)
    folder = sets.write(tmp_path / "sets", recipe.data)
    trainer = Trainer(recipe, [folder], tmp_path / "run")
    validation = trainer.task.validation([], 0)
    before = validation.measure(trainer.model, trainer.device).loss
    fit(trainer)
    after = validation.measure(trainer.model, trainer.device).loss
    assert after < before - 10
    assert [float(row[3]) for row in curve(tmp_path / "run")][-1] == pytest.approx(after, abs=0.01)


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("mnist-conv-2d", 69_076, 65_089),
        ("mnist-dense-2d", 394_504, 394_284),
        ("mnist-dense-5d", 397_510, 395_784),
    ],
)
def test_networks_have_the_parameters_of_the_articles(name, encoder, decoder):
    model = recipes.load(name).build()
    counts = [sum(p.numel() for p in side.parameters()) for side in (model.encoder, model.decoder)]
    assert counts == [encoder, decoder]


@pytest.mark.parametrize("name", GAUSSIAN)
def test_a_recipe_is_plain_data_that_fits_on_a_screen(name):
    recipe = recipes.load(name)
    assert recipes.read(recipe.to_dict()) == recipe
    assert len((recipes.FOLDER / f"{name}.toml").read_text().splitlines()) <= 40


def test_dense_and_convolutional_networks_differ_in_two_lines():
    dense, conv = (
        (recipes.FOLDER / f"cifar-{n}.toml").read_text() for n in ("small-dense", "conv")
    )
    lines = [[x for x in text.splitlines() if not x.startswith("#")] for text in (dense, conv)]
    changed = [a.split(" =")[0] for a, b in zip(*lines, strict=True) if a != b]
    assert changed == ["encoder", "decoder"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('net = "conv", channels', 'net = "big", channels', "net is big"),
        ("channels = [32, 64], strides = [2, 2]", "channels = [32], strides = [2, 2]", "one for"),
        ("strides = [2, 2, 1]", "strides = [2, 3, 1]", "do not divide"),
        ("strides = [2, 2], kernel = 3", "strides = [2, 2], kernel = 1", "leave holes"),
        ("channels = [64, 32, 1]", "channels = [64, 32, 3]", "3 of 1 colours"),
        ("sizes = [3136]", "sizes = [3000]", "3000 values for 49"),
        ("sizes = [16]", 'sizes = [16], activation = "gelu"', "relu or tanh"),
        ("sizes = [16]", "sizes = []", "no sizes"),
        ('kind = "bernoulli"', 'kind = "normal"', "sigma belongs"),
        ('kind = "bernoulli"', 'kind = "poisson"', "likelihood is poisson"),
        ("[data]", "[datum]", r"no \[data\]"),
        ("[data]", '[loss]\nl2_part = "middle"\n[data]', "l2_part is middle"),
        ("epochs = 20", "epoch = 20", "epoch"),
        ('{ kind = "bernoulli" }', "3", "no table"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path, old, new, message):
    text = (recipes.FOLDER / "mnist-conv-2d.toml").read_text()
    assert old in text
    (tmp_path / "wrong.toml").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        recipes.load(str(tmp_path / "wrong.toml"))


# Networks and their likelihood


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (4, 2), (3, 1)])
def test_convolutions_pad_as_keras_does(kernel, stride):
    """The larger half of odd padding is below and on the right; the transpose is its mirror."""
    total = kernel - stride
    before, after = total // 2, total - total // 2
    conv, back = Conv(1, 1, kernel, stride), TransposedConv(1, 1, kernel, stride)
    x = torch.rand(1, 1, 8, 8)
    padded = torch.nn.functional.pad(x, (before, after, before, after))
    expected = torch.nn.functional.conv2d(padded, conv.weight, conv.bias, stride)
    assert torch.equal(conv(x), expected)
    y = torch.rand(1, 1, 8 // stride, 8 // stride)
    with torch.no_grad():
        back.weight.copy_(conv.weight)
        conv.bias.zero_()
        back.bias.zero_()
    assert (conv(x) * y).sum().item() == pytest.approx((x * back(y)).sum().item(), rel=1e-5)


def test_layers_begin_as_in_keras_and_flux():
    model = recipes.load("mnist-conv-2d").build()
    weight = model.decoder.dense[0].weight
    limit = math.sqrt(6 / (2 + 3136))
    assert 0.99 * limit < weight.abs().max() <= limit
    conv = model.encoder.body.convolutions[1].weight
    assert 0.99 * math.sqrt(6 / (9 * 96)) < conv.abs().max() <= math.sqrt(6 / (9 * 96))
    assert not model.decoder.dense[0].bias.any()


@pytest.mark.parametrize(("kind", "sigma"), [("bernoulli", None), ("normal", 0.07)])
def test_nats_are_those_of_the_run_time(kind, sigma):
    generator = torch.Generator().manual_seed(0)
    parameter = 5 * torch.randn(3, 2, 4, 5, generator=generator)
    target = torch.rand(3, 2, 4, 5, generator=generator)
    found = Likelihood(kind, sigma).nats(parameter, target)
    wanted = likelihood.negative_log_likelihood(kind, sigma, parameter.numpy(), target.numpy())
    assert np.allclose(found, wanted, rtol=1e-5)


def test_the_divergence_is_that_of_the_run_time_and_of_the_integral():
    mean, log_variance = torch.tensor([[0.3, -1.0]]), torch.tensor([[-1.5, 0.4]])
    assert kl(mean, log_variance).item() == pytest.approx(
        likelihood.kl(mean.numpy(), log_variance.numpy()).item(), rel=1e-6
    )
    x = np.linspace(-12, 12, 200_001)
    total = 0.0
    for m, v in zip(mean[0].tolist(), log_variance[0].exp().tolist(), strict=True):
        log_q = -0.5 * ((x - m) ** 2 / v + math.log(2 * math.pi * v))
        log_p = -0.5 * (x**2 + math.log(2 * math.pi))
        total += np.trapezoid(np.exp(log_q) * (log_q - log_p), x)
    assert kl(mean, log_variance).item() == pytest.approx(total, rel=1e-5)


def test_binarised_models_see_zeros_and_ones():
    model = recipes.load("mnist-dense-5d").build()
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16, 1)
    assert torch.equal(model.see(pixels).flatten(), (torch.arange(256) > 127).float())


def test_padded_models_see_zeros_around_and_show_what_is_within():
    model = recipes.load("fashion-conv").build()
    seen = model.see(torch.full((1, 28, 28, 1), 255, dtype=torch.uint8))
    assert seen.shape == (1, 1, 32, 32)
    assert seen.sum() == seen[:, :, 2:-2, 2:-2].sum() == 28 * 28
    assert model.show(seen).shape == (1, 28, 28, 1)


# Epochs


def test_an_epoch_has_every_image_once_in_an_order_of_its_own(trainer):
    orders = []
    for epoch in range(2):
        generator = torch.Generator()
        steps = range(epoch * trainer.task.steps, (epoch + 1) * trainer.task.steps)
        batches = [trainer.task.draw(step, generator)[0] for step in steps]
        assert [len(b) for b in batches] == [64] * 5
        orders.append([image.numpy().tobytes() for image in torch.cat(batches)])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])
    assert sorted(orders[0]) == sorted(i.numpy().tobytes() for i in trainer.task.images)


def test_resume_gives_the_same_curve_to_the_last_bit(digits, tmp_path, trainer):
    whole = fit(trainer)
    first = Trainer(trainer.recipe, [digits], tmp_path / "first")
    first.start()
    first.fit(Plan(60, steps=8))  # in the middle of an epoch
    second = Trainer(trainer.recipe, [digits], tmp_path / "second")
    second.resume(tmp_path / "first")
    second.fit(second.task.planned(Plan(60)))
    assert second.step == whole.step == 15
    for a, b in zip(second.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_leaves_pictures_a_curve_and_tensorboard(trainer):
    pytest.importorskip("tensorboard")
    out = fit(trainer).out
    pictures = ["original.png", *(f"reconstruction-{k:03}.png" for k in (1, 2, 3))]
    assert sorted(p.name for p in out.glob("*.png")) == pictures
    assert picture(out / pictures[1]).shape == (280, 280)  # the first hundred test images
    originals = picture(out / pictures[0])
    assert np.array_equal(originals[:28, 28:56], trainer.task.test[1, :, :, 0].numpy())
    rows = curve(out)
    assert [row[0] for row in rows] == ["5", "10", "15"]
    assert float(rows[0][3]) == pytest.approx(float(rows[0][4]) + float(rows[0][5]), abs=2e-4)
    training = [float(row[6]) for row in rows]
    assert training == sorted(training, reverse=True)
    (events,) = (out / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in (b"train/loss", b"train/KL", b"validation/negative ELBO", b"\x89PNG"):
        assert tag in content
    assert content.count(b"train/loss") == 1  # of 15 steps, the tenth


class Losses:
    """A validation that gives losses one after the other."""

    def __init__(self, losses):
        self.losses = iter(losses)
        self.original = np.zeros((2, 2, 1), np.uint8)

    def measure(self, _model, _device):
        return VaeResult(next(self.losses), 0.0, self.original)


def test_patience_ends_the_run_and_keeps_the_best_epoch(digits, tmp_path):
    recipe = shortened(DENSE, epochs=9, patience=2)
    trainer = Trainer(recipe, [digits], tmp_path / "run")
    kept = {}

    class Watched(Losses):
        def measure(self, model, device):
            kept[trainer.step] = model.encoder.mean.weight.detach().clone()
            return super().measure(model, device)

    trainer.start()
    assert trainer.fit(trainer.task.planned(Plan(60)), Watched([5, 3, 4, 2, 9, 2, 1]))
    assert trainer.step == 6 * 5  # the sixth is not better than the fourth
    weights = Weights(tmp_path / "run")
    found = weights.part("average")["encoder.mean.weight"]
    assert torch.equal(found, kept[20].half().float())
    assert weights.progress["measurement"] == 4
    assert weights.progress["loss"] == 2
    assert torch.equal(weights.part("weight")["encoder.mean.weight"], kept[30].half().float())


def test_patience_outlasts_an_interruption(digits, tmp_path):
    recipe = shortened(DENSE, epochs=9, patience=2)
    first = Trainer(recipe, [digits], tmp_path / "run")
    first.start()
    plan = dataclasses.replace(first.task.planned(Plan(60)), steps=15)
    first.fit(plan, Losses([1, 2, 1.5]))
    assert load_state(tmp_path / "run")["best"]["number"] == 1
    second = Trainer(recipe, [digits], tmp_path / "run")
    second.resume(tmp_path / "run")
    second.fit(second.task.planned(Plan(60)), Losses([]))
    assert second.step == 15


def test_photographs_can_stop_early_too(tmp_path):
    from tests.training import photographs, recipe

    trainer = Trainer(recipe(), [photographs(tmp_path / "images", 64)], tmp_path / "run")
    trainer.start()
    trainer.fit(Plan(60, steps=50, validate_steps=1, patience=1), Losses([float("nan"), 3, 2, 4]))
    assert trainer.step == 4
    assert trainer.best.number == 3


def test_beta_rises_over_its_share_of_the_epochs(digits, tmp_path):
    recipe = shortened(DENSE, epochs=10)
    loss = dataclasses.replace(recipe.loss, beta=4.0, warmup=0.4)
    task = Trainer(dataclasses.replace(recipe, loss=loss), [digits], tmp_path).task
    assert [task.beta(step) for step in (0, 5, 10, 20, 49)] == [0, 1, 2, 4, 4]


def test_the_loss_counts_the_squares_of_one_part(digits, tmp_path):
    recipe = shortened(DENSE)
    trainer = Trainer(recipe, [digits], tmp_path)
    torch.manual_seed(0)
    loss, terms = trainer.task.loss(trainer.task.draw(0, torch.Generator()), 0)
    squares = sum(p.square().sum().item() for p in trainer.model.decoder.parameters())
    expected = (terms.nats + terms.kl).item() + 0.01 * squares
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_rate_decays_as_in_keras(digits, tmp_path):
    recipe = shortened(DENSE)
    slower = dataclasses.replace(recipe.optimiser, decay=0.5)
    trainer = Trainer(dataclasses.replace(recipe, optimiser=slower), [digits], tmp_path)
    for _ in range(3):
        trainer.one_step(1.0)
    assert trainer.optimisers[0].param_groups[0]["lr"] == pytest.approx(1e-3 / (1 + 0.5 * 2))


def test_the_sigma_of_the_posterior_is_measured_on_the_training_images(trainer):
    fit(trainer)
    model = Weights(trainer.out).model()
    _, log_variance = model.encoder(model.see(trainer.task.images))
    expected = log_variance.exp().mean(0).sqrt()
    assert torch.allclose(model.sigma, expected, rtol=1e-2)


# Sets


def test_crops_are_cut_from_plates_of_several_sizes(tmp_path):
    data = shortened("textures-small-dense").data
    folder = sets.write(tmp_path / "sets", data)
    found = vae_data.training_set(data, [folder], 1)
    assert found.shape == (320, 28, 28, 1)
    assert np.array_equal(found, vae_data.training_set(data, [folder], 1))
    assert not np.array_equal(found, vae_data.training_set(data, [folder], 2))
    plates = [picture(p) for p in sorted((folder / "train").iterdir())]
    for crop, plate in zip(found, plates * 2, strict=False):
        views = np.lib.stride_tricks.sliding_window_view(plate, (28, 28))
        assert (views == crop[:, :, 0]).all((2, 3)).any()


def test_a_limit_takes_the_first_images(digits):
    data = dataclasses.replace(recipes.load(DENSE).data, limit=7)
    assert vae_data.training_set(data, [digits], 1).shape == (7, 28, 28, 1)


def test_sets_that_are_not_those_of_the_recipe_are_refused(digits, tmp_path, capsys):
    data = recipes.load(DENSE).data
    with pytest.raises(ValueError, match=r"images \(28, 28, 1\); the recipe says \(32, 32, 3\)"):
        vae_data.test_set(dataclasses.replace(data, shape=(32, 32, 3)), [digits], 1)
    with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz is in none of"):
        vae_data.training_set(data, [tmp_path], 1)
    (tmp_path / data.train).write_bytes(b"no set")
    with pytest.raises(ImageError):
        vae_data.training_set(data, [tmp_path], 1)
    small = dataclasses.replace(data, train="plates", patches=(5, 5), shape=(28, 28, 3))
    (tmp_path / "plates").mkdir()
    with pytest.raises(ValueError, match="no images, or one below 28x28 with 3 colours"):
        vae_data.training_set(small, [tmp_path], 1)
    options = ["fit", DENSE, str(digits), "--out", str(tmp_path), "--validate", str(digits)]
    assert main(options) == 1
    assert "is measured on its own test set" in capsys.readouterr().err
