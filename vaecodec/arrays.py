"""Arrays out of the .npz files of a bundle, which are untrusted input."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from vaecodec.layouts import Kinds

__all__ = ["Shape", "member", "opened", "read"]

Shape = tuple[int, ...]


def read(content: bytes, kinds: Kinds) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file, by name: those of `kinds`.

    Raises ValueError where it is damaged, lacks one, holds others, or one is not of its kind.
    """
    with opened(content) as archive:
        names = archive.namelist()
        # "gain" beside "gain.npy" would be read in its place by some, and checked by none.
        if len(names) > len(kinds) or not set(names) <= {f"{key}.npy" for key in kinds}:
            raise ValueError(f"it holds {', '.join(names):.60}; {', '.join(kinds)} expected")
        found = {}
        for key, (kind, rows, columns) in kinds.items():
            width = f"{columns[0]}" + (f" to {columns[-1]}" if len(columns) > 1 else "")

            def fits(shape: Shape, rows: int = rows, columns: range = columns) -> bool:
                return len(shape) == 2 and shape[0] == rows and shape[1] in columns

            found[key] = member(archive, key, np.dtype(kind), fits, f"({rows}, {width})")
        return found


def opened(content: bytes) -> zipfile.ZipFile:
    """Return a zip file; ValueError where it is none."""
    try:
        return zipfile.ZipFile(io.BytesIO(content))
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise ValueError(f"it is no zip file: {error}") from error


def member(
    archive: zipfile.ZipFile,
    name: str,
    kind: np.dtype[Any],
    fits: Callable[[Shape], bool],
    expected: str,
) -> NDArray[Any]:
    """Return an array of a zip file of arrays, in the order of C.

    expected: the shapes that fit, for the message. Raises ValueError where it is damaged, of
    another type, or its shape does not fit: nothing is allocated to find that out.
    """
    try:
        with archive.open(f"{name}.npy") as stream:
            npy.read_magic(stream)
            shape, columns_first, dtype = npy.read_array_header_1_0(stream)
            if dtype == kind and fits(shape) and not columns_first:
                count = int(np.prod(shape, dtype=np.int64))
                data = stream.read(count * kind.itemsize)
                return np.frombuffer(data, kind, count).reshape(shape).copy()
    except Exception as error:  # what zipfile, zlib and NumPy raise for damage has no common root
        raise ValueError(f"{name} cannot be read: {error}") from error
    raise ValueError(f"{name} is {dtype} {shape}; {kind} {expected} expected")
