"""From a gaussian checkpoint to a bundle: two graphs, the steps of each quality, their tables.

As for photographs, a bundle is written only if its claims were shown: torch and ONNX Runtime agree,
a second export gives the same bytes, symbols survive the entropy coder.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import GraphProto, TensorProto, helper, numpy_helper
from torch import Tensor, nn

from train.checkpoints import Weights
from train.export import npz, refuse_existing, refuse_paths, save
from train.frequencies import row_of, tables_of
from train.graphs import serialise
from train.transforms import halve, halved, traced
from train.vae_nets import Vae
from train.vae_recipe import VaeRecipe
from vaecodec.bundle import FORMAT, fingerprint
from vaecodec.entropy import TileDecoder, encode_tile
from vaecodec.layouts import LAYOUTS
from vaecodec.runtime import Graph
from vaecodec.tables import MAX_ENTRIES, MAX_ROWS, FrequencyTables

LEVELS = 17
"""Levels of quality; the one in the middle has the step that costs what sampling z costs."""
OCTAVE = 4
"""Levels in which the step halves."""
UNIT = 16
"""Steps are powers of 2**(1 / UNIT), so that dimensions share tables."""
PRIOR = 0.95
"""A dimension whose posterior is wider says nothing of the image, and is not coded."""
DENSE = 1 << 15
"""Matrices of so many weights are stored in 8 bits, with a scale for each row: ten bundles of dense
networks would be twice as large in half precision."""
EXAMPLES = 64
"""Images that the claims are shown on."""


class ExportedEncoder(nn.Module):
    """What the encoder's graph computes: pixels -> mean, log variance, and what the model sees."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.encoder, self.see = vae.encoder, vae.see

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        target = self.see(pixels)
        return *self.encoder(target), target


class ExportedDecoder(nn.Module):
    """What the decoder's graph computes: latents -> pixels and the likelihood's parameter."""

    def __init__(self, vae: Vae) -> None:
        super().__init__()
        self.decoder, self.show = vae.decoder, vae.show

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        parameter = self.decoder(y)
        return self.show(parameter), parameter


def exported(model: Vae) -> tuple[ExportedEncoder, ExportedDecoder]:
    """Return the modules that the graphs compute, weights rounded as they are stored."""
    vae = cast(Vae, halved(copy.deepcopy(model).float().eval()))
    for p in vae.parameters():
        if _is_dense(p.shape):
            integers, scale = in_8_bits(p.detach().numpy())
            p.data = torch.from_numpy(integers * scale)
    return ExportedEncoder(vae), ExportedDecoder(vae)


def files_of(model: Vae, shape: tuple[int, int, int]) -> dict[str, bytes]:
    """Return the files of a bundle but for its manifest, by name; `shape` is that of an image.

    Raises ValueError for a model that was not trained to its end: its sigma is not known.
    """
    encoder, decoder = exported(model)
    tables, quality = quality_tables(model.sigma.double().numpy())
    images, many = torch.zeros(2, *shape, dtype=torch.uint8), {0: torch.export.Dim("n", min=1)}
    outputs = ["mean", "log_variance", "target"]
    latents = torch.zeros(2, len(model.sigma))
    graphs = {
        "encoder.onnx": traced(encoder, images, many, "pixels", outputs, "encoder"),
        "decoder.onnx": traced(decoder, latents, many, "y", ["pixels", "parameter"], "decoder"),
    }
    return {
        **{name: _stored(graph) for name, graph in graphs.items()},
        "tables.bin": tables.to_bytes(),
        "quality.npz": npz(quality),
    }


def _is_dense(shape: Sequence[int]) -> bool:
    """Return whether a weight is a matrix so large that it is stored in 8 bits."""
    return len(shape) == 2 and math.prod(shape) >= DENSE


def in_8_bits(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integers -127..127 and a scale for each row, (n, 1): their product is the weight.

    The scale has 11 bits, so that the product is exact, and gives the same two again.
    """
    scale = np.abs(weight).max(1, keepdims=True) / np.float32(127)
    scale = np.maximum(scale, np.float32(2**-14)).astype(np.float16).astype(np.float32)
    return np.rint(weight / scale).clip(-127, 127).astype(np.int8), scale


def _stored(graph: GraphProto) -> bytes:
    """Return a graph with its large weights in 8 bits or in half precision."""
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or not _is_dense(tensor.dims):
            continue
        integers, scale = in_8_bits(numpy_helper.to_array(tensor))
        names = [f"{tensor.name}_{part}" for part in ("integers", "scale")]
        graph.initializer.remove(tensor)
        arrays: tuple[NDArray[Any], ...] = (integers, scale[:, 0])
        for values, name in zip(arrays, names, strict=True):
            graph.initializer.append(numpy_helper.from_array(values, name))
        widen = helper.make_node("DequantizeLinear", names, [tensor.name], names[0], axis=0)
        graph.node.insert(0, widen)
    halve(graph)
    return serialise(graph)


def quality_tables(
    sigma: NDArray[np.float64],
) -> tuple[FrequencyTables, dict[str, NDArray[Any]]]:
    """Return the tables, and step and row of each dimension at each level, (LEVELS, D).

    sigma: (D,), root mean square of the posterior's over the training set. Noise of a step has its
    variance / 12, so the middle level has the step sqrt(12) * sigma.
    """
    if not np.isfinite(sigma).all() or sigma.min() <= 0:
        raise ValueError("the sigma of the posterior is not known: the run was never saved")
    middle = np.rint(UNIT * np.log2(math.sqrt(12) * sigma)).astype(np.int64)
    finer = (LEVELS // 2 - np.arange(LEVELS)) * UNIT // OCTAVE
    units = middle + finer[:, None]  # log2 of the step in 1/UNIT
    coded = np.broadcast_to(sigma <= PRIOR, units.shape)
    used = np.unique(units[coded])
    if len(used) >= MAX_ROWS:
        raise ValueError(f"steps of {len(used)} sizes; a bundle has room for {MAX_ROWS - 1}")
    rows = [row_of("gaussian", 2.0 ** (-u / UNIT), MAX_ENTRIES - 1) for u in used]
    row = np.where(coded, 1 + np.searchsorted(used, units), 0)
    step = 2.0 ** (units / UNIT)
    return tables_of(rows), {"step": step.astype(np.float32), "row": row.astype(np.uint8)}


@torch.no_grad()
def verify(model: Vae, files: Mapping[str, bytes], shape: tuple[int, int, int]) -> dict[str, Any]:
    """Show a bundle's claims on images of noise and of decoded latents.

    Raises ValueError that says which claim failed; returns the figures for the manifest.
    """
    if files_of(model, shape) != dict(files):
        raise ValueError("a second export gives other bytes")
    for name in ("encoder.onnx", "decoder.onnx"):
        refuse_paths(name, files[name])
    encoder, decoder = exported(model)
    random = torch.Generator().manual_seed(0)
    y = torch.randn(EXAMPLES // 2, len(model.sigma), generator=random)
    noise = torch.randint(256, (EXAMPLES // 2, *shape), generator=random)
    images = torch.cat([decoder(y)[0], noise.to(torch.uint8)])
    found = Graph(files["encoder.onnx"], "cpu", 1)(pixels=images.numpy())
    wanted = [tensor.numpy() for tensor in encoder(images)]
    if not np.array_equal(found[2], wanted[2]):
        raise ValueError("the encoder's graph does not see images as torch does")
    result = {"encoder_difference": max(map(_difference, found[:2], wanted[:2]))}
    pixels, parameter = Graph(files["decoder.onnx"], "cpu", 1)(y=wanted[0])
    expected, exact = (tensor.numpy() for tensor in decoder(torch.from_numpy(wanted[0])))
    result["parameter_difference"] = _difference(parameter, exact)
    for name, value in result.items():
        if value > 1e-5:
            raise ValueError(f"{name}: a graph differs from torch by {value:.1e} of the range")
    worst = int(np.abs(pixels.astype(int) - expected).max())
    if worst > 1:
        raise ValueError(f"the decoder's graph differs from torch by {worst} of 255")
    count = _verify_symbols(files, found[0])
    return {**result, "decoder_difference": worst, "symbols_compared": count}


def _difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Return the largest difference, relative to the largest value."""
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-9))


def _verify_symbols(files: Mapping[str, bytes], mean: NDArray[np.float32]) -> int:
    """Code the means at every level and compare; return how many symbols there were."""
    tables = FrequencyTables.from_bytes(files["tables.bin"])
    with np.load(io.BytesIO(files["quality.npz"])) as arrays:
        steps, rows = arrays["step"], arrays["row"]
    for step, row in zip(steps, rows, strict=True):
        symbols = np.floor(mean / step + np.float32(0.5)).astype(np.int32)
        symbols[:, row == 0] = 0
        flat, all_rows = symbols.reshape(-1), np.tile(row, len(mean))
        decoder = TileDecoder(encode_tile([(flat, all_rows)], tables), tables)
        if not np.array_equal(decoder.read(all_rows), flat):
            raise ValueError("symbols differ after the entropy coder")
        decoder.finish()
    return mean.size * len(steps)


def write(weights: Weights, folder: Path, name: str, card: Mapping[str, Any]) -> None:
    """Write the bundle of released weights, called `name`, into a new folder.

    `card` is added to the manifest as it is. Raises ValueError where a claim fails, before anything
    is written, and FileExistsError where the folder exists.
    """
    refuse_existing(folder)
    model, recipe = cast(Vae, weights.model()), cast(VaeRecipe, weights.recipe)
    files = files_of(model, recipe.data.shape)
    claims = verify(model, files, recipe.data.shape)
    height, width, colours = recipe.data.shape
    decoding = {
        "dimensions": recipe.model.latents,
        "height": height,
        "width": width,
        "colours": colours,
        "levels": LEVELS,
    }
    needed = [files[n] for n in LAYOUTS["gaussian"].files(decoding)]
    likelihood = recipe.model.likelihood
    sigma = {} if likelihood.sigma is None else {"sigma": likelihood.sigma}
    manifest = {
        "name": name,
        "family": "gaussian",
        "format": FORMAT,
        "fingerprint": fingerprint(decoding, needed).hex(),
        "decoding": decoding,
        "likelihood": {"kind": likelihood.kind, **sigma},
        "posterior_sigma": [round(float(s), 5) for s in model.sigma],
        "claims": claims,
        "training": {"recipe": recipe.to_dict(), **weights.progress},
        **card,
    }
    save(folder, files, manifest)
