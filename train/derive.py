"""A network's files as differences to those of the bundle that it came from.

Weights of matrices are a whole number of steps from where they were (`train.moves`), and few of
these numbers are large; the integers of the prior differ by integers. What else changed is kept as
it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from vaecodec.bundle import Bundle
from vaecodec.difference import SIZES, Change, Kind, apply

Singles = NDArray[np.float32]

Steps = Mapping[str, Mapping[str, tuple[Singles, Singles]]]
"""File -> tensor in it -> steps of its rows (of the first axis) and of its columns (of all others),
for half-precision weights: the step of a weight is their product."""

MOST_STEPS = 127
"""That a weight can move by, either way."""


@dataclass(frozen=True)
class _Part:
    """A segment: its offset, rows and columns, kind, steps and values."""

    offset: int
    shape: tuple[int, int]
    kind: Kind
    values: NDArray[Any]
    steps: tuple[Singles, ...] = ()


@dataclass(frozen=True)
class Derived:
    """Files, by name, as they are to be released.

    files: all of them, whole. changes: how those differ that are made of the base's. own: those
    that are kept as they are. What is in neither is the base's.
    """

    files: dict[str, bytes]
    changes: dict[str, Change]
    own: dict[str, bytes]


def derive(base: Bundle, new: Mapping[str, bytes], steps: Steps) -> Derived:
    """Return `new` files as what a difference to those of `base` can say.

    A graph with other numbers in the same places becomes a change; any other file is kept whole.
    Tensors with `steps` are rounded to a whole number of them, MOST_STEPS at most.
    """
    derived = Derived({}, {}, {})
    for name, content in new.items():
        old = base.read(name) if name in base.manifest["files"] else None
        change = None
        if old and name.endswith(".onnx"):
            change = _change(old, content, steps.get(name, {}))
        derived.files[name] = apply(old, change) if old and change else content
        if derived.files[name] == old:
            continue
        if change:
            derived.changes[name] = change
        else:
            derived.own[name] = content
    return derived


def _change(old: bytes, new: bytes, steps: Mapping[str, tuple[Singles, Singles]]) -> Change | None:
    """Return the change that makes one graph of another; None where more than numbers differ."""
    before, after = (onnx.load_from_string(c).graph.initializer for c in (old, new))
    if len(old) != len(new) or len(before) != len(after):
        return None
    parts: list[_Part] = []
    exact, end = bytearray(old), 0
    for a, b in zip(before, after, strict=True):
        # Tensors lie in the file in their order; one of few bytes may be found too early, which
        # the comparison at the end notices if it matters.
        at = old.find(a.raw_data, end)
        end = at + len(a.raw_data)
        if a.raw_data == b.raw_data:
            continue
        exact[at:end] = b.raw_data
        if np.array_equal(numpy_helper.to_array(a), numpy_helper.to_array(b)):
            continue  # zeros of the other sign
        if b.data_type == TensorProto.INT8:
            levels = _bytes(b) - _bytes(a)  # wraps around
            parts.append(_Part(at, (1, len(levels)), Kind.BYTE, levels))
        elif b.name in steps:
            halves = numpy_helper.to_array(a), numpy_helper.to_array(b)
            parts.append(_moved(at, *halves, steps[b.name]))
        elif len(b.raw_data) % SIZES[Kind.WORD] == 0:
            words = np.frombuffer(b.raw_data, "<u4")
            parts.append(_Part(at, (1, len(words)), Kind.WORD, words))
        else:
            return None
    return _packed(parts) if exact == new else None


def _moved(at: int, old: NDArray[Any], new: NDArray[Any], steps: tuple[Singles, Singles]) -> _Part:
    """Return the segment of a tensor that moved in steps."""
    rows, columns = steps
    moves = (new.astype(np.float32) - old).reshape(len(rows), len(columns))
    levels = np.rint(moves / (rows[:, None] * columns)).clip(-MOST_STEPS, MOST_STEPS)
    return _Part(at, moves.shape, Kind.HALF, levels.T.reshape(-1).astype(np.int8), steps)


def _packed(parts: list[_Part]) -> Change:
    levels = [part.values.view(np.int8) for part in parts if part.kind is not Kind.WORD]
    words = [part.values for part in parts if part.kind is Kind.WORD]
    table = [(part.offset, *part.shape, part.kind) for part in parts]
    return Change(
        np.array(table, np.int64).reshape(-1, 4),
        np.concatenate([np.empty(0, np.float32), *(s for part in parts for s in part.steps)]),
        np.concatenate([np.empty(0, np.int8), *levels]),
        np.concatenate([np.empty(0, np.uint32), *words]),
    )


def _bytes(tensor: Any) -> NDArray[np.uint8]:
    return np.frombuffer(tensor.raw_data, np.uint8)
