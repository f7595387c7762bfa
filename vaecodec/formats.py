"""The image formats that are written, by name and by suffix; without Pillow, which writes them."""

from __future__ import annotations

from pathlib import Path

from vaecodec.errors import ImageError

__all__ = ["DATASET", "FORMATS", "SUFFIXES", "format_of"]

FORMATS = ("png", "jpg", "webp", "avif", "tiff")

SUFFIXES = {f".{name}": name for name in FORMATS} | {".jpeg": "jpg", ".tif": "tiff"}
"""Suffixes of file names, in lower case -> the one of FORMATS that they name."""


DATASET = "idx"
"""The format of several images in a file, which `vaecodec.datasets` writes."""


def format_of(path: Path) -> str:
    """The one of FORMATS that the suffix of `path` names; DATASET for .idx and .idx.gz.

    Raises:
        ImageError: it names none of them.
    """
    if path.name.lower().endswith((".idx", ".idx.gz")):
        return DATASET
    name = SUFFIXES.get(path.suffix.lower())
    if name is None:
        raise ImageError(
            f"{path}: no known image format; the name has to end in one of {', '.join(SUFFIXES)}"
        )
    return name
