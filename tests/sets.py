"""Made-up data sets in the forms of the real ones: what the tests of gaussian recipes train on."""

import gzip
import io
import zipfile

import numpy as np
from PIL import Image

from vaecodec.datasets import write_idx


def blots(count, shape, seed):
    """Images with a soft blot each, uint8 (count, H, W, C), that differ in place and width."""
    random = np.random.default_rng(seed)
    height, width, colours = shape
    y, x = np.mgrid[:height, :width]
    at = random.uniform(0.25, 0.75, (count, 2, 1, 1)) * [[[height]], [[width]]]
    radius = random.uniform(2, 6, (count, 1, 1))
    distance = np.hypot(y - at[:, :1, 0, :], x - at[:, 1:, 0, :]) / radius
    tint = random.uniform(0.5, 1, (count, 1, 1, colours))
    return np.rint(255 * np.exp(-(distance**2))[..., None] * tint).astype(np.uint8)


def write(folder, data, train=320, test=100):
    """Write the sets that a recipe's data names below a new folder; return the folder."""
    folder.mkdir()
    for seed, (name, count) in enumerate(((data.train, train), (data.test, test))):
        images = blots(count, data.shape, seed)
        if name.endswith(".gz"):
            (folder / name).write_bytes(gzip.compress(write_idx(images), 1))
        elif ".zip/" in name:
            archive, inside = name.split("/")
            _add_to_zip(folder / archive, inside, images)
        else:
            _write_plates(folder / name, seed)
    return folder


def _add_to_zip(path, inside, images):
    with zipfile.ZipFile(path, "a") as archive:
        for k, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image).save(file, "PNG")
            archive.writestr(f"{inside}/class{k % 2}/{k:04}.png", file.getvalue())


def _write_plates(folder, seed):
    folder.mkdir()
    for k in range(3):
        plate = blots(1, (60 + 10 * k, 80, 1), 10 * seed + k)[0, :, :, 0]
        Image.fromarray(plate).save(folder / f"plate{k}.png")
