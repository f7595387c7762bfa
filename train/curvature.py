"""What errors of a network's weights cost: the curvature of its loss, as crops show it.

Of a matrix it is taken for a product of two: second moments of the inputs, and mean squares of the
gradients of the outputs (Martens & Grosse, 2015, "K-FAC", arXiv 1503.05671).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.nets import LEAK, Block, PhotoCodec

Matrix = nn.Conv2d | nn.ConvTranspose2d
"""A layer whose weights are a matrix (outputs, inputs): its positions do not overlap."""


@dataclass
class Seen:
    """What a layer of n inputs and some outputs did, in sums over positions.

    inputs: their second moments, float64 (n, n). outputs: squares of the probe's gradient, float64
    (outputs,), over `positions`; zero where nothing depends on them. All on the CPU.
    """

    inputs: Tensor
    outputs: Tensor
    positions: int = 0

    def take(self, x: Tensor) -> None:
        """Count inputs, (n, positions)."""
        # In double precision: rounded products of strong inputs outweigh the squares of weak ones.
        x = x.detach().double()
        self.inputs += (x @ x.mT).cpu()

    def cost(self, gradient: Tensor, scale: Tensor | float = 1.0) -> None:
        """Count a gradient of outputs, (outputs, positions), times a scale (outputs,)."""
        self.outputs += (gradient.double().square().sum(1) * scale**2).cpu()
        self.positions += gradient.shape[1]


def observe(network: PhotoCodec, probe: Callable[[], Tensor], count: int) -> dict[str, Seen]:
    """Return what the layers that are matrices did, by name, while `count` probes were made.

    probe: runs the network and returns a number whose squared gradient is, on average, the
    curvature of the loss (`train.photo.probe_of`).
    """
    found, hooks = {}, []
    for name, layer in matrices(network):
        rows, n = as_matrix(layer, layer.weight).shape
        empty = torch.zeros(n, n, dtype=torch.float64), torch.zeros(rows, dtype=torch.float64)
        seen = found[name] = Seen(*empty)
        hooks.append(layer.register_forward_hook(_watching(layer, seen)))
    for name, block in network.named_modules():
        if isinstance(block, Block):  # it applies its last weights itself
            narrow = found[f"{name}.narrow"]
            hooks.append(block.widen.register_forward_hook(_before(narrow)))
            hooks.append(block.register_forward_hook(_behind(block, narrow)))
    try:
        for _ in range(count):
            probe().backward()
    finally:
        for hook in hooks:
            hook.remove()
        network.zero_grad()
    return found


def _watching(layer: Matrix, seen: Seen) -> Any:
    def hook(_layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        seen.take(inputs_of(layer, inputs[0]))
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.cost(outputs_of(layer, gradient)))

    return hook


def _before(narrow: Seen) -> Any:
    def hook(_layer: nn.Module, _inputs: tuple[Tensor], widened: Tensor) -> None:
        narrow.take(F.leaky_relu(widened, LEAK).transpose(0, 1).flatten(1))

    return hook


def _behind(block: Block, narrow: Seen) -> Any:
    def add(gradient: Tensor) -> None:
        narrow.cost(outputs_of(block.narrow, gradient), block.scale.double())

    def hook(_block: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(add)

    return hook


def matrices(network: PhotoCodec) -> Iterator[tuple[str, Matrix]]:
    """Yield the layers that are matrices: these have most of all weights."""
    for name, layer in network.named_modules():
        if isinstance(layer, Matrix) and layer.groups == 1 and layer.kernel_size == layer.stride:
            yield name, layer


def as_matrix(layer: Matrix, weight: Tensor) -> Tensor:
    """Return weights as (outputs, inputs); of a transposed layer each phase is an output."""
    return weight.flatten(1).T if isinstance(layer, nn.ConvTranspose2d) else weight.flatten(1)


def inputs_of(layer: Matrix, x: Tensor) -> Tensor:
    """Return what the matrix of a layer is multiplied by, (inputs, positions)."""
    if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
        x = F.unfold(x, layer.kernel_size, stride=layer.stride)
    return x.transpose(0, 1).flatten(1)


def outputs_of(layer: Matrix, x: Tensor) -> Tensor:
    """Return what comes out of the matrix of a layer, (outputs, positions)."""
    if isinstance(layer, nn.ConvTranspose2d):
        x = F.pixel_unshuffle(x, layer.stride[0])
    return x.transpose(0, 1).flatten(1)
