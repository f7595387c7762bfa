"""From a bundle back to a network: what `export` wrote, read as weights to train on.

The graphs say everything that the released network computes, so a bundle is enough to go on from,
one that was fine-tuned before just as well; no checkpoint is needed. What a graph does not say is
how training had scaled the channels of its residual blocks: that is measured anew (`_scales`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from train.data import image_files
from train.nets import Block, PhotoCodec, space_to_depth
from train.prior import ACTIVATION_UNIT, HEAD_UNIT, IntConv
from train.recipes import Recipe, read
from vaecodec import latents
from vaecodec.bench import SAMPLES
from vaecodec.bundle import Bundle
from vaecodec.errors import ModelError
from vaecodec.images import read as read_image

State = dict[str, Tensor]
"""A part of a network's state_dict, float32."""


def recipe_of(bundle: Bundle) -> Recipe:
    """Return the recipe that a photo bundle was trained by.

    Raises ModelError where the bundle is of another family or does not say.
    """
    if bundle.manifest["family"] != "hyperprior":
        family = bundle.manifest["family"]
        raise ModelError(f"{bundle.name} is a {family} model; one of photographs is expected")
    try:
        return cast(Recipe, read(bundle.manifest["training"]["recipe"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{bundle.name} does not say its recipe ({error})") from error


def network_of(bundle: Bundle) -> PhotoCodec:
    """Return the network of a photo bundle, to train on.

    It computes what the bundle's graphs compute. Raises ModelError for a bundle that is damaged or
    of another family.
    """
    network, root = _unscaled(bundle), bundle.base
    # Of a difference the scales are those of its base: its weights moved in multiples of them.
    scales = _scales(_unscaled(root) if root else network, recipe_of(bundle).model.whitening)
    _scale(network, scales)
    return network.eval()


def _unscaled(bundle: Bundle) -> PhotoCodec:
    """Return the network of a bundle with the scales of all residual blocks at 1."""
    try:
        model = recipe_of(bundle).build()
        model.load_state_dict(_state(bundle, model))
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelError(f"{bundle.name} is not what its recipe builds: {error}") from error
    return model


def _state(bundle: Bundle, model: PhotoCodec) -> State:
    """Return the network's state with the scales of all residual blocks at 1."""
    state = {name: value for name, value in model.state_dict().items() if name.endswith(".scale")}
    encoder, decoder = (_constants(bundle.read(f"{n}.onnx")) for n in ("encoder", "decoder"))
    encoder["enter.weight"] *= 255
    decoder["leave.weight"] /= 255
    decoder["leave.bias"] /= 255
    state |= _below("encoder", encoder) | _below("decoder", decoder)
    state |= _below("prior", _constants(bundle.read("side.onnx")))
    state |= _integers(bundle.read("hyper.onnx"), model.prior.decoder, "prior.decoder")
    for k, step in enumerate(model.prior.steps):
        state |= _integers(bundle.read(f"step{k}.onnx"), step, f"prior.steps.{k}")
    return state | _tables(bundle)


def _below(place: str, tensors: Mapping[str, Tensor]) -> State:
    return {f"{place}.{name}": value for name, value in tensors.items()}


def _constants(graph: bytes) -> State:
    """Return the weights and biases of a graph of float layers by their names in the network."""
    found = {}
    for tensor in onnx.load_from_string(graph).graph.initializer:
        name = tensor.name.removesuffix("_half")
        if name.endswith((".weight", ".bias")):
            found[name] = torch.tensor(numpy_helper.to_array(tensor).astype(np.float32))
    return found


def _integers(content: bytes, module: nn.Module, place: str) -> State:
    """Return the weights of a graph of integers: its convolutions are the module's, in order."""
    graph = onnx.load_from_string(content).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    source = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Cast"}
    factors = {n.input[0]: constants.get(n.input[1]) for n in graph.node if n.op_type == "Mul"}
    convolutions = [n for n in graph.node if n.op_type == "Conv"]
    layers = [(n, m) for n, m in module.named_modules() if isinstance(m, IntConv)]
    state = {}
    for node, (name, _) in zip(convolutions, layers, strict=True):
        weight, bias = (constants[source[i]].astype(np.float64) for i in node.input[1:])
        unit = HEAD_UNIT if name == "heads" else ACTIVATION_UNIT
        factor = factors[node.output[0]]
        assert factor is not None
        step = factor.astype(np.float64).reshape(-1) * ACTIVATION_UNIT / unit
        state[f"{place}.{name}.weight"] = _single(weight * step[:, None, None, None])
        state[f"{place}.{name}.bias"] = _single(bias * step / ACTIVATION_UNIT)
    return state


def _single(values: NDArray[Any]) -> Tensor:
    return torch.tensor(values.astype(np.float32))


def _tables(bundle: Bundle) -> State:
    """Return what the network has per quality level."""
    quality, gains = bundle.arrays("quality.npz"), bundle.arrays("gains.npz")
    row = latents.LOG_SCALE_STEP / latents.ROW_UNIT
    log_gain = np.log(gains["gain"].astype(np.float64))
    base = quality["row_offset"] * row + math.log(latents.SCALE_MIN) - log_gain
    # Every level's offset was rounded: the middle of what all of them allow gives each of them.
    base = (base.max(0) + base.min(0)) / 2
    return {
        "log_gain": _single(log_gain),
        "log_inverse": _single(np.log(quality["inverse_gain"].astype(np.float64))),
        "prior.row_base": _single(base),
        "prior.z_gain": _single(np.log(gains["z_gain"].astype(np.float64))),
        "prior.z_rows": _single(quality["z_row"] * row),
        "prior.shift": _single(quality["shift"] / ACTIVATION_UNIT),
    }


@torch.no_grad()
def _scales(model: PhotoCodec, whitening: float) -> dict[int, Tensor]:
    """Return the scales of channels (C,) at 1/8 and 1/16, as the KLT start chooses them.

    Standard deviations are measured on the sample photographs, so that the start is the same
    whatever the images to train on.
    """
    squares: dict[int, list[Tensor]] = {8: [], 16: []}
    for file in image_files([SAMPLES]):
        pixels = torch.from_numpy(read_image(file).pixels.copy())
        height, width = (side // 16 * 16 for side in pixels.shape[:2])
        features = model.encoder.enter(space_to_depth(pixels[None, :height, :width]).float() / 255)
        squares[8].append(features.square().mean((0, 2, 3)))
        features = model.encoder.down(model.encoder.blocks8(features))
        squares[16].append(features.square().mean((0, 2, 3)))
    variances = {size: torch.stack(of).mean(0).clamp_min(1e-6) for size, of in squares.items()}
    # Powers of two: weights are divided and multiplied by them without a rounding.
    return {s: torch.exp2((0.5 * whitening * torch.log2(v)).round()) for s, v in variances.items()}


@torch.no_grad()
def _scale(model: PhotoCodec, scales: Mapping[int, Tensor]) -> None:
    """Give the residual blocks scales, and the inverse to their weights: the function stays."""
    for side in (model.encoder, model.decoder):
        for size, blocks in ((8, side.blocks8), (16, side.blocks16)):
            for block in cast(Iterable[Block], blocks):
                block.scale.copy_(scales[size])
                block.spatial.weight *= scales[size].view(-1, 1, 1, 1)
                block.narrow.weight /= scales[size].view(-1, 1, 1, 1)
                assert block.narrow.bias is not None
                block.narrow.bias /= scales[size]
