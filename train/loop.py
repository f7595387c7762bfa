"""The training loop: warm-up, a constant rate for as long as there is time, and a decay.

Everything random in a step is drawn from (seed, step, rank), so a run that is stopped and resumed
sees the same crops and the same noise, and gives the same curve.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from train import checkpoints, klt
from train.data import Crops
from train.nets import Output, PhotoCodec
from train.optim import Average, optimisers, set_rate
from train.recipes import Recipe
from train.validation import Validation

LOG_EVERY = 20
"""Steps between TensorBoard scalars: reading a loss waits for the device."""


@dataclass(frozen=True)
class Plan:
    """How long to train, and what to do on the way. Times are in minutes, decoding excluded."""

    minutes: float
    anneal: float = 0.0
    """Share of the time, at its end, in which the rates fall to zero."""
    steps: int | None = None
    """Stop after so many steps in all, instead of the time (the share anneals all the same)."""
    save_every: float = 5.0
    validate_every: float = 15.0


def loss_of(output: Output, lambdas: Tensor, middle: float) -> Tensor:
    """Return bits per pixel + lambda * 255**2 * MSE, weighted by (lambda / middle)**-1/2.

    The weight keeps either end of the range from dominating; mean over the batch.
    """
    pixels = output.blocks[0].numel() / 3
    cost = output.bits / pixels + lambdas * 255**2 * output.squared_error
    return ((lambdas / middle) ** -0.5 * cost).mean()


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda")


class Trainer:
    """One run: the network, its optimisers and averages, and how far it has come."""

    def __init__(self, recipe: Recipe, images: Sequence[str | Path], out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.device = _device()
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        self.crops = Crops(images, recipe.data.crop, recipe.data.scales, self.device, self.rank == 0)
        torch.manual_seed(recipe.seed)
        self.model = recipe.build().to(self.device)
        self.optimisers = optimisers(self.model, recipe.optimiser)
        self.average = Average(self.model, recipe.optimiser.average)
        self.step = self.pixels = self.warm = 0
        self.seconds = 0.0
        self.run = self.model
        if self.device.type == "cuda":
            self.model.to(memory_format=torch.channels_last)
            self.run = torch.compile(self.model)

    # How a run begins: untrained, from a full state, or from weights alone.

    def start(self) -> None:
        """Fill the network with the KLT of the training images."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        crops = self.crops.batch(96, generator).cpu()
        levels = self.recipe.lambdas(torch.linspace(0, 100, self.recipe.model.levels))
        model = self.recipe.build()
        model.load_state_dict(self.model.state_dict())
        klt.start(model, crops, levels, self.recipe.loss.first_step, self.recipe.model.whitening)
        self.model.load_state_dict(model.state_dict())
        self.average = Average(self.model, self.recipe.optimiser.average)

    def resume(self, folder: Path) -> None:
        """Go on from a full state: the curve is the one of a run that was never stopped."""
        state = checkpoints.load_state(folder)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for name, value in self.average.values.items():
            value.copy_(state["average"][name])
        self.step, self.pixels, self.warm = state["step"], state["pixels"], state["warm"]
        self.seconds = state["seconds"]

    def continue_from(self, folder: Path) -> None:
        """Go on from weights alone: the rates warm up again, then the curve is rejoined."""
        weights = checkpoints.Weights(folder)
        plain, average = weights.part("weight"), weights.part("average")
        self.model.load_state_dict(plain | weights.part("buffer"))
        for name, value in self.average.values.items():
            value.copy_(average[name])
        self.step, self.pixels = int(weights.progress["steps"]), int(weights.progress["pixels"])
        self.seconds, self.warm = weights.progress["minutes"] * 60, self.step

    # One step.

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.device.type == "cuda":
            return torch.autocast("cuda", torch.bfloat16)
        return contextlib.nullcontext()

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return the step's crops, uint8 (N, S, S, 3), and their qualities, float32 (N,)."""
        number = (self.recipe.seed * 1_000_003 + self.step) * 1009 + self.rank
        torch.manual_seed(number)
        generator = torch.Generator().manual_seed(number)
        crops = self.crops.batch(self.recipe.data.batch, generator)
        quality = torch.rand(len(crops), generator=generator) * 100
        return crops, quality.to(self.device, non_blocking=True)

    def one_step(self, factor: float) -> tuple[Tensor, Output]:
        """Take one optimisation step at `factor` of the base rates; return (loss, output)."""
        crops, quality = self.draw()
        lambdas = self.recipe.lambdas(quality)
        middle = (self.recipe.loss.lambda_min * self.recipe.loss.lambda_max) ** 0.5
        with self._autocast():
            output = self.run(crops, quality)
            loss = loss_of(output, lambdas, middle)
        loss.backward()
        params = [p for p in self.model.parameters() if p.grad is not None]
        if self.world > 1:
            for p in params:
                dist.all_reduce(p.grad, dist.ReduceOp.AVG)
        norm = torch.nn.utils.clip_grad_norm_(params, self.recipe.optimiser.clip, foreach=True)
        # A step that is not finite changes nothing, decided on the device without waiting for it.
        finite = torch.isfinite(norm)
        for p in params:
            p.grad.nan_to_num_(0.0, 0.0, 0.0).mul_(finite)
        warm = min(1.0, (self.step - self.warm + 1) / self.recipe.optimiser.warmup)
        set_rate(self.optimisers, factor * warm)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.average.update(self.model, self.step)
        self.step += 1
        self.pixels += crops.shape[0] * crops.shape[1] * crops.shape[2] * self.world
        return loss.detach(), output

    # A run.

    def fit(self, plan: Plan, validation: Validation | None = None) -> None:
        """Train as `plan` says, saving to `out`; Ctrl-C saves and ends the run."""
        self.out.mkdir(parents=True, exist_ok=True)
        main = self.rank == 0
        writer = SummaryWriter(str(self.out / "tensorboard")) if main else None
        clock = _Clock(plan, self.step)
        bar = tqdm(total=100, unit="%", disable=not main, bar_format="{l_bar}{bar}| {postfix}")
        self.model.train()
        before = self.seconds
        try:
            for done in clock.until_done(lambda: self.step):
                branch = clock.branches(done)
                if branch and main:
                    self.save(self.out / "constant")
                loss, output = self.one_step(clock.factor(done))
                self.seconds = before + clock.seconds
                if main and self.step % LOG_EVERY == 0:
                    self._log(writer, bar, done, loss, output)
                if main and clock.due("save", plan.save_every):
                    self.save(self.out)
                if main and validation and clock.due("validate", plan.validate_every):
                    self.validate(validation, writer)
        except KeyboardInterrupt:
            tqdm.write("stopped; the state is saved")
        finally:
            bar.close()
            if main:
                self.save(self.out)
        if main and validation:
            self.validate(validation, writer)
        if writer:
            writer.close()

    def _log(
        self, writer: SummaryWriter | None, bar: tqdm, done: float, loss: Tensor, output: Output
    ) -> None:
        pixels = self.recipe.data.crop**2
        numbers = {
            "loss": loss.item(),
            "bpp": (output.bits.mean() / pixels).item(),
            "bpp of z": (output.coded.bits_z.mean() / pixels).item(),
            "PSNR": (-10 * torch.log10(output.squared_error.detach())).mean().item(),
            "learning rate": self.optimisers[0].param_groups[0]["lr"],
            "Gpixel": self.pixels / 1e9,
            "Mpixel/s": self.pixels / 1e6 / max(self.seconds, 1e-9),
        }
        bar.n = round(100 * done, 1)
        bar.set_postfix_str(
            f"step {self.step}, {numbers['Gpixel']:.3f} Gpixel, loss {numbers['loss']:.3f}, "
            f"{numbers['bpp']:.3f} bpp, {numbers['PSNR']:.2f} dB"
        )
        if writer:
            for name, value in numbers.items():
                writer.add_scalar(f"train/{name}", value, self.step)

    def validate(self, validation: Validation, writer: SummaryWriter | None) -> None:
        """Measure the averaged weights on the validation images (estimated rates)."""
        self.average.swap(self.model)
        result = validation.measure(self.model, self.device)
        self.average.swap(self.model)
        self.model.train()
        head = f"{self.step} steps, {self.pixels / 1e9:.3f} Gpixel, {self.seconds / 60:.1f} min"
        tqdm.write(f"{head}: {result}")
        with (self.out / "curve.tsv").open("a") as file:
            print(self.step, self.pixels, round(self.seconds), *result.row(), sep="\t", file=file)
        if writer:
            for name, value in result.scalars().items():
                writer.add_scalar(f"validation/{name}", value, self.step)
            writer.add_image("validation", result.picture, self.step, dataformats="HWC")

    def save(self, folder: Path) -> None:
        """Write the full state and the weights in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            "recipe": self.recipe.to_dict(),
            "model": self.model.state_dict(),
            "average": self.average.values,
            "optimisers": [o.state_dict() for o in self.optimisers],
            "step": self.step,
            "pixels": self.pixels,
            "warm": self.warm,
            "seconds": self.seconds,
        }
        checkpoints.save_state(folder, state)
        progress = {"steps": self.step, "pixels": self.pixels, "minutes": self.seconds / 60}
        checkpoints.save_weights(
            folder,
            self.recipe,
            dict(self.model.named_parameters()),
            self.average.values,
            dict(self.model.named_buffers()),
            progress,
        )


class _Clock:
    """Where a run stands in its plan: the share that is done, by time or by steps."""

    def __init__(self, plan: Plan, first: int) -> None:
        self.plan, self.first = plan, first
        self.began = time.monotonic()
        self.last: dict[str, float] = {}
        self.branched = plan.anneal in (0.0, 1.0)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def done(self, step: int) -> float:
        if self.plan.steps is not None:
            return (step - self.first) / max(self.plan.steps - self.first, 1)
        return self.seconds / (60 * self.plan.minutes)

    def until_done(self, step) -> Iterator[float]:
        while (done := self.done(step())) < 1:
            yield done

    def factor(self, done: float) -> float:
        """Return the learning-rate factor: 1, then linearly to 0 over the annealed share."""
        return min(1.0, (1 - done) / self.plan.anneal) if self.plan.anneal else 1.0

    def branches(self, done: float) -> bool:
        """Say, once, that the decay begins: the constant phase is saved to go on from."""
        if self.branched or self.factor(done) == 1.0:
            return False
        self.branched = True
        return True

    def due(self, what: str, minutes: float) -> bool:
        if self.seconds - self.last.setdefault(what, 0.0) < 60 * minutes:
            return False
        self.last[what] = self.seconds
        return True
