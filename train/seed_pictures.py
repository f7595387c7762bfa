"""The pictures of docs/seeds.md that `python -m train plot` does not draw."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from train import plots
from train.pictures import Pixels, spread
from train.plotting import Networks
from vaecodec.codec import Codec

SHOWN = 12
"""Images in a row."""

_KERAS = """170.1529 160.2263 158.0777 156.3414 154.7498 153.9668 153.8024
152.6393 152.6557 151.7882 151.6642 151.3316 152.0779 151.6977"""
ARTICLE_004 = ("the article's test loss", [float(loss) for loss in _KERAS.split()])
"""What Keras printed after each epoch there."""


def lost(codec: Codec, images: Pixels) -> Figure:
    """Draw the first images of a file of all `images`, uint8 (N, H, W, C), and what it lost."""
    decoded = codec.decode_images(codec.encode_images(images))[:SHOWN]
    some = images[:SHOWN]
    difference = np.abs(some.astype(np.int16) - decoded).astype(np.uint8)
    rows = [("original", some), ("from the file", decoded), ("difference", difference)]
    title = f"{codec.bundle.name}: {len(images):,} test images in one file, the first {SHOWN}"
    return plots.comparison([("", rows)], SHOWN, title)


def curve(run: Path, steps: int) -> tuple[list[float], list[float]]:
    """Return the test and the training loss after every `steps` steps of a run: of each epoch."""
    with (run / "curve.tsv").open() as file:
        rows = list(csv.reader(file, delimiter="\t"))
    epochs = {step: row for row in rows if (step := int(row[0])) % steps == 0}
    return [float(row[3]) for row in epochs.values()], [float(row[6]) for row in epochs.values()]


def losses(
    name: str,
    curves: Mapping[str, Sequence[float]],
    others: Sequence[tuple[str, Sequence[float]]] = (),
) -> Figure:
    """Draw the "test" and "training" losses of a run over its epochs, and others beside them."""
    own = [("test negative ELBO", curves["test"]), ("training loss", curves["training"])]
    return plots.losses([*own, *others], "nats per image", f"{name}: loss")


def epochs(run: Path) -> Figure:
    """Draw the images that a run decodes after every epoch: original, first and last epoch."""
    files = sorted(run.glob("reconstruction-*.png"))
    names = [f"after epoch {int(path.stem.rpartition('-')[2])}" for path in files]
    shown = [("original", run / "original.png"), (names[0], files[0]), (names[-1], files[-1])]
    return plots.beside([(name, _read(path)) for name, path in shown], f"{run.name}: test images")


def side_by_side(models: Sequence[Networks], images: Pixels) -> Figure:
    """Draw images, uint8 (N, H, W, C), above what each model decodes of their codes."""
    some = spread(images, 2 * SHOWN)
    rows = [(m.name, m.decode(m.encode(some)[0])[0]) for m in models]
    title = f"{' and '.join(name for name, _ in rows)}: the same test images"
    return plots.comparison([("", [("original", some), *rows])], SHOWN, title)


def _read(path: Path) -> Pixels:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[..., None]
