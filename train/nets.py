"""The transforms of the photo codec: pixels <-> latents, nothing above 1/8 resolution.

Both sides start as a two-stage block transform (`train/klt.py` fills it in): 8x8 blocks of pixels
at 1/8, then 2x2 neighbourhoods of their coefficients at 1/16. Residual blocks whose last layer
starts at zero bend that linear transform into a learned one.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.prior import Coded, Prior, clamp

BLOCK = 8
COEFFICIENTS = 3 * BLOCK * BLOCK
LEAK = 0.1
"""Slope of the activations of residual blocks below zero."""


def space_to_depth(pixels: Tensor) -> Tensor:
    """Return 8x8 blocks as channels: (N, H, W, 3) -> (N, 192, H/8, W/8), order (y, x, colour)."""
    n, height, width, colours = pixels.shape
    x = pixels.view(n, height // BLOCK, BLOCK, width // BLOCK, BLOCK, colours)
    return x.permute(0, 2, 4, 5, 1, 3).reshape(n, COEFFICIENTS, height // BLOCK, width // BLOCK)


def depth_to_space(blocks: Tensor) -> Tensor:
    """Return the inverse of `space_to_depth`: (N, 192, h, w) -> (N, 8h, 8w, 3)."""
    n, _, h, w = blocks.shape
    x = blocks.view(n, BLOCK, BLOCK, 3, h, w).permute(0, 4, 1, 5, 2, 3)
    return x.reshape(n, h * BLOCK, w * BLOCK, 3)


class Block(nn.Module):
    """x + scale * wide(act(narrow(depthwise(x / scale)))): mixes 3x3 positions, then channels.

    `scale` (set by the KLT start) brings channels of very different variance closer together; it
    is constant and disappears into the weights at export.
    """

    scale: Tensor
    bf16 = False
    """Train the residual branch in bfloat16; the sum that it bends stays in float32."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        inner = round(channels * expansion)
        self.spatial = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.widen = nn.Conv2d(channels, inner, 1)
        self.narrow = nn.Conv2d(inner, channels, 1)
        self.register_buffer("scale", torch.ones(channels))
        nn.init.normal_(self.spatial.weight, std=0.1)
        self.spatial.weight.data[:, :, 1, 1] += 1.0
        nn.init.zeros_(self.narrow.weight)
        for layer in (self.spatial, self.widen, self.narrow):
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type] # they have one

    def forward(self, x: Tensor) -> Tensor:
        # Weights are scaled instead of activations: a thousand times fewer of them.
        spatial, narrow, scale = self.spatial, self.narrow, self.scale
        rows = scale.view(-1, 1, 1, 1)
        with torch.autocast(x.device.type, torch.bfloat16, self.bf16 and self.training):
            y = F.conv2d(x, spatial.weight / rows, spatial.bias, padding=1, groups=len(scale))
            y = F.leaky_relu(self.widen(y), LEAK)
            branch = F.conv2d(y, rows * narrow.weight, scale * cast(Tensor, narrow.bias))
        return x + branch


class Encoder(nn.Module):
    """Blocks of pixels (N, 192, H/8, W/8) in 0..1 -> latents y (N, C, H/16, W/16) before gain."""

    def __init__(self, channels: int, blocks8: int, blocks16: int, expansion: float) -> None:
        super().__init__()
        self.enter = nn.Conv2d(COEFFICIENTS, COEFFICIENTS, 1)
        self.blocks8 = nn.Sequential(*(Block(COEFFICIENTS, expansion) for _ in range(blocks8)))
        self.down = nn.Conv2d(COEFFICIENTS, channels, 2, stride=2)
        self.blocks16 = nn.Sequential(*(Block(channels, expansion) for _ in range(blocks16)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks8(self.enter(x))  # (N, 192, H/8, W/8)
        return self.blocks16(self.down(x))  # (N, C, H/16, W/16)


class Decoder(nn.Module):
    """Latents y (N, C, H/16, W/16) after gain -> blocks of pixels (N, 192, H/8, W/8) in 0..1."""

    def __init__(self, channels: int, blocks8: int, blocks16: int, expansion: float) -> None:
        super().__init__()
        self.blocks16 = nn.Sequential(*(Block(channels, expansion) for _ in range(blocks16)))
        self.up = nn.ConvTranspose2d(channels, COEFFICIENTS, 2, stride=2)
        self.blocks8 = nn.Sequential(*(Block(COEFFICIENTS, expansion) for _ in range(blocks8)))
        self.leave = nn.Conv2d(COEFFICIENTS, COEFFICIENTS, 1)

    def forward(self, y: Tensor) -> Tensor:
        x = self.up(self.blocks16(y))  # (N, 192, H/8, W/8)
        return self.leave(self.blocks8(x))


class Output(NamedTuple):
    """One pass of the codec over a batch of N crops."""

    bits: Tensor
    """(N,) estimated bits."""
    squared_error: Tensor
    """(N,) mean squared error of samples in 0..1, decoded ones clipped."""
    blocks: Tensor
    """(N, 192, H/8, W/8) decoded pixels as blocks, in 0..1, not clipped."""
    coded: Coded


class PhotoCodec(nn.Module):
    """Variable-rate transform codec with a hyperprior: one model for all qualities.

    Gains per channel at a few quality levels, interpolated in the logarithm, scale the latents
    before rounding and back after it (Cui et al., 2021, "Asymmetric gained deep image
    compression", arXiv 2003.02012).
    """

    def __init__(
        self,
        channels: int,
        side: int,
        width: int,
        hidden: int,
        steps: int,
        levels: int,
        encoder_blocks: tuple[int, int],
        decoder_blocks: tuple[int, int],
        expansion: float,
        density: str = "gaussian",
    ) -> None:
        super().__init__()
        self.levels = levels
        self.encoder = Encoder(channels, *encoder_blocks, expansion)
        self.decoder = Decoder(channels, *decoder_blocks, expansion)
        self.prior = Prior(channels, side, width, hidden, steps, levels, density)
        self.log_gain = nn.Parameter(torch.zeros(levels, channels))
        self.log_inverse = nn.Parameter(torch.zeros(levels, channels))

    def train_in_bf16(self) -> None:
        """Train the residual blocks in bfloat16, and nothing else.

        The linear transforms carry values whose eighth bit is a quantisation step, and the integers
        of the prior have up to 24 bits.
        """
        for module in self.modules():
            if isinstance(module, Block):
                module.bf16 = True

    def mix(self, quality: Tensor) -> Tensor:
        """Return the interpolation weights (N, levels) of qualities (N,) in 0..100."""
        position = quality / 100 * (self.levels - 1)
        grid = torch.arange(self.levels, device=quality.device)
        return (1 - (position[:, None] - grid).abs()).clamp_min(0)

    def forward(self, pixels: Tensor, quality: Tensor) -> Output:
        """Code crops, uint8 (N, H, W, 3) with sides divisible by 64, at qualities (N,)."""
        target = space_to_depth(pixels).float() / 255
        mix = self.mix(quality)
        log_gain = mix @ self.log_gain
        y = self.encoder(target) * torch.exp(log_gain)[:, :, None, None]
        coded = self.prior(y, mix, log_gain)
        inverse = torch.exp(mix @ self.log_inverse)[:, :, None, None]
        # Of grey crops, too, each colour: were only their mean to be right, colours would drift
        # apart, to where bytes end on black and white, and in the grey parts of coloured pictures.
        blocks = self.decoder(coded.y_hat * inverse)
        # Clipped, as in bytes: whiter than white is white, and what is drawn on it may ring there.
        squared_error = (clamp(blocks, 0, 1) - target).square().mean((1, 2, 3))
        return Output(coded.bits, squared_error, blocks, coded)
