"""Graphs are functions of named arrays, on the provider that was asked for and no other."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from vaecodec import runtime, sessions
from vaecodec.errors import ModelError, ProviderError
from vaecodec.runtime import Graph, cuda_problem, resolve

FLOAT = TensorProto.FLOAT
LEVELS = ("none", "basic", "extended", "all")

needs_cuda = [
    pytest.mark.cuda,
    pytest.mark.skipif(cuda_problem() is not None, reason=f"no CUDA here: {cuda_problem()}"),
]


def model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: Any = ()) -> bytes:
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("org.example", 1)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return made


def vector(name: str, dtype: int = FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, ["n"])


def one_node(operator: str, domain: str = "") -> bytes:
    node = helper.make_node(operator, ["x"], ["y"], domain=domain)
    return model([node], [vector("x")], [vector("y")])


def sum_and_difference() -> bytes:
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Sub", ["a", "b"], ["d"])]
    return model(nodes, [vector("a"), vector("b")], [vector("s"), vector("d")])


def filled() -> bytes:
    """A graph that takes a shape and returns ones: of as much memory as one likes."""
    one = helper.make_tensor("value", FLOAT, [1], [1.0])
    node = helper.make_node("ConstantOfShape", ["shape"], ["y"], value=one)
    return model([node], [vector("shape", TensorProto.INT64)], [vector("y")])


def convolution(channels: int = 8) -> bytes:
    weights = np.random.default_rng(0).standard_normal((channels, 3, 3, 3), np.float32)
    stored = helper.make_tensor("w", FLOAT, weights.shape, weights.ravel())
    ends = [
        helper.make_tensor_value_info("x", FLOAT, [1, 3, "h", "w"]),
        helper.make_tensor_value_info("y", FLOAT, None),
    ]
    return model([helper.make_node("Conv", ["x", "w"], ["y"])], ends[:1], ends[1:], [stored])


def assert_one_line(error: pytest.ExceptionInfo[Exception], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    assert "ONNXRuntimeError" not in text
    assert "onnxruntime_src" not in text
    for part in parts:
        assert part in text


# Graphs


@pytest.mark.parametrize("level", LEVELS)
def test_a_graph_is_a_function_of_named_arrays(level: str) -> None:
    graph = Graph(sum_and_difference(), level=level, threads=1)
    assert (graph.inputs, graph.outputs) == (("a", "b"), ("s", "d"))
    total, difference = graph(b=np.float32([1, 2]), a=np.float32([5, 5]))
    assert total.tolist() == [6, 7]
    assert difference.tolist() == [4, 3]


def test_a_graph_can_be_read_from_a_file_with_any_name(tmp_path: Path) -> None:
    path = tmp_path / "décodeur é.onnx"
    path.write_bytes(one_node("Relu"))
    assert Graph(path)(x=np.float32([-1, 2]))[0].tolist() == [0, 2]


def test_one_graph_serves_several_threads() -> None:
    graph = Graph(convolution(), threads=1)
    pixels = np.random.default_rng(1).random((6, 1, 3, 9, 9), np.float32)
    expected = [graph(x=x)[0] for x in pixels]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: graph(x=x)[0], [x for x in pixels for _ in range(5)]))
    for i, y in enumerate(found):
        np.testing.assert_array_equal(y, expected[i // 5])


def test_threads_and_level_reach_the_session() -> None:
    options = Graph(one_node("Relu"), threads=3, level="basic")._session.get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which cores may be used")
def test_a_process_kept_to_some_cores_makes_as_many_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 7})
    session = Graph(one_node("Relu"))._session
    assert session.get_session_options().intra_op_num_threads == 2
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    session = Graph(one_node("Relu"))._session
    assert session.get_session_options().intra_op_num_threads == 0


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"level": "most"}, {"provider": "auto"}])
def test_wrong_use_is_a_value_error(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"auto|most|0 threads"):
        Graph(one_node("Relu"), **wrong)


# Models that are damaged or mean harm

BAD_MODELS = {
    "nothing": b"",
    "a text": b"this is not a graph, only a text",
    "a cut graph": one_node("Relu")[:-9],
    "an unknown operator": one_node("Backdoor"),
    "a custom operator": one_node("Backdoor", "org.example"),
    "an operator of another type": one_node("BitwiseNot"),
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_a_model_error(name: str) -> None:
    with pytest.raises(ModelError) as error:
        Graph(BAD_MODELS[name])
    assert_one_line(error, "cannot be loaded: ")


def test_the_error_names_the_file_and_the_operator(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(one_node("Backdoor", "org.example"))
    with pytest.raises(ModelError) as error:
        Graph(tmp_path / "bad.onnx")
    assert_one_line(error, "bad.onnx cannot be loaded", "org.example:Backdoor")


def test_a_file_that_cannot_be_read_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.onnx cannot be read: No such file"):
        Graph(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        Graph(tmp_path)


def test_outputs_that_are_no_arrays_are_refused() -> None:
    node = helper.make_node("SequenceConstruct", ["x"], ["y"])
    y = helper.make_tensor_sequence_value_info("y", FLOAT, ["n"])
    with pytest.raises(ModelError, match="'y' is not an array"):
        Graph(model([node], [vector("x")], [y]))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_model_reads_no_file_beside_itself(
    level: str, absolute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.float32([5, 6, 7]).tofile("secret")
    weights = TensorProto(name="w", data_type=FLOAT, dims=[3])
    weights.data_location = TensorProto.EXTERNAL
    location = str(tmp_path / "secret") if absolute else "secret"
    for key, value in (("location", location), ("offset", "0"), ("length", "12")):
        weights.external_data.add(key=key, value=value)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    data = model([node], [vector("x")], [vector("y")], [weights])
    with pytest.raises(ModelError) as error:
        Graph(data, level=level)
    assert_one_line(error, "cannot be loaded")


WRONG_INPUTS = {
    "a missing one": {"a": np.zeros(2, np.float32)},
    "one too many": dict.fromkeys("abc", np.zeros(2, np.float32)),
    "another dtype": dict.fromkeys("ab", np.zeros(2, np.float64)),
    "another rank": dict.fromkeys("ab", np.zeros((2, 2), np.float32)),
    "sizes that do not fit": {"a": np.zeros(2, np.float32), "b": np.zeros(3, np.float32)},
}


@pytest.mark.parametrize("name", WRONG_INPUTS)
def test_inputs_that_are_not_the_graphs_are_a_model_error(name: str) -> None:
    with pytest.raises(ModelError) as error:
        Graph(sum_and_difference(), threads=1)(**WRONG_INPUTS[name])
    assert_one_line(error, "a graph of the model cannot be run: ")


def test_memory_that_runs_out_is_a_provider_error() -> None:
    with pytest.raises(ProviderError) as error:
        Graph(filled())(shape=np.array([1 << 46]))
    assert_one_line(error, "failed on cpu: ", "Failed to allocate memory")


def test_nothing_is_printed_and_nothing_is_stored_by_onnx_runtime(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.onnx", tmp_path / "good.onnx"
    bad.write_bytes(one_node("Backdoor", "org.example"))
    good.write_bytes(filled())
    program = f"""
import pathlib, numpy, vaecodec.runtime as r
for provider, file, n in ("auto", "good", 1), ("cpu", "good", -1), ("cpu", "bad", 1):
    try:
        r.Graph(pathlib.Path(r"{tmp_path}", file + ".onnx"), r.resolve(provider))(
            shape=numpy.array([n]))
    except r.ModelError:
        print("refused")
"""
    home = tmp_path / "home"
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "LOCALAPPDATA"), str(home))
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, env=os.environ | places, check=True
    )
    assert done.stdout.split() == [b"refused"] * 2
    assert done.stderr == b""
    assert not list(home.iterdir())


# Providers


def test_the_cpu_needs_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "cuda_problem", lambda: pytest.fail("asked for CUDA"))
    assert resolve("cpu") == "cpu"
    Graph(one_node("Relu"), resolve("cpu"))


def test_an_unknown_provider_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="'tpu' is none of auto, cpu, cuda"):
        resolve("tpu")


def test_auto_is_cuda_exactly_where_nothing_is_in_its_way() -> None:
    assert resolve("auto") == ("cpu" if cuda_problem() else "cuda")


def test_the_probe_is_a_convolution_and_a_transposed_one() -> None:
    ends = [helper.make_tensor_value_info(name, FLOAT, [1, 1, 2, 2]) for name in "xy"]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("ConvTranspose", ["c", "w"], ["y"]),
    ]
    weights = helper.make_tensor("w", FLOAT, [1, 1, 2, 2], [1.0] * 4)
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights])
    opset = [helper.make_opsetid("", 17)]
    made = helper.make_model(graph, opset_imports=opset, ir_version=8)
    assert made.SerializeToString() == runtime._PROBE
    (y,) = Graph(runtime._PROBE)(x=np.ones((1, 1, 2, 2), np.float32))
    np.testing.assert_array_equal(y, np.full((1, 1, 2, 2), 4))


# CUDA that works


class TestCuda:
    pytestmark = needs_cuda

    def test_a_graph_gets_cuda_with_exact_floats(self) -> None:
        options = Graph(convolution(), resolve("cuda"))._session.get_provider_options()
        assert options["CUDAExecutionProvider"]["use_tf32"] == "0"
        assert options["CUDAExecutionProvider"]["cudnn_conv_algo_search"] == "HEURISTIC"

    def test_cuda_and_cpu_agree_at_every_size(self) -> None:
        on_cuda, on_cpu = Graph(convolution(), "cuda"), Graph(convolution(), "cpu")
        for size in (3, 8, 31, 64):
            x = np.random.default_rng(size).random((1, 3, size, size + 1), np.float32)
            np.testing.assert_allclose(on_cuda(x=x)[0], on_cpu(x=x)[0], atol=1e-5)

    def test_one_graph_serves_several_threads_on_cuda(self) -> None:
        graph = Graph(convolution(), "cuda")
        x = np.random.default_rng(0).random((1, 3, 33, 40), np.float32)
        expected = graph(x=x)[0]
        with ThreadPoolExecutor(4) as pool:
            for y in pool.map(lambda _: graph(x=x)[0], range(20)):
                np.testing.assert_allclose(y, expected, atol=1e-5)

    def test_a_bad_model_is_a_model_error_on_cuda_too(self) -> None:
        with pytest.raises(ModelError):
            Graph(b"this is not a graph", "cuda")


def test_graphs_of_a_process_share_their_memory() -> None:
    """Else each would keep what its largest call took."""
    assert sessions.shares_memory(runtime._onnxruntime())
