"""The training loop: warm-up, a constant rate for as long as there is time, and a decay.

Everything random in a step is drawn from (seed, step, rank), so a run that is stopped and resumed
sees the same crops and the same noise, and gives the same curve.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train import checkpoints, klt
from train.data import Crops
from train.nets import Output
from train.optim import Average, optimisers, set_rate
from train.progress import Progress, say, tensorboard
from train.recipes import Recipe, differences
from train.schedule import Clock, Plan, stopping
from train.validation import Validation

LOG_EVERY = 20
"""Steps between TensorBoard scalars: reading a loss waits for the device."""


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
    # TF32 keeps 11 bits of each factor and sums in 24: exact for the integers of the prior.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda")


class Trainer:
    """One run: the network, its optimisers and averages, and how far it has come.

    recipe: what is trained. images: folders of training images. out: the run's folder. Under
    torchrun each process trains on crops of its own, and gradients are averaged.
    """

    def __init__(self, recipe: Recipe, images: Sequence[str | Path], out: Path) -> None:
        self.recipe, self.out = recipe, out
        self.device = _device()
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
        data = recipe.data
        self.crops = Crops(images, data.crop, data.scales, self.device, silent=self.rank > 0)
        torch.manual_seed(recipe.seed)
        self.model = recipe.build().to(self.device)
        self.run: Callable[[Tensor, Tensor], Output] = self.model
        if self.device.type == "cuda":
            self.model.train_in_bf16()
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.run = torch.compile(self.model, dynamic=False)
        self.optimisers = optimisers(self.model, recipe.optimiser)
        self.average = Average(self.model, recipe.optimiser.average)
        self.step = self.pixels = self.warm = 0
        self.seconds = 0.0

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
        if self.world > 1:  # machines differ in the last bit of an eigenvector
            for tensor in self.model.state_dict().values():
                copy = tensor.contiguous()
                dist.broadcast(copy, 0)
                tensor.copy_(copy)
        self.average = Average(self.model, self.recipe.optimiser.average)

    def resume(self, folder: Path) -> None:
        """Go on from a full state: the curve is the one of a run that was never stopped.

        A recipe that differs from the state's takes effect, and is said; one of another network is
        a ValueError.
        """
        state = checkpoints.load_state(folder)
        self._check_recipe(Recipe.from_dict(state["recipe"]), folder)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            bases = [group["base"] for group in optimiser.param_groups]
            optimiser.load_state_dict(saved)
            for group, base in zip(optimiser.param_groups, bases, strict=True):
                group["base"] = base
        for name, value in self.average.values.items():
            value.copy_(state["average"][name])
        self.step, self.pixels, self.warm = state["step"], state["pixels"], state["warm"]
        self.seconds = state["seconds"]

    def continue_from(self, folder: Path) -> None:
        """Go on from weights alone: the rates warm up again, then the curve is rejoined."""
        weights = checkpoints.Weights(folder)
        self._check_recipe(weights.recipe, folder)
        plain, average = weights.part("weight"), weights.part("average")
        self.model.load_state_dict(plain | weights.part("buffer"))
        for name, value in self.average.values.items():
            value.copy_(average[name])
        self.step, self.pixels = int(weights.progress["steps"]), int(weights.progress["pixels"])
        self.seconds, self.warm = weights.progress["minutes"] * 60, self.step

    def _check_recipe(self, found: Recipe, folder: Path) -> None:
        if found.model != self.recipe.model:
            changed = differences(found, self.recipe)
            raise ValueError(f"{folder} holds another network than the recipe's: {changed}")
        if found != self.recipe and self.rank == 0:
            say(f"the recipe differs from that of {folder}: {differences(found, self.recipe)}")

    # One step.

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return the step's crops, uint8 (N, S, S, 3), and their qualities, float32 (N,)."""
        number = (self.recipe.seed * 1_000_003 + self.step) * 1009 + self.rank
        torch.manual_seed(number)
        generator = torch.Generator().manual_seed(number)
        crops = self.crops.batch(self.recipe.data.batch, generator)
        quality = torch.rand(len(crops), generator=generator) * 100
        return crops, quality.to(self.device, non_blocking=True)

    def one_step(self, factor: float) -> tuple[Tensor, Output]:
        """Take one optimisation step at `factor` of the base rates; return (loss, output).

        Nothing in it waits for the device.
        """
        crops, quality = self.draw()
        lambdas = self.recipe.lambdas(quality)
        middle = (self.recipe.loss.lambda_min * self.recipe.loss.lambda_max) ** 0.5
        output = self.run(crops, quality)
        loss = loss_of(output, lambdas, middle)
        loss.backward()
        params = [p for p in self.model.parameters() if p.grad is not None]
        if self.world > 1:
            self._average_gradients(params)
        norm = torch.nn.utils.clip_grad_norm_(params, self.recipe.optimiser.clip, foreach=True)
        # Gradients that are not finite count as zero, decided on the device without waiting for it.
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

    def _average_gradients(self, params: Sequence[Tensor]) -> None:
        flat = torch.cat([p.grad.reshape(-1) for p in params])
        dist.all_reduce(flat)
        flat /= self.world
        parts = flat.split([p.numel() for p in params])
        for p, part in zip(params, parts, strict=True):
            p.grad.copy_(part.view_as(p))

    def _agreed(self, value: float) -> float:
        """Return what rank 0 says: all take the same number of steps at the same rates."""
        if self.world == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64)  # on the host: the device is not waited for
        dist.broadcast(told, 0)
        return told.item()

    # A run.

    def fit(self, plan: Plan, validation: Validation | None = None) -> None:
        """Train as `plan` says, saving to `out`; Ctrl-C ends the step, saves and ends the run."""
        main = self.rank == 0
        self.out.mkdir(parents=True, exist_ok=True)
        writer = tensorboard(self.out / "tensorboard") if main else None
        clock = Clock(plan, self.step)
        before = self.seconds
        self.model.train()
        with Progress("training", silent=not main) as progress, stopping() as stopped:
            while (done := self._agreed(1.0 if stopped() else clock.done(self.step))) < 1:
                if clock.branches(done) and main:
                    self.save(self.out / "constant")
                loss, output = self.one_step(clock.factor(done))
                self.seconds = before + clock.seconds
                if main and self.step % LOG_EVERY == 0:
                    self._log(writer, progress, done, loss, output)
                if main and clock.due("save", plan.save_every):
                    self.save(self.out)
                if main and validation and clock.due("validate", plan.validate_every):
                    self.validate(validation, writer)
        if main:
            self.save(self.out)
            say(f"{'stopped' if stopped() else 'done'} at step {self.step}: saved in {self.out}")
        if main and validation:
            self.validate(validation, writer)
        if writer:
            writer.close()

    def close(self) -> None:
        """Leave the group of processes that torchrun made."""
        if self.world > 1:
            dist.destroy_process_group()

    def _log(
        self, writer: Any, progress: Progress, done: float, loss: Tensor, output: Output
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
        text = "step {}, {Gpixel:.3f} Gpixel, loss {loss:.3f}, {bpp:.3f} bpp, {PSNR:.2f} dB"
        progress.update(done, text.format(self.step, **numbers))
        if writer:
            for name, value in numbers.items():
                writer.add_scalar(f"train/{name}", value, self.step)

    def validate(self, validation: Validation, writer: Any = None) -> None:
        """Measure the averaged weights on the validation images (estimated rates)."""
        with self.average.swapped(self.model):
            result = validation.measure(self.model, self.device)
        self.model.train()
        head = f"{self.step} steps, {self.pixels / 1e9:.3f} Gpixel, {self.seconds / 60:.1f} min"
        say(f"{head}: {result}")
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
