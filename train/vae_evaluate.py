"""A gaussian bundle on the test set of its recipe: what its files hold and lose, and its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train import vae_data
from train.pictures import spread
from train.recipes import read
from train.vae_recipe import VaeRecipe
from vaecodec.codec import Codec
from vaecodec.dataset_bench import elbo
from vaecodec.gaussian import Gaussian
from vaecodec.metrics import mean_squared_error, psnr

ALONE = 200
"""Test images that are also coded alone, one file each."""


def recipe_of(codec: Codec) -> VaeRecipe | None:
    """Return the recipe of a gaussian bundle; None of another family's."""
    manifest = codec.bundle.manifest
    recipe = read(manifest["training"]["recipe"]) if manifest["family"] == "gaussian" else None
    return recipe if isinstance(recipe, VaeRecipe) else None


def measured(
    codec: Codec, recipe: VaeRecipe, folders: Sequence[str | Path]
) -> dict[str, str | float]:
    """Return an entry of the manifest's "measured": the set, and `measure` of it.

    The recipe's test set lies below one of the folders.
    """
    images = vae_data.test_set(recipe.data, folders, recipe.seed)
    found = measure(codec, images, recipe.draws, recipe.seed)
    return {"set": recipe.data.test, **{k: round(v, 6) for k, v in found.items()}}


def measure(codec: Codec, images: NDArray[np.uint8], draws: int, seed: int) -> dict[str, float]:
    """Return what the files of a gaussian model hold of images, uint8 (N, H, W, C), and lose.

    Means over images: nll and kl, and elbo, the negative ELBO, their sum, in nats, from `draws`
    latents drawn from each posterior; bits_per_dimension of it; of one file of all images its
    bytes, bits per image, MSE and PSNR (dB) over all samples; largest and mean bytes of ALONE files
    of one image.
    """
    data = codec.encode_images(images)
    decoded = codec.decode_images(data)
    alone = [len(codec.encode_images(image[None])) for image in spread(images, ALONE)]
    return {
        **_elbo(codec, images, draws, seed),
        "images": len(images),
        "bytes": len(data),
        "bits": 8 * len(data) / len(images),
        "mse": mean_squared_error(images, decoded),
        "psnr": psnr(images, decoded),
        "alone_largest": max(alone),
        "alone_mean": float(np.mean(alone)),
    }


def _elbo(codec: Codec, images: NDArray[np.uint8], draws: int, seed: int) -> dict[str, float]:
    assert isinstance(codec.model, Gaussian)
    kind = codec.bundle.manifest["likelihood"]
    drawn = [elbo(codec.model, kind, images, seed + k) for k in range(draws)]
    terms = np.array([(e.reconstruction, e.divergence, e.bits_per_dimension) for e in drawn])
    nll, kl, bits = terms.mean(0).tolist()
    return {"nll": nll, "kl": kl, "elbo": nll + kl, "bits_per_dimension": bits}


def card(manifest: Mapping[str, Any]) -> str:
    """Return the README.md of a gaussian bundle: what it is, and what it measures."""
    decoding, training = manifest["decoding"], manifest["training"]
    colour = "grey" if decoding["colours"] == 1 else "colour"
    text = (
        f"# {manifest['name']}\n\n"
        f"A variational autoencoder with {decoding['dimensions']} latents for {colour} images of "
        f"{decoding['width']}x{decoding['height']} pixels. Its recipe is in the repository, "
        f"train/recipes/{training['recipe']['name']}.toml, and in manifest.json.\n"
    )
    for m in manifest["measured"]:
        text += (
            f"\nOn {m['set']}, {m['images']} images: negative ELBO {m['elbo']:.2f} nats per image "
            f"(reconstruction {m['nll']:.2f}, KL {m['kl']:.2f}), "
            f"{m['bits_per_dimension']:.4f} bits per dimension. All images in one file: "
            f"{m['bits']:.2f} bits each, MSE {m['mse']:.2f}, PSNR {m['psnr']:.2f} dB.\n"
        )
    return f"{text}\n{manifest['licence']} licence.\n"
