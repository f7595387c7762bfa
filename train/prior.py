"""The hyperprior as it is trained: integer arithmetic, imitated in floats.

Every activation is a multiple of 1/32 between 0 and 255/32, every weight a multiple of a power of
two with seven bits, so the sums of the exported integer network (train/graphs.py) are reproduced
to the last bit, while gradients pass straight through the rounding (Jacob et al., 2018,
arXiv 1712.05877; integer hyperpriors: Balle et al., 2019, "Integer networks for data compression").
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.frequencies import LOGISTIC
from vaecodec import latents

ACTIVATION_UNIT = 32
"""Activations of the prior are integers 0..255 in units of 1/32."""
ACTIVATION_MAX = 255
HEAD_UNIT = latents.ROW_UNIT * 8
"""Heads are integers in units of 1/64: a head of 1 is eight rows (a factor 2.67 of the scale), or
one standard deviation of the mean."""
HEAD_MAX = 2047
WEIGHT_MAX = 127
LARGEST_SUM = 0.75 * 2**24
"""Of products, in units of a layer's finest row; the rest of the 24 bits is for biases."""


def round_ste(x: Tensor) -> Tensor:
    """Round half up; the gradient passes as if nothing had happened."""
    return x + (torch.floor(x + 0.5) - x).detach()


class _Clamp(torch.autograd.Function):
    """Clamp whose gradient passes where a step against it would lead back into the range."""

    @staticmethod
    def forward(ctx, x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)  # type: ignore[arg-type] # both are of one kind

    @staticmethod
    def backward(ctx, grad: Tensor):
        (x,) = ctx.saved_tensors
        low, high = ctx.bounds
        keep = ((x >= low) | (grad < 0)) & ((x <= high) | (grad > 0))
        return grad * keep, None, None


def clamp(x: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Clamp to [low, high] with gradients that can lead back into the range."""
    return _Clamp.apply(x, low, high)


class IntConv(nn.Conv2d):
    """A convolution whose weights are integers in -127..127 times a power of two per channel.

    Its input must be integers / 32; its bias is rounded to the unit of the sum. `exact=False` on
    the prior turns all rounding off: the float twin that the integer prior is compared with.
    """

    exact = True
    signed = False
    """Inputs can be below zero."""

    def exponents(self) -> Tensor:
        """Return per output channel the exponent e of the step 2**e that gives weights seven bits.

        Rows far weaker than the strongest get fewer: before they are rounded, the sums of all rows
        are bounded in the unit of the finest one, in which float32 has to hold them.
        """
        weight = self.weight.detach().flatten(1)
        largest = weight.abs().amax(1).clamp_min(2.0**-8)
        signs = (weight.abs(),) if self.signed else (weight.clamp_min(0), -weight.clamp_max(0))
        reach = max(part.sum(1).max() for part in signs) * ACTIVATION_MAX
        return torch.ceil(torch.log2(torch.maximum(largest / WEIGHT_MAX, reach / LARGEST_SUM)))

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        assert bias is not None
        if self.exact:
            step = torch.exp2(self.exponents()).view(-1, 1, 1, 1)
            weight = clamp(round_ste(weight / step), -WEIGHT_MAX, WEIGHT_MAX) * step
            unit = step.view(-1) / ACTIVATION_UNIT
            bias = round_ste(bias / unit) * unit
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def rounded(self, x: Tensor, unit: int) -> Tensor:
        """Round to multiples of 1/unit (half up)."""
        return round_ste(x * unit) / unit if self.exact else x

    def relu(self, x: Tensor, shift: Tensor | float = 0.0) -> Tensor:
        """Return the layer's activation, integers 0..255 over 32; `shift` is added before."""
        y = self.rounded(self(x), ACTIVATION_UNIT) + shift
        return y.clamp(0, ACTIVATION_MAX / ACTIVATION_UNIT)

    def head(self, x: Tensor) -> Tensor:
        """Return the layer's output as integers over 64, clipped to +-2047/64."""
        y = self.rounded(self(x), HEAD_UNIT)
        return y.clamp(-HEAD_MAX / HEAD_UNIT, HEAD_MAX / HEAD_UNIT)


def signed_logarithm(y: Tensor) -> Tensor:
    """Return ln(1 + |y|) and the same with y's sign: (N, C, h, w) -> (N, 2C, h, w).

    Latents span three orders of magnitude over the qualities; their logarithm does not.
    """
    magnitude = torch.log1p(y.abs())
    return torch.cat([magnitude, magnitude * y.sign()], 1)


class HyperDecoder(nn.Module):
    """z (N, Z, h/4, w/4) integers -> features (N, P, h, w), integers 0..255 over 32."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        self.enter = IntConv(side, width, 1)
        self.enter.signed = True
        self.up1 = IntConv(width, 4 * width, 1)
        self.mix1 = IntConv(width, width, 3, padding=1, groups=width)
        self.up2 = IntConv(width, 4 * width, 1)
        self.mix2 = IntConv(width, width, 3, padding=1, groups=width)
        self.leave = IntConv(width, width, 1)

    def forward(self, z: Tensor, shift: Tensor) -> Tensor:
        limit = ACTIVATION_MAX / ACTIVATION_UNIT
        x = self.enter.relu((z / 4).clamp(-limit, limit))  # integers 8 z over 32
        x = self.mix1.relu(F.pixel_shuffle(self.up1.relu(x), 2))
        x = self.mix2.relu(F.pixel_shuffle(self.up2.relu(x), 2))
        return self.leave.relu(x, shift)


class Step(nn.Module):
    """One coding step: features and the latents decoded so far -> means and scale indices."""

    def __init__(self, channels: int, width: int, hidden: int, context: bool) -> None:
        super().__init__()
        self.channels = channels
        self.enter = IntConv(width + (channels if context else 0), hidden, 1)
        self.enter.signed = context
        self.mix = IntConv(hidden, hidden, 3, padding=1, groups=hidden)
        self.inner = IntConv(hidden, hidden, 1)
        self.heads = IntConv(hidden, 2 * channels, 1)

    def forward(self, features: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = features if context is None else torch.cat([features, context], 1)
        x = self.inner.relu(self.mix.relu(self.enter.relu(x)))
        mean, row = self.heads.head(x).split(self.channels, 1)
        return mean, row


class Coded(NamedTuple):
    """What the prior made of the latents of a batch."""

    y_hat: Tensor
    """(N, C, h, w) latents as the decoder sees them."""
    bits: Tensor
    """(N,) bits of y and z together."""
    bits_z: Tensor
    """(N,) bits of z."""
    symbols: Tensor
    """(N, C, h, w) integers that would be coded."""
    rows: Tensor
    """(N, C, h, w) scale-table rows."""


def _gaussian_tail(distance: Tensor, scale: Tensor) -> Tensor:
    return torch.erfc(distance * (math.sqrt(0.5) / scale)) / 2


def _logistic_tail(distance: Tensor, scale: Tensor) -> Tensor:
    return torch.sigmoid(distance * (-1 / LOGISTIC / scale))


_TAILS = {"gaussian": _gaussian_tail, "logistic": _logistic_tail}
"""train/frequencies.py has the same in double precision, for the tables."""


def bits_of(density: str, value: Tensor, scale: Tensor) -> Tensor:
    """Return -log2 of the mass that a density gives to [value - 1/2, value + 1/2].

    density: "gaussian" or "logistic", of mean 0 and standard deviation `scale`. The mass is kept
    above 1e-9 (30 bits), where an escape would take over.
    """
    distance, tail = value.abs(), _TAILS[density]
    mass = tail(distance - 0.5, scale) - tail(distance + 0.5, scale)
    return -torch.log2(clamp(mass, 1e-9, 1.0))


def scale_of(row: Tensor) -> Tensor:
    """Return the standard deviation of (fractional) rows, in quantisation steps."""
    return latents.SCALE_MIN * torch.exp(row * latents.LOG_SCALE_STEP)


def _noisy(x: Tensor) -> Tensor:
    return x + torch.rand_like(x) - 0.5


@torch.compiler.assume_constant_result
def _step_of(channels: int, height: int, width: int, steps: int, device: torch.device) -> Tensor:
    """Return `latents.step_of` on a device: in a compiled model a constant that lies there."""
    return torch.from_numpy(latents.step_of(channels, height, width, steps)).to(device)


class Prior(nn.Module):
    """Hyperprior with coding steps (Balle et al., 2018; Minnen et al., 2018): the rate of y."""

    def __init__(
        self,
        channels: int,
        side: int,
        width: int,
        hidden: int,
        steps: int,
        levels: int,
        density: str = "gaussian",
    ) -> None:
        super().__init__()
        self.channels, self.side, self.density = channels, side, density
        self.encoder = nn.Sequential(  # y at 1/16 -> z at 1/64; float, at the encoder only
            nn.Conv2d(2 * channels, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 4, stride=2, padding=1, groups=width),
            nn.Conv2d(width, width, 1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 4, stride=2, padding=1, groups=width),
            nn.Conv2d(width, side, 1),
        )
        self.decoder = HyperDecoder(side, width)
        self.steps = nn.ModuleList(Step(channels, width, hidden, k > 0) for k in range(steps))
        self.row_base = nn.Parameter(torch.zeros(channels))  # ln of the scale at gain 1
        self.z_gain = nn.Parameter(torch.zeros(levels, side))  # ln
        self.z_rows = nn.Parameter(torch.full((levels, side), 2.0))  # ln(scale / SCALE_MIN)
        self.shift = nn.Parameter(torch.zeros(levels, width))
        # PyTorch's own start shrinks what passes through so many layers to less than one unit of
        # the integers: z would fall silent before anything learns from it.
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type] # all have one
        for step in self.steps:
            nn.init.zeros_(cast(Step, step).heads.weight)

    def float_twin(self, on: bool) -> None:
        """Switch the rounding of weights and activations off (or on again)."""
        for module in self.modules():
            if isinstance(module, IntConv):
                module.exact = not on

    def side_information(self, y: Tensor, mix: Tensor) -> Tensor:
        """Return z before rounding, (N, Z, ceil(h/4), ceil(w/4)), from latents y (N, C, h, w)."""
        y = F.pad(y, (0, -y.shape[-1] % 4, 0, -y.shape[-2] % 4))
        z = self.encoder(signed_logarithm(y))
        return z * torch.exp(mix @ self.z_gain)[:, :, None, None]

    def row_offsets(self, log_gain: Tensor) -> Tensor:
        """Return the quality's scale indices in 1/8 rows, integers, from ln gains (..., C)."""
        rows = (self.row_base + log_gain - math.log(latents.SCALE_MIN)) / latents.LOG_SCALE_STEP
        return round_ste(rows * latents.ROW_UNIT)

    def forward(self, y: Tensor, mix: Tensor, log_gain: Tensor) -> Coded:
        """Code latents y (N, C, h, w), already times their gain.

        `mix` (N, levels) holds each image's interpolation weights between quality levels,
        `log_gain` (N, C) the ln of its gains. In training mode rates come from additive noise and
        latents from rounding with straight-through gradients (Minnen & Singh, 2020).
        """
        z = self.side_information(y, mix)
        z_row = clamp(round_ste(mix @ self.z_rows / latents.LOG_SCALE_STEP), 1, latents.ROWS - 1)
        z_scale = scale_of(z_row)[:, :, None, None]
        z_hat = round_ste(z)
        bits_z = self._bits(_noisy(z) if self.training else z_hat, z_scale)

        shift = round_ste(mix @ self.shift * ACTIVATION_UNIT)[:, :, None, None] / ACTIVATION_UNIT
        features = self.decoder(z_hat, shift)[:, :, : y.shape[2], : y.shape[3]]
        offset = self.row_offsets(log_gain)[:, :, None, None]
        sigma = torch.exp2(latents.exponents(offset.detach().long()).to(y.dtype))

        step_of = _step_of(self.channels, y.shape[2], y.shape[3], len(self.steps), y.device)
        y_hat = torch.zeros_like(y)
        residual, rows, symbols = torch.zeros_like(y), torch.zeros_like(y), torch.zeros_like(y)
        for k, step in enumerate(self.steps):
            now = (step_of == k).to(y.dtype)
            context = None if k == 0 else _context(y_hat, sigma)
            mean, row = step(features, context)
            mean = round_ste(mean * sigma * latents.MEAN_UNIT) / latents.MEAN_UNIT
            row = clamp(offset / latents.ROW_UNIT + row * 8, 0, latents.ROWS - 1)
            row = clamp(round_ste(row), 0, latents.ROWS - 1)
            difference = y - mean
            symbol = round_ste(difference) * (row > 0)
            y_hat = y_hat + now * (mean + symbol)
            residual, rows = residual + now * difference, rows + now * row
            symbols = symbols + now * symbol.detach()
        bits_y = self._bits(_noisy(residual) if self.training else symbols, scale_of(rows))
        return Coded(y_hat, bits_y + bits_z, bits_z, symbols, rows.detach())

    def _bits(self, value: Tensor, scale: Tensor) -> Tensor:
        return bits_of(self.density, value, scale).sum((1, 2, 3))


def _context(y_hat: Tensor, sigma: Tensor) -> Tensor:
    """Return decoded latents in units of their scale, integers -255..255 over 32."""
    limit = ACTIVATION_MAX / ACTIVATION_UNIT
    return (round_ste(y_hat / sigma * ACTIVATION_UNIT) / ACTIVATION_UNIT).clamp(-limit, limit)
