import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from train import gradients
from train.gradients import search_files
from train.graphs import serialise
from train.tape import Tape
from vaecodec.bundle import find
from vaecodec.runtime import Graph

RANDOM = np.random.default_rng(0)


def real(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def node(op, inputs, **attributes):
    return helper.make_node(op, inputs, ["out"], **attributes)


CASES = {
    "1x1": (node("Conv", ["x", "w"], kernel_shape=[1, 1]), {"w": real(3, 4, 1, 1)}),
    "depthwise": (
        node("Conv", ["x", "w"], kernel_shape=[3, 3], pads=[1] * 4, group=4),
        {"w": real(4, 1, 3, 3)},
    ),
    "3x3": (node("Conv", ["x", "w"], kernel_shape=[3, 3], pads=[1] * 4), {"w": real(2, 4, 3, 3)}),
    "transposed": (node("ConvTranspose", ["x", "w"], strides=[2, 2]), {"w": real(4, 3, 2, 2)}),
    "leaky": (node("LeakyRelu", ["x"], alpha=0.1), {}),
    "clip": (node("Clip", ["x", "a", "b"]), {"a": np.float32(-0.5), "b": np.float32(0.7)}),
    "scaled": (node("Mul", ["x", "s"]), {"s": real(1, 4, 1, 1)}),
    "squared": (node("Mul", ["x", "x"]), {}),
    "shifted": (node("Add", ["x", "s"]), {"s": real(1, 4, 1, 1)}),
    "doubled": (node("Add", ["x", "x"]), {}),
    "joined": (node("Concat", ["x", "x"], axis=1), {}),
    "part": (
        node("Slice", ["x", "i", "j", "k"]),
        {n: np.array([v], np.int64) for n, v in (("i", 1), ("j", 3), ("k", 1))},
    ),
}


def graph_of(case, *more):
    made, constants = CASES[case]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 5])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["a", "b", "c", "d"])
    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    return helper.make_graph([made], "case", [x, *more], [out], stored)


@pytest.mark.parametrize("case", CASES)
def test_the_gradient_of_each_operator_is_its_slope(case):
    x, towards = real(1, 4, 6, 5), real(1, 4, 6, 5)
    forward = Graph(serialise(graph_of(case)))
    (out,) = forward(x=x)
    seed = real(*out.shape)
    given = helper.make_tensor_value_info("d_out", TensorProto.FLOAT, list(out.shape))
    tape = Tape(graph_of(case, given))
    found = tape.backward({"out": "d_out"})["x"]
    outputs = [helper.make_tensor_value_info(found, TensorProto.FLOAT, ["a", "b", "c", "d"])]
    graph = helper.make_graph(
        tape.nodes, "gradient", graph_of(case, given).input, outputs, list(tape.constants.values())
    )
    (gradient,) = Graph(serialise(graph))(x=x, d_out=seed)
    step = np.float32(1e-3)
    (above,), (below,) = forward(x=x + step * towards), forward(x=x - step * towards)
    slope = float(((above - below).astype(np.float64) * seed).sum()) / (2 * step)
    assert float((gradient * towards).sum()) == pytest.approx(slope, rel=2e-2, abs=2e-2)


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5])
def test_a_slope_that_output_signs_do_not_tell_is_refused(alpha):
    leaky = helper.make_node("LeakyRelu", ["x"], ["out"], alpha=alpha)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 5])
    tape = Tape(helper.make_graph([leaky], "case", [x], [], []))
    with pytest.raises(ValueError, match="a slope of"):
        tape.backward({"out": "d_out"})


def test_rounding_passes_gradients():
    floor = helper.make_node("Floor", ["x"], ["out"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 5])
    tape = Tape(helper.make_graph([floor], "case", [x], [], []))
    assert tape.backward({"out": "d_out"})["x"] == "d_out"


def test_an_operator_without_a_rule_is_refused():
    odd = helper.make_node("Sin", ["x"], ["out"])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 5])
    tape = Tape(helper.make_graph([odd], "case", [x], [], []))
    with pytest.raises(ValueError, match="gradient of Sin"):
        tape.backward({"out": "d_out"})


# The gradients of a released bundle


@pytest.fixture(scope="module")
def files():
    folder = find("photo-1").path
    return {p.name: p.read_bytes() for p in folder.glob("*.onnx")}


def test_a_bundle_has_the_gradients_that_its_graphs_give(files):
    made = search_files(files)
    assert made == {name: files[name] for name in files if name.endswith("_gradient.onnx")}


def test_gradients_store_no_weights_that_their_bundle_has(files):
    made = search_files(files)
    assert sum(map(len, made.values())) < 100_000
    for name, content in made.items():
        owner = name.replace("_gradient", "")
        for tensor in onnx.load_from_string(content).graph.initializer:
            facts = {e.key: e.value for e in tensor.external_data}
            assert facts.get("location", owner) == owner


def test_the_decoder_gradient_is_the_slope_of_its_squared_error(files):
    weights = {"decoder.onnx": files["decoder.onnx"]}
    graph = Graph(files["decoder_gradient.onnx"], weights=weights)
    blocks = Graph(blocks_of(files["decoder.onnx"]))
    y = real(1, 320, 4, 6) / 10
    pixels = RANDOM.integers(0, 256, (1, 64, 96, 3), np.uint8)
    weight = RANDOM.random((1, 1, 8, 12)).astype(np.float32)
    towards = real(1, 320, 4, 6)
    wanted = pixels.reshape(8, 8, 12, 24).transpose(1, 3, 0, 2).reshape(1, 192, 8, 12)

    def error(y):
        (out,) = blocks(y=y)
        return ((out.astype(np.float64) - wanted) ** 2 * weight).sum()

    step = np.float32(1e-4)  # the decoder bends
    _, d_y = graph(y=y, pixels=pixels, weight=weight)
    slope = float(error(y + step * towards) - error(y - step * towards)) / (2 * step)
    assert float((d_y * towards).sum()) == pytest.approx(slope, rel=5e-2)


def blocks_of(decoder):
    """The part of a decoder before samples become bytes, as a graph."""
    part = gradients._upto(onnx.load_from_string(decoder).graph, "out")
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 192, "a", "b"])
    return serialise(helper.make_graph(part.node, "blocks", part.input, [out], part.initializer))


def test_the_decoder_gradient_knows_the_error_of_the_bytes_that_are_decoded(files):
    graph = Graph(files["decoder_gradient.onnx"], weights={"decoder.onnx": files["decoder.onnx"]})
    y = real(1, 320, 2, 3)
    (decoded,) = Graph(files["decoder.onnx"])(y=y)
    pixels = RANDOM.integers(0, 256, decoded.shape, np.uint8)
    error, _ = graph(y=y, pixels=pixels, weight=np.ones((1, 1, 4, 6), np.float32))
    squares = (decoded.astype(np.float32) - pixels) ** 2
    expected = squares.reshape(4, 8, 6, 8, 3).sum((1, 3, 4))
    np.testing.assert_allclose(error[0, 0], expected, rtol=2e-3)  # a byte may be off by one
    error, _ = graph(y=y, pixels=decoded, weight=np.ones((1, 1, 4, 6), np.float32))
    assert error.max() <= 3
