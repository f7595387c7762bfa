"""Rounding what a tuned network's weights moved by, so that what its layers compute changes least.

A tuned network is kept as how far its weights moved, in whole steps (`train.derive`). With each
rounded to the nearest step, much of what was learned is lost (docs/experiments.md): a layer's
inputs are far from equally strong, and errors of the weights of strong ones show. Here the weights
of one input after the other are rounded, those of strong inputs first, and the ones still to come
make up for the error as well as correlations between inputs let them (Frantar et al., 2022, "GPTQ",
arXiv 2210.17323).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from train.derive import MOST_STEPS, Steps
from train.nets import LEAK, Block, PhotoCodec
from train.prior import WEIGHT_MAX, IntConv

STEPS = {"encoder": 0.8, "decoder": 0.4, "prior": 0.8}
"""Of layers in floating point, by the part they are in: in root mean squares of what a layer's
weights moved by. Nothing makes up for errors of the decoder (docs/experiments.md)."""

INTEGER_STEP = 5
"""Of the weights of the integer prior, in units of theirs: of the 127 that they have."""

DAMPING = 1e-4
"""What the second moment of each input is raised by, in mean ones: as a precaution, inputs that
were hardly seen are not quite free to be wrong."""

Moments = Mapping[str, Tensor]
"""Layer -> second moments of its n inputs, float64 (n, n), on the CPU."""

EXACT = {"encoder.enter", "decoder.leave"}
"""What all pixels pass through, the mean of a block a hundred times as large as its details, is
kept as it is: a fiftieth of what a network weighs."""


@torch.no_grad()
def moments(network: PhotoCodec, batches: Iterable[tuple[Tensor, Tensor]]) -> Moments:
    """Return the second moments of what dense layers have for inputs.

    batches: crops, uint8 (N, S, S, 3), and their qualities (N,), where the network is.
    """
    sums: dict[str, Tensor] = {}

    def add(name: str, inputs: Tensor) -> None:
        """inputs: (N, n, h, w)."""
        # In double precision: rounded products of strong inputs outweigh the squares of weak ones.
        columns = inputs.transpose(0, 1).flatten(1).double()
        sums[name] = sums.get(name, 0) + (columns @ columns.mT).cpu()

    def watch(name: str, layer: nn.Conv2d) -> Any:
        def hook(_layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
            add(name, inputs[0])
            if name.endswith(".widen"):  # a block applies its last weights itself
                narrow = name.removesuffix(".widen") + ".narrow"
                add(narrow, F.leaky_relu(output, LEAK))

        return layer.register_forward_hook(hook)

    hooks = [watch(name, layer) for name, layer in _dense(network)]
    try:
        for crops, quality in batches:
            network(crops, quality)
    finally:
        for hook in hooks:
            hook.remove()
    return sums


@torch.no_grad()
def settle(network: PhotoCodec, base: PhotoCodec, moments: Moments) -> Steps:
    """Make all weights of dense layers differ from those of `base` by whole steps.

    Returns the steps of the rows of weights, as they are in files. The layers of EXACT stay.
    """
    steps: dict[str, dict[str, NDArray[np.float32]]] = defaultdict(dict)
    for name, layer in _dense(network):
        before = cast(nn.Conv2d, base.get_submodule(name))
        origin = before.weight
        moved = layer.weight - origin
        if name in EXACT or not moved.any():
            continue
        step = _steps(name, before, moved)
        limit = WEIGHT_MAX * _units(before) if isinstance(before, IntConv) else math.inf
        low = ((-limit - origin) / step).ceil().clamp_min(-MOST_STEPS)
        high = ((limit - origin) / step).floor().clamp_max(MOST_STEPS)
        wanted, least, most = (x.flatten(1) for x in (moved / step, low, high))
        levels = _rounded(wanted, step.flatten(), least, most, moments[name])
        layer.weight.copy_(origin + step * levels.view_as(moved))
        if not isinstance(layer, IntConv):  # a file has integers, which differ by integers
            part, _, inner = name.partition(".")
            file = "side" if part == "prior" else part
            steps[f"{file}.onnx"][f"{inner}.weight_half"] = _in_file(network, name, step)
    return steps


def _dense(network: PhotoCodec) -> Iterator[tuple[str, nn.Conv2d]]:
    """Yield the layers that are matrices: those that are trained have most of all weights."""
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d) and layer.groups == 1 and layer.kernel_size == (1, 1):
            yield name, layer


def _units(layer: IntConv) -> Tensor:
    """Return the units of an integer layer's rows, (rows, 1, 1, 1)."""
    return torch.exp2(layer.exponents()).view(-1, 1, 1, 1)


def _steps(name: str, before: nn.Conv2d, moved: Tensor) -> Tensor:
    """Return the step of each row of weights, (rows, 1, 1, 1), of what a layer's moved by."""
    if isinstance(before, IntConv):
        # Units are those of the base: with others, all integers of a row would change.
        return INTEGER_STEP * _units(before)
    step = STEPS[name.partition(".")[0]] * moved.square().mean().sqrt()
    return step.clamp_min(1e-9).expand(len(moved), 1, 1, 1)


def _in_file(network: PhotoCodec, name: str, step: Tensor) -> NDArray[np.float32]:
    """Return the steps of a layer's rows, as they are in a file."""
    rows = step.flatten()
    if name.endswith(".narrow"):  # a block's scale is part of its last weights
        rows = rows * cast(Block, network.get_submodule(name.removesuffix(".narrow"))).scale
    return rows.cpu().numpy()


def _rounded(wanted: Tensor, step: Tensor, least: Tensor, most: Tensor, moment: Tensor) -> Tensor:
    """Return whole numbers from `least` to `most`, near `wanted` as seen in a layer's outputs.

    These are (outputs, n). step: what one is in each row, (outputs,). moment: of inputs, (n, n).
    """
    order = torch.argsort(moment.diagonal(), descending=True)
    least_seen = (DAMPING * moment.diagonal().mean()).clamp_min(1e-12)  # all may be zero
    damping = least_seen * torch.eye(len(moment), dtype=moment.dtype)
    inverse = torch.linalg.inv(moment[order][:, order] + damping)
    factor = torch.linalg.cholesky(inverse, upper=True)
    size = step.double()
    rest = size[:, None] * wanted.double()[:, order]
    levels = torch.empty_like(wanted)
    for i, column in enumerate(order.tolist()):
        level = (rest[:, i] / size).round().clamp(least[:, column], most[:, column])
        levels[:, column] = level.to(levels.dtype)
        error = (rest[:, i] - level * size) / factor[i, i]
        rest[:, i + 1 :] -= error[:, None] * factor[i, i + 1 :]
    return levels
