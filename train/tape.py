"""Graphs differentiated node by node, so that a gradient is that of what is computed.

Rounding passes gradients as if it were not there (straight through), and integers between bounds
pass them inside the bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

_PASSES = {"Floor", "Identity", "Cast"}


class Tape:
    """The nodes of a graph and, behind them, those of its gradient.

    graph: what is differentiated; its outputs are dropped, so that only what the gradient needs is
    computed again. Constants are whatever depends on no input.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes: list[NodeProto] = list(graph.node)
        self.constants: dict[str, TensorProto] = {t.name: t for t in graph.initializer}
        self._forward = list(graph.node)
        self._variable = {i.name for i in graph.input}
        for node in graph.node:  # in topological order
            if any(name in self._variable for name in node.input):
                self._variable.update(node.output)
        self._count = 0
        model = onnx.shape_inference.infer_shapes(helper.make_model(graph))
        values = [*model.graph.value_info, *model.graph.input]
        self._channels = {
            v.name: v.type.tensor_type.shape.dim[1].dim_value
            for v in values
            if len(v.type.tensor_type.shape.dim) == 4
        }

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node; return the name of its output."""
        name = f"g{self._count}"
        self._count += 1
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: object, dtype: type[np.generic] = np.int64) -> str:
        """Add a constant; return its name."""
        name = f"k{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.array(value, dtype), name)
        return name

    def array(self, name: str) -> NDArray[np.generic]:
        """Return the value of a constant, widened ones included."""
        if name not in self.constants:
            (source,) = (n for n in self._forward if name in n.output)
            return self.array(source.input[0])
        return numpy_helper.to_array(self.constants[name])

    def channels(self, name: str) -> int:
        """Return the channels of a value (1, C, h, w)."""
        return self._channels[name]

    def backward(self, seeds: dict[str, str]) -> dict[str, str]:
        """Add the gradient's nodes; return the name of the gradient of each value that has one.

        seeds: value -> the name of its gradient.
        """
        gradients = dict(seeds)
        for node in reversed(self._forward):
            gradient = gradients.get(node.output[0])
            if gradient is None:
                continue
            for name, part in _parts(self, node, gradient):
                if name in self._variable:
                    known = gradients.get(name)
                    gradients[name] = part() if known is None else self.node("Add", known, part())
        return gradients


_Part = tuple[str, Callable[[], str]]
"""An input of a node, and what adds the nodes of its share of the gradient."""


def _parts(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    """Return the shares of a node's inputs in the gradient of its output."""
    x = node.input[0]
    if node.op_type in _PASSES:
        return [(x, lambda: gradient)]
    if node.op_type == "Add":
        return [(name, lambda: gradient) for name in node.input]
    if node.op_type not in _RULES:
        raise ValueError(f"the gradient of {node.op_type} ({node.output[0]}) is not known")
    return _RULES[node.op_type](tape, node, gradient)


def _multiply(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    a, b = node.input
    return [(a, lambda: tape.node("Mul", gradient, b)), (b, lambda: tape.node("Mul", gradient, a))]


def _leaky_relu(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    """A product with the slope, which is made of the output, that has the sign of the input.

    A convolution with 1e30 for its kernel, clipped, is the slope: ONNX Runtime has comparisons in
    another layout than convolutions, and the one between them would cost as much as one of those.
    """
    alpha = _attribute(node, "alpha", 0.01)
    if not 0 < alpha < 1:
        raise ValueError(f"the gradient of {node.output[0]} is not known: a slope of {alpha}")

    def part() -> str:
        channels = tape.channels(node.input[0])
        steep = tape.constant(np.full((channels, 1, 1, 1), 1e30), np.float32)
        sign = tape.node("Conv", node.output[0], steep, group=channels, kernel_shape=[1, 1])
        bounds = (tape.constant(value, np.float32) for value in (alpha, 1))
        return tape.node("Mul", gradient, tape.node("Clip", sign, *bounds))

    return [(node.input[0], part)]


def _clip(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    """A product with 1 inside the bounds and 0 outside: faster than a selection."""
    x = node.input[0]

    def part() -> str:
        inside = tape.node("Cast", tape.node("Equal", x, node.output[0]), to=TensorProto.FLOAT)
        return tape.node("Mul", gradient, inside)

    return [(x, part)]


def _conv(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    """A convolution with its kernel turned: cheaper in ONNX Runtime than ConvTranspose."""
    x, weight = node.input[:2]
    shape = tape.array(weight).shape
    group, kernel = _attribute(node, "group", 1), shape[2:]
    if group not in (1, shape[0]) or any(s != 1 for s in _attribute(node, "strides", [1, 1])):
        raise ValueError(f"the gradient of {node.output[0]} is not known: groups or strides")

    def part() -> str:
        turned = weight
        if group == 1:
            turned = tape.node("Transpose", turned, perm=[1, 0, 2, 3])
        if kernel != (1, 1):
            start, end, axes, step = ([-1, -1], [-(2**31)] * 2, [2, 3], [-1, -1])
            turned = tape.node("Slice", turned, *map(tape.constant, (start, end, axes, step)))
        pads = [kernel[i] - 1 - p for i, p in enumerate(_attribute(node, "pads", [0] * 4)[:2])] * 2
        return tape.node(
            "Conv", gradient, turned, group=group, kernel_shape=list(kernel), pads=pads
        )

    return [(x, part)]


def _conv_transpose(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    x, weight = node.input[:2]
    strides = _attribute(node, "strides", [1, 1])
    return [(x, lambda: tape.node("Conv", gradient, weight, strides=strides))]


def _concat(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    def slicer(start: int, end: int) -> Callable[[], str]:
        return lambda: tape.node("Slice", gradient, *map(tape.constant, ([start], [end], [1])))

    ends = np.cumsum([tape.channels(name) for name in node.input]).tolist()
    bounds = zip(node.input, [0, *ends], ends, strict=False)
    return [(name, slicer(start, end)) for name, start, end in bounds]


def _slice(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    x = node.input[0]
    start, end = (int(tape.array(name)[0]) for name in node.input[1:3])
    behind = tape.channels(x) - end
    pads = [0, start, 0, 0, 0, behind, 0, 0]
    return [(x, lambda: tape.node("Pad", gradient, tape.constant(pads)))]


_RULES = {
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "LeakyRelu": _leaky_relu,
    "Mul": _multiply,
    "Slice": _slice,
}


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default
