"""Reference of integer graphs: the same graph in int64, where nothing rounds.

A tensor of an integer graph holds m * 2**e with integer m and one e for the tensor.
`vaecodec.bounds` proves that float32 computes it without rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from vaecodec.bounds import attributes
from vaecodec.dyadic import Dyadic, Int, dyadic


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


def _operate(node: onnx.NodeProto, *inputs: Dyadic) -> Dyadic:
    """Compute one node on dyadic tensors of shape (C, H, W)."""
    x, more = inputs[0], attributes(node)
    if node.op_type == "Conv":
        weight, bias = inputs[1], inputs[2]
        e = x.e + weight.e
        sums = _convolve(x.m, weight.m, more["pads"], more["group"])
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
        return Dyadic(_depth_to_space(x.m, more["blocksize"]), x.e)
    if node.op_type in ("Cast", "Identity"):
        return x
    raise ValueError(f"{node.op_type} is not an operator of integer graphs")


def _channels(m: Int) -> Int:
    """Return a constant (1, C, 1, 1), a scalar or a tensor (C, H, W) ready to broadcast."""
    return m[0] if m.ndim == 4 else m


def evaluate(model: bytes, inputs: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, Int]:
    """Return the outputs (C, H, W), int64, of an integer graph for integer inputs (1, C, H, W)."""
    values = {name: Dyadic(array[0].astype(np.int64), 0) for name, array in inputs.items()}
    graph = onnx.load_from_string(model).graph
    values |= {t.name: dyadic(numpy_helper.to_array(t)) for t in graph.initializer}
    for node in graph.node:
        values[node.output[0]] = _operate(node, *(values[name] for name in node.input))
    return {o.name: values[o.name].m >> -values[o.name].e for o in graph.output}
