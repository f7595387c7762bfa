"""The transforms as ONNX graphs: u8 NHWC pixels at the boundary, half-precision weights inside.

torch exports the float core; the pixel boundary is put before and behind it node by node, in the
form that ONNX Runtime runs fastest (two u8 transposes around a reshape; measured in docs).
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from train.graphs import serialise
from train.nets import BLOCK, COEFFICIENTS, LEAK, Block, Decoder, Encoder
from train.prior import Prior, signed_logarithm

SMALL = 1024
"""Constants of fewer elements than this stay in float32 (biases cost nothing and matter most)."""


_Side = TypeVar("_Side", Encoder, Decoder)


class PlainBlock(nn.Module):
    """A residual block with its constant scale inside its weights."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.spatial, self.widen, self.narrow = map(
            copy.deepcopy, (block.spatial, block.widen, block.narrow)
        )
        self.spatial.weight.data /= block.scale.view(-1, 1, 1, 1)
        self.narrow.weight.data *= block.scale.view(-1, 1, 1, 1)
        self.narrow.bias.data *= block.scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(F.leaky_relu(self.widen(self.spatial(x)), LEAK))


def halved(module: nn.Module) -> nn.Module:
    """Round the large weights to half precision, as the graph will store them."""
    for p in module.parameters():
        if p.numel() >= SMALL:
            p.data = p.data.half().float()
    return module


def _plain(side: _Side) -> _Side:
    module = copy.deepcopy(side).float().eval()
    for group in (module.blocks8, module.blocks16):
        for i, block in enumerate(group):
            group[i] = PlainBlock(cast(Block, block))
    return module


def exported_encoder(encoder: Encoder) -> nn.Module:
    """Return the module that the encoder's graph computes: blocks of samples 0..255 -> y."""
    module = _plain(encoder)
    module.enter.weight.data /= 255
    return halved(module)


def exported_decoder(decoder: Decoder) -> nn.Module:
    """Return the module that the decoder's graph computes: y -> blocks of samples in 0..255."""
    module = _plain(decoder)
    module.leave.weight.data *= 255
    module.leave.bias.data *= 255
    return halved(module)


class ExportedSide(nn.Module):
    """What the side graph computes: y (N, C, h, w) times gain, sides divisible by 4 -> z."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.encoder = halved(copy.deepcopy(prior.encoder).float().eval())

    def forward(self, y: Tensor) -> Tensor:
        return self.encoder(signed_logarithm(y))


def _core(module: nn.Module, channels: int, name: str, even: bool) -> onnx.GraphProto:
    """Return torch's export of a module (1, C, h, w) -> (1, C', h', w')."""
    example = torch.zeros(1, channels, 32, 48)
    height, width = torch.export.Dim("h", min=2), torch.export.Dim("w", min=2)
    factor = 2 if even else 1
    shapes = {2: factor * height, 3: factor * width}
    return traced(module, example, shapes, "x", ["out"], name)


def traced(
    module: nn.Module,
    example: Tensor,
    shapes: dict[int, Any],
    source: str,
    targets: list[str],
    name: str,
) -> onnx.GraphProto:
    """Return torch's export of a module of one input, stripped of metadata.

    shapes: the dynamic axes of the input, torch.export.Dim by axis.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=(shapes,),
            opset_version=20,
            input_names=[source],
            output_names=targets,
            verbose=False,
        )
    buffer = io.BytesIO()
    program.save(buffer)  # type: ignore[arg-type] # it takes streams, too
    graph = onnx.load_from_string(buffer.getvalue()).graph
    clean = helper.make_graph(
        [_bare(node) for node in graph.node], name, graph.input, graph.output, graph.initializer
    )
    del clean.value_info[:]
    return clean


def _bare(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a node without the stack traces that torch leaves in it."""
    node.ClearField("metadata_props")
    node.ClearField("doc_string")
    return node


def halve(graph: onnx.GraphProto) -> None:
    """Store large constants in half precision, widened by a Cast when the graph is loaded."""
    for tensor in list(graph.initializer):
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < SMALL:
            continue
        stored = numpy_helper.from_array(array.astype(np.float16), f"{tensor.name}_half")
        graph.initializer.remove(tensor)
        graph.initializer.append(stored)
        cast = helper.make_node("Cast", [stored.name], [tensor.name], f"{tensor.name}_widen", to=1)
        graph.node.insert(0, cast)


def _constant(graph: onnx.GraphProto, name: str, values: list[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _shape(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    source: str,
    axes: tuple[int, int],
    template: list[int | str],
    factor: int,
    name: str,
) -> str:
    """Add nodes that compute a shape: "h" and "w" in `template` are source's axes over `factor`.

    A negative factor multiplies instead.
    """
    parts = []
    nodes.append(helper.make_node("Shape", [source], [f"{name}_shape"]))
    scale = _constant(graph, f"{name}_factor", [abs(factor)])
    for letter, axis in zip("hw", axes, strict=True):
        index = _constant(graph, f"{name}_{letter}_axis", [axis])
        nodes.append(
            helper.make_node("Gather", [f"{name}_shape", index], [f"{name}_{letter}_full"])
        )
        op = "Div" if factor > 0 else "Mul"
        nodes.append(helper.make_node(op, [f"{name}_{letter}_full", scale], [f"{name}_{letter}"]))
    for i, item in enumerate(template):
        parts.append(
            f"{name}_{item}" if isinstance(item, str) else _constant(graph, f"{name}_{i}", [item])
        )
    nodes.append(helper.make_node("Concat", parts, [name], axis=0))
    return name


def encoder_graph(encoder: Encoder) -> bytes:
    """Return the graph pixels, uint8 (1, H, W, 3) -> y, float32 (1, C, H/16, W/16) before gain."""
    graph = _core(exported_encoder(encoder), COEFFICIENTS, "encoder", even=True)
    front: list[onnx.NodeProto] = []
    blocks = _shape(graph, front, "pixels", (1, 2), ["h", BLOCK, "w", 3 * BLOCK], BLOCK, "blocks")
    rows = _constant(graph, "rows", [-1, COEFFICIENTS])
    planes = _shape(graph, front, "pixels", (1, 2), [1, COEFFICIENTS, "h", "w"], BLOCK, "planes")
    front += [
        helper.make_node("Reshape", ["pixels", blocks], ["blocked"]),
        helper.make_node("Transpose", ["blocked"], ["cells"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["cells", rows], ["vectors"]),
        helper.make_node("Transpose", ["vectors"], ["channels"], perm=[1, 0]),
        helper.make_node("Reshape", ["channels", planes], ["bytes"]),
        helper.make_node("Cast", ["bytes"], ["x"], to=TensorProto.FLOAT),
    ]
    halve(graph)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, "height", "width", 3])
    return _assemble(graph, front, [], pixels, _renamed(graph, "y"))


def decoder_graph(decoder: Decoder) -> bytes:
    """Return the graph y, float32 (1, C, h, w) after gain -> pixels, uint8 (1, 16h, 16w, 3)."""
    graph = _core(exported_decoder(decoder), decoder.up.in_channels, "decoder", even=False)
    back: list[onnx.NodeProto] = []
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "one"))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    back.append(helper.make_node("QuantizeLinear", ["out", "one", "zero"], ["bytes"]))
    flat = _constant(graph, "flat", [COEFFICIENTS, -1])
    cells = _shape(graph, back, "out", (2, 3), ["h", "w", BLOCK, 3 * BLOCK], 1, "cells")
    whole = _shape(graph, back, "out", (2, 3), [1, "h", "w", 3], -BLOCK, "whole")
    back += [
        helper.make_node("Reshape", ["bytes", flat], ["channels"]),
        helper.make_node("Transpose", ["channels"], ["vectors"], perm=[1, 0]),
        helper.make_node("Reshape", ["vectors", cells], ["blocked"]),
        helper.make_node("Transpose", ["blocked"], ["lines"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["lines", whole], ["pixels"]),
    ]
    halve(graph)
    y = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, decoder.up.in_channels, "h", "w"])
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, "height", "width", 3])
    return _assemble(graph, [], back, _rename_input(graph, y, "y"), pixels)


def side_graph(prior: Prior) -> bytes:
    """Return the graph y, float32 (1, C, h, w) times gain -> z, float32 (1, Z, h/4, w/4)."""
    graph = _core(ExportedSide(prior), prior.channels, "side", even=False)
    halve(graph)
    y = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, prior.channels, "h", "w"])
    return _assemble(graph, [], [], _rename_input(graph, y, "y"), _renamed(graph, "z"))


def _renamed(graph: onnx.GraphProto, name: str) -> onnx.ValueInfoProto:
    """Rename the core's output; return its description."""
    for node in graph.node:
        node.output[:] = [name if o == "out" else o for o in node.output]
    channels = graph.output[0].type.tensor_type.shape.dim[1].dim_value
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, "out_h", "out_w"])


def _rename_input(
    graph: onnx.GraphProto, info: onnx.ValueInfoProto, name: str
) -> onnx.ValueInfoProto:
    for node in graph.node:
        node.input[:] = [name if i == info.name else i for i in node.input]
    info.name = name
    return info


def _assemble(
    graph: onnx.GraphProto,
    front: list[onnx.NodeProto],
    back: list[onnx.NodeProto],
    source: onnx.ValueInfoProto,
    target: onnx.ValueInfoProto,
) -> bytes:
    nodes = [*front, *graph.node, *back]
    return serialise(helper.make_graph(nodes, graph.name, [source], [target], graph.initializer))
