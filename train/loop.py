"""The training loop: warm-up, a constant rate for as long as there is time, and a decay.

Everything random in a step is drawn from (seed, step, rank), so a run that is stopped and resumed
sees the same crops and the same noise, and gives the same curve (as long as all images fit into
memory: those that take turns begin anew).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from train import checkpoints, pictures
from train.families import Make, Validation, task_of
from train.optim import Average, average_gradients, restore, set_rate
from train.progress import Progress, say, tensorboard
from train.recipes import AnyRecipe, differences, read
from train.schedule import Clock, Plan, stopping


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    # TF32 keeps 11 bits of each factor and sums in 24: exact for the integers of the prior.
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda")


@dataclass(frozen=True)
class Best:
    """The weights of the best measurement so far: its number, its loss, and they."""

    number: int
    loss: float
    values: dict[str, Tensor]


class Trainer:
    """One run: the network, its optimisers and averages, and how far it has come.

    recipe: what is trained. images: folders of training images. out: the run's folder; None keeps
    nothing on disk. make: gives the task. Under torchrun each process trains on images of its own,
    and gradients are averaged.
    """

    def __init__(
        self,
        recipe: AnyRecipe,
        images: Sequence[str | Path],
        out: Path | None,
        make: Make = task_of,
    ) -> None:
        self.recipe, self.out = recipe, out
        self.device = _device()
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        if self.world > 1 and not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if self.device.type == "cuda" else "gloo")
        self.task = make(recipe, images, self.device, self.rank, self.world)
        self.model = self.task.model
        self.optimisers = self.task.optimisers()
        self.average = Average(self.model, recipe.optimiser.average)
        self.step = self.pixels = self.warm = 0
        self.seconds = 0.0
        self.measured, self.measured_at = 0, -1  # how often, and after which step
        self.best: Best | None = None
        self._losses = (torch.zeros((), device=self.device), 0)  # their sum and number

    # How a run begins: untrained, from a full state, or from weights alone.

    def start(self) -> None:
        """Fill the network as its family begins."""
        self.task.start()
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
        self._check_recipe(read(state["recipe"]), folder)
        self.model.load_state_dict(state["model"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            restore(optimiser, saved)
        for name, value in self.average.values.items():
            value.copy_(state["average"][name])
        self.step, self.pixels, self.warm = state["step"], state["pixels"], state["warm"]
        self.seconds = state["seconds"]
        self.measured, self.measured_at = state.get("measured", (0, -1))
        if state.get("best"):
            self.best = Best(**state["best"])
        if self.out and self.rank == 0:
            checkpoints.cut_curve(self.out, self.step)

    def continue_from(self, folder: Path) -> None:
        """Go on from weights alone: the rates warm up again, then the curve is rejoined."""
        weights = checkpoints.Weights(folder)
        self._check_recipe(weights.recipe, folder)
        plain, average = weights.part("weight"), weights.part("average")
        self.model.load_state_dict(plain | weights.part("buffer"))
        for name, value in self.average.values.items():
            value.copy_(average[name])
        self._count_from(weights.progress)

    def continue_with(
        self, network: nn.Module, recipe: AnyRecipe, progress: Mapping[str, float], name: str
    ) -> None:
        """Go on from a network that is trained already: the rates warm up again.

        recipe, progress (steps, pixels, minutes): what it was trained by, and for how long. name:
        what it is called, for people.
        """
        self._check_recipe(recipe, name)
        self.model.load_state_dict(network.state_dict())
        self.average = Average(self.model, self.recipe.optimiser.average)
        self._count_from(progress)

    def _count_from(self, progress: Mapping[str, float]) -> None:
        self.step, self.pixels = int(progress["steps"]), int(progress["pixels"])
        self.seconds, self.warm = progress["minutes"] * 60, self.step

    def _check_recipe(self, found: AnyRecipe, place: Path | str) -> None:
        if found.model != self.recipe.model or type(found) is not type(self.recipe):
            changed = differences(found, self.recipe)
            raise ValueError(f"{place} holds another network than the recipe's: {changed}")
        if found != self.recipe and self.rank == 0:
            say(f"the recipe differs from that of {place}: {differences(found, self.recipe)}")

    # One step.

    def draw(self) -> tuple[Tensor, ...]:
        """Return what the step trains on, images first, uint8 (N, H, W, C)."""
        number = (self.recipe.seed * 1_000_003 + self.step) * 1009 + self.rank
        torch.manual_seed(number)
        return self.task.draw(self.step, torch.Generator().manual_seed(number))

    def one_step(self, factor: float) -> tuple[Tensor, Any]:
        """Take one optimisation step at `factor` of the base rates; return (loss, output).

        Nothing in it waits for the device.
        """
        batch = self.draw()
        loss, output = self.task.loss(batch, self.step)
        loss.backward()
        params = [p for p in self.model.parameters() if p.grad is not None]
        if self.world > 1:
            average_gradients(params, self.world)
        settings = self.recipe.optimiser
        norm = torch.nn.utils.clip_grad_norm_(params, settings.clip or math.inf, foreach=True)
        # Gradients that are not finite count as zero, decided on the device without waiting for it.
        finite = torch.isfinite(norm)
        for p in params:
            p.grad.nan_to_num_(0.0, 0.0, 0.0).mul_(finite)
        warm = min(1.0, (self.step - self.warm + 1) / settings.warmup)
        set_rate(self.optimisers, factor * warm * self.task.rate(self.step))
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.average.update(self.model, self.step, factor)
        self.step += 1
        self.pixels += math.prod(batch[0].shape[:3]) * self.world
        return loss.detach(), output

    def _agreed(self, value: float) -> float:
        """Return what rank 0 says: all take the same number of steps at the same rates."""
        if self.world == 1:
            return value
        told = torch.tensor(value, dtype=torch.float64)  # on the host: the device is not waited for
        dist.broadcast(told, 0)
        return told.item()

    # A run.

    def fit(self, plan: Plan, validation: Validation | None = None) -> bool:
        """Train as `plan` says, saving to `out`; return whether it came to its end.

        Ctrl-C ends the step, saves and ends the run.
        """
        main = self.rank == 0
        out = self.out if main else None
        if out:
            out.mkdir(parents=True, exist_ok=True)
        writer = tensorboard(out / "tensorboard") if out else None
        self.best = self.best if plan.patience else None
        self.model.train()
        self._warm_up()
        clock = Clock(plan, self.step)
        before = self.seconds
        with Progress("training", silent=not main) as progress, stopping() as stopped:
            while (done := self._agreed(1.0 if stopped() else self._done(clock))) < 1:
                if out and clock.branches(done):
                    self.save(out / "constant")
                loss, output = self.one_step(plan.rate * clock.factor(done))
                self.seconds = before + clock.seconds
                self._losses = self._losses[0] + loss, self._losses[1] + 1
                if main and self.step % self.task.log_every == 0:
                    self._log(writer, progress, done, loss, output)
                if out and clock.due("save", plan.save_every):
                    self.save(out)
                if main and validation and clock.measures(self.step):
                    self.validate(validation, writer, plan.patience is not None)
        if out:
            self.save(out)  # measuring takes a while, and could be cut off
        if main and validation and self.measured_at < self.step:
            self.validate(validation, writer, plan.patience is not None)
        if out:
            self._end(out, writer, "stopped" if stopped() else "done")
        return not stopped()

    def _end(self, out: Path, writer: Any, how: str) -> None:
        self.save(out)
        say(f"{how} at step {self.step}: saved in {out}")
        if writer:
            writer.close()

    def _warm_up(self) -> None:
        """Let a GPU compile before the clock runs: the first step can take minutes."""
        if self.device.type == "cuda":
            self.task.loss(self.draw(), self.step)[0].backward()
            for optimiser in self.optimisers:
                optimiser.zero_grad()

    def _done(self, clock: Clock) -> float:
        """Return the share of the plan that is done: all of it where patience is at its end."""
        patience = clock.plan.patience
        if patience and self.best and self.measured - self.best.number >= patience:
            return 1.0
        return clock.done(self.step)

    def close(self) -> None:
        """Leave the group of processes that torchrun made."""
        if self.world > 1:
            dist.destroy_process_group()

    def _log(self, writer: Any, progress: Progress, done: float, loss: Tensor, output: Any) -> None:
        numbers = {"loss": loss.item(), **self.task.numbers(output)}
        text = ", ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        progress.update(done, f"step {self.step}, {self.pixels / 1e9:.3f} Gpixel, {text}")
        if not writer:
            return
        numbers |= {
            "learning rate": self.optimisers[0].param_groups[0]["lr"],
            "Gpixel": self.pixels / 1e9,
            "Mpixel/s": self.pixels / 1e6 / max(self.seconds, 1e-9),
        }
        for name, value in numbers.items():
            writer.add_scalar(f"train/{name}", value, self.step)

    def validate(self, validation: Validation, writer: Any = None, keep: bool = False) -> None:
        """Measure the averaged weights on the validation images; `keep` those of the best."""
        with self.average.swapped(self.model):
            result = validation.measure(self.model, self.device)
        self.model.train()
        self.measured, self.measured_at = self.measured + 1, self.step
        best = self.best.loss if self.best else math.nan
        if keep and (result.loss < best or math.isnan(best)):
            values = {name: value.clone() for name, value in self.average.values.items()}
            self.best = Best(self.measured, result.loss, values)
        loss = self._losses[0].item() / max(self._losses[1], 1)
        self._losses = (torch.zeros_like(self._losses[0]), 0)
        head = f"{self.step} steps, {self.pixels / 1e9:.3f} Gpixel, {self.seconds / 60:.1f} min"
        say(f"{head}: training loss {loss:.3f}, {result}")
        if self.out:
            numbers = (self.step, self.pixels, round(self.seconds), *result.row(), round(loss, 4))
            with (self.out / "curve.tsv").open("a") as file:
                print(*numbers, sep="\t", file=file)
            pictures.save(validation.original, self.out / "original.png")
            pictures.save(result.picture, self.out / f"reconstruction-{self.measured:03}.png")
        if writer:
            for name, value in result.scalars().items():
                writer.add_scalar(f"validation/{name}", value, self.step)
            writer.add_image("validation", result.picture, self.step, dataformats="HWC")

    def save(self, folder: Path) -> None:
        """Write the full state, and the weights in half precision with those to release.

        These are the best where a plan with patience keeps them, else the averaged ones.
        """
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
            "measured": (self.measured, self.measured_at),
            "best": vars(self.best) if self.best else None,
        }
        checkpoints.save_state(folder, state)
        progress = {"steps": self.step, "pixels": self.pixels, "minutes": self.seconds / 60}
        if self.best:
            progress |= {"measurement": self.best.number, "loss": self.best.loss}
        released = Average(self.model, 0.0)
        released.values = self.best.values if self.best else self.average.values
        with released.swapped(self.model):
            self.task.finish()
        checkpoints.save_weights(
            folder,
            self.recipe,
            dict(self.model.named_parameters()),
            released.values,
            dict(self.model.named_buffers()),
            progress,
        )
