"""Proof that float32 computes an integer graph exactly: bounds of every value, from the weights.

A tensor of an integer graph holds m * 2**e with integer m and one e for the tensor. float32 adds
and multiplies such values without rounding, in any order, as long as every m that can occur stays
below 2**24. `prove` bounds m for every tensor. Graphs come from others too: what it does not know
how to bound, it refuses.

Needs onnx, which nothing but training and the verification of a received bundle imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from vaecodec.dyadic import LARGEST, Dyadic, Int, dyadic

__all__ = ["INPUTS", "OUTPUTS", "Range", "attributes", "check_tables", "prove"]

EXACT = 2**24
"""Integers up to this magnitude are exact in float32."""

_FINEST = -60  # of any e: far from where float32 runs out of exponents


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
`latents.exponents` bound the scales, and `check_tables` the tables."""

OUTPUTS = {
    "features": INPUTS["features"],
    "mean": Range(-(2**19), 2**19),  # with 16 times a clipped symbol: within y16
    "row": Range(0, 63),
}
"""What each output may hold, all of it integers: the next graph and the tables take no more."""


def check_tables(tables: Mapping[str, NDArray[Any]]) -> None:
    """Raise ValueError where an integer table leaves what the proof of the graphs takes in.

    tables: the arrays of quality.npz of the family "hyperprior".
    """
    for name, entry in (("shift", "shift"), ("row_offset", "offset")):
        array = tables[name].astype(np.int64)  # the smallest int32 has no magnitude in int32
        largest, limit = int(np.abs(array).max()), INPUTS[entry].high
        if largest > limit:
            raise ValueError(f"the table {name} reaches {largest}; at most {limit} is allowed")


@dataclass(frozen=True)
class _Bound:
    """Every value is m * 2**e with low <= m <= high, per channel.

    `odd` bounds what is left of m without its factors of two, where that is known to be smaller:
    it is what a float32 has to hold. `byte`: it is held as uint8, not as float32.
    """

    low: Int
    high: Int
    e: int
    power_of_two: bool = False
    odd: int | None = None
    byte: bool = False

    def at(self, e: int) -> _Bound:
        if e < _FINEST or self.largest * 2.0 ** (self.e - e) > LARGEST:
            raise ValueError("its values are too large, or too fine, to be bounded")
        return _Bound(self.low << (self.e - e), self.high << (self.e - e), e)

    @property
    def largest(self) -> int:
        return int(max(abs(self.low).max(), abs(self.high).max()))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node, by name."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def prove(model: bytes) -> int:
    """Return the largest magnitude, in units of its tensor, that any sum of a graph can reach.

    Inputs hold what `INPUTS` says. Raises ValueError, naming the node, where float32 would not be
    exact: a magnitude above 2**24; where a node cannot be bounded; and where an output can be what
    `OUTPUTS` does not allow. A multiplication by a power of two only moves the exponent and is
    exact at any magnitude.
    """
    graph = onnx.load_from_string(model).graph
    worst = 0
    constants = {t.name: dyadic(numpy_helper.to_array(t)) for t in graph.initializer}
    bounds = {value.name: _of_input(value) for value in graph.input}
    for node in graph.node:
        try:
            if all(name in constants for name in node.input):
                constants[node.output[0]] = _widened(node, constants)
                continue
            bound, reached = _bound_of(node, bounds, constants)
        except (LookupError, TypeError) as error:  # by name, by place, or too many
            raise ValueError(
                f"{_place(node, graph)} cannot be bounded: its inputs are not those expected"
            ) from error
        except ValueError as error:
            raise ValueError(f"{_place(node, graph)} cannot be bounded: {error}") from error
        if reached > EXACT:
            raise ValueError(
                f"{_place(node, graph)} can reach {reached}, above 2**24: float32 would round it; "
                "train with smaller weights or fewer inputs"
            )
        worst = max(worst, reached)
        bounds[node.output[0]] = bound
    _check_outputs(graph, bounds)
    return worst


def _place(node: onnx.NodeProto, graph: onnx.GraphProto) -> str:
    return f"{node.op_type} {', '.join(node.output)} of {graph.name}"


def _of_input(value: onnx.ValueInfoProto) -> _Bound:
    if value.name not in INPUTS:
        raise ValueError(f"{value.name} is no input of integer graphs")
    r, shape = INPUTS[value.name], value.type.tensor_type.shape
    if len(shape.dim) != 4 or shape.dim[1].dim_value < 1:
        raise ValueError(f"the input {value.name} does not state its channels")
    c = shape.dim[1].dim_value
    return _Bound(np.full(c, r.low), np.full(c, r.high), 0, r.power_of_two)


def _check_outputs(graph: onnx.GraphProto, bounds: Mapping[str, _Bound]) -> None:
    for output in graph.output:
        allowed, found = OUTPUTS.get(output.name), bounds.get(output.name)
        if allowed is None or found is None or found.e != 0:
            raise ValueError(f"the output {output.name} of {graph.name} is not known or no integer")
        low, high = int(found.low.min()), int(found.high.max())
        if low < allowed.low or high > allowed.high:
            raise ValueError(
                f"the output {output.name} of {graph.name} can be {low} to {high}; {allowed.low} "
                f"to {allowed.high} is allowed"
            )


def _widened(node: onnx.NodeProto, constants: Mapping[str, Dyadic]) -> Dyadic:
    """Return what a node makes of a constant: the same, in float32."""
    value = constants[node.input[0]]
    if node.op_type != "Cast" or attributes(node)["to"] != TensorProto.FLOAT:
        raise ValueError("constants are widened to float32 and nothing else")
    if np.abs(value.m).max() > EXACT:
        raise ValueError("a constant is not exact in float32")
    return value


def _bound_of(
    node: onnx.NodeProto, bounds: Mapping[str, _Bound], constants: Mapping[str, Dyadic]
) -> tuple[_Bound, int]:
    """Return (bound of a node's output, largest magnitude that computing it can meet)."""
    if len(node.output) != 1:
        raise ValueError("one output is expected")
    x = bounds[node.input[0]]
    if node.op_type == "Conv":
        return _conv_bound(x, constants[node.input[1]], constants[node.input[2]], node)
    if node.op_type in ("Slice", "Clip"):
        parameters = [constants[name] for name in node.input[1:]]
        return (_sliced if node.op_type == "Slice" else _clipped)(x, *parameters), 0
    inputs = [bounds[n] if n in bounds else _constant_bound(constants[n]) for n in node.input]
    if any(i.byte for i in inputs) and node.op_type != "Identity":
        raise ValueError("bytes are for outputs; arithmetic on them would wrap around")
    if node.op_type == "Mul":
        return _mul_bound(*inputs)
    if node.op_type == "Add":
        e = min(i.e for i in inputs)
        a, b = (i.at(e) for i in inputs)
        result = _Bound(a.low + b.low, a.high + b.high, e)
        return result, result.largest
    return _moved(node, *inputs), 0


def _constant_bound(constant: Dyadic) -> _Bound:
    """Return the bound of a constant that has one value, or one for each channel."""
    shape = constant.m.shape
    if constant.m.size != 1 and (len(shape) < 3 or shape[-3] != constant.m.size):
        raise ValueError(f"a constant of shape {shape} is neither one value nor one per channel")
    m = constant.m.reshape(-1)
    magnitudes = np.abs(m[m != 0])
    power = bool(((magnitudes & (magnitudes - 1)) == 0).all())
    return _Bound(m, m, constant.e, power)


def _mul_bound(x: _Bound, other: _Bound) -> tuple[_Bound, int]:
    if float(x.largest) * other.largest > LARGEST or x.e + other.e < _FINEST:
        raise ValueError("its values are too large, or too fine, to be bounded")
    corners = [a * b for a in (x.low, x.high) for b in (other.low, other.high)]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    odd = (x.odd or x.largest) * (1 if other.power_of_two else other.largest)
    return _Bound(low, high, x.e + other.e, odd=odd), odd


def _clipped(x: _Bound, low: Dyadic, high: Dyadic) -> _Bound:
    e = min(x.e, low.e, high.e)
    value, *ends = x.at(e), _constant_bound(low).at(e).low, _constant_bound(high).at(e).low
    if ends[0].size != 1 or ends[1].size != 1 or ends[0] > ends[1]:
        raise ValueError("its limits are not two ascending numbers")
    return _Bound(np.clip(value.low, *ends), np.clip(value.high, *ends), e)


def _sliced(
    x: _Bound, first: Dyadic, last: Dyadic, axes: Dyadic, steps: Dyadic | None = None
) -> _Bound:
    start, stop, axis = (int(i.m.item()) for i in (first, last, axes))
    if axis != 1 or not 0 <= start < stop <= len(x.low) or (steps and steps.m.item() != 1):
        raise ValueError("it selects something else than channels")
    return _Bound(x.low[start:stop], x.high[start:stop], x.e)


def _moved(node: onnx.NodeProto, x: _Bound, *others: _Bound) -> _Bound:
    """Return the bound of a node that computes no sum: it selects, rounds or moves values."""
    more = attributes(node)
    if node.op_type == "Floor":
        return _Bound(x.low >> -x.e, x.high >> -x.e, 0)
    if node.op_type == "Concat" and more["axis"] == 1:
        e = min(i.e for i in (x, *others))
        parts = [i.at(e) for i in (x, *others)]
        lows, highs = ([getattr(p, side) for p in parts] for side in ("low", "high"))
        return _Bound(np.concatenate(lows), np.concatenate(highs), e)
    if node.op_type == "DepthToSpace" and more.get("mode") == b"CRD":
        size = more["blocksize"] ** 2
        return _Bound(x.low.reshape(-1, size).min(1), x.high.reshape(-1, size).max(1), x.e)
    if node.op_type == "Identity" or (node.op_type == "Cast" and more["to"] == TensorProto.FLOAT):
        return x
    if node.op_type == "Cast" and more["to"] == TensorProto.UINT8:
        if x.e != 0 or x.low.min() < 0 or x.high.max() > 255:
            raise ValueError("its values are no bytes")
        return _Bound(x.low, x.high, 0, byte=True)
    raise ValueError("it is no operator of integer graphs")


def _conv_bound(
    x: _Bound, weight: Dyadic, bias: Dyadic, node: onnx.NodeProto
) -> tuple[_Bound, int]:
    """Return the range of a convolution and the largest partial sum, per output channel.

    A partial sum, in any order, is at most the sum of |w| * max|x| and |b|; zero padding counts as
    an input of zero.
    """
    w, group, channels = weight.m, attributes(node).get("group", 1), len(x.low)
    dense = w.ndim == 4 and (group, w.shape[1]) == (1, channels)
    deep = w.ndim == 4 and (group, *w.shape[:2]) == (channels, channels, 1)
    if x.byte or not (dense or deep) or bias.m.shape != (len(w),):
        raise ValueError("it is neither a dense nor a depthwise convolution with a bias")
    low, high = np.minimum(x.low, 0), np.maximum(x.high, 0)
    axes = (None, None) if dense else (None, None, None)
    low, high = (end[(slice(None), *axes)] for end in (low, high))
    e = x.e + weight.e
    if e < _FINEST or bias.e < e:
        raise ValueError("its bias is finer than its sums, or they are too fine to be bounded")
    b = _Bound(bias.m, bias.m, bias.e).at(e).low
    reach = (np.abs(w) * np.maximum(-low, high).astype(np.float64)).sum((1, 2, 3)) + np.abs(b)
    if reach.max() > LARGEST:
        raise ValueError("its sums are too large to be bounded")
    positive, negative = np.maximum(w, 0), np.minimum(w, 0)
    top = (positive * high + negative * low).sum((1, 2, 3)) + b
    bottom = (positive * low + negative * high).sum((1, 2, 3)) + b
    return _Bound(bottom, top, e), int(reach.max())
