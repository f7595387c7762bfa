"""What each graph of a bundle takes and gives, by its file name: its part in the codec.

The code that runs the graphs relies on this; `vaecodec.graphs` compares a received one with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaecodec.container import POSITION
from vaecodec.latents import SIDE_STRIDE

if TYPE_CHECKING:
    from vaecodec.bundle import Bundle
    from vaecodec.layouts import Decoding

__all__ = ["Free", "Role", "Value", "roles"]


class Free(int):
    """A length that may be another at run time; its value is that of the trial."""


_H, _W = Free(8), Free(12)
"""Positions of latents of the trial: multiples of what side information takes together."""

_BLOCK = 8  # pixels of a side of what the search weighs

_N = Free(3)
"""Images of the trial, of a family that takes several."""

Value = tuple[str, tuple[int | None, ...]]
"""Type of an array (as NumPy names it), and its shape: a length, a `Free` one, or None for any."""


@dataclass(frozen=True)
class Role:
    """A graph's part in the codec.

    inputs: what it takes, by name. outputs: what it gives, in order. lender: the file of the bundle
    whose weights it may name instead of holding them. exact: it consists of integers, and has to be
    proved.
    """

    inputs: Mapping[str, Value]
    outputs: Mapping[str, Value]
    lender: str | None = None
    exact: bool = False


def roles(bundle: Bundle) -> dict[str, Role]:
    """Return the roles of the graphs that a bundle of its kind can have, by file name.

    Reads quality.npz; raises ModelError where it is damaged.
    """
    decoding = bundle.manifest["decoding"]
    if bundle.manifest["family"] == "gaussian":
        return _gaussian(decoding)
    return _hyperprior(decoding, bundle.arrays("quality.npz")["shift"].shape[1])


def _per_position(channels: int) -> Value:
    return "float32", (1, channels, _H, _W)


def _per_channel(channels: int) -> Value:
    return "float32", (1, channels, 1, 1)


def _scaled(side: int, factor: int) -> Free:
    return Free(side * factor)


def _hyperprior(decoding: Decoding, features: int) -> dict[str, Role]:
    """Return the roles of the family "hyperprior"; features: channels of what hyper.onnx gives."""
    y, each = _per_position(decoding["channels"]), _per_channel(decoding["channels"])
    pixels: Value = "uint8", (1, _scaled(_H, POSITION), _scaled(_W, POSITION), 3)
    blocks = _scaled(_H, POSITION // _BLOCK), _scaled(_W, POSITION // _BLOCK)
    weight: Value = "float32", (1, 1, *blocks)
    z: Value = "float32", (1, decoding["side"], Free(_H // SIDE_STRIDE), Free(_W // SIDE_STRIDE))
    common = {"features": _per_position(features), "offset": each, "sigma4": each}
    seen = {"y16": y, "inverse": each}
    coded = {"mean": y, "row": ("uint8", y[1])}
    result = {
        "encoder.onnx": Role({"pixels": pixels}, {"y": y}),
        "side.onnx": Role({"y": y}, {"z": z}),
        "hyper.onnx": Role(
            {"z": z, "shift": _per_channel(features)}, {"features": common["features"]}, exact=True
        ),
        "decoder.onnx": Role({"y": y}, {"pixels": pixels}),
        "decoder_gradient.onnx": Role(
            {"y": y, "pixels": pixels, "weight": weight},
            {"error": weight, "d_y": y},
            lender="decoder.onnx",
        ),
    }
    for k in range(decoding["steps"]):
        inputs = common | seen if k else common
        result[f"step{k}.onnx"] = Role(inputs, coded, exact=True)
        if k:
            slopes = {"d_mean": y, "d_row": y}
            result[f"step{k}_gradient.onnx"] = Role(
                inputs | slopes, {"d_y16": y}, lender=f"step{k}.onnx"
            )
    return result


def _gaussian(decoding: Decoding) -> dict[str, Role]:
    y: Value = "float32", (_N, decoding["dimensions"])
    shape = decoding["height"], decoding["width"], decoding["colours"]
    pixels: Value = "uint8", (_N, *shape)
    images: Value = "float32", (_N, None, None, None)  # as the likelihood sees them, maybe padded
    return {
        "encoder.onnx": Role({"pixels": pixels}, {"mean": y, "log_variance": y, "target": images}),
        "decoder.onnx": Role({"y": y}, {"pixels": pixels, "parameter": images}),
    }
