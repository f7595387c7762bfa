"""Variational autoencoders with a Gaussian posterior: dense and convolutional networks.

Layers begin as those of Keras and Flux do: Glorot uniform weights, zero biases. Convolutions pad as
Keras's "same" does: where the padding is odd, the larger half is below and on the right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Shape = tuple[int, int, int]
"""Colours, height, width."""

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh}


def _dense(sizes: Sequence[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))


class Conv(nn.Conv2d):
    """Padded convolution: sides divisible by the stride are divided by it."""

    def __init__(self, into: int, out: int, kernel: int, stride: int) -> None:
        before, self.more = divmod(kernel - stride, 2)
        super().__init__(into, out, kernel, stride, before)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, self.more, 0, self.more)) if self.more else x)


class TransposedConv(nn.ConvTranspose2d):
    """The transpose of `Conv`: sides are multiplied by the stride."""

    def __init__(self, into: int, out: int, kernel: int, stride: int) -> None:
        before, self.more = divmod(kernel - stride, 2)
        super().__init__(into, out, kernel, stride, before)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override] # without an output size
        y = super().forward(x)
        return y[:, :, : -self.more, : -self.more] if self.more else y


class DenseEncoder(nn.Module):
    """Image (N, c, h, w) -> features (N, sizes[-1])."""

    def __init__(self, shape: Shape, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.dense = _dense([math.prod(shape), *sizes])

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.dense:
            x = self.activation(layer(x))
        return x


class DenseDecoder(nn.Module):
    """Latents (N, D) -> the likelihood's parameter (N, c, h, w)."""

    def __init__(self, shape: Shape, latents: int, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        self.shape = shape
        self.activation = ACTIVATIONS[activation]
        self.dense = _dense([latents, *sizes])
        self.leave = nn.Linear(sizes[-1], math.prod(shape))

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.dense:
            z = self.activation(layer(z))
        return self.leave(z).unflatten(1, self.shape)


class ConvEncoder(nn.Module):
    """Image (N, c, h, w) -> convolutions -> dense layers -> features (N, sizes[-1])."""

    def __init__(
        self,
        shape: Shape,
        channels: Sequence[int],
        strides: Sequence[int],
        kernel: int,
        sizes: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        colours, height, width = shape
        pairs = zip([colours, *channels[:-1]], channels, strides, strict=True)
        self.convolutions = nn.ModuleList(Conv(a, b, kernel, stride) for a, b, stride in pairs)
        flat = channels[-1] * (height // math.prod(strides)) * (width // math.prod(strides))
        self.rest = DenseEncoder((flat, 1, 1), sizes, activation)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.convolutions:
            x = self.rest.activation(layer(x))
        return self.rest(x)


class ConvDecoder(nn.Module):
    """Latents (N, D) -> dense layers -> transposed convolutions -> parameter (N, c, h, w).

    The last dense layer gives the first feature map; the last convolution has no activation.
    """

    def __init__(
        self,
        shape: Shape,
        latents: int,
        channels: Sequence[int],
        strides: Sequence[int],
        kernel: int,
        sizes: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        _, height, width = shape
        self.activation = ACTIVATIONS[activation]
        self.dense = _dense([latents, *sizes])
        sides = height // math.prod(strides), width // math.prod(strides)
        self.first = (sizes[-1] // math.prod(sides), *sides)
        pairs = zip([self.first[0], *channels[:-1]], channels, strides, strict=True)
        self.convolutions = nn.ModuleList(
            TransposedConv(a, b, kernel, stride) for a, b, stride in pairs
        )

    def forward(self, z: Tensor) -> Tensor:
        for layer in self.dense:
            z = self.activation(layer(z))
        x = z.unflatten(1, self.first)
        for layer in self.convolutions[:-1]:
            x = self.activation(layer(x))
        return self.convolutions[-1](x)


class Posterior(nn.Module):
    """An encoder with its two heads: image (N, c, h, w) -> mean and log variance, (N, D) each.

    log_sigma: the second head gives log sigma, as in the articles on Flux, not log sigma**2.
    """

    def __init__(self, body: nn.Module, features: int, latents: int, log_sigma: bool) -> None:
        super().__init__()
        self.body = body
        self.mean = nn.Linear(features, latents)
        self.spread = nn.Linear(features, latents)
        self.factor = 2.0 if log_sigma else 1.0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.mean(features), self.factor * self.spread(features)


@dataclass(frozen=True)
class Likelihood:
    """What the decoder's output says of the pixels."""

    kind: str
    """"bernoulli": it holds logits. "normal": it holds means."""
    sigma: float | None = None
    """Standard deviation of "normal", for samples in 0..1."""

    def __post_init__(self) -> None:
        if self.kind not in ("bernoulli", "normal"):
            raise ValueError(f"likelihood is {self.kind}; bernoulli or normal expected")
        if (self.kind == "normal") != (self.sigma is not None and self.sigma > 0):
            raise ValueError("a positive sigma belongs to likelihood normal, and only to it")

    def nats(self, parameter: Tensor, target: Tensor) -> Tensor:
        """Return -log p(target) of each image, (N,): vaecodec.likelihood's, on tensors."""
        if self.sigma is None:
            loss = F.binary_cross_entropy_with_logits(parameter, target, reduction="none")
            return loss.sum((1, 2, 3))
        constant = math.log(self.sigma * math.sqrt(2 * math.pi)) * target[0].numel()
        return 0.5 * ((parameter - target) / self.sigma).square().sum((1, 2, 3)) + constant

    def samples(self, parameter: Tensor) -> Tensor:
        """Return the expected samples, in 0..1."""
        return parameter.clamp(0, 1) if self.sigma else torch.sigmoid(parameter)


def kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(posterior || N(0, I)) of each image, (N,): vaecodec.likelihood.kl, on tensors."""
    return 0.5 * (torch.exp(log_variance) + mean**2 - 1 - log_variance).sum(1)


class Output(NamedTuple):
    """One pass over N images."""

    nats: Tensor
    """(N,): negative log-likelihood of the images at one z each."""
    kl: Tensor
    """(N,): divergence of the posterior from the prior, in nats."""


class Vae(nn.Module):
    """Encoder, decoder, and how the model sees an image: scaled to 0..1, binarised, padded."""

    sigma: Tensor
    """(D,): root mean square of the posterior's sigma over the training set, set after training."""

    def __init__(
        self,
        encoder: Posterior,
        decoder: nn.Module,
        likelihood: Likelihood,
        pad: int = 0,
        threshold: float | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.pad, self.threshold = pad, threshold
        self.register_buffer("sigma", torch.full((encoder.mean.out_features,), torch.nan))
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type] # they have one

    def see(self, pixels: Tensor) -> Tensor:
        """Return what the model sees of images, uint8 (N, H, W, C): float32 (N, C, h, w)."""
        x = pixels.permute(0, 3, 1, 2).float() / 255
        if self.threshold is not None:
            x = (x > self.threshold).float()
        return F.pad(x, [self.pad] * 4) if self.pad else x

    def show(self, parameter: Tensor) -> Tensor:
        """Return the pixels of a likelihood's parameter (N, C, h, w): uint8 (N, H, W, C)."""
        x = self.likelihood.samples(parameter)
        if self.pad:
            x = x[:, :, self.pad : -self.pad, self.pad : -self.pad]
        return (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1)

    def forward(self, pixels: Tensor) -> Output:
        """Code images, uint8 (N, H, W, C), with noise of torch's global generator."""
        target = self.see(pixels)
        mean, log_variance = self.encoder(target)
        z = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return Output(self.likelihood.nats(self.decoder(z), target), kl(mean, log_variance))
