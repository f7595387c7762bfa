"""Rounding what a tuned network's weights moved by, so that its loss grows least.

A tuned network is kept as how far its weights moved, in whole steps (`train.derive`). How fine they
have to be differs by orders of magnitude from weight to weight: by how strong the input is that it
is multiplied by, and by what an error of the output that it adds to costs. So a matrix has a step
for each row and each column, whose product makes all weights' errors cost the same (Martens &
Grosse, 2015, "K-FAC", arXiv 1503.05671, for the curvature; the same slope everywhere is reverse
water-filling). Of one row, inputs are rounded one after the other, strong ones first, and the ones
still to come make up for the error as well as correlations between inputs let them (Frantar et al.,
2022, "GPTQ", arXiv 2210.17323).
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.derive import MOST_STEPS, Singles, Steps
from train.nets import LEAK, Block, PhotoCodec
from train.prior import WEIGHT_MAX, IntConv

BITS = 3.2
"""That the move of a weight takes, on average over all matrices that moved."""

DAMPING = 1e-4
"""What the second moment of each input is raised by, in mean ones, and the least that an output
matters, likewise: what was hardly seen is not quite free to be wrong."""

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
    for name, layer in _matrices(network):
        rows, n = _as_matrix(layer, layer.weight).shape
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
        seen.take(_inputs(layer, inputs[0]))
        if output.requires_grad:
            output.register_hook(lambda gradient: seen.cost(_outputs(layer, gradient)))

    return hook


def _before(narrow: Seen) -> Any:
    def hook(_layer: nn.Module, _inputs: tuple[Tensor], widened: Tensor) -> None:
        narrow.take(F.leaky_relu(widened, LEAK).transpose(0, 1).flatten(1))

    return hook


def _behind(block: Block, narrow: Seen) -> Any:
    def add(gradient: Tensor) -> None:
        narrow.cost(_outputs(block.narrow, gradient), block.scale.double())

    def hook(_block: nn.Module, _inputs: tuple[Tensor], output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(add)

    return hook


def _matrices(network: PhotoCodec) -> Iterator[tuple[str, Matrix]]:
    """Yield the layers that are matrices: these have most of all weights."""
    for name, layer in network.named_modules():
        if isinstance(layer, Matrix) and layer.groups == 1 and layer.kernel_size == layer.stride:
            yield name, layer


def _as_matrix(layer: Matrix, weight: Tensor) -> Tensor:
    """Return weights as (outputs, inputs); of a transposed layer each phase is an output."""
    return weight.flatten(1).T if isinstance(layer, nn.ConvTranspose2d) else weight.flatten(1)


def _inputs(layer: Matrix, x: Tensor) -> Tensor:
    """Return what the matrix of a layer is multiplied by, (inputs, positions)."""
    if isinstance(layer, nn.Conv2d) and layer.stride != (1, 1):
        x = F.unfold(x, layer.kernel_size, stride=layer.stride)
    return x.transpose(0, 1).flatten(1)


def _outputs(layer: Matrix, x: Tensor) -> Tensor:
    """Return what comes out of the matrix of a layer, (outputs, positions)."""
    if isinstance(layer, nn.ConvTranspose2d):
        x = F.pixel_unshuffle(x, layer.stride[0])
    return x.transpose(0, 1).flatten(1)


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
    for name, layer in _matrices(network):
        before = cast(Matrix, base.get_submodule(name))
        origin = _as_matrix(before, before.weight).double()
        moves = _as_matrix(layer, layer.weight).double() - origin
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
