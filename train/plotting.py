"""From a gaussian bundle and a data set to the figures of plots.py."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from train import plots
from train.pictures import Pixels, spread
from train.plots import Latents, Span
from train.vae_data import crops
from vaecodec.codec import Codec
from vaecodec.datasets import read_images, read_labels
from vaecodec.errors import ImageError, ModelError
from vaecodec.gaussian import BATCH, Gaussian
from vaecodec.likelihood import kl

CROPS = 2000
"""Crops that stand for a folder of images larger than the model's."""
REACH = 3.0
"""Standard deviations of the prior that a traversal goes to either side."""


class Networks:
    """The encoder and the decoder of a gaussian bundle, as functions of any number of images.

    Attributes: name; likelihood ("bernoulli" or "normal"); shape (H, W, C) of an image; dimensions
    of the latents. Raises ModelError for a model of another family.
    """

    def __init__(self, model: str | Path, threads: int | None = None) -> None:
        codec = Codec(model, "cpu", threads)
        self.name = codec.bundle.name
        if not isinstance(codec.model, Gaussian):
            family = codec.bundle.manifest["family"]
            raise ModelError(f"{self.name} is a {family} model; plot draws those of gaussian VAEs")
        self._model = codec.model
        self.shape, self.dimensions = codec.model.shape, codec.model.dimensions
        self.likelihood = str(codec.bundle.manifest["likelihood"]["kind"])

    def encode(self, images: Pixels) -> tuple[Latents, Latents]:
        """Return mean and log variance, float32 (N, D), of the posterior of each image."""
        parts = [(p.mean, p.log_variance) for p in self._model.posteriors(images)]
        means, log_variances = zip(*parts, strict=True)
        return np.concatenate(means), np.concatenate(log_variances)

    def decode(self, latents: Latents) -> tuple[Pixels, NDArray[np.float32]]:
        """Return pixels, uint8 (N, H, W, C), and the likelihood's parameter, (N, c, h, w)."""
        starts = range(0, len(latents), BATCH)
        parts = [self._model.synthesise(latents[start : start + BATCH]) for start in starts]
        pixels, parameters = zip(*parts, strict=True)
        return np.concatenate(pixels), np.concatenate(parameters)


def draw(networks: Networks, kind: str, data: Sequence[Path], options: Namespace) -> Figure:
    """Return the figure that `python -m train plot` was asked for; ValueError without its data."""
    if not data and kind in ("reconstructions", "codes", "traversal"):
        raise ValueError(f"{kind} needs DATA: an idx file, a zip or a folder of images")
    rows, columns = options.rows, options.columns
    match kind:
        case "reconstructions":
            sets = [(path.name, images_for(networks, path, options.seed)) for path in data]
            return reconstructions(networks, sets, rows or 3, columns or 12)
        case "samples":
            return samples(networks, rows or 16, columns or 16, options.seed)
        case "manifold":
            return manifold(networks, options.x, options.y, rows or 15, columns or 15)
        case "codes":
            images = images_for(networks, data[0], options.seed)[: options.count]
            labels = labels_for(data[0])
            what = f"{len(images):,} images of {data[0].name}"
            some = None if labels is None else labels[: options.count]
            return codes(networks, images, some, options.names, what)
        case _:
            images = images_for(networks, data[0], options.seed)
            return traversal(networks, images, options.index, rows or 16, columns or 13)


def images_for(networks: Networks, path: Path, seed: int = 0) -> Pixels:
    """Return the images of a data set in the model's size, uint8 (N, H, W, C).

    Of a folder of larger images, CROPS crops drawn with `seed`. ImageError for other sizes.
    """
    images = read_images(path)
    _, height, width, colours = images.shape
    wanted = networks.shape
    if images.shape[1:] == wanted:
        return images
    if path.is_dir() and height >= wanted[0] and width >= wanted[1] and colours == wanted[2]:
        return crops(path, wanted, CROPS, np.random.default_rng(seed))
    raise ImageError(
        f"{path} holds images of {width}x{height} pixels and {colours} colours; {networks.name} "
        f"takes {wanted[1]}x{wanted[0]} and {wanted[2]}"
    )


def labels_for(path: Path) -> NDArray[np.uint8] | None:
    """Return the labels, uint8 (N,), that belong to a data set; None where there are none.

    They are in the idx file of MNIST's naming beside an idx file of images, and the folders of
    folders and zips.
    """
    if not path.is_file() or path.suffix == ".zip":
        labels = read_labels(path)
        return labels if labels.max() else None
    beside = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
    return read_labels(beside) if beside != path and beside.is_file() else None


def reconstructions(
    networks: Networks, sets: Sequence[tuple[str, Pixels]], rows: int, columns: int
) -> Figure:
    """Draw rows * columns images of each (name, images) above what they decode to."""
    drawn = []
    for name, images in sets:
        some = spread(images, rows * columns)
        decoded, _ = networks.decode(networks.encode(some)[0])
        drawn.append((name, [("original", some), ("decoded", decoded)]))
    title = f"{networks.name}: images, and what their codes (posterior means) decode to"
    return plots.comparison(drawn, columns, title)


def samples(networks: Networks, rows: int, columns: int, seed: int) -> Figure:
    """Draw what rows * columns latents drawn from N(0, I) decode to.

    With a Bernoulli likelihood as means and as samples of each pixel, else as means.
    """
    rng = np.random.default_rng(seed)
    latents = rng.standard_normal((rows * columns, networks.dimensions), np.float32)
    pixels, parameters = networks.decode(latents)
    sets = [("means of p(x|z)", pixels)]
    if networks.likelihood == "bernoulli":
        ones = rng.random(parameters.shape, np.float32) < 1 / (1 + np.exp(-parameters))
        sets.append(("Bernoulli samples of p(x|z)", np.moveaxis(ones, 1, 3).astype(np.uint8) * 255))
    title = f"{networks.name}: z drawn from N(0, I), seed {seed}"
    return plots.samples(sets, columns, title)


def manifold(networks: Networks, x: Span, y: Span, rows: int, columns: int) -> Figure:
    """Draw what the latents of a grid over x and y decode to; ValueError unless z has two."""
    if networks.dimensions != 2:
        raise ValueError(
            f"{networks.name} has {networks.dimensions} latent dimensions; a manifold is drawn of 2"
        )
    pixels, _ = networks.decode(plots.lattice(x, y, columns, rows))
    title = f"{networks.name}: {columns}×{rows} latents, decoded"
    return plots.manifold(pixels, x, y, columns, title)


def codes(
    networks: Networks,
    images: Pixels,
    labels: NDArray[np.uint8] | None,
    names: Sequence[str],
    what: str,
) -> Figure:
    """Draw the posterior means of images, coloured by label; `what` they are is in the title.

    names: of the labels; their numbers where it is empty.
    """
    means, _ = networks.encode(images)
    if labels is not None and not names:
        names = [str(k) for k in range(int(labels.max()) + 1)]
    title = f"{networks.name}: codes (posterior means)\n{what}"
    return plots.codes(means, labels, names, title)


def traversal(
    networks: Networks, images: Pixels, index: int, dimensions: int, columns: int
) -> Figure:
    """Draw the code of one image with each dimension in turn at `columns` values over -3..3.

    Rows are the `dimensions` that say most, by their mean KL divergence from N(0, 1) over images.
    """
    if not 0 <= index < len(images):
        raise ValueError(f"image {index} of {len(images)}; 0 to {len(images) - 1} expected")
    means, log_variances = networks.encode(images)
    each = np.array(
        [kl(means[:, [k]], log_variances[:, [k]]).mean() for k in range(networks.dimensions)]
    )
    order = np.argsort(-each, kind="stable")[:dimensions]
    values = np.linspace(-REACH, REACH, columns)
    ways = np.tile(means[index], (len(order), columns, 1))
    ways[np.arange(len(order)), :, order] = values
    pixels, _ = networks.decode(ways.reshape(-1, networks.dimensions))
    pair = np.stack([images[index], networks.decode(means[index : index + 1])[0][0]])
    rows = [f"$z_{{{k + 1}}}$, KL {each[k]:.2f} nats" for k in order]
    title = f"{networks.name}: one dimension of a code at a time"
    return plots.traversal(pixels, pair, values, rows, title)
