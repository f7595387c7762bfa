"""Shapes that ONNX graphs declare: released priors say more than they need."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["OF_QUALITY", "freed"]

OF_QUALITY = ("shift", "offset", "sigma4", "inverse")
"""Inputs of the networks of a prior that depend on nothing but the quality."""

# A Dimension of a shape: 2 bytes, dim_value 1; and the same with an empty dim_param: any size.
_ONE, _ANY = b"\x0a\x02\x08\x01", b"\x0a\x02\x12\x00"


def freed(graph: bytes, inputs: Iterable[str] = OF_QUALITY) -> bytes:
    """Return an ONNX graph whose inputs of those names take any height and width.

    Released graphs declare the inputs that depend on nothing but the quality as (1, n, 1, 1), and
    ONNX Runtime then refuses a value for each position, which no operator in them minds. Inputs
    that are not declared so are left as they are. Only declarations change, so do no results.
    """
    for name in inputs:
        found = list(_declaration(name.encode()).finditer(graph))
        if len(found) == 1:
            end = found[0].end()
            graph = graph[:end] + 2 * _ANY + graph[end + 2 * len(_ONE) :]
    return graph


def _declaration(name: bytes) -> re.Pattern[bytes]:
    """Return what matches the declaration of a float input (1, n, 1, 1) up to its last two sizes.

    It is a ValueInfoProto: name, type; in that the tensor's element type 1 and its shape, all with
    lengths of one byte in front.
    """
    size = rb"\x0a(?:\x02\x08.|\x03\x08..)"
    head = b"\x0a" + bytes([len(name)]) + name
    return re.compile(
        re.escape(head) + rb"\x12.\x0a.\x08\x01\x12." + _ONE + size + b"(?=" + 2 * _ONE + b")",
        re.DOTALL,
    )
