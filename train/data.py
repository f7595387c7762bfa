"""Training images: a folder, decoded once, cropped on the device that trains."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

SUFFIXES = {".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


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
    except (UnidentifiedImageError, OSError) as error:
        tqdm.write(f"skipped {path}: {error}")
        return []
    result = []
    for scale in scales:
        size = round(image.width * scale), round(image.height * scale)
        if min(size) >= smallest:
            copy = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
            result.append(torch.from_numpy(np.array(copy)))
    return result


class Crops:
    """Random crops of a folder of images, held as uint8 (H, W, 3) tensors on the device."""

    def __init__(
        self,
        folders: Sequence[str | Path],
        crop: int,
        scales: Sequence[float],
        device: torch.device,
        progress: bool = True,
    ) -> None:
        self.crop = crop
        files = image_files(folders)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            decoded = pool.map(lambda p: _decode(p, scales, crop), files)
            bar = tqdm(decoded, "decoding", len(files), unit="image", disable=not progress)
            self.images = [image.to(device) for copies in bar for image in copies]
        if not self.images:
            where = ", ".join(map(str, folders))
            raise ValueError(f"no image of at least {crop}x{crop} pixels in {where}")
        # Large images count for more, but do not crowd out the small ones.
        area = [(i.shape[0] - crop + 1.0) * (i.shape[1] - crop + 1.0) for i in self.images]
        self.weights = torch.tensor(area, dtype=torch.float64).sqrt()

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """Return crops, uint8 (count, crop, crop, 3), flipped and transposed at random."""
        chosen = torch.multinomial(self.weights, count, True, generator=generator).tolist()
        numbers = torch.rand(count, 5, generator=generator).tolist()
        return torch.stack([self._crop(self.images[i], *r) for i, r in zip(chosen, numbers)])

    def _crop(self, image: Tensor, y: float, x: float, *flips: float) -> Tensor:
        top = int(y * (image.shape[0] - self.crop + 1))
        left = int(x * (image.shape[1] - self.crop + 1))
        crop = image[top : top + self.crop, left : left + self.crop]
        axes = [axis for axis, flip in zip((0, 1), flips) if flip < 0.5]
        crop = crop.flip(axes) if axes else crop
        return crop.transpose(0, 1) if flips[2] < 0.5 else crop
