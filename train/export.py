"""From a checkpoint to a bundle: graphs, integer tables, manifest, and the proof of their claims.

A bundle is written only if everything it promises was shown on it: torch and ONNX Runtime agree,
float32 computes the prior exactly, and a second export gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from train import graphs, transforms
from train.checkpoints import Weights
from train.cost import costs
from train.frequencies import scale_tables
from train.gradients import search_files
from train.nets import PhotoCodec, space_to_depth
from train.parity import integer_symbols
from train.prior import ACTIVATION_UNIT, Step
from train.recipes import Model, Recipe
from vaecodec import bounds, latents
from vaecodec.bundle import FORMAT, fingerprint
from vaecodec.layouts import LAYOUTS
from vaecodec.places import MANIFEST
from vaecodec.runtime import Graph

SIZE_LIMIT = 12_000_000
"""Largest size of a bundle in bytes."""

# What the windows of the run time need: positions at 1/16 that an output depends on, each way.
_PER_BLOCK8, _PER_BLOCK16 = 0.5, 1.0


def npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Return the .npz file of named arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type] # of names, all are arrays
    return buffer.getvalue()


@torch.no_grad()
def quality_tables(model: PhotoCodec) -> dict[str, NDArray[Any]]:
    """Return what decoding needs per quality level: see vaecodec.priors.QualityTables."""
    prior = model.prior
    rows = prior.z_rows / latents.LOG_SCALE_STEP * latents.ROW_UNIT
    tables = {
        "row_offset": prior.row_offsets(model.log_gain),
        "z_row": torch.floor(rows + 0.5),
        "shift": torch.floor(prior.shift * ACTIVATION_UNIT + 0.5),
    }
    result: dict[str, NDArray[Any]] = {k: v.numpy().astype(np.int32) for k, v in tables.items()}
    return result | {"inverse_gain": torch.exp(model.log_inverse).numpy()}


@torch.no_grad()
def files_of(model: PhotoCodec) -> dict[str, bytes]:
    """Return the files of a bundle but for its manifest, by name."""
    prior = model.prior
    width = prior.decoder.enter.out_channels
    files = {
        "encoder.onnx": transforms.encoder_graph(model.encoder),
        "side.onnx": transforms.side_graph(prior),
        "hyper.onnx": graphs.hyper_graph(prior.decoder),
        "decoder.onnx": transforms.decoder_graph(model.decoder),
        "tables.bin": scale_tables(prior.density).to_bytes(),
        "quality.npz": npz(quality_tables(model)),
        "gains.npz": npz(
            {"gain": torch.exp(model.log_gain).numpy(), "z_gain": torch.exp(prior.z_gain).numpy()}
        ),
    }
    for k, step in enumerate(prior.steps):
        files[f"step{k}.onnx"] = graphs.step_graph(cast(Step, step), width, context=k > 0)
    return files


def _halo(blocks: tuple[int, int]) -> int:
    return math.ceil(blocks[0] * _PER_BLOCK8 + blocks[1] * _PER_BLOCK16)


def verify(
    model: PhotoCodec, files: Mapping[str, bytes], crop: NDArray[np.uint8]
) -> dict[str, Any]:
    """Show that files are what a network gives whenever it is exported, and their `claims`."""
    if files_of(model) != dict(files):
        raise ValueError("a second export gives other bytes")
    return claims(model, files, crop)


def claims(
    model: PhotoCodec, files: Mapping[str, bytes], crop: NDArray[np.uint8]
) -> dict[str, Any]:
    """Show a bundle's claims on one image, uint8 (H, W, 3) with sides divisible by 64.

    model: the network that the files are of. Raises ValueError that says which claim failed;
    returns the figures for the manifest.
    """
    for name, content in files.items():
        if name.endswith(".onnx"):
            refuse_paths(name, content)
    with np.load(io.BytesIO(files["quality.npz"])) as tables:
        bounds.check_tables(tables)
    sums = {n: bounds.prove(c) for n, c in files.items() if n.startswith(("hyper", "step"))}
    result: dict[str, Any] = {"largest_sum": max(sums.values())}
    return result | _verify_transforms(model, files, crop) | _verify_prior(model, files, crop)


_PATH = re.compile(rb"[/\\][\w.-]+[/\\]|\.py\b|site-packages")


def refuse_paths(name: str, content: bytes) -> None:
    """Raise ValueError where anything but the weights of a graph looks like a path."""
    graph = onnx.load_from_string(content)
    for tensor in graph.graph.initializer:
        tensor.ClearField("raw_data")
    if found := _PATH.search(graph.SerializeToString()):
        raise ValueError(f"{name} holds a path of this machine: ...{found[0]!r}...")


@torch.no_grad()
def _verify_transforms(
    model: PhotoCodec, files: Mapping[str, bytes], crop: NDArray[np.uint8]
) -> dict[str, Any]:
    blocks = space_to_depth(torch.from_numpy(crop)[None]).float()
    y = transforms.exported_encoder(model.encoder)(blocks)
    (found,) = Graph(files["encoder.onnx"])(pixels=crop[None])
    difference = float(np.abs(found - y.numpy()).max() / np.abs(y.numpy()).max())
    if difference > 1e-5:
        raise ValueError(f"the encoder's graph differs from torch by {difference:.1e} of the range")
    decoded = transforms.exported_decoder(model.decoder)(y).clamp(0, 255).round()
    (pixels,) = Graph(files["decoder.onnx"])(y=y.numpy())
    expected = space_to_depth(torch.from_numpy(pixels)).float()
    worst = int((expected - decoded).abs().max())
    if worst > 1:
        raise ValueError(f"the decoder's graph differs from torch by {worst} of 255")
    return {"encoder_difference": difference, "decoder_difference": worst}


@torch.no_grad()
def _verify_prior(
    model: PhotoCodec, files: Mapping[str, bytes], crop: NDArray[np.uint8]
) -> dict[str, Any]:
    """Compare symbols and rows of training's prior with the integer graphs' on the same latents."""
    differing = total = 0
    blocks = space_to_depth(torch.from_numpy(crop)[None]).float() / 255
    features = model.encoder(blocks)
    for level in range(model.levels):
        mix = torch.eye(model.levels)[level : level + 1]
        y = features * torch.exp(mix @ model.log_gain)[:, :, None, None]
        coded = model.prior(y, mix, mix @ model.log_gain)
        z = torch.floor(model.prior.side_information(y, mix) + 0.5)
        symbols, rows = integer_symbols(files, y.numpy()[0], z.numpy()[0].astype(np.int32), level)
        differing += int((symbols != coded.symbols.numpy()[0]).sum())
        differing += int((rows != coded.rows.numpy()[0]).sum())
        total += symbols.size
    if differing:
        raise ValueError(
            f"{differing} of {total} symbols or rows differ between torch and the graphs"
        )
    return {"symbols_compared": total}


def refuse_existing(folder: Path) -> None:
    """Raise FileExistsError where a bundle is: released ones never change."""
    if folder.exists():
        raise FileExistsError(f"{folder} exists, and a bundle never changes; choose another name")


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """Return the manifest as JSON, keys sorted; ValueError for a number that JSON lacks."""
    return (json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def write(
    weights: Weights, folder: Path, name: str, crop: NDArray[np.uint8], card: Mapping[str, Any]
) -> None:
    """Write the bundle of averaged weights, called `name`, into a new folder.

    `crop` is the image that the claims are shown on (`verify`). `card` is added to the manifest as
    it is (data, licence, measured, default_quality, ...). Raises ValueError where a claim fails,
    before anything is written, and FileExistsError where the folder exists.
    """
    refuse_existing(folder)
    model, shape = cast(PhotoCodec, weights.model()), cast(Model, weights.recipe.model)
    files = files_of(model)
    claims = verify(model, files, crop)
    loss = cast(Recipe, weights.recipe).loss
    decoding = {k: getattr(shape, k) for k in ("channels", "side", "steps", "levels")}
    named = fingerprint(decoding, [files[n] for n in LAYOUTS["hyperprior"].files(decoding)])
    manifest = {
        "name": name,
        "family": "hyperprior",
        "format": FORMAT,
        "fingerprint": named.hex(),
        "decoding": decoding,
        "halo": {"encoder": _halo(shape.encoder_blocks), "decoder": _halo(shape.decoder_blocks)},
        "cost": costs(files, shape),
        "claims": claims,
        "search": {"lambda": [loss.lambda_min, loss.lambda_max]},
        "training": {"recipe": weights.recipe.to_dict(), **weights.progress},
        **card,
    }
    save(folder, files | search_files(files), manifest)


def add_search(folder: Path) -> None:
    """Add to a photo bundle the graphs and figures of the encoder's search, anew."""
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest["family"] != "hyperprior" or manifest.get("base"):
        name = manifest["name"]
        raise ValueError(f"{name} is no whole photo bundle; finetune adds what a difference needs")
    found = search_files({p.name: p.read_bytes() for p in sorted(folder.glob("*.onnx"))})
    for name, content in found.items():
        refuse_paths(name, content)
        (folder / name).write_bytes(content)
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
    loss = manifest["training"]["recipe"]["loss"]
    manifest["search"] = {"lambda": [loss["lambda_min"], loss["lambda_max"]]}
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))


def save(folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Write a bundle into a new folder; ValueError where it is too large."""
    hashes = {n: hashlib.sha256(c).hexdigest() for n, c in sorted(files.items())}
    whole = {**files, MANIFEST: manifest_bytes({**manifest, "files": hashes})}
    size = sum(map(len, whole.values()))
    if size > SIZE_LIMIT:
        raise ValueError(f"the bundle has {size} bytes; {SIZE_LIMIT} are allowed")
    folder.mkdir(parents=True)
    for file, content in whole.items():
        (folder / file).write_bytes(content)
