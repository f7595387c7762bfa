"""The last step: choose the default quality of a model on files, and write its bundle."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vaecodec
from train import evaluate, export, vae_evaluate, vae_export
from train.checkpoints import Weights
from train.vae_recipe import VaeRecipe
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.places import MANIFEST

LICENCE = "MIT"
SAMPLE = Path(vaecodec.__file__).parent / "samples" / "flowers.webp"


def claims_image() -> NDArray[np.uint8]:
    """Return what the claims of a bundle are shown on, uint8 (192, 192, 3): photograph and noise.

    The noise reaches where photographs do not: symbols beyond the tables, the highest rows.
    """
    height, width = 192, 128
    photograph = read(SAMPLE).pixels[:height, :width]
    noise = np.random.default_rng(0).integers(0, 256, (height, 64, 3), dtype=np.uint8)
    return np.concatenate([photograph, noise], 1)


def release(
    run: Path,
    out: Path,
    name: str,
    choose: Sequence[Path],
    target: float,
    quality: float | None,
    data: str,
    measure: Sequence[Path] = (),
) -> Path:
    """Write the bundle `out`/`name` of a run's averaged weights and return its folder.

    `quality` is the default quality; None chooses it on the `choose` folders, whose measured rates
    then stand in the manifest. What a gaussian model does to the test set of its recipe, below one
    of the folders `measure`, stands in its manifest and on its card.

    Raises FileExistsError and, where a claim fails or quality cannot be chosen, ValueError.
    """
    folder, draft = out / name, out / f".{name}.draft"
    export.refuse_existing(folder)
    weights = Weights(run)
    chosen = 0.0 if quality is None else quality
    card = {"data": data, "licence": LICENCE, "default_quality": chosen, "measured": []}
    shutil.rmtree(draft, ignore_errors=True)
    try:
        if isinstance(weights.recipe, VaeRecipe):
            _write_gaussian(weights.recipe, weights, draft, name, quality, card, measure)
        else:
            export.write(weights, draft, name, claims_image(), card)
            if quality is None:
                _complete(draft, _chosen(Codec(draft, "cpu"), choose, target))
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _write_gaussian(
    recipe: VaeRecipe,
    weights: Weights,
    draft: Path,
    name: str,
    quality: float | None,
    card: Mapping[str, Any],
    measure: Sequence[Path],
) -> None:
    if quality is None:
        raise ValueError("the quality of a gaussian model is not chosen; give --quality 50")
    vae_export.write(weights, draft, name, card)
    if measure:
        found = vae_evaluate.measured(Codec(draft, "cpu", 1), recipe, measure)
        _complete(draft, {"measured": [found]})
    manifest = json.loads((draft / MANIFEST).read_text())
    (draft / "README.md").write_text(vae_evaluate.card(manifest), "utf-8")


def _chosen(codec: Codec, choose: Sequence[Path], target: float) -> dict[str, Any]:
    """Return what the manifest says of the default quality and of the images that chose it."""
    quality, reached = evaluate.choose_quality(codec, choose, target)
    label = ", ".join(folder.name for folder in choose)
    rows = evaluate.table(codec, choose)
    return {
        "default_quality": quality,
        "default_quality_ssimulacra2": round(reached, 3),
        "measured": [{"set": label, **mean} for mean in evaluate.means(rows)],
    }


def _complete(folder: Path, more: dict[str, Any]) -> None:
    manifest = json.loads((folder / MANIFEST).read_text()) | more
    (folder / MANIFEST).write_bytes(export.manifest_bytes(manifest))
