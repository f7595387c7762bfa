"""Whether a graph that somebody sent is what it has to be, before anything runs it.

A graph is refused unless it consists of operators known to compute arrays and nothing else, reads
no file, takes and gives what its role says, and has arrays of known size, which is found out on
the shapes of a small trial, without running it. Integer graphs are proved to be exact
(`vaecodec.bounds`).

Needs onnx, which nothing but training and the verification of a received bundle imports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from vaecodec import bounds
from vaecodec.roles import Free, Role, Value
from vaecodec.trial import Array, arrays

__all__ = ["check"]

OPERATORS = frozenset(
    (
        *("Abs", "Add", "Div", "Equal", "Floor", "Greater", "Log", "Mul", "Round", "Sign", "Sub"),
        *("Cast", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear", "Where"),
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "ReduceSum"),
        *("LeakyRelu", "Relu", "Sigmoid", "Tanh"),
        *("Concat", "DepthToSpace", "Gather", "Pad", "Reshape", "Shape", "Slice", "Transpose"),
    )
)
"""What exported graphs consist of. None of it has a state, a subgraph, or anything but arrays."""

OPSETS = range(13, 24)
IR_VERSIONS = range(7, 12)
MAX_NODES = 10_000
MAX_VALUES = 2**26
"""Numbers that all arrays of a graph may have together in the trial, of at most 128x192 pixels or
three images; those of photo-1 have 9 million at most."""

_DOMAINS = ("", "ai.onnx")
_ATTRIBUTES = {
    getattr(AttributeProto, kind) for kind in ("FLOAT", "FLOATS", "INT", "INTS", "STRING")
}
_TYPES = {
    getattr(TensorProto, kind)
    for kind in ("BOOL", "FLOAT", "FLOAT16", "INT8", "INT32", "INT64", "UINT8")
}


def check(content: bytes, role: Role, lent: bytes | None) -> None:
    """Raise ValueError unless a graph may play a role.

    lent: the file whose weights the graph may name, where its role has one.
    """
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # protobuf's; its base is not public
        raise ValueError("it is no ONNX graph") from error
    try:
        _check_model(model, role, lent)
    except (TypeError, UnicodeError) as error:  # names that are bytes, and no UTF-8
        raise ValueError("a name in it is no text") from error


def _check_model(model: onnx.ModelProto, role: Role, lent: bytes | None) -> None:
    opset = _checked_opset(model)
    _check_nodes(model.graph.node)
    _check_constants(model.graph.initializer, role, lent)
    _take_shapes(model.graph, role)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # most often a ValidationError, but what C++ raises has no base
        raise ValueError(f"ONNX refuses it: {error}") from error
    inputs = {
        name: Array(_onnx_type(kind), tuple(length or 1 for length in shape))
        for name, (kind, shape) in role.inputs.items()
    }
    found = arrays(model.graph, inputs, opset)
    _check_size(model.graph, found)
    _check_outputs(role.outputs, found)
    if role.exact:
        bounds.prove(model.SerializeToString())


def _checked_opset(model: onnx.ModelProto) -> int:
    """Return the version of the operators."""
    versions = {imported.domain: imported.version for imported in model.opset_import}
    if len(model.opset_import) != 1 or set(versions) - set(_DOMAINS):
        raise ValueError(f"it needs operators of {', '.join(versions) or 'no domain'}")
    if model.ir_version not in IR_VERSIONS or set(versions.values()) - set(OPSETS):
        raise ValueError(
            f"it is of ONNX version {model.ir_version} with operators of version "
            f"{max(versions.values())}; {IR_VERSIONS[0]} to {IR_VERSIONS[-1]} and {OPSETS[0]} to "
            f"{OPSETS[-1]} are known"
        )
    if model.functions or model.training_info or model.graph.sparse_initializer:
        raise ValueError("it has functions, training steps or sparse weights; none are allowed")
    return int(model.opset_import[0].version)


def _check_nodes(nodes: Sequence[onnx.NodeProto]) -> None:
    if len(nodes) > MAX_NODES:
        raise ValueError(f"it has {len(nodes)} nodes; {MAX_NODES} are allowed")
    for node in nodes:
        if node.domain not in _DOMAINS or node.op_type not in OPERATORS:
            name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            raise ValueError(f"it has the operator {name}, which no model needs")
        if any(a.type not in _ATTRIBUTES or a.ref_attr_name for a in node.attribute):
            raise ValueError(f"its {node.op_type} has a subgraph or the like in it")


def _check_constants(tensors: Sequence[TensorProto], role: Role, lent: bytes | None) -> None:
    """Check the weights, and put those that stand in another file into the graph."""
    for tensor in tensors:
        if tensor.data_type not in _TYPES:
            raise ValueError(f"the type of its constant {tensor.name} is not known")
        if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
            _fetch(tensor, role, lent)
        try:
            numpy_helper.to_array(tensor)
        except Exception as error:  # whatever NumPy and onnx raise where size and shape differ
            raise ValueError(f"its constant {tensor.name} is damaged") from error


def _fetch(tensor: TensorProto, role: Role, lent: bytes | None) -> None:
    place = {entry.key: entry.value for entry in tensor.external_data}
    numbers = [place.get(key, "") for key in ("offset", "length")]
    if lent is None or place.get("location") != role.lender or len(place) != 3:
        raise ValueError(
            f"its constant {tensor.name} stands in the file {place.get('location', '')!r}; "
            + (f"{role.lender} is allowed" if role.lender else "none is allowed")
        )
    if not all(n.isascii() and n.isdecimal() and len(n) < 12 for n in numbers):
        raise ValueError(f"its constant {tensor.name} does not say where it stands")
    offset, length = map(int, numbers)
    if offset + length > len(lent):
        raise ValueError(f"its constant {tensor.name} is said to stand beyond {role.lender}")
    tensor.ClearField("external_data")
    tensor.ClearField("data_location")
    tensor.raw_data = lent[offset : offset + length]


def _take_shapes(graph: onnx.GraphProto, role: Role) -> None:
    """Compare the inputs with the role, and give them the shapes of the trial."""
    found = [value.name for value in graph.input]
    if sorted(found) != sorted(role.inputs) or {t.name for t in graph.initializer} & set(found):
        raise ValueError(f"it takes {', '.join(found)}; {', '.join(role.inputs)} are expected")
    names = [value.name for value in graph.output]
    if names != list(role.outputs):
        raise ValueError(f"it gives {', '.join(names)}; {', '.join(role.outputs)} are expected")
    for value in graph.input:
        kind, shape = role.inputs[value.name]
        if not _declares(value.type, kind, shape):
            raise ValueError(f"its input {value.name} is not {kind} {_told(shape)}")
        for dim, length in zip(value.type.tensor_type.shape.dim, shape, strict=True):
            dim.dim_value = int(length or 0)
    for value in graph.output:  # what it declares does not bind what it gives
        kind, shape = role.outputs[value.name]
        unknown: list[int | None] = [None] * len(shape)
        value.CopyFrom(helper.make_tensor_value_info(value.name, _onnx_type(kind), unknown))
    del graph.value_info[:]


def _declares(declared: onnx.TypeProto, kind: str, shape: tuple[int | None, ...]) -> bool:
    if not declared.HasField("tensor_type") or not declared.tensor_type.HasField("shape"):
        return False
    tensor = declared.tensor_type
    if tensor.elem_type != _onnx_type(kind) or len(tensor.shape.dim) != len(shape):
        return False
    for dim, length in zip(tensor.shape.dim, shape, strict=True):
        if dim.HasField("dim_value") and (isinstance(length, Free) or dim.dim_value != length):
            return False
    return True


def _onnx_type(kind: str) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(kind)))


def _told(shape: tuple[int | None, ...]) -> str:
    parts = ("any" if n is None or isinstance(n, Free) else str(n) for n in shape)
    return f"({', '.join(parts)})"


def _check_outputs(expected: Mapping[str, Value], found: Mapping[str, Array]) -> None:
    for name, (kind, shape) in expected.items():
        array = found[name]
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
        )
        if array.kind != _onnx_type(kind) or not fits:
            raise ValueError(f"its output {name} is not {kind} {_told(shape)}")


def _check_size(graph: onnx.GraphProto, found: Mapping[str, Array]) -> None:
    """Raise ValueError where arrays outgrow a trial, or a bias is not as long as its channels."""
    total = sum(found[name].size for node in graph.node for name in node.output if name)
    if total > MAX_VALUES:
        raise ValueError(f"it computes {total} numbers for a small image; {MAX_VALUES} are allowed")
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose") and len(node.input) == 3:
            channels = found[node.output[0]].shape[1]
            if found[node.input[2]].shape != (channels,):  # not every runtime looks
                raise ValueError(f"the bias of its {node.op_type} has not {channels} numbers")
