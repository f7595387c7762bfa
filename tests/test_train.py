"""The trainer: how a run starts, goes on, stops, and what it leaves behind."""

import dataclasses
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tests.training import ROOT, photographs, recipe  # noqa: E402
from train import checkpoints, recipes  # noqa: E402
from train.checkpoints import Weights  # noqa: E402
from train.loop import Trainer  # noqa: E402
from train.nets import depth_to_space  # noqa: E402
from train.optim import Average, optimisers, set_rate  # noqa: E402
from train.recipes import Data, Model  # noqa: E402
from train.schedule import Clock, Plan, stopping  # noqa: E402
from train.validation import Validation  # noqa: E402


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    torch.set_num_threads(1)
    return photographs(tmp_path_factory.mktemp("data") / "images")


@pytest.fixture
def trainer(images, tmp_path):
    trainer = Trainer(recipe(), [images], tmp_path / "run")
    trainer.start()
    return trainer


def losses(trainer, steps, factor=1.0):
    return [trainer.one_step(factor)[0].item() for _ in range(steps)]


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# The start


def test_an_untrained_model_is_a_working_transform_codec(images, tmp_path):
    """All 768 coefficients: what is lost is the rounding to steps of 0.04 at quality 100."""
    whole = recipe(model=Model(768, 4, 8, 8, 2, 3, (1, 1), (1, 1), 0.25, 0.5))
    trainer = Trainer(whole, [images], tmp_path)
    trainer.start()
    pixels = trainer.task.crops.batch(8, torch.Generator().manual_seed(1))
    trainer.model.eval()
    with torch.no_grad():
        for quality, least in ((100.0, 38.5), (50.0, 28.0), (0.0, 21.0)):
            error = trainer.model(pixels, torch.full((8,), quality)).squared_error.mean()
            assert -10 * torch.log10(error) > least


def test_few_coefficients_keep_most_of_a_photograph(trainer):
    pixels = trainer.task.crops.batch(8, torch.Generator().manual_seed(1))
    trainer.model.eval()
    with torch.no_grad():
        output = trainer.model(pixels, torch.full((8,), 100.0))
    assert -10 * torch.log10(output.squared_error.mean()) > 19


def test_training_lowers_the_loss(trainer):
    before = losses(trainer, 10)
    losses(trainer, 60)
    assert np.mean(losses(trainer, 10)) < 0.9 * np.mean(before)


def test_of_grey_crops_each_colour_is_trained(trainer):
    """Not their mean: a file's is that of bytes, and grey parts of a coloured picture have none."""
    losses(trainer, 20)  # until the colours of a grey crop differ
    pixels = trainer.task.crops.batch(1, torch.Generator().manual_seed(1))
    pixels[:] = pixels[..., :1].clone()
    with torch.no_grad():
        output = trainer.model.eval()(pixels, torch.tensor([50.0]))
    found = depth_to_space(output.blocks)
    assert (found[..., 0] - found[..., 1]).abs().max() > 1e-3
    errors = (found.clamp(0, 1) - pixels / 255).square().mean((1, 2, 3))
    assert torch.allclose(output.squared_error, errors)


# Going on


def test_resume_gives_the_same_curve_to_the_last_bit(images, tmp_path, trainer):
    whole = losses(trainer, 12)
    first = Trainer(recipe(), [images], tmp_path / "first")
    first.start()
    half = losses(first, 6)
    first.save(tmp_path / "first")
    second = Trainer(recipe(), [images], tmp_path / "second")
    second.resume(tmp_path / "first")
    assert half + losses(second, 6) == whole
    assert equal(parameters(second), parameters(trainer))
    assert equal(second.average.values, trainer.average.values)
    assert (second.step, second.pixels) == (trainer.step, trainer.pixels) == (12, 12 * 2 * 64**2)


def test_a_decay_by_steps_can_be_stopped_and_resumed(images, tmp_path, trainer):
    plan = Plan(60, anneal=0.5, steps=10)
    trainer.fit(plan)
    first = Trainer(recipe(), [images], tmp_path / "first")
    first.start()
    clock = Clock(plan, 0)
    for step in range(7):  # stopped in the decay
        first.one_step(clock.factor(clock.done(step)))
    first.save(tmp_path / "first")
    second = Trainer(recipe(), [images], tmp_path / "second")
    second.resume(tmp_path / "first")
    second.fit(plan)
    assert equal(parameters(second), parameters(trainer))
    assert not (tmp_path / "second" / "constant").exists()


def test_validation_on_the_way_changes_nothing(images, tmp_path, trainer):
    other = Trainer(recipe(), [images], tmp_path / "other")
    other.start()
    losses(other, 3)
    other.out.mkdir()
    other.validate(Validation([images], 1))
    assert losses(other, 3) == losses(trainer, 6)[3:]


def test_continuing_from_weights_warms_up_and_rejoins(images, tmp_path, trainer):
    losses(trainer, 60)
    trainer.save(tmp_path / "run")
    go_on = losses(trainer, 40)
    second = Trainer(recipe(), [images], tmp_path / "second")
    second.continue_from(tmp_path / "run")
    assert second.step == 60
    second.one_step(1.0)
    assert second.optimisers[0].param_groups[0]["lr"] == pytest.approx(4e-3 / 5)
    rejoined = losses(second, 39)
    assert second.optimisers[0].param_groups[0]["lr"] == 4e-3
    assert np.mean(rejoined[-20:]) == pytest.approx(np.mean(go_on[-20:]), rel=0.03)


def test_training_goes_on_from_a_network_as_from_its_weights(images, tmp_path, trainer):
    losses(trainer, 20)
    trainer.save(tmp_path / "run")
    progress = Weights(tmp_path / "run").progress
    second = Trainer(recipe(), [images], tmp_path / "second")
    second.continue_with(trainer.model, trainer.recipe, progress, "small")
    assert equal(parameters(second), parameters(trainer))
    assert equal(second.average.values, parameters(trainer))
    assert (second.step, second.pixels) == (20, trainer.pixels)
    second.one_step(1.0)
    assert second.optimisers[0].param_groups[0]["lr"] == pytest.approx(4e-3 / 5)  # a warm-up
    assert not equal(parameters(second), parameters(trainer))


def test_a_plan_can_take_a_share_of_the_rates(images, tmp_path):
    trainer = Trainer(recipe(), [images], tmp_path)
    trainer.start()
    trainer.fit(Plan(60, anneal=0.5, rate=0.25, steps=20))
    rates = [group["lr"] / group["base"] for group in trainer.optimisers[0].param_groups]
    assert rates == pytest.approx([0.25 * 0.1])  # of the last step: a twentieth of twenty is left


def test_another_network_is_not_resumed(images, tmp_path, trainer):
    trainer.save(tmp_path / "run")
    wider = recipe(model=dataclasses.replace(recipe().model, width=16))
    other = Trainer(wider, [images], tmp_path / "other")

    def continue_with(_folder):
        other.continue_with(trainer.model, trainer.recipe, {}, "small")

    for begin in (other.resume, other.continue_from, continue_with):
        with pytest.raises(ValueError, match=r"model\.width 8 -> 16"):
            begin(tmp_path / "run")


def test_changed_rates_take_effect_on_resume(images, tmp_path, trainer, capsys):
    losses(trainer, 6)
    trainer.save(tmp_path / "run")
    slower = recipe(optimiser=dataclasses.replace(recipe().optimiser, muon=1e-3))
    other = Trainer(slower, [images], tmp_path / "other")
    other.resume(tmp_path / "run")
    assert "optimiser.muon 0.004 -> 0.001" in capsys.readouterr().err
    losses(other, 1)
    assert other.optimisers[0].param_groups[0]["lr"] == 1e-3


def test_there_is_nothing_to_resume_in_an_empty_folder(tmp_path, trainer):
    with pytest.raises(FileNotFoundError, match=r"state\.pt is not there"):
        trainer.resume(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        trainer.continue_from(tmp_path)


# Averages, gradients, schedule


def test_the_average_follows_the_weights(trainer):
    average = Average(trainer.model, 0.9)
    start, weights = parameters(trainer), []
    for step in range(3):
        trainer.one_step(1.0)
        average.update(trainer.model, step)
        weights.append(parameters(trainer))
    expected = start
    for step, now in enumerate(weights):
        keep = min(0.9, (1 + step) / (10 + step))
        expected = {n: keep * expected[n] + (1 - keep) * now[n] for n in now}
    for name, value in average.values.items():
        assert torch.allclose(value, expected[name], atol=1e-6)


def test_the_average_forgets_faster_where_rates_are_low(trainer):
    """Annealed weights have little noise left: at the end of a decay the average is they."""
    kept = []
    for rate in (1.0, 0.5, 1e-3, 0.0):
        average = Average(trainer.model, 0.99)
        before = parameters(trainer)
        trainer.one_step(1.0)
        average.update(trainer.model, 1000, rate)
        name, now = next(iter(parameters(trainer).items()))
        moved = (average.values[name] - before[name]).norm() / (now - before[name]).norm()
        kept.append(1 - moved.item())
    assert kept == pytest.approx([0.99, 0.98, 0.0, 0.0], abs=1e-3)


def test_a_pull_takes_weights_back_to_where_they_began(trainer):
    trainer.optimisers = optimisers(trainer.model, trainer.recipe.optimiser, pull=0.25)
    origin = parameters(trainer)
    losses(trainer, 2)
    moved = parameters(trainer)
    *_, pull = trainer.optimisers
    for factor, left in ((1.0, 0.75), (0.5, 0.75 * 0.875)):  # as much less as the rates are
        set_rate(trainer.optimisers, factor)
        pull.step()
        for name, now in parameters(trainer).items():
            expected = origin[name] + left * (moved[name] - origin[name])
            assert torch.allclose(now, expected, atol=1e-6), name
    assert any((moved[name] != origin[name]).any() for name in origin)


@pytest.mark.parametrize(("dark", "error"), [(255, 0.0), (0, 0.5)])
def test_whiter_than_white_is_white(trainer, dark, error):
    """What bytes cut off is no error, and no reason to move, where the original ends there, too."""
    with torch.no_grad():
        trainer.model.decoder.leave.weight.zero_()
        trainer.model.decoder.leave.bias.fill_(1.5)
    pixels = torch.full((1, 64, 64, 3), 255, dtype=torch.uint8)
    pixels[:, :, ::2] = dark
    found = trainer.model(pixels, torch.tensor([50.0])).squared_error
    assert found.item() == pytest.approx(error)
    found.sum().backward()
    slope = trainer.model.decoder.leave.bias.grad.view(8, 8, 3)
    assert (slope[:, 1::2] == 0).all()
    assert (slope[:, ::2] > 0).all() == (error > 0)


def test_the_model_has_its_own_weights_again_after_a_failure(trainer):
    losses(trainer, 3)
    own, average = parameters(trainer), {n: v.clone() for n, v in trainer.average.values.items()}

    def fails():
        with trainer.average.swapped(trainer.model):
            assert equal(parameters(trainer), average)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails()
    assert equal(parameters(trainer), own)
    assert equal(trainer.average.values, average)


def test_gradients_that_are_not_finite_count_as_zero(trainer, monkeypatch):
    losses(trainer, 2)
    draw = trainer.draw
    monkeypatch.setattr(trainer, "draw", lambda: (draw()[0], torch.tensor([float("nan"), 50.0])))
    trainer.one_step(1.0)
    assert all(torch.isfinite(p).all() for p in trainer.model.parameters())
    monkeypatch.setattr(trainer, "draw", draw)
    assert np.isfinite(losses(trainer, 2)).all()


class Time:
    """A clock that a test sets, in minutes."""

    def __init__(self, monkeypatch):
        self.minutes = 100.0
        monkeypatch.setattr("train.schedule.time.monotonic", lambda: 60 * self.minutes)


def test_time_runs_from_a_constant_rate_into_a_decay(monkeypatch):
    time = Time(monkeypatch)
    clock = Clock(Plan(minutes=10, anneal=0.4), step=0)
    found = []
    for minute in (0, 3, 6, 6.5, 8, 9):
        time.minutes = 100 + minute
        done = clock.done(step=0)
        found.append((clock.factor(done), clock.branches(done)))
    factors, branches = zip(*found, strict=True)
    assert factors == pytest.approx((1, 1, 1, 0.875, 0.5, 0.25))
    assert branches == (False, False, False, True, False, False)
    time.minutes = 110
    assert clock.done(step=0) >= 1


def test_a_constant_phase_never_decays(monkeypatch):
    time = Time(monkeypatch)
    clock = Clock(Plan(minutes=10), step=0)
    time.minutes = 109.9
    assert clock.factor(clock.done(0)) == 1
    assert not clock.branches(clock.done(0))


def test_things_are_due_every_so_many_minutes(monkeypatch):
    time = Time(monkeypatch)
    clock = Clock(Plan(60), step=0)
    found = []
    for minute in (0, 4, 5, 6, 9, 12):
        time.minutes = 100 + minute
        found.append(clock.due("save", 5))
    assert found == [False, False, True, False, False, True]


def test_the_state_before_the_decay_is_kept(images, tmp_path):
    trainer = Trainer(recipe(), [images], tmp_path)
    trainer.start()
    trainer.fit(Plan(60, anneal=0.5, steps=8))
    assert checkpoints.load_state(tmp_path)["step"] == 8
    assert checkpoints.load_state(tmp_path / "constant")["step"] == 5  # the first below full rate
    other = Trainer(recipe(), [images], tmp_path / "other")
    other.resume(tmp_path / "constant")
    other.fit(Plan(60, steps=8))
    assert other.step == 8


def test_ctrl_c_ends_the_step_and_saves(images, tmp_path, monkeypatch):
    trainer = Trainer(recipe(), [images], tmp_path)
    trainer.start()
    step = trainer.one_step

    def interrupted(factor):
        if trainer.step == 3:
            signal.raise_signal(signal.SIGINT)
        return step(factor)

    monkeypatch.setattr(trainer, "one_step", interrupted)
    trainer.fit(Plan(60, steps=100))
    assert trainer.step == checkpoints.load_state(tmp_path)["step"] == 4


@pytest.fixture
def interruptible():
    """Ctrl-C raises, as it does unless whoever began the process had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_second_ctrl_c_ends_at_once():
    before = signal.getsignal(signal.SIGINT)

    def interrupted():
        with stopping() as stopped:
            signal.raise_signal(signal.SIGINT)
            assert stopped()
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_failure_leaves_the_last_saved_state_alone(images, tmp_path, monkeypatch):
    trainer = Trainer(recipe(), [images], tmp_path)
    trainer.start()
    trainer.fit(Plan(60, steps=2))
    monkeypatch.setattr(trainer, "draw", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Plan(60, steps=9))
    assert checkpoints.load_state(tmp_path)["step"] == 2


# What a run leaves behind


def test_weights_are_split_into_files_below_the_limit(tmp_path, trainer, monkeypatch):
    trainer.save(tmp_path)
    assert len(list(tmp_path.glob("weights-*.npz"))) == 1
    monkeypatch.setattr(checkpoints, "FILE_LIMIT", 100_000)
    trainer.save(tmp_path)
    files = sorted(tmp_path.glob("weights-*.npz"))
    assert len(files) > 3
    assert max(f.stat().st_size for f in files) < 100_000
    weights = Weights(tmp_path)
    plain = {name: p.half().float() for name, p in parameters(trainer).items()}
    assert equal(weights.part("weight"), plain)
    assert weights.recipe == trainer.recipe
    weights.model()
    monkeypatch.setattr(checkpoints, "FILE_LIMIT", 15_000_000)
    trainer.save(tmp_path)
    assert len(list(tmp_path.glob("weights-*"))) == 1


def test_the_released_recipe_fits_into_files_of_16_mb():
    """Its largest tensor does not need to be split."""
    model = recipes.load("photo-1").build()
    assert max(p.numel() for p in model.parameters()) * 2 < checkpoints.FILE_LIMIT < 16_000_000


def test_tensorboard_has_scalars_and_pictures(images, tmp_path):
    pytest.importorskip("tensorboard")
    trainer = Trainer(recipe(), [images], tmp_path)
    trainer.start()
    trainer.fit(Plan(60, steps=20), Validation([images], 1))
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    for tag in (b"train/loss", b"train/bpp", b"train/PSNR", b"validation/bpp q50", b"\x89PNG"):
        assert tag in content
    (line,) = (tmp_path / "curve.tsv").read_text().splitlines()
    assert line.split("\t")[:2] == ["20", str(20 * 2 * 64**2)]


def test_validation_takes_images_spread_over_the_folder(images):
    assert len(Validation([images], 2).images) == 2
    assert len(Validation([images], 9).images) == 3


def test_validation_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no image"):
        Validation([tmp_path], 5)


# The device


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_the_training_step_compiles_in_one_piece(trainer):
    """No graph breaks, forwards and backwards: on a GPU the whole network is one program."""
    batch = trainer.draw()
    parameters = dict(trainer.model.named_parameters())

    def gradients(run):
        torch.manual_seed(0)
        trainer.task.run = run
        loss, _ = trainer.task.loss(batch, 0)
        return loss, torch.autograd.grad(loss, parameters.values(), allow_unused=True)

    trainer.model.train()
    loss, plain = gradients(trainer.model)
    options = {"fullgraph": True, "dynamic": False, "backend": "aot_eager"}
    again, compiled = gradients(torch.compile(trainer.model, **options))
    torch.compiler.reset()
    assert again.item() == pytest.approx(loss.item(), rel=1e-4)
    for name, a, b in zip(parameters, plain, compiled, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            assert torch.allclose(a, b, rtol=0.02, atol=0.02 * a.abs().max().item()), name


def test_what_does_not_compile_is_trained_all_the_same(trainer, capsys):
    def broken(*_):
        raise RuntimeError("no compiler")

    trainer.task.run = broken
    before = trainer.step
    trainer.one_step(1.0)
    assert trainer.step == before + 1
    assert "not compiled, which is slower: RuntimeError: no compiler" in capsys.readouterr().err


def test_bfloat16_leaves_the_integers_of_the_prior_alone(trainer):
    """The prior is exact in training on a GPU, too; only residual blocks are coarse."""
    losses(trainer, 5)
    kinds = {}
    for name, module in trainer.model.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(
                lambda _m, _i, out, name=name: kinds.__setitem__(name, out.dtype)
            )
    crops, quality = trainer.draw()
    exact = trainer.model(crops, quality)
    assert set(kinds.values()) == {torch.float32}
    trainer.model.train_in_bf16()
    output = trainer.model(crops, quality)
    coarse = {name for name, kind in kinds.items() if kind == torch.bfloat16}
    assert coarse == {n for n in kinds if "blocks" in n}
    assert output.blocks.dtype == output.bits.dtype == torch.float32
    assert (output.blocks - exact.blocks).abs().max() < 0.05
    integers = output.coded.symbols
    assert torch.equal(integers, integers.round())
    trainer.model.eval()  # measured in full precision
    with torch.no_grad():
        trainer.model(crops, quality)
    assert set(kinds.values()) == {torch.float32}


WORKER = """
import sys
from pathlib import Path
import torch
from tests.training import recipe
from train.loop import Trainer
from train.schedule import Plan
torch.set_num_threads(1)
images, out = map(Path, sys.argv[1:])
trainer = Trainer(recipe(), [images], out)
trainer.start()
trainer.fit(Plan(minutes=0.02 + trainer.rank, anneal=0.5))  # rank 0 says how long
torch.save((trainer.step, trainer.model.state_dict()), out / f"rank{trainer.rank}.pt")
trainer.close()
"""


@pytest.mark.slow
def test_two_processes_train_one_model(images, tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, tmp_path / "worker.py", images, out],
        env=environment,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr.decode()
    (steps, a), (steps_b, b) = (torch.load(out / f"rank{r}.pt") for r in (0, 1))
    assert steps == steps_b > 1
    assert equal(a, b)
    assert all(torch.isfinite(v).all() for v in a.values())
    assert checkpoints.load_state(out)["pixels"] == steps * 2 * 2 * 64**2


def test_batches_of_a_recipe_are_those_of_the_step(images, tmp_path):
    trainer = Trainer(recipe(data=Data(128, 3, (1.0,))), [images], tmp_path)
    crops, quality = trainer.draw()
    assert crops.shape == (3, 128, 128, 3)
    assert quality.shape == (3,)
    assert ((quality >= 0) & (quality <= 100)).all()
    again, _ = trainer.draw()
    assert torch.equal(crops, again)
    trainer.step = 1
    assert not torch.equal(crops, trainer.draw()[0])
