"""Gradients of a bundle's graphs, as graphs: what the encoder's search follows at run time.

A graph of the bundle is differentiated node by node (`train/tape.py`), so its gradient is that of
what decoders compute, not of a torch module that resembles it. The large weights are not stored
again: they are external data that names the file which holds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper

from train.graphs import serialise
from train.tape import Tape

EXTERNAL = 4096
"""Constants of more bytes than this stay in the file they come from."""


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
    (1, 1, 2h, 2w), the sum of the block's squared errors (of bytes, as they are decoded), and d_y,
    the gradient of the weighted sum of such errors before samples are rounded to bytes and clipped.
    """
    graph, front = onnx.load_from_string(decoder).graph, onnx.load_from_string(encoder).graph
    core = _upto(graph, "out")
    tape = Tape(core)
    ahead = _upto(front, "x")
    tape.nodes[:0] = ahead.node
    tape.constants.update({t.name: t for t in ahead.initializer})
    bounds = (tape.constant(value, np.float32) for value in (0, 255))
    wrong = tape.node("Sub", tape.node("Clip", tape.node("Round", "out"), *bounds), "x")
    error = tape.node("ReduceSum", tape.node("Mul", wrong, wrong), tape.constant([1]))
    difference = tape.node("Sub", "out", "x")
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
