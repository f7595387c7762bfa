"""What a model of images of one size does to a data set, beside what common formats do to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaecodec import container, likelihood
from vaecodec.bench import Bench, Seconds
from vaecodec.errors import VaecodecError
from vaecodec.fitting import in_colours
from vaecodec.gaussian import Gaussian
from vaecodec.metrics import mean_squared_error, psnr
from vaecodec.rivals import Rival, rivals

__all__ = ["SEED", "DatasetRow", "Elbo", "Measured", "elbo", "measure"]

SEED = 0
"""Of the one sample of z for each image that the negative ELBO is measured with."""

Images = NDArray[np.uint8]


@dataclass(frozen=True)
class Elbo:
    """The negative ELBO of a model, the mean over images: what training minimises.

    reconstruction: -log p(image | z) in nats per image. divergence: KL of the posterior from the
    prior, likewise. bits_per_dimension: their sum, per sample of the image as the model sees it.
    """

    reconstruction: float
    divergence: float
    bits_per_dimension: float


@dataclass(frozen=True)
class DatasetRow:
    """What was measured at one quality, 0..100.

    bytes: of the file. payload: of the symbols in it. mse, psnr (dB): over all samples of all
    images. encode, decode: seconds for the whole data set, of each stage and in "total".
    """

    quality: float
    bytes: int
    payload: int
    mse: float
    psnr: float
    encode: Seconds
    decode: Seconds


@dataclass(frozen=True)
class Measured:
    """All that was measured on `images` images of a size, in pixels."""

    name: str
    images: int
    width: int
    height: int
    elbo: Elbo
    rows: list[DatasetRow]
    rivals: list[Rival]


def measure(bench: Bench, name: str, images: Images, qualities: Sequence[float]) -> Measured:
    """Measure images, uint8 (N, H, W, C), in the colours of the model, at each quality.

    Raises VaecodecError where the model is not one of images of one size, or not of this one.
    """
    codec = bench.codec
    if not isinstance(codec.model, Gaussian):
        raise VaecodecError(f"{codec.bundle.name} takes one image at a time, not a data set")
    images = in_colours(images, codec.model.shape[2])
    found = elbo(codec.model, codec.bundle.manifest["likelihood"], images)
    rows = [_row(bench, images, quality) for quality in qualities]
    number, height, width, _ = images.shape
    return Measured(name, number, width, height, found, rows, rivals(images))


def elbo(model: Gaussian, kind: dict[str, Any], images: Images, seed: int = SEED) -> Elbo:
    """Return the negative ELBO of images, uint8 (N, H, W, C), with one sample of z for each.

    kind: "likelihood" of the manifest. The noise is that of NumPy's generator with `seed`.
    """
    random = np.random.default_rng(seed)
    sums, dimensions = np.zeros(2), 0
    for mean, log_variance, target in model.posteriors(images):
        noise = random.standard_normal(mean.shape, np.float32)
        z: NDArray[np.float32] = (mean + np.exp(log_variance / 2) * noise).astype(np.float32)
        _, parameter = model.synthesise(z)
        nats = likelihood.negative_log_likelihood(
            kind["kind"], kind.get("sigma"), parameter, target
        )
        sums += nats.sum(), likelihood.kl(mean, log_variance).sum()
        dimensions = target[0].size
    reconstruction, divergence = (sums / len(images)).tolist()
    total = reconstruction + divergence
    bits = likelihood.bits_per_dimension(kind["kind"], total, dimensions)
    return Elbo(reconstruction, divergence, bits)


def _row(bench: Bench, images: Images, quality: float) -> DatasetRow:
    codec = bench.codec
    data = codec.encode_images(images, quality)
    decoded = codec.decode_images(data)
    if decoded.shape != images.shape:
        raise VaecodecError(f"images {images.shape} came back as {decoded.shape}")
    return DatasetRow(
        quality,
        len(data),
        sum(map(len, container.unpack(data).tiles)),
        mean_squared_error(images, decoded),
        psnr(images, decoded),
        bench.timed(lambda: codec.encode_images(images, quality)),
        bench.timed(lambda: codec.decode_images(data)),
    )
