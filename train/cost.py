"""What a model costs: multiply-accumulates of its graphs, counted from what they really compute."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper

from train.recipes import Model
from vaecodec.runtime import Graph

HEIGHT, WIDTH = 512, 768
"""The image that costs are stated for; larger ones cost the same per pixel."""


def cost(model: bytes, shapes: Mapping[str, tuple[int, ...]], pixels: int) -> float:
    """Return the multiply-accumulates of a graph's convolutions, in thousands per pixel.

    `shapes` gives each input's shape for an image of `pixels` pixels. The graph is run once with
    all its convolutions as outputs: their sizes are what they are, not what was inferred.
    """
    loaded = onnx.load_from_string(model)
    convolutions = [n for n in loaded.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    places = [n.output[0] if n.op_type == "Conv" else n.input[0] for n in convolutions]
    graph_inputs = {value.name for value in loaded.graph.input}
    del loaded.graph.output[:]
    for name in sorted(set(places) - graph_inputs):
        loaded.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    run = Graph(loaded.SerializeToString())
    kinds = {v.name: v.type.tensor_type.elem_type for v in loaded.graph.input}
    dtypes = {k: helper.tensor_dtype_to_np_dtype(v) for k, v in kinds.items()}
    inputs = {k: np.zeros(shapes[k], dtypes[k]) for k in run.inputs}
    found = dict(zip(run.outputs, run(**inputs), strict=True)) | inputs
    weights = {t.name: list(t.dims) for t in loaded.graph.initializer}
    for node in loaded.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    total = sum(
        math.prod(weights[node.input[1]]) * math.prod(found[place].shape[2:])
        for node, place in zip(convolutions, places, strict=True)
    )
    return total / pixels / 1000


def costs(files: Mapping[str, bytes], shape: Model) -> dict[str, float]:
    """Return kMAC/pixel of encoding and decoding, both with the prior, and of the prior alone."""
    h, w = HEIGHT // 16, WIDTH // 16
    pixels = HEIGHT * WIDTH
    y, column = (1, shape.channels, h, w), (1, shape.channels, 1, 1)
    hyper = {"z": (1, shape.side, h // 4, w // 4), "shift": (1, shape.width, 1, 1)}
    step = dict.fromkeys(("offset", "sigma4", "inverse"), column)
    step |= {"features": (1, shape.width, h, w), "y16": y}
    prior = cost(files["hyper.onnx"], hyper, pixels)
    prior += sum(cost(files[n], step, pixels) for n in files if n.startswith("step"))
    analysis = cost(files["encoder.onnx"], {"pixels": (1, HEIGHT, WIDTH, 3)}, pixels)
    side = cost(files["side.onnx"], {"y": y}, pixels)
    synthesis = cost(files["decoder.onnx"], {"y": y}, pixels)
    found = {"encode": analysis + side + prior, "decode": synthesis + prior, "prior": prior}
    return {k: round(v, 3) for k, v in found.items()}
