"""The last step: choose the default quality of a model on files, and write its bundle."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from train import evaluate, export
from train.checkpoints import Weights
from vaecodec.bundle import MANIFEST
from vaecodec.codec import Codec

LICENCE = "MIT"


def release(
    run: Path,
    out: Path,
    name: str,
    choose: Sequence[Path],
    target: float,
    quality: float | None,
    data: str,
) -> Path:
    """Write the bundle `out`/`name` of a run's averaged weights and return its folder.

    `quality` is the default quality; None chooses it on the `choose` folders, whose measured rates
    then stand in the manifest. Raises FileExistsError and, where a claim fails, ValueError.
    """
    if (out / name).exists():
        raise FileExistsError(f"{out / name} exists, and bundles never change; take another name")
    weights = Weights(run)
    crop = np.random.default_rng(0).integers(0, 256, (128, 192, 3), dtype=np.uint8)
    card = {"data": data, "licence": LICENCE, "default_quality": quality or 0.0, "measured": []}
    with tempfile.TemporaryDirectory() as temporary:
        draft = export.write(weights, Path(temporary), name, crop, card)
        if quality is None:
            codec = Codec(draft, "cpu")
            chosen, reached = evaluate.choose_quality(codec, choose, target)
            rows = evaluate.table(codec, choose)
            label = ", ".join(folder.name for folder in choose)
            card |= {
                "default_quality": chosen,
                "default_quality_ssimulacra2": reached,
                "measured": [{"set": label, **mean} for mean in evaluate.means(rows)],
            }
            manifest = json.loads((draft / MANIFEST).read_text()) | card
            text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
            (draft / MANIFEST).write_text(text)
        out.mkdir(parents=True, exist_ok=True)
        shutil.copytree(draft, out / name)
    return out / name
