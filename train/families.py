"""The model families in training: the one place that tells them apart.

A family's recipe says which it is; what the loop asks of it is a `Task`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.photo import PhotoTask
from train.recipes import AnyRecipe
from train.schedule import Plan
from train.vae import VaeTask
from train.vae_recipe import VaeRecipe


class Result(Protocol):
    """A measurement of a network on images that it is not trained on; str() is a line of text."""

    @property
    def loss(self) -> float:
        """What early stopping goes by: lower is better."""

    @property
    def picture(self) -> NDArray[np.uint8]:
        """What it makes of the images of `Validation.original`, uint8 (H, W, C)."""

    def row(self) -> list[float]:
        """Return the numbers of one line of curve.tsv."""

    def scalars(self) -> dict[str, float]:
        """Return what TensorBoard draws."""


class Validation(Protocol):
    """Images to measure a network on."""

    original: NDArray[np.uint8]

    def measure(self, model: Any, device: torch.device, /) -> Result:
        """Return the measurement of a network as it is."""


class Task(Protocol):
    """What is particular to training a family; the random state of a step is set before it."""

    log_every: int
    """Steps between TensorBoard scalars: reading a loss waits for the device."""

    @property
    def model(self) -> nn.Module:
        """The network."""

    def optimisers(self) -> list[torch.optim.Optimizer]:
        """Return the optimisers, with base learning rates ("base") in their groups."""

    def start(self) -> None:
        """Fill the untrained network."""

    def planned(self, plan: Plan, /) -> Plan:
        """Return the plan with what the recipe says of it."""

    def validation(self, folders: Sequence[str | Path], count: int, /) -> Validation | None:
        """Return what to measure on: `count` images of folders, or what the recipe says."""

    def draw(self, step: int, generator: torch.Generator, /) -> tuple[Tensor, ...]:
        """Return what a step trains on; first the images, uint8 (N, H, W, C)."""

    def loss(self, batch: Any, step: int, /) -> tuple[Tensor, Any]:
        """Return the loss of a batch and what `numbers` are read from."""

    def rate(self, step: int, /) -> float:
        """Return the factor of the learning rates in a step."""

    def numbers(self, output: Any, /) -> dict[str, float]:
        """Return what is told of a step besides its loss."""

    def finish(self) -> None:
        """Learn from the training images what the weights in the network need besides."""


Make = Callable[[AnyRecipe, Sequence[str | Path], torch.device, int, int], Task]
"""What makes a task: the arguments of `task_of`."""


def task_of(
    recipe: AnyRecipe,
    images: Sequence[str | Path],
    device: torch.device,
    rank: int = 0,
    world: int = 1,
) -> Task:
    """Return the task of training a recipe on folders of images, as process `rank` of `world`."""
    if isinstance(recipe, VaeRecipe):
        return VaeTask(recipe, images, device, rank, world)
    return PhotoTask(recipe, images, device, rank)
