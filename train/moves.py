"""Rounding what a tuned network's weights moved by, so that its loss grows least.

A tuned network is kept as how far its weights moved, in whole steps (`train.derive`). How fine they
have to be differs by orders of magnitude from weight to weight: by how strong the input is that it
is multiplied by, and by what an error of the output that it adds to costs (`train.curvature`). So a
matrix has a step for each row and each column, whose product makes all weights' errors cost the
same; that is what reverse water-filling comes to. Of one row, inputs are rounded one after the
other, strong ones first, and the ones still to come make up for the error as well as correlations
between inputs let them (Frantar et al., 2022, "GPTQ", arXiv 2210.17323).
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from train.curvature import Matrix, Seen, as_matrix, matrices
from train.derive import MOST_STEPS, Singles, Steps
from train.nets import Block, PhotoCodec
from train.prior import WEIGHT_MAX, IntConv

BITS = 3.2
"""That the move of a weight takes, on average over all matrices that moved."""

DAMPING = 1e-4
"""What the second moment of each input is raised by, in mean ones, and the least that an output
matters, likewise: what was hardly seen is not quite free to be wrong."""


@dataclass(frozen=True)
class _Moved:
    """A matrix (rows, n) that moved, and what is known about rounding it; float64.

    rows (rows,), columns (n,): products of which, times a factor that is the same for all matrices,
    are the steps whose errors cost the same. unit: of an integer layer's rows, (rows,); their steps
    are whole multiples. order: of the columns, as they are rounded. inverse: (n, n), in that order,
    the upper factor of the inverse of the inputs' moments (Cholesky).
    """

    name: str
    layer: Matrix
    origin: Tensor
    moves: Tensor
    rows: Tensor
    columns: Tensor
    unit: Tensor | None
    order: Tensor
    inverse: Tensor

    def steps(self, factor: float) -> tuple[Tensor, Tensor]:
        """Return the steps of rows, (rows,), and of columns, (n,), for a factor."""
        rows = factor * self.rows
        if self.unit is not None:
            # Units are those of the base: with others, all integers of a row would change.
            whole = (rows / self.unit).round().clamp(1, WEIGHT_MAX)
            return self.unit * whole, self.columns
        rows = _short(rows)
        largest = (self.moves.abs() / rows[:, None]).amax(0)
        return rows, _short(torch.maximum(self.columns, largest / MOST_STEPS))


def _short(values: Tensor) -> Tensor:
    """Round positive numbers to four binary digits: steps are a part of what a bundle weighs."""
    mantissa, exponent = torch.frexp(values)
    return torch.ldexp((mantissa * 16).ceil() / 16, exponent)


@torch.no_grad()
def settle(network: PhotoCodec, base: PhotoCodec, seen: Mapping[str, Seen]) -> Steps:
    """Make all weights of matrices differ from those of `base` by whole steps.

    Returns the steps of the tensors, as they are in files. Both networks are on the CPU.
    """
    moved = [*_moved(network, base, seen)]
    factor = _factor(moved)
    found: dict[str, dict[str, tuple[Singles, Singles]]] = defaultdict(dict)
    for m in moved:
        rows, columns = m.steps(factor)
        weight = m.origin + rows[:, None] * columns * _rounded(m, rows, columns)
        transposed = isinstance(m.layer, nn.ConvTranspose2d)
        m.layer.weight.copy_((weight.T if transposed else weight).reshape(m.layer.weight.shape))
        if m.unit is not None:
            continue  # a file has integers, which differ by integers
        part, _, inner = m.name.partition(".")
        file = "side" if part == "prior" else part
        pair = rows * _in_file(network, m.name), columns
        first, second = (x.float().numpy() for x in (reversed(pair) if transposed else pair))
        found[f"{file}.onnx"][f"{inner}.weight_half"] = first, second
    return found


def _moved(network: PhotoCodec, base: PhotoCodec, seen: Mapping[str, Seen]) -> Iterator[_Moved]:
    """Yield the matrices that differ from those of `base`."""
    for name, layer in matrices(network):
        before = cast(Matrix, base.get_submodule(name))
        origin = as_matrix(before, before.weight).double()
        moves = as_matrix(layer, layer.weight).double() - origin
        if not moves.any():
            continue
        moment, cost = seen[name].inputs, seen[name].outputs / max(seen[name].positions, 1)
        order = torch.argsort(moment.diagonal(), descending=True)
        # At least so much, as all may be zero.
        damping = (DAMPING * moment.diagonal().mean()).clamp_min(1e-12)
        damped = moment[order][:, order] + damping * torch.eye(len(moment), dtype=moment.dtype)
        inverse = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
        # What an error that the inputs still to come make up for costs is 1 / inverse[i, i]**2.
        columns = torch.empty_like(moment.diagonal())
        columns[order] = inverse.diagonal()
        rows = cost.clamp_min(DAMPING * cost.mean()).clamp_min(1e-30).rsqrt()
        unit = None
        if isinstance(before, IntConv):  # all columns of it have one step, the mean cost's
            unit = torch.exp2(before.exponents()).double()
            rows = rows * columns.square().reciprocal().mean().rsqrt()
            columns = torch.ones_like(columns)
        yield _Moved(name, layer, origin, moves, rows, columns, unit, order, inverse)


def _factor(moved: list[_Moved]) -> float:
    """Return the factor of steps at which moves take BITS a weight.

    That is measured as deflate leaves moves that are rounded to the nearest steps. In a bundle they
    are rounded better, which makes them larger by an eighth, and compressed better, by as much.
    """
    size = BITS / 8 * sum(m.moves.numel() for m in moved)
    low, high = -60.0, 30.0  # of the factor's logarithm to base 2
    while high - low > 0.02:
        middle = (low + high) / 2
        data = bytearray()
        for m in moved:
            rows, columns = m.steps(2**middle)
            levels = (m.moves / (rows[:, None] * columns)).round().clamp(-MOST_STEPS, MOST_STEPS)
            data += levels.T.to(torch.int8).numpy().tobytes()
        low, high = (middle, high) if len(zlib.compress(data)) > size else (low, middle)
    return 2**high


def _in_file(network: PhotoCodec, name: str) -> Tensor | float:
    """Return what a layer's rows are multiplied by in its file."""
    if name.endswith(".narrow"):  # a block's scale is part of its last weights
        return cast(Block, network.get_submodule(name.removesuffix(".narrow"))).scale.double()
    return {"encoder.enter": 1 / 255, "decoder.leave": 255.0}.get(name, 1.0)  # of bytes


def _rounded(m: _Moved, rows: Tensor, columns: Tensor) -> Tensor:
    """Return whole numbers of steps, (rows, n), near the moves as seen in a layer's outputs."""
    step = rows[:, None] * columns
    least, most = torch.full_like(step, -MOST_STEPS), torch.full_like(step, MOST_STEPS)
    if m.unit is not None:
        limit = WEIGHT_MAX * m.unit[:, None]
        least = torch.maximum(least, ((-limit - m.origin) / step).ceil())
        most = torch.minimum(most, ((limit - m.origin) / step).floor())
    rest, levels = m.moves[:, m.order], torch.empty_like(m.moves)
    for i, column in enumerate(m.order.tolist()):
        size = step[:, column]
        level = (rest[:, i] / size).round().clamp(least[:, column], most[:, column])
        levels[:, column] = level
        error = (rest[:, i] - level * size) / m.inverse[i, i]
        rest[:, i + 1 :] -= error[:, None] * m.inverse[i, i + 1 :]
    return levels
