"""The prior as ONNX graphs of integers.

Graphs are built node by node from integer weights: nothing is traced, so they hold no metadata and
are the same bytes each time. Every tensor holds integers, or integers over a power of two, in
float32; vaecodec/bounds.py proves that no sum can leave the range in which float32 is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from train.prior import (
    ACTIVATION_MAX,
    ACTIVATION_UNIT,
    HEAD_MAX,
    HEAD_UNIT,
    WEIGHT_MAX,
    HyperDecoder,
    IntConv,
    Step,
)
from vaecodec import latents

OPSET, IR_VERSION = 20, 10
ROW8_LIMIT = 4096


class GraphBuilder:
    """Collects nodes and constants of one graph; names are counted, so they never change."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def clip(self, x: str, low: float, high: float) -> str:
        return self.node("Clip", x, self.constant(low), self.constant(high))

    def floor_half(self, x: str) -> str:
        """Round to integers, half up."""
        return self.node("Floor", self.node("Add", x, self.constant(0.5)))

    def widened(self, value: npt.NDArray[np.generic], dtype: npt.DTypeLike) -> str:
        """Return a constant stored as `dtype` and widened to float32 when the graph is loaded."""
        stored = self.constant(value, dtype)
        return self.node("Cast", stored, to=TensorProto.FLOAT)

    def build(
        self, name: str, inputs: list[tuple[str, int, str]], outputs: Sequence[tuple[str, int, int]]
    ) -> bytes:
        """Return the serialised model: inputs (name, channels, "h w" or ""), outputs with type."""
        ins = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, *(sides.split() or (1, 1))])
            for n, c, sides in inputs
        ]
        outs = [
            helper.make_tensor_value_info(n, kind, [1, c, "out_h", "out_w"])
            for n, c, kind in outputs
        ]
        graph = helper.make_graph(self.nodes, name, ins, outs, self.constants)
        return serialise(graph)


def serialise(graph: onnx.GraphProto) -> bytes:
    """Return a checked model of `graph` as bytes that depend on nothing else."""
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opset, producer_name="vaecodec")
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def int_conv(g: GraphBuilder, layer: IntConv, x: str, unit: int) -> str:
    """Add an integer convolution whose output is integers over `unit` (input: over 32)."""
    exponent = layer.exponents().double()
    step = np.exp2(exponent.numpy())
    weight = np.floor(layer.weight.detach().double().numpy() / step[:, None, None, None] + 0.5)
    weight = weight.clip(-WEIGHT_MAX, WEIGHT_MAX)
    assert layer.bias is not None
    bias = np.floor(layer.bias.detach().double().numpy() / (step / ACTIVATION_UNIT) + 0.5)
    if np.abs(bias).max() >= 2**24:
        raise ValueError(f"a bias of {np.abs(bias).max():.0f} units of its sum is above 2**24")
    y = g.node(
        "Conv",
        x,
        g.widened(weight, np.int8),
        g.widened(bias, np.int32),
        kernel_shape=list(layer.kernel_size),
        pads=[int(p) for p in layer.padding] * 2,
        group=layer.groups,
    )
    shift = g.constant((step * unit / ACTIVATION_UNIT).reshape(1, -1, 1, 1))
    return g.floor_half(g.node("Mul", y, shift))


def _relu(g: GraphBuilder, layer: IntConv, x: str, shift: str | None = None) -> str:
    y = int_conv(g, layer, x, ACTIVATION_UNIT)
    return g.clip(g.node("Add", y, shift) if shift else y, 0, ACTIVATION_MAX)


def _output(g: GraphBuilder, x: str, name: str, op: str = "Identity", **attributes: Any) -> None:
    g.nodes.append(helper.make_node(op, [x], [name], name, **attributes))


def hyper_graph(decoder: HyperDecoder) -> bytes:
    """Return the graph of the hyper decoder.

    Inputs z (1, Z, h, w) and shift (1, P, 1, 1); output features (1, P, 4h, 4w), integers 0..255.
    """
    g = GraphBuilder()
    side, width = decoder.enter.in_channels, decoder.enter.out_channels
    x = g.clip(g.node("Mul", "z", g.constant(8)), -ACTIVATION_MAX, ACTIVATION_MAX)
    x = _relu(g, decoder.enter, x)
    for up, mix in ((decoder.up1, decoder.mix1), (decoder.up2, decoder.mix2)):
        x = g.node("DepthToSpace", _relu(g, up, x), blocksize=2, mode="CRD")
        x = _relu(g, mix, x)
    x = _relu(g, decoder.leave, x, g.clip("shift", -ACTIVATION_MAX, ACTIVATION_MAX))
    _output(g, x, "features")
    inputs = [("z", side, "h w"), ("shift", width, "")]
    return g.build("hyper", inputs, [("features", width, TensorProto.FLOAT)])


def step_graph(step: Step, width: int, context: bool) -> bytes:
    """Return the graph of one coding step.

    Inputs: features (1, P, h, w); with `context` the latents decoded so far, y16 (1, C, h, w) in
    1/16; offset (1, C, 1, 1), the quality's scale indices in 1/8 rows; sigma4 and inverse
    (1, C, 1, 1), 2**(e + 2) and 2**(8 - e) for the exponent e of `latents.exponents`. Outputs:
    mean (1, C, h, w) in 1/16, float32 integers, and row (1, C, h, w), uint8 0..63.
    """
    g = GraphBuilder()
    c = step.channels
    x = "features"
    inputs = [("features", width, "h w"), ("offset", c, ""), ("sigma4", c, "")]
    if context:
        inputs += [("y16", c, "h w"), ("inverse", c, "")]
        scaled = g.node("Mul", g.node("Mul", "y16", "inverse"), g.constant(2.0**-7))
        limited = g.clip(scaled, -2 * ACTIVATION_MAX, 2 * ACTIVATION_MAX)
        seen = g.clip(g.floor_half(limited), -ACTIVATION_MAX, ACTIVATION_MAX)
        x = g.node("Concat", x, seen, axis=1)
    for layer in (step.enter, step.mix, step.inner):
        x = _relu(g, layer, x)
    heads = g.clip(int_conv(g, step.heads, x, HEAD_UNIT), -HEAD_MAX, HEAD_MAX)
    halves = [
        g.node("Slice", heads, *(g.constant([v], np.int64) for v in (i * c, (i + 1) * c, 1)))
        for i in (0, 1)
    ]
    mean = g.node("Mul", g.node("Mul", halves[0], "sigma4"), g.constant(2.0**-4))
    _output(g, g.floor_half(mean), "mean")
    row8 = g.node("Add", halves[1], g.clip("offset", -ROW8_LIMIT, ROW8_LIMIT))
    row = g.floor_half(g.node("Mul", row8, g.constant(1 / latents.ROW_UNIT)))
    _output(g, g.clip(row, 0, latents.ROWS - 1), "row", "Cast", to=TensorProto.UINT8)
    outputs = [("mean", c, TensorProto.FLOAT), ("row", c, TensorProto.UINT8)]
    return g.build("step", inputs, outputs)
