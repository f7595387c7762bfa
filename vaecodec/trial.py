"""The size of every array of a graph, for inputs of given sizes, without running it.

Node by node: ONNX says what an operator makes of arrays of such sizes, and nothing goes on to the
next one that is empty or of no certain size. (ONNX's own walk over a graph leaves out some of the
arithmetic that shapes are computed with, and an array of no elements can abort it.)

Needs onnx, which nothing but training and the verification of a received bundle imports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TypeProto, helper, numpy_helper

__all__ = ["Array", "arrays"]

_SMALL = 64
"""Numbers of a constant that another shape can be computed from."""

Whole = NDArray[np.int64]


class Array(NamedTuple):
    """An array: its ONNX type (an entry of TensorProto), and its shape, all lengths positive."""

    kind: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


def arrays(graph: onnx.GraphProto, inputs: Mapping[str, Array], opset: int) -> dict[str, Array]:
    """Return every array of a graph that was checked to consist of known operators, by name.

    Raises ValueError where an operator cannot take what it is given, and where an array would be
    empty or its size depends on more than sizes.
    """
    found = dict(inputs)
    known: dict[str, Whole] = {}
    for tensor in graph.initializer:
        found[tensor.name] = _checked(tensor.name, Array(tensor.data_type, tuple(tensor.dims)))
        if tensor.data_type == onnx.TensorProto.INT64 and found[tensor.name].size <= _SMALL:
            known[tensor.name] = numpy_helper.to_array(tensor)
    for node in graph.node:
        if missing := [name for name in node.input if name and name not in found]:
            raise ValueError(f"its {node.op_type} takes {missing[0]}, which nothing gives")
        for name, array in _outputs(node, found, known, opset).items():
            if name in found:
                raise ValueError(f"two things are called {name}")
            found[name] = _checked(name, array)
        value = _value(node, found, known)
        if value is not None:
            known[node.output[0]] = value
    return found


def _checked(name: str, array: Array) -> Array:
    if any(length < 1 for length in array.shape):
        raise ValueError(f"its {name} would have the shape {array.shape}")
    return array


def _outputs(
    node: onnx.NodeProto, found: Mapping[str, Array], known: Mapping[str, Whole], opset: int
) -> dict[str, Array]:
    """Return what a node makes of its inputs, as far as ONNX can say."""
    types = {name: _type(found[name]) for name in node.input if name}
    data = {n: numpy_helper.from_array(known[n], n) for n in node.input if n in known}
    try:
        results = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, opset),
            node,
            types,
            data,
            opset_imports=[helper.make_opsetid("", opset)],
        )
    except Exception as error:  # of C++, without a common base
        raise ValueError(f"its {node.op_type} cannot be: {error}") from error
    if absent := [name for name in node.output if name and name not in results]:
        raise ValueError(f"the size of its {absent[0]} cannot be told")
    return {name: _array(name, results[name]) for name in node.output if name}


def _type(array: Array) -> TypeProto:
    return helper.make_tensor_type_proto(array.kind, array.shape)


def _array(name: str, found: TypeProto) -> Array:
    tensor = found.tensor_type
    whole = tensor.HasField("shape") and all(d.HasField("dim_value") for d in tensor.shape.dim)
    if not whole:
        raise ValueError(f"the size of its {name} cannot be told")
    return Array(tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim))


def _value(
    node: onnx.NodeProto, found: Mapping[str, Array], known: Mapping[str, Whole]
) -> Whole | None:
    """Return what a node of the arithmetic of shapes gives; None for any other."""
    if node.op_type == "Shape" and not node.attribute:
        return np.array(found[node.input[0]].shape, np.int64)
    if not node.input or any(name not in known for name in node.input):
        return None
    return _computed(node.op_type, [known[name] for name in node.input])


def _computed(operator: str, values: list[Whole]) -> Whole | None:
    result: Any = None
    if operator == "Concat" and all(v.ndim == 1 for v in values):
        result = np.concatenate(values)
    elif operator == "Gather" and values[0].ndim == 1:
        a, b = values
        result = a[b] if ((b >= 0) & (b < len(a))).all() else None
    elif operator in ("Div", "Mul") and all(_is_length(v) for v in values):
        a, b = values
        result = a // b if operator == "Div" else a * b
    return None if result is None or np.size(result) > _SMALL else np.asarray(result, np.int64)


def _is_length(value: Whole) -> bool:
    return value.size == 1 and 0 < int(value.item()) < 2**31
