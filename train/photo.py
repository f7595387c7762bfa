"""Training the photo codec: crops at random qualities, rate and distortion."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from train import klt
from train.data import Crops, Shapes
from train.nets import Output, PhotoCodec
from train.optim import optimisers
from train.progress import say
from train.recipes import Recipe
from train.schedule import Plan
from train.validation import Validation

Batch = tuple[Tensor, Tensor]
"""Crops, uint8 (N, S, S, 3), and their qualities, float32 (N,)."""


def loss_of(output: Output, lambdas: Tensor, middle: float) -> Tensor:
    """Return bits per pixel + lambda * 255**2 * MSE, weighted by (lambda / middle)**-1/2.

    The weight keeps either end of the range from dominating; mean over the batch.
    """
    pixels = output.blocks[0].numel() / 3
    cost = output.bits / pixels + lambdas * 255**2 * output.squared_error
    return ((lambdas / middle) ** -0.5 * cost).mean()


def probe_of(output: Output, lambdas: Tensor, middle: float) -> Tensor:
    """Return a number whose squared gradient is, on average, the curvature of each crop's loss.

    Of squared errors that is the gradient of a sum with signs drawn at random (Hutchinson, 1989,
    "A stochastic estimator of the trace"); of bits, where the model fits its data, that of the bits
    themselves (Fisher's information).
    """
    pixels = output.blocks[0].numel() / 3
    weight = (lambdas / middle) ** -0.5
    signs = torch.randint_like(output.blocks, 2) * 2 - 1
    errors = (2 * weight * lambdas * 255**2 / output.blocks[0].numel()).sqrt()
    bits = (math.log(2) * weight / pixels).sqrt()
    return (errors * (signs * output.blocks).sum((1, 2, 3)) + bits * output.bits).sum()


class PhotoTask:
    """Training of a photo codec on folders of images; see `train.loop.Task`."""

    log_every = 20

    def __init__(
        self,
        recipe: Recipe,
        images: Sequence[str | Path],
        device: torch.device,
        rank: int,
        network: PhotoCodec | None = None,
        pull: float = 0.0,
        recolour: float = 0.0,
    ) -> None:
        """network: what to train, started already; None builds the recipe's, untrained.

        pull: the share of the way back to it that each step takes. recolour: the share of crops
        that are given other colours.
        """
        self.recipe, self.device, self._pull = recipe, device, pull
        data, self._started = recipe.data, network is not None
        self._shapes = Shapes(data.crop, data.scales, extend=self._started)
        self.crops = Crops(images, self._shapes, device, silent=rank > 0, recolour=recolour)
        torch.manual_seed(recipe.seed)
        self.model: PhotoCodec = (network or recipe.build()).to(device)
        self.run: Callable[[Tensor, Tensor], Output] = self.model
        self._compiles = True
        if device.type == "cuda":
            self.model.train_in_bf16()
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.run = torch.compile(self.model, dynamic=False)

    def optimisers(self) -> list[torch.optim.Optimizer]:
        return optimisers(self.model, self.recipe.optimiser, self._pull)

    def planned(self, plan: Plan) -> Plan:
        return plan

    def validation(self, folders: Sequence[str | Path], count: int) -> Validation | None:
        """Return `count` images of folders to measure; None without folders."""
        return Validation(folders, count) if folders else None

    def start(self) -> None:
        """Fill the network with the KLT of the training images, unless it is started already."""
        if self._started:
            return
        generator = torch.Generator().manual_seed(self.recipe.seed)
        crops = self.crops.batch(96, generator).cpu()
        levels = self.recipe.lambdas(torch.linspace(0, 100, self.recipe.model.levels))
        model = self.recipe.build()
        model.load_state_dict(self.model.state_dict())
        klt.start(model, crops, levels, self.recipe.loss.first_step, self.recipe.model.whitening)
        self.model.load_state_dict(model.state_dict())

    def draw(self, _step: int, generator: torch.Generator) -> Batch:
        crops = self.crops.batch(self.recipe.data.batch, generator)
        quality = torch.rand(len(crops), generator=generator) * 100
        return crops, quality.to(self.device, non_blocking=True)

    def loss(self, batch: Batch, _step: int) -> tuple[Tensor, Output]:
        crops, quality = batch
        output = self._output(crops, quality)
        return loss_of(output, self.recipe.lambdas(quality), self._middle), output

    @property
    def _middle(self) -> float:
        return (self.recipe.loss.lambda_min * self.recipe.loss.lambda_max) ** 0.5

    def probe(self, generator: torch.Generator) -> Tensor:
        """Return `probe_of` of a batch."""
        crops, quality = self.draw(0, generator)
        return probe_of(self.model(crops, quality), self.recipe.lambdas(quality), self._middle)

    def cost_on(self, images: Sequence[Path], count: int) -> Callable[[], float]:
        """Return what gives the network's loss on `count` batches of images, always the same."""
        generator = torch.Generator().manual_seed(self.recipe.seed)
        size = self.recipe.data.batch
        crops = Crops(images, self._shapes, self.device, silent=True)
        quality = torch.linspace(0, 100, count * size, device=self.device)
        order = torch.randperm(len(quality), generator=generator).to(self.device)
        batches = [(crops.batch(size, generator), q) for q in quality[order].split(size)]

        @torch.no_grad()
        def cost() -> float:
            lambdas = self.recipe.lambdas
            losses = [loss_of(self.model(x, q), lambdas(q), self._middle) for x, q in batches]
            return float(torch.stack(losses).mean())

        return cost

    def _output(self, crops: Tensor, quality: Tensor) -> Output:
        if self.run is self.model or not self._compiles:
            return self.run(crops, quality)
        try:
            output = self.run(crops, quality)
        except Exception as error:  # noqa: BLE001 - compilers raise anything; slow is better than not
            say(f"not compiled, which is slower: {type(error).__name__}: {error!s:.300}")
            self.run = self.model
            return self.run(crops, quality)
        self._compiles = False  # it did: what fails from now on is something else
        return output

    def rate(self, _step: int) -> float:
        return 1.0

    def numbers(self, output: Output) -> dict[str, float]:
        pixels = self.recipe.data.crop**2
        return {
            "bpp": (output.bits.mean() / pixels).item(),
            "bpp of z": (output.coded.bits_z.mean() / pixels).item(),
            "PSNR": (-10 * torch.log10(output.squared_error.detach())).mean().item(),
        }

    def finish(self) -> None:
        """Nothing is learned from the training images besides the weights."""
