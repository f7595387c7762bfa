"""Training images: folders, decoded once, cropped on the device that trains."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from train.progress import Progress, say

SUFFIXES = {".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are damaged, no images, or absurdly large."""


def image_files(folders: Iterable[str | Path]) -> list[Path]:
    """Return the image files in folders and their subfolders, sorted by path."""
    files = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; give folders of images")
        files += [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES]
    return sorted(files)


def _decode(path: Path, scales: Sequence[float], smallest: int) -> list[Tensor]:
    """Return an image at each scale that leaves both sides at least `smallest` pixels."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except _UNREADABLE as error:
        say(f"skipped {path}: {error}")
        return []
    result = []
    for scale in scales:
        size = round(image.width * scale), round(image.height * scale)
        if min(size) >= smallest:
            copy = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
            result.append(torch.from_numpy(np.array(copy)))
    return result


class Crops:
    """Random crops of folders of images, held as uint8 (H, W, 3) tensors on the device.

    Raises FileNotFoundError where there is no such folder, ValueError where no image is usable.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        crop: int,
        scales: Sequence[float],
        device: torch.device,
        silent: bool = False,
    ) -> None:
        self.crop = crop
        self.images: list[Tensor] = []
        files = image_files(folders)
        unused = 0
        with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("decoding", silent) as progress:
            decoded = pool.map(lambda p: _decode(p, scales, crop), files)
            for number, copies in enumerate(decoded, 1):
                self.images += [image.to(device) for image in copies]
                unused += not copies
                progress.update(number / len(files), f"{number} of {len(files)} images")
        if not self.images:
            where = ", ".join(map(str, folders))
            raise ValueError(
                f"none of the {len(files)} image files in {where} has {crop}x{crop} pixels or more"
            )
        if unused and not silent:
            say(f"{unused} of {len(files)} images cannot be read or are below {crop}x{crop} pixels")
        # Large images count for more, but do not crowd out the small ones.
        area = [(i.shape[0] - crop + 1.0) * (i.shape[1] - crop + 1.0) for i in self.images]
        self.weights = torch.tensor(area, dtype=torch.float64).sqrt()

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """Return crops, uint8 (count, crop, crop, 3), flipped and transposed at random.

        Numbers are drawn on the host, pixels move on the device: nothing waits for it.
        """
        chosen = torch.multinomial(self.weights, count, True, generator=generator).tolist()
        numbers = torch.rand(count, 5, generator=generator).tolist()
        pairs = zip(chosen, numbers, strict=True)
        return torch.stack([self._crop(self.images[i], *row) for i, row in pairs])

    def _crop(
        self, image: Tensor, y: float, x: float, flip_y: float, flip_x: float, turn: float
    ) -> Tensor:
        top = int(y * (image.shape[0] - self.crop + 1))
        left = int(x * (image.shape[1] - self.crop + 1))
        crop = image[top : top + self.crop, left : left + self.crop]
        axes = [axis for axis, flip in enumerate((flip_y, flip_x)) if flip < 0.5]
        crop = crop.flip(axes) if axes else crop
        return crop.transpose(0, 1) if turn < 0.5 else crop
