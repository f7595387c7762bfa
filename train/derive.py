"""A network's files as differences to those of the bundle that it came from.

Dense layers' weights are a whole number of steps from where they were (`train.moves`), and few of
these numbers are large; the integers of the prior differ by integers. What else changed is kept as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from vaecodec.bundle import Bundle
from vaecodec.difference import SIZES, Change, Kind, apply

Steps = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""File -> tensor in it -> the step of each of its rows, for half-precision weights."""

MOST_STEPS = 127
"""That a weight can move by, either way."""

Part = tuple[int, Kind, float, NDArray[Any]]
"""Offset, kind, step and values of a segment."""


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


def _change(old: bytes, new: bytes, steps: Mapping[str, NDArray[np.float32]]) -> Change | None:
    """Return the change that makes one graph of another; None where more than numbers differ."""
    before, after = (onnx.load_from_string(c).graph.initializer for c in (old, new))
    if len(old) != len(new) or len(before) != len(after):
        return None
    parts: list[Part] = []
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
            parts.append((at, Kind.BYTE, 0.0, _bytes(b) - _bytes(a)))  # wraps around
        elif b.name in steps:
            parts += _moved(at, numpy_helper.to_array(a), numpy_helper.to_array(b), steps[b.name])
        elif len(b.raw_data) % SIZES[Kind.WORD] == 0:
            parts.append((at, Kind.WORD, 0.0, np.frombuffer(b.raw_data, "<u4")))
        else:
            return None
    return _packed(parts) if exact == new else None


def _moved(
    at: int, old: NDArray[Any], new: NDArray[Any], steps: NDArray[np.float32]
) -> Iterator[Part]:
    """Yield the segments of a tensor whose rows moved in steps, one for rows of equal steps."""
    moves = new.astype(np.float32) - old
    levels = np.rint(moves.reshape(len(steps), -1) / steps[:, None]).clip(-MOST_STEPS, MOST_STEPS)
    ends = np.flatnonzero(np.diff(steps)) + 1
    first = 0
    for last in [*ends.tolist(), len(steps)]:
        offset = at + first * levels.shape[1] * SIZES[Kind.HALF]
        yield offset, Kind.HALF, float(steps[first]), levels[first:last].astype(np.int8).reshape(-1)
        first = last


def _packed(parts: list[Part]) -> Change:
    levels = [values.view(np.int8) for _, kind, _, values in parts if kind is not Kind.WORD]
    words = [values for _, kind, _, values in parts if kind is Kind.WORD]
    table = [(offset, len(values), kind) for offset, kind, _, values in parts]
    return Change(
        np.array(table, np.int64).reshape(-1, 3),
        np.array([step for _, _, step, _ in parts], np.float32),
        np.concatenate([np.empty(0, np.int8), *levels]),
        np.concatenate([np.empty(0, np.uint32), *words]),
    )


def _bytes(tensor: Any) -> NDArray[np.uint8]:
    return np.frombuffer(tensor.raw_data, np.uint8)
