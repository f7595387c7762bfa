"""From a checkpoint to a bundle: graphs, integer tables, manifest, and the proof of their claims.

A bundle is written only if everything it promises was shown on it: torch and ONNX Runtime agree,
float32 computes the prior exactly, and a second export gives the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from train import exact, graphs, transforms
from train.checkpoints import Weights
from train.frequencies import gaussian_tables
from train.nets import PhotoCodec, space_to_depth
from train.prior import ACTIVATION_UNIT
from vaecodec import latents
from vaecodec.bundle import FORMAT, MANIFEST, decoding_files, fingerprint
from vaecodec.runtime import Graph

SIZE_LIMIT = 12_000_000
"""Largest size of a bundle in bytes."""

# What the windows of the run time need: positions at 1/16 that an output depends on, each way.
_PER_BLOCK8, _PER_BLOCK16 = 0.5, 1.0


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


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
        "tables.bin": gaussian_tables().to_bytes(),
        "quality.npz": _npz(quality_tables(model)),
        "gains.npz": _npz(
            {"gain": torch.exp(model.log_gain).numpy(), "z_gain": torch.exp(prior.z_gain).numpy()}
        ),
    }
    for k, step in enumerate(prior.steps):
        files[f"step{k}.onnx"] = graphs.step_graph(step, width, context=k > 0)
    return files


def _halo(blocks: tuple[int, int]) -> int:
    return math.ceil(blocks[0] * _PER_BLOCK8 + blocks[1] * _PER_BLOCK16)


def cost(model: bytes, shapes: Mapping[str, tuple[int, ...]], pixels: int) -> float:
    """Return the multiply-accumulates of a graph's convolutions, in thousands per pixel.

    `shapes` gives each input's shape for an image of `pixels` pixels. The graph is run once with
    all its convolutions as outputs: their sizes are what they are, not what was inferred.
    """
    loaded = onnx.load_from_string(model)
    convolutions = [n for n in loaded.graph.node if n.op_type in ("Conv", "ConvTranspose")]
    places = [n.output[0] if n.op_type == "Conv" else n.input[0] for n in convolutions]
    graph_inputs = {value.name for value in loaded.graph.input}
    del loaded.graph.output[:]
    for name in sorted(set(places) - graph_inputs):
        loaded.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    run = Graph(loaded.SerializeToString())
    kinds = {v.name: v.type.tensor_type.elem_type for v in loaded.graph.input}
    dtypes = {k: helper.tensor_dtype_to_np_dtype(v) for k, v in kinds.items()}
    inputs = {k: np.zeros(shapes[k], dtypes[k]) for k in run.inputs}
    found = dict(zip(run.outputs, run(**inputs), strict=True)) | inputs
    weights = {t.name: list(t.dims) for t in loaded.graph.initializer}
    for node in loaded.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights:
            weights[node.output[0]] = weights[node.input[0]]
    total = sum(
        math.prod(weights[node.input[1]]) * math.prod(found[place].shape[2:])
        for node, place in zip(convolutions, places, strict=True)
    )
    return total / pixels / 1000


def costs(files: Mapping[str, bytes], model: PhotoCodec) -> dict[str, float]:
    """Return kMAC/pixel of encoding and decoding, counted from the graphs at 768 x 512."""
    h, w = 32, 48
    pixels = h * w * 256
    c, p = model.prior.channels, model.prior.decoder.enter.out_channels
    y, column = (1, c, h, w), (1, c, 1, 1)
    step = {"features": (1, p, h, w), "y16": y, "offset": column, "sigma4": column, "inverse": column}
    prior = cost(
        files["hyper.onnx"], {"z": (1, model.prior.side, h // 4, w // 4), "shift": (1, p, 1, 1)}, pixels
    )
    prior += sum(cost(files[n], step, pixels) for n in files if n.startswith("step"))
    encoder = cost(files["encoder.onnx"], {"pixels": (1, 16 * h, 16 * w, 3)}, pixels)
    encoder += cost(files["side.onnx"], {"y": y}, pixels)
    synthesis = cost(files["decoder.onnx"], {"y": y}, pixels)
    found = {"encode": encoder + prior, "decode": synthesis + prior, "prior": prior}
    return {k: round(v, 3) for k, v in found.items()}


def verify(model: PhotoCodec, files: Mapping[str, bytes], crop: NDArray[np.uint8]) -> dict[str, Any]:
    """Show a bundle's claims on one image, uint8 (H, W, 3) with sides divisible by 64.

    Raises ValueError that says which claim failed; returns the figures for the manifest.
    """
    if files_of(model) != dict(files):
        raise ValueError("a second export gives other bytes")
    for name, content in files.items():
        if b"/home/" in content or b"site-packages" in content or str(Path.cwd()).encode() in content:
            raise ValueError(f"{name} holds a path of this machine")
    sums = {n: exact.prove(c) for n, c in files.items() if n.startswith(("hyper", "step"))}
    result: dict[str, Any] = {"largest_sum": max(sums.values())}
    return result | _verify_transforms(model, files, crop) | _verify_prior(model, files, crop)


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
    from train.parity import integer_symbols

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
        raise ValueError(f"{differing} of {total} symbols or rows differ between torch and the graphs")
    return {"symbols_compared": total}


def write(
    weights: Weights, out: Path, name: str, crop: NDArray[np.uint8], card: Mapping[str, Any]
) -> Path:
    """Write the bundle `out`/`name` of averaged weights and return its directory.

    `card` is added to the manifest as it is (data, licence, measured, default_quality, ...).
    Raises FileExistsError where the bundle exists: released bundles never change.
    """
    folder = out / name
    if folder.exists():
        raise FileExistsError(f"{folder} exists, and a bundle never changes; choose another name")
    model = weights.model()
    files = files_of(model)
    claims = verify(model, files, crop)
    shape = weights.recipe.model
    decoding = {
        "channels": shape.channels,
        "side": shape.side,
        "steps": shape.steps,
        "levels": shape.levels,
    }
    named = fingerprint(decoding, [files[n] for n in decoding_files(shape.steps)])
    manifest = {
        "name": name,
        "family": "hyperprior",
        "format": FORMAT,
        "fingerprint": named.hex(),
        "decoding": decoding,
        "halo": {"encoder": _halo(shape.encoder_blocks), "decoder": _halo(shape.decoder_blocks)},
        "cost": costs(files, model),
        "claims": claims,
        "training": {"recipe": weights.recipe.to_dict(), **weights.progress},
        "files": {n: hashlib.sha256(c).hexdigest() for n, c in sorted(files.items())},
        **card,
    }
    files[MANIFEST] = (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()
    size = sum(map(len, files.values()))
    if size > SIZE_LIMIT:
        raise ValueError(f"the bundle has {size} bytes; {SIZE_LIMIT} are allowed")
    temporary = out / f".{name}.part"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for file, content in files.items():
        (temporary / file).write_bytes(content)
    temporary.rename(folder)
    return folder
