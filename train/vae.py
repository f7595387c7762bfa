"""Training a gaussian model: epochs over a set in memory, the negative ELBO."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from train import vae_data
from train.pictures import grid
from train.schedule import Plan
from train.vae_nets import Vae, kl
from train.vae_recipe import VaeRecipe

SHOWN = 100
"""Test images that are reconstructed after every epoch."""
PIECE = 32
"""Images that are measured at once: so few that what is between layers stays in a CPU's cache."""


class Terms(NamedTuple):
    """The parts of a step's loss, in nats per image, on the device."""

    nats: Tensor
    kl: Tensor
    beta: float


class VaeTask:
    """Training of a `VaeRecipe` on the folder that holds its sets; see `train.loop.Task`."""

    log_every = 10

    def __init__(
        self,
        recipe: VaeRecipe,
        folders: Sequence[str | Path],
        device: torch.device,
        rank: int,
        world: int,
    ) -> None:
        self.recipe, self.device, self.rank, self.world = recipe, device, rank, world
        self.images, self.test = (
            torch.from_numpy(read(recipe.data, folders, recipe.seed)).to(device)
            for read in (vae_data.training_set, vae_data.test_set)
        )
        self.steps = -(-len(self.images) // (recipe.data.batch * world))
        self._order = (-1, torch.empty(0))
        torch.manual_seed(recipe.seed)
        self.model: Vae = recipe.build().to(device)
        # Transposed convolutions take two thirds of the time so, on a CPU.
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def optimisers(self) -> list[torch.optim.Optimizer]:
        settings = self.recipe.optimiser
        adam = torch.optim.Adam(
            self.model.parameters(), settings.rate, eps=settings.epsilon, fused=True
        )
        adam.param_groups[0]["base"] = settings.rate
        return [adam]

    def start(self) -> None:
        """Nothing: the weights are drawn when the network is built."""

    def planned(self, plan: Plan) -> Plan:
        return dataclasses.replace(
            plan,
            steps=plan.steps or self.recipe.epochs * self.steps,
            validate_steps=self.steps,
            patience=plan.patience or self.recipe.patience,
        )

    def validation(self, folders: Sequence[str | Path], _count: int) -> VaeValidation:
        """Return the test set of the recipe, all of it; ValueError where folders are given."""
        if folders:
            raise ValueError(f"{self.recipe.name} is measured on its own test set")
        return VaeValidation(self.recipe, self.test)

    def draw(self, step: int, _generator: torch.Generator) -> tuple[Tensor]:
        """Return the images of a step: each epoch goes once over all of them, in its own order."""
        epoch, position = divmod(step, self.steps)
        if self._order[0] != epoch:
            order = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + epoch)
            self._order = epoch, torch.randperm(len(self.images), generator=order).to(self.device)
        whole = self.recipe.data.batch * self.world
        chosen = self._order[1][position * whole : (position + 1) * whole]
        if len(chosen) < self.world:  # else a process would have none, and a mean of nothing
            chosen = self._order[1][: self.world]
        return (self.images[chosen[self.rank :: self.world]],)

    def loss(self, batch: tuple[Tensor], step: int) -> tuple[Tensor, Terms]:
        output = self.model(*batch)
        terms = Terms(output.nats.mean(), output.kl.mean(), self.beta(step))
        loss = terms.nats + terms.beta * terms.kl
        settings = self.recipe.loss
        if settings.l2:
            part = getattr(self.model, settings.l2_part)
            loss = loss + settings.l2 * sum(p.square().sum() for p in part.parameters())
        return loss, terms

    def beta(self, step: int) -> float:
        """Return the weight of the divergence in a step."""
        loss = self.recipe.loss
        rising = loss.warmup * self.recipe.epochs * self.steps
        return loss.beta * min(1.0, step / rising) if rising else loss.beta

    def rate(self, step: int) -> float:
        return 1 / (1 + self.recipe.optimiser.decay * step)

    def numbers(self, output: Terms) -> dict[str, float]:
        return {"reconstruction": output.nats.item(), "KL": output.kl.item(), "beta": output.beta}

    @torch.no_grad()
    def finish(self) -> None:
        """Measure the posterior's sigma over the training set, for the steps of quantisation."""
        self.model.eval()
        total = torch.zeros_like(self.model.sigma, dtype=torch.float64)
        for piece in self.images.split(PIECE):
            _, log_variance = self.model.encoder(self.model.see(piece))
            total += torch.exp(log_variance).sum(0)
        self.model.sigma.copy_((total / len(self.images)).sqrt())
        self.model.train()


@dataclasses.dataclass(frozen=True)
class VaeResult:
    """Means over the test set, in nats per image, and its first images as they are decoded."""

    nats: float
    kl: float
    picture: NDArray[np.uint8]

    @property
    def loss(self) -> float:
        """The negative ELBO."""
        return self.nats + self.kl

    def __str__(self) -> str:
        return f"test negative ELBO {self.loss:.3f} nats ({self.nats:.3f} + KL {self.kl:.3f})"

    def row(self) -> list[float]:
        """Return the numbers of one line of a curve."""
        return [round(v, 4) for v in (self.loss, self.nats, self.kl)]

    def scalars(self) -> dict[str, float]:
        """Return what TensorBoard draws."""
        return {"negative ELBO": self.loss, "reconstruction": self.nats, "KL": self.kl}


class VaeValidation:
    """The negative ELBO of test images: mean over `draws` samples of z for each."""

    def __init__(self, recipe: VaeRecipe, images: Tensor) -> None:
        self.recipe, self.images = recipe, images
        self.original = grid(images[:SHOWN].cpu().numpy(), 10)

    @torch.no_grad()
    def measure(self, model: Vae, device: torch.device) -> VaeResult:
        """Return the model's result; the samples of z are the same at every call."""
        model.eval()
        generator = torch.Generator(device).manual_seed(self.recipe.seed)
        nats = divergence = 0.0
        for piece in self.images.split(PIECE):
            target = model.see(piece)
            mean, log_variance = model.encoder(target)
            divergence += kl(mean, log_variance).sum().item()
            for _ in range(self.recipe.draws):
                noise = torch.randn(mean.shape, generator=generator, device=device)
                parameter = model.decoder(mean + torch.exp(0.5 * log_variance) * noise)
                nats += model.likelihood.nats(parameter, target).sum().item() / self.recipe.draws
        count = len(self.images)
        return VaeResult(nats / count, divergence / count, self._picture(model))

    def _picture(self, model: Vae) -> NDArray[np.uint8]:
        mean, _ = model.encoder(model.see(self.images[:SHOWN]))
        return grid(model.show(model.decoder(mean)).cpu().numpy(), 10)
