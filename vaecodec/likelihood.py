"""What a Gaussian-latent model says of images, in nats: both terms of its negative ELBO.

The negative ELBO of an image, with z drawn from the posterior, is the negative log-likelihood of
the image given z plus the divergence of the posterior from the prior N(0, I) (Kingma and Welling,
2013, "Auto-encoding variational Bayes", arXiv 1312.6114). Training minimises the same
(train/vae.py); here it measures what a bundle's graphs give.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["bits_per_dimension", "kl", "negative_log_likelihood"]

Floats = NDArray[np.float32] | NDArray[np.float64]
Nats = NDArray[np.float64]

_BITS_PER_SAMPLE = {"bernoulli": 0, "normal": 8}
"""What turns a density over 0..1 into the probability of one of 256 values, in bits."""


def negative_log_likelihood(
    kind: str, sigma: float | None, parameter: Floats, target: Floats
) -> Nats:
    """Return -log p(target | parameter) of each image, float64 (N,), in nats.

    Args:
        kind: "bernoulli": parameter holds the logits of samples in 0..1 (grey ones count as the
            mixture of 0 and 1 that they are between). "normal": it holds their means.
        sigma: standard deviation of "normal", whose densities are over the scale 0..1.
        parameter, target: (N, c, h, w), of one shape.

    Raises:
        ValueError: another kind, a sigma that is not positive, or shapes that differ.
    """
    if parameter.shape != target.shape:
        raise ValueError(f"parameters {parameter.shape} of a target {target.shape}; one shape")
    x, t = parameter.astype(np.float64), target.astype(np.float64)
    axes = tuple(range(1, x.ndim))
    if kind == "bernoulli":
        nats: Nats = (np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))).sum(axes)
        return nats
    if kind != "normal" or sigma is None or sigma <= 0:
        raise ValueError(f"likelihood {kind!r} of sigma {sigma}; bernoulli, or normal of sigma > 0")
    constant = math.log(sigma * math.sqrt(2 * math.pi))
    found: Nats = (0.5 * ((t - x) / sigma) ** 2 + constant).sum(axes)
    return found


def kl(mean: Floats, log_variance: Floats) -> Nats:
    """Return KL(N(mean, variance) || N(0, I)) of each image, float64 (N,), in nats.

    mean, log_variance: (N, D).
    """
    m, v = mean.astype(np.float64), log_variance.astype(np.float64)
    nats: Nats = 0.5 * (np.exp(v) + m**2 - 1 - v).sum(1)
    return nats


def bits_per_dimension(kind: str, nats: float, dimensions: int) -> float:
    """Return a negative ELBO in bits per sample of the image as the model sees it.

    `nats` per image of `dimensions` samples (c * h * w). The densities of "normal" are taken for
    the probabilities of 8-bit values: 8 bits are added, as is usual.
    """
    return nats / (dimensions * math.log(2)) + _BITS_PER_SAMPLE[kind]
