"""The proof that float32 computes a graph exactly cannot be talked into anything."""

from itertools import pairwise

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vaecodec import bounds  # noqa: E402
from vaecodec.dyadic import dyadic  # noqa: E402

CHANNELS = 4


def proved(*nodes, inputs=("features",), output="mean", **constants):
    """The largest sum of a graph of (operator, inputs, output, attributes)."""
    graph = helper.make_graph(
        [helper.make_node(kind, into, [out], **more) for kind, into, out, more in nodes],
        "g",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, CHANNELS, "h", "w"])
            for name in inputs
        ],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, CHANNELS, "h", "w"])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    return bounds.prove(helper.make_model(graph).SerializeToString())


def single(values):
    return np.asarray(values, np.float32)


def conv(weight, bias=0, **more):
    """A convolution of the features, then clipped to what a mean may be."""
    weight = single(weight)
    constants = {"w": weight, "b": single(np.full(len(weight), bias))}
    return proved(
        ("Conv", ["features", "w", "b"], "t", {"group": 1} | more),
        ("Clip", ["t", "low", "high"], "mean", {}),
        low=single(-(2**19)),
        high=single(2**19),
        **constants,
    )


def test_a_sum_is_bounded_by_its_weights_to_the_last_integer():
    weight = np.zeros((2, CHANNELS, 3, 3))
    weight[0, :2, 1, 1], weight[1, 3, 0, 0] = (3, -2), 7
    assert conv(weight, 5) == 255 * 7 + 5
    assert conv(weight * 32, 5) == 32 * 255 * 7 + 5
    largest = np.zeros((1, CHANNELS, 1, 1))
    largest[0, 0], rest = 2**24 // 255, 2**24 % 255
    assert conv(largest, rest) == 2**24
    with pytest.raises(ValueError, match=r"Conv t of g can reach 16777217, above 2\*\*24"):
        conv(largest, rest + 1)
    with pytest.raises(ValueError, match=r"can reach 16777217, above"):
        conv(-largest, -rest - 1)


def test_a_depthwise_sum_is_bounded_channel_by_channel():
    weight = np.arange(CHANNELS * 9).reshape(CHANNELS, 1, 3, 3)
    assert conv(weight, group=CHANNELS) == 255 * sum(range(27, 36))


@pytest.mark.parametrize("power", [31, 32, 40, 55, 56, 62, 63, 64, 100, 127])
def test_no_weight_is_so_large_that_the_proof_overflows(power):
    weight = np.full((1, CHANNELS, 1, 1), 2.0**power)
    with pytest.raises(ValueError, match=r"can reach|too large"):
        conv(weight)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 2.0**-41, 1 / 3, 2.0**60])
def test_a_constant_that_is_no_dyadic_number_is_refused(value):
    with pytest.raises(ValueError, match=r"no multiple of 2\*\*-40, or too large"):
        dyadic(np.array([1.0, value]))


@pytest.mark.parametrize(
    ("shape", "group"), [((4, 2, 1, 1), 2), ((8, 1, 1, 1), 4), ((4, 3, 1, 1), 1), ((4, 4), 1)]
)
def test_a_convolution_that_is_neither_dense_nor_depthwise_is_refused(shape, group):
    with pytest.raises(ValueError, match="neither a dense nor a depthwise convolution"):
        conv(np.ones(shape), group=group)


def test_powers_of_two_cost_nothing_and_other_factors_do():
    def scaled(factor):
        return proved(
            ("Mul", ["features", "k"], "t", {}),
            ("Floor", ["t"], "u", {}),
            ("Clip", ["u", "low", "high"], "mean", {}),
            k=single(factor),
            low=single(0),
            high=single(255),
        )

    assert scaled(2.0**-20) == scaled(2.0**20) == 255
    assert scaled(3 * 2.0**-20) == 3 * 255
    with pytest.raises(ValueError, match="Mul t of g can reach"):
        scaled(2**17 - 1)
    with pytest.raises(ValueError, match="too large, or too fine"):
        scaled(2.0**50)


def test_products_that_grow_finer_and_finer_are_refused():
    names = ["features", *(f"t{n}" for n in range(20))]
    nodes = [("Mul", [a, "k"], b, {}) for a, b in pairwise(names)]
    with pytest.raises(ValueError, match=r"Mul t3 of g cannot be bounded: .* too fine"):
        proved(*nodes, k=single(2.0**-20))


UNKNOWN = [
    ("Sqrt", ["features"], {}),
    ("Mul", ["features"], {}),
    ("Mul", ["features", "nobody"], {}),
    ("Mul", ["k", "features"], {}),
    ("Cast", ["features"], {"to": TensorProto.FLOAT16}),
    ("Cast", ["features"], {"to": TensorProto.INT8}),
    ("Cast", ["k"], {"to": TensorProto.INT8}),
    ("Mul", ["k", "k"], {}),
    ("Concat", ["features", "features"], {"axis": 2}),
    ("DepthToSpace", ["features"], {"blocksize": 2, "mode": "DCR"}),
    ("DepthToSpace", ["features"], {"blocksize": 3, "mode": "CRD"}),
    ("Slice", ["features", "start", "end", "rows"], {}),
    ("Slice", ["features", "end", "start", "channels"], {}),
    ("Slice", ["features", "features", "features", "features"], {}),
    ("Slice", ["features", "start", "far", "channels"], {}),
    ("Clip", ["features", "k"], {}),
    ("Clip", ["features", "", "k"], {}),
    ("Clip", ["features", "k", "zero"], {}),
    ("Clip", ["features", "zero", "wide"], {}),
    ("Add", ["features", "wide"], {}),
    ("Conv", ["features", "features", "wide"], {}),
    ("Conv", ["features", "kernel"], {}),
    ("Conv", ["features", "kernel", "zero"], {}),
    ("Conv", ["features", "kernel", "fine"], {}),
]


@pytest.mark.parametrize(("kind", "inputs", "more"), UNKNOWN)
def test_what_the_proof_does_not_know_is_refused(kind, inputs, more):
    with pytest.raises(ValueError, match=f"{kind} mean of g cannot be bounded: "):
        proved(
            (kind, inputs, "mean", more),
            k=single(2),
            zero=single(0),
            wide=single([1, 2, 3, 4]),
            kernel=single(np.ones((CHANNELS, CHANNELS, 1, 1))),
            fine=single([2.0**-20] * CHANNELS),
            start=np.array([0]),
            end=np.array([2]),
            far=np.array([CHANNELS + 1]),
            rows=np.array([2]),
            channels=np.array([1]),
        )


def test_arithmetic_on_bytes_is_refused():
    cast = ("Cast", ["features"], "bytes", {"to": TensorProto.UINT8})
    assert proved(cast, ("Identity", ["bytes"], "mean", {})) == 0
    with pytest.raises(ValueError, match="arithmetic on them would wrap around"):
        proved(cast, ("Add", ["bytes", "bytes"], "mean", {}))
    with pytest.raises(ValueError, match="its values are no bytes"):
        proved(
            ("Add", ["features", "one"], "more", {}),
            ("Cast", ["more"], "mean", {"to": TensorProto.UINT8}),
            one=single(1),
        )


def test_inputs_and_outputs_are_those_whose_range_is_known():
    with pytest.raises(ValueError, match="evil is no input of integer graphs"):
        proved(("Identity", ["evil"], "mean", {}), inputs=("evil",))
    with pytest.raises(ValueError, match="output evil of g is not known or no integer"):
        proved(("Identity", ["features"], "evil", {}), output="evil")
    with pytest.raises(ValueError, match="output features of g can be -1048576 to 1048576; 0 to"):
        proved(("Identity", ["z"], "features", {}), inputs=("z",), output="features")
    with pytest.raises(ValueError, match="output mean of g is not known or no integer"):
        proved(("Mul", ["features", "half"], "mean", {}), half=single(0.5))
