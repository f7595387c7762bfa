"""Recipes of the gaussian family: the classical variational autoencoders as data."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from train.vae_nets import (
    ACTIVATIONS,
    ConvDecoder,
    ConvEncoder,
    DenseDecoder,
    DenseEncoder,
    Likelihood,
    Posterior,
    Shape,
    Vae,
)


@dataclass(frozen=True)
class Net:
    """An encoder or a decoder: its name, and its sizes (train/vae_nets.py)."""

    net: str
    """"dense" or "conv"."""
    sizes: tuple[int, ...] = ()
    """Outputs of the dense layers; in an encoder they follow the convolutions, in a decoder they
    come before them, and the last gives their first feature map."""
    channels: tuple[int, ...] = ()
    """Outputs of the convolutions; a decoder's last are the colours of the image."""
    strides: tuple[int, ...] = ()
    """One for each convolution: what it divides (or multiplies) the sides by."""
    kernel: int = 3
    activation: str = "relu"
    """"relu" or "tanh", behind every layer but those that give posterior or image."""

    def __post_init__(self) -> None:
        if self.net not in ("dense", "conv"):
            raise ValueError(f"net is {self.net}; dense or conv expected")
        if self.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation is {self.activation}; {' or '.join(ACTIVATIONS)} expected"
            )
        if not self.sizes:
            raise ValueError(f"the {self.net} net has no sizes of dense layers")
        if (self.net == "conv") != bool(self.channels) or len(self.strides) != len(self.channels):
            raise ValueError("channels and strides belong to a conv net, one for each layer")
        if not all(1 <= stride <= self.kernel for stride in self.strides):
            raise ValueError(f"strides {self.strides} of a kernel of {self.kernel} leave holes")


@dataclass(frozen=True)
class Model:
    """What is built: see `VaeRecipe.build`."""

    latents: int
    encoder: Net
    decoder: Net
    log_sigma: bool
    """The encoder's second head gives log sigma of the posterior; else it gives log sigma**2."""
    likelihood: Likelihood
    """Of the pixels, given z: `kind`, and for "normal" its `sigma`."""
    pad: int = 0
    """Rows and columns of zeros that the model sees on each side of an image."""
    threshold: float | None = None
    """Samples above it are 1 to the model, all others 0; None leaves them grey."""


@dataclass(frozen=True)
class Loss:
    """Negative ELBO with beta times its divergence (Higgins et al., 2017), and a penalty."""

    beta: float = 1.0
    warmup: float = 0.0
    """Share of the epochs over which beta rises linearly from 0."""
    l2: float = 0.0
    """Factor of the sum of the squared parameters of `l2_part`."""
    l2_part: str = "decoder"
    """"encoder" or "decoder"."""

    def __post_init__(self) -> None:
        if self.l2_part not in ("encoder", "decoder"):
            raise ValueError(f"loss.l2_part is {self.l2_part}; encoder or decoder expected")


@dataclass(frozen=True)
class Data:
    """Images of one size, below the folder that `fit` is given."""

    shape: tuple[int, int, int]
    """Height, width and colours (1 or 3) of the images."""
    train: str
    """What `vaecodec.datasets.read_images` reads: an idx file, a zip or a folder (in a zip)."""
    test: str
    batch: int
    """Images in a step on one device; the last of an epoch may have fewer."""
    patches: tuple[int, int] | None = None
    """The images are random crops, so many for training and for the test, of larger ones."""
    limit: int | None = None
    """Only the first so many images of either set."""


@dataclass(frozen=True)
class Optimiser:
    """Adam, and what goes with it."""

    rate: float
    decay: float = 0.0
    """The rate is divided by 1 + decay * steps taken."""
    epsilon: float = 1e-8
    clip: float | None = None
    """Largest gradient norm; None for any."""
    average: float = 0.0
    """Decay of the averaged weights per step; 0 takes the weights as they are."""
    warmup: int = 1
    """Steps over which the rate rises from zero."""


@dataclass(frozen=True)
class VaeRecipe:
    """A whole training run; nothing outside it changes the result but the images."""

    name: str
    seed: int
    epochs: int
    """At most."""
    model: Model
    data: Data
    optimiser: Optimiser
    loss: Loss = Loss()
    patience: int | None = None
    """Stop after so many epochs without a lower test loss, and keep the best, not the last."""
    draws: int = 5
    """Samples of z for each image of the test loss."""
    family: str = "gaussian"

    def __post_init__(self) -> None:
        colours, *sides = self.seen
        for net in (self.model.encoder, self.model.decoder):
            factor = math.prod(net.strides)
            if any(side % factor for side in sides):
                raise ValueError(f"strides {net.strides} do not divide sides of {sides} pixels")
        decoder = self.model.decoder
        area = math.prod(side // math.prod(decoder.strides) for side in sides)
        if decoder.channels and (decoder.channels[-1] != colours or decoder.sizes[-1] % area):
            raise ValueError(
                f"the decoder ends in {decoder.channels[-1]} of {colours} colours, or begins with "
                f"{decoder.sizes[-1]} values for {area} positions"
            )

    @property
    def seen(self) -> Shape:
        """The shape, (c, h, w), of an image as the model sees it."""
        height, width, colours = self.data.shape
        return colours, height + 2 * self.model.pad, width + 2 * self.model.pad

    def build(self) -> Vae:
        """Return the untrained network."""
        model, seen = self.model, self.seen
        encoder = _encoder(model.encoder, seen)
        posterior = Posterior(encoder, model.encoder.sizes[-1], model.latents, model.log_sigma)
        decoder = _decoder(model.decoder, seen, model.latents)
        return Vae(posterior, decoder, model.likelihood, model.pad, model.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, as checkpoints and manifests keep it."""
        return dataclasses.asdict(self)


def _encoder(net: Net, shape: Shape) -> nn.Module:
    if net.net == "dense":
        return DenseEncoder(shape, net.sizes, net.activation)
    return ConvEncoder(shape, net.channels, net.strides, net.kernel, net.sizes, net.activation)


def _decoder(net: Net, shape: Shape, latents: int) -> nn.Module:
    if net.net == "dense":
        return DenseDecoder(shape, latents, net.sizes, net.activation)
    return ConvDecoder(
        shape, latents, net.channels, net.strides, net.kernel, net.sizes, net.activation
    )
