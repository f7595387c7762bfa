"""Training in moves: weights that are only ever a whole number of steps from where they began.

A fine-tuned network is kept as what its weights moved by (`train.derive`). Rounded afterwards,
moves lose much of what was learned (docs/experiments.md); here training sees the rounded ones all
along, and learns with them. Gradients pass straight through the rounding (Bengio et al., 2013,
arXiv 1308.3432).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeGuard, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import parametrize

from train.derive import Steps
from train.nets import Block, PhotoCodec
from train.prior import IntConv, round_ste

STEP = 1 / 8
"""Of a layer, in root mean squares of its weights."""


class Moves(nn.Module):
    """Weights w -> origin + step * round((w - origin) / step)."""

    origin: Tensor

    def __init__(self, origin: Tensor, step: float) -> None:
        super().__init__()
        self.step = step
        self.register_buffer("origin", origin.detach().clone(), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        return self.origin + self.step * round_ste((weight - self.origin) / self.step)


def attach(network: PhotoCodec, base: PhotoCodec) -> None:
    """Make weights move in steps from those of `base`: the trained ones of dense float layers.

    They are the most of what a network weighs. The linear transforms around the residual blocks are
    not among them: every digit of theirs counts.
    """
    for name, layer in list(network.named_modules()):
        if _moves_in_steps(layer, name) and layer.weight.requires_grad:
            origin = cast(nn.Conv2d, base.get_submodule(name)).weight
            step = STEP * float(origin.detach().square().mean().sqrt())
            if step > 0:
                parametrize.register_parametrization(layer, "weight", Moves(origin, step))


def _moves_in_steps(layer: nn.Module, name: str) -> TypeGuard[nn.Conv2d]:
    inner = name.endswith((".widen", ".narrow")) or name.startswith("prior.encoder.")
    dense = isinstance(layer, nn.Conv2d) and layer.groups == 1
    return inner and dense and not isinstance(layer, IntConv)


def detach(network: PhotoCodec) -> Steps:
    """Make plain weights of them again, where they stand; return the steps that their files have.

    In a file a block's scale is part of its last weights, and of their steps.
    """
    steps: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(dict)
    for name, layer in list(network.named_modules()):
        if parametrize.is_parametrized(layer, "weight"):
            (moves,) = layer.parametrizations["weight"]
            rows = torch.full((len(moves.origin),), moves.step)
            part, _, inner = name.partition(".")
            if name.endswith(".narrow"):
                block = cast(Block, network.get_submodule(name.removesuffix(".narrow")))
                rows = rows * block.scale.cpu()
            file = "side" if part == "prior" else part
            steps[f"{file}.onnx"][f"{inner}.weight_half"] = rows.numpy()
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return steps
