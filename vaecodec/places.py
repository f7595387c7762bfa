"""Where bundles are: the directories that are searched for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["MANIFEST", "directories", "search_path"]

MANIFEST = "manifest.json"
"""The file that makes a directory a bundle."""


def search_path() -> list[Path]:
    """Return the directories that hold bundles: the package's, $VAECODEC_MODELS, the user's."""
    import platformdirs

    package = Path(__file__).parent
    folders = [package / "exported", package.parent / "exported"]
    if own := os.environ.get("VAECODEC_MODELS"):
        folders += map(Path, own.split(os.pathsep))
    return [*folders, platformdirs.user_data_path("vaecodec") / "models"]


def directories(folders: list[Path] | None = None) -> Iterator[Path]:
    """Yield the directories of bundles, damaged or not, by name within each of `folders`.

    `folders` are bundles or hold some; by default they are the search path.
    """
    for folder in search_path() if folders is None else folders:
        if (folder / MANIFEST).is_file():
            yield folder
        elif folder.is_dir():
            for manifest in sorted(folder.glob(f"*/{MANIFEST}")):
                yield manifest.parent
