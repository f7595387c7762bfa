"""What a run leaves behind: its full state, and weights in half precision to carry on from.

A run's folder holds `state.pt` (everything, to resume with the same curve) and `weights-NNN.npz`
(weights and averaged weights in half precision, each file under 15 MB, to continue from after the
optimiser's state is lost, to evaluate and to export).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.nets import PhotoCodec
from train.recipes import AnyRecipe, read
from train.vae_nets import Vae

FILE_LIMIT = 15_000_000
"""Largest size of one weights file in bytes."""
ENTRY_HEADERS = 512
"""More than what an array costs in a file besides its values, in bytes."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write a run's full state, replacing the previous one only when the new one is complete."""
    temporary = folder / "state.pt.part"
    torch.save(state, temporary)
    temporary.replace(folder / "state.pt")


def load_state(folder: Path) -> dict[str, Any]:
    """Return what `save_state` wrote; FileNotFoundError where there is none."""
    file = folder / "state.pt"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there; to go on from weights alone, continue")
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def cut_curve(folder: Path, step: int) -> None:
    """Drop what a run's curve.tsv says of steps after `step`, where it has one: they come anew."""
    file = folder / "curve.tsv"
    if file.is_file():
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if int(line.split("\t")[0]) <= step))


def save_weights(
    folder: Path,
    recipe: AnyRecipe,
    weights: dict[str, Tensor],
    average: dict[str, Tensor],
    buffers: dict[str, Tensor],
    progress: dict[str, float],
) -> list[Path]:
    """Write weights in half precision (buffers in full) to `folder`; return the files.

    `progress` (steps, pixels, minutes) and the recipe travel in the first file.
    """
    arrays = {f"weight/{k}": v.detach().half() for k, v in weights.items()}
    arrays |= {f"average/{k}": v.detach().half() for k, v in average.items()}
    arrays |= {f"buffer/{k}": v.detach() for k, v in buffers.items()}
    meta = json.dumps({"recipe": recipe.to_dict(), "progress": progress}).encode()
    parts: list[dict[str, np.ndarray]] = [{"meta": np.frombuffer(meta, np.uint8)}]
    size = len(meta) + ENTRY_HEADERS
    for name, tensor in arrays.items():
        array = tensor.cpu().numpy()
        if size + array.nbytes + ENTRY_HEADERS > FILE_LIMIT:
            parts.append({})
            size = 0
        parts[-1][name] = array
        size += array.nbytes + ENTRY_HEADERS
    return _replace_files(folder, parts)


def _replace_files(folder: Path, parts: list[dict[str, np.ndarray]]) -> list[Path]:
    """Write one file for each part, and only then replace those of an earlier state."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"weights-{i:03}.npz" for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        with file.with_suffix(".part").open("wb") as temporary:
            np.savez(temporary, **part)  # type: ignore[arg-type] # of names, all are arrays
    for file in files:
        file.with_suffix(".part").replace(file)
    for old in set(folder.glob("weights-*.npz")) - set(files):
        old.unlink()
    return files


class Weights:
    """Weights read back from a folder that `save_weights` wrote."""

    def __init__(self, folder: Path) -> None:
        files = sorted(folder.glob("weights-*.npz"))
        if not files:
            raise FileNotFoundError(f"{folder} holds no weights-*.npz")
        arrays: dict[str, np.ndarray] = {}
        for file in files:
            with np.load(file) as part:
                arrays |= dict(part)
        meta = json.loads(arrays.pop("meta").tobytes())
        self.recipe = read(meta["recipe"])
        self.progress: dict[str, float] = meta["progress"]
        self._tensors = {k: torch.from_numpy(v).float() for k, v in arrays.items()}

    def part(self, kind: str) -> dict[str, Tensor]:
        """Return the tensors of one kind ("weight", "average", "buffer") by name, float32."""
        prefix = f"{kind}/"
        return {k.removeprefix(prefix): v for k, v in self._tensors.items() if k.startswith(prefix)}

    def model(self, kind: str = "average") -> PhotoCodec | Vae:
        """Return the network with the averaged (or the plain, "weight") weights, to evaluate."""
        model = self.recipe.build()
        model.load_state_dict(self.part(kind) | self.part("buffer"))
        return model.eval()
