"""Training images: folders, decoded and cropped on the device that trains."""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from train.progress import Progress, say
from train.recolour import recoloured
from vaecodec.errors import ImageError
from vaecodec.images import read

SUFFIXES = {".avif", ".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}

MEMORY = 8 << 30
"""Bytes of decoded pixels that are held at once, and no more."""

TURN = 16
"""Batches after which one of more images than that gives way to the next: decoding one takes about
as long as a step, and a core."""


def image_files(places: Iterable[str | Path]) -> list[Path]:
    """Return the image files in folders and their subfolders, sorted by path.

    A file among `places` is taken for itself. Raises FileNotFoundError for what is neither.
    """
    files = []
    for place in map(Path, places):
        if place.is_file():
            files.append(place)
        elif place.is_dir():
            files += [p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES]
        else:
            raise FileNotFoundError(f"{place} is not a folder; give folders of images")
    return sorted(files)


@dataclass(frozen=True)
class Shapes:
    """What is made of each image: copies at `scales` with sides of at least `crop` pixels.

    With `extend`, an image with a smaller side is used at its own scale all the same, its last row
    or column repeated, as the encoder does.
    """

    crop: int
    scales: tuple[float, ...]
    extend: bool = False

    def copies(self, path: Path) -> list[Tensor]:
        """Return an image file's copies, uint8 (H, W, 3); none, and a line, if it is unreadable."""
        try:
            pixels = read(path).pixels
        except (ImageError, OSError) as error:
            say(f"skipped {path}: {error}")
            return []
        image = Image.fromarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        result = []
        for scale in self.scales:
            size = round(image.width * scale), round(image.height * scale)
            if min(size) >= self.crop or (self.extend and scale == 1):
                copy = image if scale == 1 else image.resize(size, Image.Resampling.LANCZOS)
                result.append(torch.from_numpy(self._extended(np.array(copy))))
        return result

    def _extended(self, pixels: np.ndarray) -> np.ndarray:
        missing = [(0, max(0, self.crop - side)) for side in pixels.shape[:2]]
        return np.pad(pixels, (*missing, (0, 0)), "edge") if any(map(sum, missing)) else pixels


class Crops:
    """Random crops of image files, held as uint8 (H, W, 3) tensors on the device.

    Of more images than `memory` bytes hold, so many are held at a time: after every TURN batches
    the oldest gives way to the next file, which is decoded beside the training. unused: how many of
    those that came first cannot be read or are too small. recolour: the share of crops that are
    given other colours.

    Raises FileNotFoundError where there is no such place, ValueError where no image is usable.
    """

    def __init__(
        self,
        places: Sequence[str | Path],
        shapes: Shapes,
        device: torch.device,
        silent: bool = False,
        memory: int = MEMORY,
        recolour: float = 0.0,
    ) -> None:
        self._shapes, self._device, self._recolour = shapes, device, recolour
        files = image_files(places)
        # Shuffled: those that are held first stand for all, whatever the folders are sorted by.
        order = random.Random(0).sample(files, len(files))
        self.unused = size = number = 0
        held = dict[Path, list[Tensor]]()
        with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("decoding", silent) as progress:
            for number, (path, copies) in enumerate(_ahead(pool, shapes, order), 1):
                self.unused += not copies
                if copies:
                    held[path] = [image.to(device) for image in copies]
                    size += sum(image.numel() for image in copies)
                progress.update(number / len(files), f"{number} of {len(files)} images")
                if size >= memory:
                    break
        crop = shapes.crop
        if not held:
            where = ", ".join(map(str, places[:3])) + (", ..." if len(places) > 3 else "")
            raise ValueError(
                f"none of the {len(files)} image files in {where} has {crop}x{crop} pixels or more"
            )
        if self.unused and not silent:
            why = f"cannot be read or are below {crop}x{crop} pixels"
            say(f"{self.unused} of {number} images {why}")
        self._changing = _Changing(shapes, order, number) if number < len(files) else None
        self._held = deque(held.values() if self._changing else (held[p] for p in sorted(held)))
        self._drawn = 0
        self._list()

    def _list(self) -> None:
        """Make the table of copies that crops are drawn from."""
        self.images = [image for copies in self._held for image in copies]
        crop = self._shapes.crop
        # Large images count for more, but do not crowd out the small ones.
        area = [(i.shape[0] - crop + 1.0) * (i.shape[1] - crop + 1.0) for i in self.images]
        self.weights = torch.tensor(area, dtype=torch.float64).sqrt()

    def _change(self) -> None:
        """Take in the next file after every TURN batches."""
        self._drawn += 1
        if self._changing and self._drawn % TURN == 0 and (copies := self._changing.next()):
            self._held.popleft()
            self._held.append([image.to(self._device) for image in copies])
            self._list()

    def batch(self, count: int, generator: torch.Generator) -> Tensor:
        """Return crops, uint8 (count, crop, crop, 3).

        Numbers are drawn on the host, pixels move on the device: nothing waits for it.
        """
        self._change()
        chosen = torch.multinomial(self.weights, count, True, generator=generator).tolist()
        numbers = torch.rand(count, 5, generator=generator).tolist()
        pairs = zip(chosen, numbers, strict=True)
        crops = [self._crop(self.images[i], *row) for i, row in pairs]
        if self._recolour:
            chance = torch.rand(count, generator=generator).tolist()
            crops = [
                recoloured(crop, generator) if number < self._recolour else crop
                for crop, number in zip(crops, chance, strict=True)
            ]
        return torch.stack(crops)

    def _crop(
        self, image: Tensor, y: float, x: float, flip_y: float, flip_x: float, turn: float
    ) -> Tensor:
        side = self._shapes.crop
        top = int(y * (image.shape[0] - side + 1))
        left = int(x * (image.shape[1] - side + 1))
        crop = image[top : top + side, left : left + side]
        axes = [axis for axis, flip in enumerate((flip_y, flip_x)) if flip < 0.5]
        crop = crop.flip(axes) if axes else crop
        return crop.transpose(0, 1) if turn < 0.5 else crop


def _ahead(
    pool: ThreadPoolExecutor, shapes: Shapes, files: Sequence[Path]
) -> Iterator[tuple[Path, list[Tensor]]]:
    """Yield files, in order, and their copies; the pool decodes a few files ahead and no more."""
    waiting = deque[tuple[Path, Future[list[Tensor]]]]()
    for path in files:
        waiting.append((path, pool.submit(shapes.copies, path)))
        if len(waiting) > 2 * (os.cpu_count() or 1):
            first, copies = waiting.popleft()
            yield first, copies.result()
    for path, copies in waiting:
        yield path, copies.result()


class _Changing:
    """Decodes files one after the other, round and round, while something else is done."""

    def __init__(self, shapes: Shapes, files: Sequence[Path], first: int) -> None:
        self._shapes, self._files, self._number = shapes, files, first
        self._pool = ThreadPoolExecutor(1)
        self._submit()

    def _submit(self) -> None:
        path = self._files[self._number % len(self._files)]
        self._number += 1
        self._waiting = self._pool.submit(self._shapes.copies, path)

    def next(self) -> list[Tensor]:
        """Return the next file's copies, none if it is unreadable, and begin on another."""
        copies = self._waiting.result()
        self._submit()
        return copies
