"""Proof and reference of integer graphs: exact ranges, and the same graph in int64.

A tensor of an integer graph holds m * 2**e with integer m and one e for the tensor. float32 adds
and multiplies such values without rounding, in any order, as long as every m that can occur stays
below 2**24. `prove` bounds m for every tensor from the weights; `evaluate` computes the graph on
int64, where nothing rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Int = npt.NDArray[np.int64]

EXACT = 2**24
"""Integers up to this magnitude are exact in float32."""


@dataclass(frozen=True)
class Dyadic:
    """Values m * 2**e: an int64 array and one exponent."""

    m: Int
    e: int

    def at(self, e: int) -> Int:
        """Return m for a smaller exponent."""
        return self.m << (self.e - e)


def dyadic(values: npt.ArrayLike) -> Dyadic:
    """Return float values as dyadic numbers; ValueError if 40 fractional bits do not hold them."""
    array = np.asarray(values, np.float64)
    for e in range(0, -41, -1):
        scaled = np.ldexp(array, -e)
        if (scaled == np.rint(scaled)).all():
            return Dyadic(scaled.astype(np.int64), e)
    raise ValueError("a constant is no multiple of 2**-40")


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _convolve(x: Int, weight: Int, pads: list[int], group: int) -> Int:
    """Return the convolution of x (C, H, W) with weight (O, C/group, k, k), stride 1, zero pads."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right)))
    k = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))
    if group == 1:
        return np.tensordot(weight, windows, ((1, 2, 3), (0, 3, 4)))
    if group != len(x) or len(weight) != len(x):
        raise ValueError(f"a convolution of {group} groups is neither dense nor depthwise")
    return np.einsum("cyx,chwyx->chw", weight[:, 0], windows)


def _depth_to_space(x: Int, size: int) -> Int:
    c, h, w = x.shape
    return (
        x.reshape(c // size**2, size, size, h, w)
        .transpose(0, 3, 1, 4, 2)
        .reshape(c // size**2, h * size, w * size)
    )


class _Walk:
    """Runs the nodes of a graph over some kind of value, by a table of operators."""

    def __init__(self, model: bytes) -> None:
        self.graph = onnx.load_from_string(model).graph
        self.constants = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}

    def run(self, values: dict[str, Dyadic], op: Callable[..., Dyadic]) -> dict[str, Dyadic]:
        for name, array in self.constants.items():
            values[name] = dyadic(array)
        for node in self.graph.node:
            inputs = [values[name] for name in node.input]
            values[node.output[0]] = op(node, _attributes(node), *inputs)
        return {o.name: values[o.name] for o in self.graph.output}


def _operate(node: onnx.NodeProto, attributes: dict, *inputs: Dyadic) -> Dyadic:
    """Compute one node on dyadic tensors of shape (C, H, W)."""
    x = inputs[0]
    if node.op_type == "Conv":
        weight, bias = inputs[1], inputs[2]
        e = x.e + weight.e
        sums = _convolve(x.m, weight.m, attributes["pads"], attributes["group"])
        return Dyadic(sums + Dyadic(bias.m, bias.e).at(e)[:, None, None], e)
    if node.op_type == "Mul":
        return Dyadic(x.m * _channels(inputs[1].m), x.e + inputs[1].e)
    if node.op_type == "Add":
        e = min(x.e, inputs[1].e)
        return Dyadic(x.at(e) + _channels(inputs[1].at(e)), e)
    if node.op_type == "Floor":
        return Dyadic(x.m >> -x.e, 0)
    if node.op_type == "Clip":
        e = min(i.e for i in inputs)
        low, high = (i.at(e) for i in inputs[1:])
        return Dyadic(np.clip(x.at(e), low, high), e)
    if node.op_type == "Concat":
        e = min(i.e for i in inputs)
        return Dyadic(np.concatenate([i.at(e) for i in inputs]), e)
    if node.op_type == "Slice":
        first, last = int(inputs[1].m[0]), int(inputs[2].m[0])
        return Dyadic(x.m[first:last], x.e)
    if node.op_type == "DepthToSpace":
        return Dyadic(_depth_to_space(x.m, attributes["blocksize"]), x.e)
    if node.op_type in ("Cast", "Identity"):
        return x
    raise ValueError(f"{node.op_type} is not an operator of integer graphs")


def _channels(m: Int) -> Int:
    """Return a constant (1, C, 1, 1), a scalar or a tensor (C, H, W) ready to broadcast."""
    return m[0] if m.ndim == 4 else m


def evaluate(model: bytes, inputs: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Int]:
    """Return the outputs (C, H, W), int64, of an integer graph for integer inputs (1, C, H, W)."""
    values = {name: Dyadic(array[0].astype(np.int64), 0) for name, array in inputs.items()}
    outputs = _Walk(model).run(values, _operate)
    return {name: value.m >> -value.e for name, value in outputs.items()}


@dataclass(frozen=True)
class Range:
    """What an input of a graph can hold: integers low..high, or powers of two from low to high."""

    low: int
    high: int
    power_of_two: bool = False


INPUTS = {
    "z": Range(-(2**20), 2**20),
    "y16": Range(-(2**20), 2**20),
    "features": Range(0, 255),
    "shift": Range(-(2**20), 2**20),
    "offset": Range(-(2**20), 2**20),
    "sigma4": Range(1, 1024, True),
    "inverse": Range(1, 1024, True),
}
"""What each input can hold: vaecodec/priors.py clips symbols and latents to it, the exponents of
`latents.exponents` bound the scales, and the export checks the tables."""


@dataclass(frozen=True)
class _Bound:
    """Every value is m * 2**e with low <= m <= high, per channel (or one for all).

    `odd` bounds what is left of m without its factors of two, where that is known to be smaller:
    it is what a float32 has to hold.
    """

    low: Int
    high: Int
    e: int
    power_of_two: bool = False
    odd: int | None = None

    def at(self, e: int) -> _Bound:
        return _Bound(self.low << (self.e - e), self.high << (self.e - e), e)

    @property
    def largest(self) -> int:
        return int(max(abs(self.low).max(), abs(self.high).max()))


def prove(model: bytes) -> int:
    """Return the largest magnitude, in units of its tensor, that any sum of the graph can reach.

    Raises ValueError, naming the node, where float32 would not be exact: a magnitude above 2**24.
    A multiplication by a power of two only moves the exponent and is exact at any magnitude.
    """
    walk = _Walk(model)
    worst = 0
    bounds: dict[str, _Bound] = {}
    constants = {name: dyadic(array) for name, array in walk.constants.items()}
    for value in walk.graph.input:
        r, c = INPUTS[value.name], value.type.tensor_type.shape.dim[1].dim_value
        bounds[value.name] = _Bound(np.full(c, r.low), np.full(c, r.high), 0, r.power_of_two)
    for node in walk.graph.node:
        if all(name in constants for name in node.input):
            constants[node.output[0]] = constants[node.input[0]]  # a widened weight
            continue
        bound, reached = _bound_of(node, bounds, constants)
        if reached > EXACT:
            raise ValueError(
                f"{node.op_type} {node.output[0]} of {walk.graph.name} can reach {reached}, above "
                f"2**24: float32 would round it; train with smaller weights or fewer inputs"
            )
        worst = max(worst, reached)
        bounds[node.output[0]] = bound
    return worst


def _bound_of(
    node: onnx.NodeProto, bounds: dict[str, _Bound], constants: dict[str, Dyadic]
) -> tuple[_Bound, int]:
    """Return (bound of a node's output, largest magnitude that computing it can meet)."""
    x = bounds[node.input[0]]
    if node.op_type == "Conv":
        return _conv_bound(x, constants[node.input[1]], constants[node.input[2]], node)
    inputs = [bounds[n] if n in bounds else _constant_bound(constants[n]) for n in node.input]
    if node.op_type == "Mul":
        return _mul_bound(*inputs)
    if node.op_type == "Add":
        e = min(i.e for i in inputs)
        a, b = (i.at(e) for i in inputs)
        result = _Bound(a.low + b.low, a.high + b.high, e)
        return result, result.largest
    return _moved(node, *inputs), 0


def _constant_bound(constant: Dyadic) -> _Bound:
    m = constant.m.reshape(-1)
    magnitudes = np.abs(m[m != 0])
    power = bool(((magnitudes & (magnitudes - 1)) == 0).all())
    return _Bound(m, m, constant.e, power)


def _mul_bound(x: _Bound, other: _Bound) -> tuple[_Bound, int]:
    corners = [a * b for a in (x.low, x.high) for b in (other.low, other.high)]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    odd = (x.odd or x.largest) * (1 if other.power_of_two else other.largest)
    return _Bound(low, high, x.e + other.e, odd=odd), odd


def _moved(node: onnx.NodeProto, x: _Bound, *others: _Bound) -> _Bound:
    """Return the bound of a node that computes no sum: it selects, cuts off or moves values."""
    if node.op_type == "Floor":
        return _Bound(x.low >> -x.e, x.high >> -x.e, 0)
    if node.op_type == "Clip":
        e = min(i.e for i in (x, *others))
        value, low, high = (i.at(e) for i in (x, *others))
        low_end, high_end = (np.clip(end, low.low, high.low) for end in (value.low, value.high))
        return _Bound(low_end, high_end, e)
    if node.op_type == "Concat":
        e = min(i.e for i in (x, *others))
        parts = [i.at(e) for i in (x, *others)]
        lows, highs = ([getattr(p, side) for p in parts] for side in ("low", "high"))
        return _Bound(np.concatenate(lows), np.concatenate(highs), e)
    if node.op_type == "Slice":
        first, last = int(others[0].low[0]), int(others[1].low[0])
        return _Bound(x.low[first:last], x.high[first:last], x.e)
    if node.op_type == "DepthToSpace":
        size = _attributes(node)["blocksize"] ** 2
        return _Bound(x.low.reshape(-1, size).min(1), x.high.reshape(-1, size).max(1), x.e)
    if node.op_type in ("Cast", "Identity"):
        return x
    raise ValueError(f"{node.op_type} is not an operator of integer graphs")


def _conv_bound(
    x: _Bound, weight: Dyadic, bias: Dyadic, node: onnx.NodeProto
) -> tuple[_Bound, int]:
    """Return the range of a convolution and the largest partial sum, per output channel.

    A partial sum, in any order, is at most the sum of |w| * max|x| and |b|; zero padding counts as
    an input of zero.
    """
    low, high = np.minimum(x.low, 0), np.maximum(x.high, 0)
    if _attributes(node)["group"] == 1:
        low, high = low[:, None, None], high[:, None, None]
    else:
        low, high = low[:, None, None, None], high[:, None, None, None]
    w, b = weight.m, bias.m << (bias.e - x.e - weight.e)
    positive, negative = np.maximum(w, 0), np.minimum(w, 0)
    top = (positive * high + negative * low).sum((1, 2, 3)) + b
    bottom = (positive * low + negative * high).sum((1, 2, 3)) + b
    magnitude = (np.abs(w) * np.maximum(-low, high)).sum((1, 2, 3)) + np.abs(b)
    return _Bound(bottom, top, x.e + weight.e), int(magnitude.max())
