"""Which images of a folder are trained on, which choose, and which are held out to measure on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.data import image_files
from train.progress import say
from vaecodec.errors import ImageError
from vaecodec.images import read

HELD_OUT = 0.1, 20
"""Share of the images that are held out, and how many at most."""

SET_ASIDE = 0.1, 8
"""Share of the others that are set aside to choose by, and how many at most."""

FEWEST = 10
"""Images of which one is set aside; of fewer, all are trained on, as all are needed."""


@dataclass(frozen=True)
class Images:
    """Image files, to train on, to choose by and to measure on."""

    training: list[Path]
    set_aside: list[Path]
    held_out: list[Path]


def split(folders: Sequence[Path], holdout: Sequence[Path] = ()) -> Images:
    """Return the images of folders, those to measure on apart.

    These are the images of `holdout`, files or folders, if there are any; else every tenth file, at
    least 1 and at most 20, that can be read. Of the others every tenth, 1 to 8, is set aside, where
    there are enough. Raises ValueError where too few are left.
    """
    files = image_files(folders)
    held = _readable(image_files(holdout)) if holdout else _spread(files, *HELD_OUT)
    apart = {path.resolve() for path in held}
    training = [path for path in files if path.resolve() not in apart]
    if not training or not held:
        where = ", ".join(map(str, folders))
        raise ValueError(
            f"{where} has {len(files)} images; 2 or more that can be read are needed, one of them "
            "to measure on"
        )
    aside = _spread(training, *SET_ASIDE) if len(training) >= FEWEST else []
    return Images([path for path in training if path not in aside], aside, held)


def _spread(files: Sequence[Path], share: float, most: int) -> list[Path]:
    count = min(max(1, round(share * len(files))), most) if len(files) > 1 else 0
    found: list[Path] = []
    for i in range(count):
        # The middle one of each part, or one after it that is an image.
        part = files[i * len(files) // count : (i + 1) * len(files) // count]
        candidates = [*part[len(part) // 2 :], *part[: len(part) // 2]]
        found += next(([path] for path in candidates if _is_image(path)), [])
    return found


def _readable(files: Sequence[Path]) -> list[Path]:
    found = [path for path in files if _is_image(path)]
    for path in sorted({*files} - {*found}):
        say(f"skipped {path}: it cannot be read")
    return found


def _is_image(path: Path) -> bool:
    try:
        read(path)
    except (ImageError, OSError):
        return False
    return True
