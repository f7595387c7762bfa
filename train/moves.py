"""Training in moves: weights that are only ever a whole number of steps from where they began.

A fine-tuned network is kept as what its weights moved by (`train.derive`). Rounded afterwards,
moves lose much of what was learned (docs/experiments.md); here training sees the rounded ones all
along, and learns with them. Gradients pass straight through the rounding (Bengio et al., 2013,
arXiv 1308.3432).
"""

from __future__ import annotations

from collections import defaultdict
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from train.derive import Steps
from train.nets import Block, PhotoCodec
from train.prior import WEIGHT_MAX, IntConv, clamp, round_ste, weight_exponents

STEP = 1 / 6
"""Of a layer of the residual blocks or of the side information's encoder, in root mean squares of
its weights."""

INTEGER_STEP = 5
"""Of the weights of the integer prior, in units of theirs: of the 127 that they have."""


class Moves(nn.Module):
    """Weights w -> origin + step * round((w - origin) / step), not beyond -limit..limit.

    step and limit: one for each row of the weights; limit: None for none.
    """

    origin: Tensor
    step: Tensor
    limit: Tensor | None

    def __init__(self, origin: Tensor, step: Tensor, limit: Tensor | None = None) -> None:
        super().__init__()
        rows = (-1, *(1 for _ in origin.shape[1:]))
        self.register_buffer("origin", origin.detach().clone(), persistent=False)
        self.register_buffer("step", step.reshape(rows), persistent=False)
        limits = None if limit is None else limit.reshape(rows)
        self.register_buffer("limit", limits, persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        moved = self.origin + self.step * round_ste((weight - self.origin) / self.step)
        return moved if self.limit is None else clamp(moved, -self.limit, self.limit)


def attach(network: PhotoCodec, base: PhotoCodec) -> None:
    """Make weights move in steps from those of `base`: the trained ones of dense layers.

    They are the most of what a network weighs. The linear transforms around the residual blocks
    have to be frozen: all that passes through them is multiplied by their rounding, the mean
    of a block a hundred times as large as its details (docs/experiments.md).
    """
    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.Conv2d) or layer.groups > 1:
            continue
        origin = cast(nn.Conv2d, base.get_submodule(name)).weight
        # What stays has moved as well, where the network was tuned before.
        if layer.weight.requires_grad or not torch.equal(layer.weight, origin):
            parametrize.register_parametrization(layer, "weight", _moves(layer, origin))


@torch.no_grad()
def _moves(layer: nn.Module, origin: Tensor) -> Moves:
    """Return what makes the weights of a dense layer move in steps from `origin`."""
    if isinstance(layer, IntConv):
        unit = torch.exp2(weight_exponents(origin))
        # Within the limit a row keeps its unit: with another, all of its integers would change.
        return Moves(origin, INTEGER_STEP * unit, WEIGHT_MAX * unit)
    step = STEP * origin.square().mean().sqrt().clamp_min(1e-8)
    return Moves(origin, step.expand(len(origin)))


def detach(network: PhotoCodec) -> Steps:
    """Make plain weights of them again, where they stand; return the steps that their files have.

    In a file a block's scale is part of its last weights, and of their steps.
    """
    steps: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(dict)
    for name, layer in list(network.named_modules()):
        if not parametrize.is_parametrized(layer, "weight"):
            continue
        (moves,) = layer.parametrizations["weight"]
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
        if isinstance(layer, IntConv):
            continue  # its file has integers, which differ by integers
        rows = moves.step.flatten()
        if name.endswith(".narrow"):
            rows = rows * cast(Block, network.get_submodule(name.removesuffix(".narrow"))).scale
        part, _, inner = name.partition(".")
        file = "side" if part == "prior" else part
        steps[f"{file}.onnx"][f"{inner}.weight_half"] = rows.cpu().numpy()
    return steps
