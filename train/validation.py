"""Measuring a network during training: estimated rates on a folder of images, against JPEG.

What decides is `python -m train evaluate`, which measures files; this is its quick estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from train.curves import decibels, saved
from train.data import image_files
from train.nets import PhotoCodec, depth_to_space
from train.rivals import RIVALS
from vaecodec.images import read
from vaecodec.metrics import bits_per_pixel

QUALITIES = (0.0, 17.0, 33.0, 50.0, 67.0, 83.0, 100.0)
JPEG = RIVALS["JPEG"]
FRAME_BYTES = 48
"""What a file adds to its estimated payload at most."""


@dataclass(frozen=True)
class Result:
    """Mean rate (bits per pixel) and PSNR (dB) at QUALITIES, and the BD-rate against JPEG (%).

    The BD-rate is NaN where no JPEG has any of the PSNRs.
    """

    bpp: list[float]
    psnr: list[float]
    bd_rate: float
    picture: np.ndarray
    """uint8 (H, W, 3): the first image at the lowest, a middle and the highest quality."""

    @property
    def loss(self) -> float:
        """What early stopping goes by."""
        return self.bd_rate

    def __str__(self) -> str:
        points = " ".join(f"{b:.3f}/{p:.2f}" for b, p in zip(self.bpp, self.psnr, strict=True))
        return f"BD-rate {self.bd_rate:+.2f} % against JPEG ({points})"

    def row(self) -> list[float]:
        """Return the numbers of one line of a curve."""
        pairs = zip(self.bpp, self.psnr, strict=True)
        return [round(self.bd_rate, 3), *(round(v, 4) for pair in pairs for v in pair)]

    def scalars(self) -> dict[str, float]:
        """Return what TensorBoard draws."""
        names = [f"q{q:.0f}" for q in QUALITIES]
        rates = {f"bpp {n}": v for n, v in zip(names, self.bpp, strict=True)}
        quality = {f"PSNR {n}": v for n, v in zip(names, self.psnr, strict=True)}
        return {"BD-rate": self.bd_rate, **rates, **quality}


def jpeg(pixels: np.ndarray, quality: int) -> tuple[float, float]:
    """Return (bits per pixel, PSNR in dB) of Pillow's JPEG, optimised, of uint8 (H, W, 1 or 3)."""
    data, decoded = JPEG(pixels, quality)
    return bits_per_pixel(len(data), pixels.shape[1], pixels.shape[0]), decibels(pixels, decoded)


class Validation:
    """`count` images of folders, spread evenly over their names, and what JPEG makes of them."""

    def __init__(self, folders: Sequence[str | Path], count: int) -> None:
        files = image_files(folders)
        if not files:
            raise ValueError(f"no image in {', '.join(map(str, folders))} to validate on")
        count = min(count, len(files))
        chosen = [read(files[i * len(files) // count]).pixels for i in range(count)]
        images = [np.array(np.broadcast_to(p, (*p.shape[:2], 3))) for p in chosen]
        points = np.array([[jpeg(i, q) for q in JPEG.qualities] for i in images])
        self.jpeg_bpp, self.jpeg_psnr = points.mean(0).T.tolist()
        self.images = [torch.from_numpy(i) for i in images]
        self.original = images[0]

    @torch.no_grad()
    def measure(self, model: PhotoCodec, device: torch.device) -> Result:
        """Return the model's estimated rate-distortion points and BD-rate."""
        model.eval()
        rows = [[_point(model, i.to(device), q) for q in QUALITIES] for i in self.images]
        points = np.array([[(b, p) for b, p, _ in row] for row in rows]).mean(0)
        bpp, quality = points.T.tolist()
        picture = torch.cat([rows[0][i][2] for i in (0, len(QUALITIES) // 2, -1)], 1)
        # NaN where it is so bad that no JPEG is: no reason to end a run.
        against = saved((bpp, quality), (self.jpeg_bpp, self.jpeg_psnr))
        return Result(bpp, quality, against, picture.cpu().numpy())


def pad(image: Tensor, multiple: int) -> Tensor:
    """Return an image, uint8 (H, W, 3), with its last row and column repeated to a multiple."""
    height, width, _ = image.shape
    x = image.permute(2, 0, 1)[None].float()
    x = F.pad(x, (0, -width % multiple, 0, -height % multiple), "replicate")
    return x[0].permute(1, 2, 0).to(torch.uint8)


def _point(model: PhotoCodec, image: Tensor, quality: float) -> tuple[float, float, Tensor]:
    """Return (bits per pixel, PSNR in dB, decoded image uint8 (H, W, 3))."""
    height, width, _ = image.shape
    output = model(pad(image, 64)[None], torch.tensor([quality], device=image.device))
    pixels = depth_to_space(output.blocks)[0, :height, :width] * 255
    decoded = (pixels + 0.5).floor().clamp(0, 255).to(torch.uint8)
    if (image == image[..., :1]).all():  # a grey file is decoded to the mean of what is in bytes
        decoded = ((decoded.sum(2, keepdim=True) + 1) // 3).to(torch.uint8).expand_as(decoded)
    bpp = bits_per_pixel(output.bits.item() / 8 + FRAME_BYTES, width, height)
    return bpp, decibels(image.cpu().numpy(), decoded.cpu().numpy()), decoded
