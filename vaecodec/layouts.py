"""What the bundles of each family consist of: manifest entries, files, arrays.

All that is known of a family before its graphs run stands here, in one table; `vaecodec.families`
says which class runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vaecodec.manifest import Entries, is_figure, is_one_of, is_whole

__all__ = ["LAYOUTS", "Kinds", "Layout"]

# Limits, far from what a sensible model has; the memory that a picture takes grows with them.

MAX_CHANNELS = 1024  # of latents, of side information, of features; pixels of a side
MAX_LEVELS = 64
MAX_HALO = 32  # positions: 512 pixels

SCALES = 64
"""Rows that priors name (`latents.ROWS`, which needs NumPy, and this module does not)."""

Decoding = Mapping[str, int]
"""The "decoding" object of a manifest, checked."""

Kinds = dict[str, tuple[str, int, range]]
"""Name of an array -> its type, its rows, and how many columns it may have."""


@dataclass(frozen=True)
class Layout:
    """What a bundle of a family consists of.

    entries: what its manifest needs besides `manifest.COMMON`. files: what decoding needs, in the
    order in which the fingerprint hashes it. arrays: its .npz files and what is in them. rows: how
    many its tables have at least. shape: height, width and colours of the images that it takes;
    None where it takes any.
    """

    entries: Entries
    files: Callable[[Decoding], list[str]]
    arrays: Callable[[Decoding], dict[str, Kinds]]
    rows: int
    shape: Callable[[Decoding], tuple[int, int, int] | None]


_CHANNELS = (is_whole(1, MAX_CHANNELS), f"1 to {MAX_CHANNELS}")
_LEVELS = (is_whole(2, MAX_LEVELS), f"2 to {MAX_LEVELS}")
_HALO = (is_whole(0, MAX_HALO), f"0 to {MAX_HALO}")


def _exactly(columns: int) -> range:
    return range(columns, columns + 1)


# hyperprior


def _hyperprior_files(decoding: Decoding) -> list[str]:
    steps = [f"step{k}.onnx" for k in range(decoding["steps"])]
    return ["hyper.onnx", *steps, "decoder.onnx", "tables.bin", "quality.npz"]


def _hyperprior_arrays(decoding: Decoding) -> dict[str, Kinds]:
    levels = decoding["levels"]
    channels, side = _exactly(decoding["channels"]), _exactly(decoding["side"])
    return {
        "quality.npz": {
            "row_offset": ("int32", levels, channels),
            "z_row": ("int32", levels, side),
            "shift": ("int32", levels, range(1, MAX_CHANNELS + 1)),
            "inverse_gain": ("float32", levels, channels),
        },
        "gains.npz": {"gain": ("float32", levels, channels), "z_gain": ("float32", levels, side)},
    }


def _is_search(value: Any) -> bool:
    """Return whether a manifest's "search" gives the lambdas of qualities 0 and 100, or nothing."""
    if value is None:
        return True
    pair: Any = value.get("lambda") if isinstance(value, dict) else None
    if not isinstance(pair, list) or not all(map(is_figure, pair)):
        return False
    return len(pair) == 2 and 0 < pair[0] <= pair[1]


_HYPERPRIOR = Layout(
    entries={
        "decoding.channels": _CHANNELS,
        "decoding.side": _CHANNELS,
        "decoding.steps": (is_one_of(1, 2, 4), "1, 2 or 4"),
        "decoding.levels": _LEVELS,
        "halo.encoder": _HALO,
        "halo.decoder": _HALO,
        "search": (_is_search, "two lambdas, ascending, or nothing"),
    },
    files=_hyperprior_files,
    arrays=_hyperprior_arrays,
    rows=SCALES,
    shape=lambda _decoding: None,
)


# gaussian


def _gaussian_arrays(decoding: Decoding) -> dict[str, Kinds]:
    levels, dimensions = decoding["levels"], _exactly(decoding["dimensions"])
    return {
        "quality.npz": {
            "step": ("float32", levels, dimensions),
            "row": ("uint8", levels, dimensions),
        }
    }


def _is_likelihood(value: Any) -> bool:
    """Return whether a manifest's "likelihood" is one that `vaecodec.likelihood` computes."""
    if not isinstance(value, dict) or value.get("kind") not in ("bernoulli", "normal"):
        return False
    sigma: Any = value.get("sigma", 1 if value["kind"] == "bernoulli" else None)
    return is_figure(sigma) and sigma > 0


_GAUSSIAN = Layout(
    entries={
        "decoding.dimensions": _CHANNELS,
        "decoding.height": _CHANNELS,
        "decoding.width": _CHANNELS,
        "decoding.colours": (is_one_of(1, 3), "1 or 3"),
        "decoding.levels": _LEVELS,
        "likelihood": (_is_likelihood, "bernoulli, or normal with its sigma"),
    },
    files=lambda _decoding: ["decoder.onnx", "tables.bin", "quality.npz"],
    arrays=_gaussian_arrays,
    rows=1,
    shape=lambda decoding: (decoding["height"], decoding["width"], decoding["colours"]),
)


LAYOUTS = {"hyperprior": _HYPERPRIOR, "gaussian": _GAUSSIAN}
"""Family -> the layout of its bundles."""
