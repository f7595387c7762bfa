"""Gradients of a bundle's graphs, as graphs: what the encoder's search follows at run time.

A graph of the bundle is differentiated node by node, so its gradient is that of what decoders
compute, not of a torch module that resembles it. Rounding passes gradients as if it were not there
(straight through), and integers between bounds pass them inside the bounds. The large weights are
not stored again: they are external data that names the file which holds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from train.graphs import serialise

EXTERNAL = 4096
"""Constants of more bytes than this stay in the file they come from."""

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


def _where(tape: Tape, condition: str, gradient: str, otherwise: str) -> str:
    return tape.node("Where", condition, gradient, otherwise)


def _leaky_relu(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    def part() -> str:
        slope = tape.constant(_attribute(node, "alpha", 0.01), np.float32)
        positive = tape.node("Greater", node.input[0], tape.constant(0, np.float32))
        return _where(tape, positive, gradient, tape.node("Mul", gradient, slope))

    return [(node.input[0], part)]


def _clip(tape: Tape, node: NodeProto, gradient: str) -> Sequence[_Part]:
    x = node.input[0]

    def part() -> str:
        inside = tape.node("Equal", x, node.output[0])
        return _where(tape, inside, gradient, tape.constant(0, np.float32))

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


def step_gradient(content: bytes, file: str) -> bytes:
    """Return the gradient of a coding step's graph.

    Inputs are those of the graph and d_NAME for each of its outputs, of its shape, float32 (for a
    row, of the row before it is rounded); the output d_y16 is the gradient of the latents.
    """
    graph = onnx.load_from_string(content).graph
    tape = Tape(graph)
    seeds, inputs = {}, list(graph.input)
    for output in graph.output:
        dims = [d.dim_value or d.dim_param for d in output.type.tensor_type.shape.dim]
        inputs.append(helper.make_tensor_value_info(f"d_{output.name}", TensorProto.FLOAT, dims))
        seeds[output.name] = f"d_{output.name}"
    gradients = tape.backward(seeds)
    (seen,) = (i for i in graph.input if i.name == "y16")
    return _assemble(tape, inputs, [("d_y16", gradients["y16"], seen)], content, file)


def decoder_gradient(decoder: bytes, encoder: bytes) -> bytes:
    """Return the graph of what a decoder's pixels are worth, and of its gradient.

    Inputs: y, float32 (1, C, h, w) as the decoder takes it; pixels, uint8 (1, 16h, 16w, 3), those
    to come close to; weight, float32 (1, 1, 2h, 2w), of each 8x8 block. Outputs: error, float32
    (1, 1, 2h, 2w), the sum of the block's squared errors (of samples 0..255, before they are
    rounded to bytes and clipped), and d_y, the gradient of the weighted sum of errors.
    """
    graph, front = onnx.load_from_string(decoder).graph, onnx.load_from_string(encoder).graph
    core = _upto(graph, "out")
    tape = Tape(core)
    ahead = _upto(front, "x")
    tape.nodes[:0] = ahead.node
    tape.constants.update({t.name: t for t in ahead.initializer})
    difference = tape.node("Sub", "out", "x")
    tape.node("ReduceSum", tape.node("Mul", difference, difference), tape.constant([1]))
    error = tape.nodes[-1].output[0]
    twice = tape.node("Mul", tape.node("Mul", difference, "weight"), tape.constant(2, np.float32))
    gradients = tape.backward({"out": twice})
    weight = helper.make_tensor_value_info("weight", TensorProto.FLOAT, [1, 1, "rows", "columns"])
    like = helper.make_tensor_value_info("error", TensorProto.FLOAT, [1, 1, "rows", "columns"])
    inputs = [graph.input[0], front.input[0], weight]
    outputs = [("error", error, like), ("d_y", gradients["y"], graph.input[0])]
    return _assemble(tape, inputs, outputs, decoder, "decoder.onnx")


def _upto(graph: onnx.GraphProto, name: str) -> onnx.GraphProto:
    """Return the part of a graph that computes a value."""
    needed, nodes = {name}, list[NodeProto]()
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    constants = [t for t in graph.initializer if t.name in needed]
    inputs = [i for i in graph.input if i.name in needed]
    return helper.make_graph(nodes, graph.name, inputs, [], constants)


def _assemble(
    tape: Tape,
    inputs: Sequence[ValueInfoProto],
    outputs: Sequence[tuple[str, str, ValueInfoProto]],
    content: bytes,
    file: str,
) -> bytes:
    """Return the graph of a tape's nodes that its outputs (name, value, like what) need."""
    infos = []
    for name, value, like in outputs:
        tape.nodes.append(helper.make_node("Identity", [value], [name]))
        info = ValueInfoProto()
        info.CopyFrom(like)
        info.name = name
        infos.append(info)
    needed, nodes = {name for name, *_ in outputs}, list[NodeProto]()
    for node in reversed(tape.nodes):
        if needed & set(node.output):
            nodes.insert(0, node)
            needed.update(node.input)
    constants = [t for n, t in tape.constants.items() if n in needed]
    checked = serialise(helper.make_graph(nodes, "gradient", inputs, infos, constants))
    model = onnx.load_from_string(checked)
    for tensor in model.graph.initializer:
        _move_out(tensor, content, file)
    return model.SerializeToString(deterministic=True)


def _move_out(tensor: TensorProto, content: bytes, file: str) -> None:
    """Make of a large constant that a file holds external data that says where it stands there."""
    offset, length = content.find(tensor.raw_data), len(tensor.raw_data)
    if length <= EXTERNAL or offset < 0:
        return
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def search_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the gradients that a bundle's encoder search needs, by file name.

    files: the graphs of a hyperprior bundle, by file name.
    """
    found = {
        "decoder_gradient.onnx": decoder_gradient(files["decoder.onnx"], files["encoder.onnx"])
    }
    for name in sorted(files):
        if re.fullmatch(r"step\d\.onnx", name) and _sees_latents(files[name]):
            found[name.replace(".onnx", "_gradient.onnx")] = step_gradient(files[name], name)
    return found


def _sees_latents(content: bytes) -> bool:
    return any(i.name == "y16" for i in onnx.load_from_string(content).graph.input)
