"""Other colours for crops: what a few images have in common is seldom their colours.

A network that has seen white windows only spends bits on every block of a blue one. Turned round
(dark on light becomes light on dark), mixed up and paler, crops of few images show it more.
"""

from __future__ import annotations

import torch
from torch import Tensor

PALEST = 0.5
"""Of the range of samples, what is left of it at least."""


def recoloured(crop: Tensor, generator: torch.Generator) -> Tensor:
    """Return a crop, uint8 (H, W, 3), in colours drawn at random; grey stays grey.

    Channels change places; all are turned round or not, and pressed into a part of the range or
    not. Each channel by itself would be too much: most of what is grey is grey in other images,
    too. Numbers are drawn on the host, and nothing waits for the device.
    """
    crop = crop[..., torch.randperm(3, generator=generator).tolist()]
    turn, pale, contrast, place = torch.rand(4, generator=generator).tolist()
    if turn < 0.5:
        crop = 255 - crop
    if pale < 0.5:
        contrast = PALEST + (1 - PALEST) * contrast
        crop = (crop * contrast + place * (1 - contrast) * 255).round().to(torch.uint8)
    return crop
