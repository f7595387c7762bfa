"""The sets of a gaussian recipe: images of one size, or crops of larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from train.data import image_files
from train.vae_recipe import Data
from vaecodec.datasets import read_images
from vaecodec.images import read

Images = NDArray[np.uint8]
"""uint8 (N, H, W, C)."""


def training_set(data: Data, folders: Sequence[str | Path], seed: int) -> Images:
    """Return the training images; crops are drawn with `seed`.

    Raises FileNotFoundError where none of the folders has them, ImageError and ValueError where
    they are not what the recipe says.
    """
    return _set(data, _found(data.train, folders), data.patches and data.patches[0], (seed, 0))


def test_set(data: Data, folders: Sequence[str | Path], seed: int) -> Images:
    """Return the test images; as `training_set`."""
    return _set(data, _found(data.test, folders), data.patches and data.patches[1], (seed, 1))


test_set.__test__ = False  # type: ignore[attr-defined] # pytest would take it for a test


def _found(name: str, folders: Sequence[str | Path]) -> Path:
    first = Path(name).parts[0]  # of a folder in a zip, the zip
    for folder in folders:
        if (Path(folder) / first).exists():
            return Path(folder) / name
    raise FileNotFoundError(f"{name} is in none of {', '.join(map(str, folders))}")


def _set(data: Data, path: Path, patches: int | None, seed: tuple[int, int]) -> Images:
    if patches is not None:
        images = crops(path, data.shape, patches, np.random.default_rng(seed))
    else:
        images = read_images(path)
    if images.shape[1:] != data.shape:
        raise ValueError(f"{path} has images {images.shape[1:]}; the recipe says {data.shape}")
    return images[: data.limit]


def crops(
    folder: Path, shape: tuple[int, int, int], count: int, rng: np.random.Generator
) -> Images:
    """Return crops of the images of a folder, uint8 (count, H, W, C): as many of each, at random.

    The images may be of several sizes; ValueError where one is smaller than a crop.
    """
    height, width, colours = shape
    plates = [read(path).pixels for path in image_files([folder])]
    if not plates or any(np.any(np.less(p.shape, shape)) for p in plates):
        raise ValueError(
            f"{folder} has no images, or one below {width}x{height} with {colours} colours"
        )
    found = np.empty((count, *shape), np.uint8)
    for k in range(count):
        plate = plates[k % len(plates)]
        top = rng.integers(plate.shape[0] - height + 1)
        left = rng.integers(plate.shape[1] - width + 1)
        found[k] = plate[top : top + height, left : left + width, :colours]
    return found
