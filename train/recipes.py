"""Recipes: a training run as data. One TOML file says everything but where the images are."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch

from train.frequencies import TAILS
from train.nets import PhotoCodec
from train.vae_recipe import VaeRecipe

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Model:
    """The shape of a PhotoCodec (train/nets.py)."""

    channels: int
    """Latents per position at 1/16."""
    side: int
    """Channels of side information at 1/64."""
    width: int
    """Channels of the prior's features."""
    hidden: int
    """Channels inside a coding step."""
    steps: int
    """Coding steps: 1, 2 or 4."""
    levels: int
    """Quality levels with tables of their own."""
    encoder_blocks: tuple[int, int]
    """Residual blocks at 1/8 and at 1/16."""
    decoder_blocks: tuple[int, int]
    expansion: float
    """Width inside a residual block, relative to its channels."""
    whitening: float
    """Power of the channels' standard deviation that residual blocks are scaled by."""

    def __post_init__(self) -> None:
        if self.steps not in (1, 2, 4):
            raise ValueError(f"model.steps is {self.steps}; 1, 2 or 4 expected")
        if self.levels < 2:
            raise ValueError(f"model.levels is {self.levels}; 2 or more expected")


@dataclass(frozen=True)
class Loss:
    """Rate in bits per pixel + lambda * 255**2 * MSE, lambda log-linear in quality 0..100."""

    lambda_min: float
    lambda_max: float
    first_step: float
    """Quantisation step of the untrained model at lambda = 1, for samples in 0..1."""
    density: str = "gaussian"
    """Of a latent, given its mean and scale, and so of the tables that files are coded with:
    "gaussian" or "logistic"."""

    def __post_init__(self) -> None:
        if self.density not in TAILS:
            raise ValueError(f"loss.density is {self.density}; {' or '.join(TAILS)} expected")


@dataclass(frozen=True)
class Data:
    """Crops of the training images."""

    crop: int
    """Side of a crop in pixels, a multiple of 64."""
    batch: int
    """Crops in a step on one device."""
    scales: tuple[float, ...]
    """Each image is used at these scales; 1.0 is its own."""

    def __post_init__(self) -> None:
        if self.crop < 64 or self.crop % 64:
            raise ValueError(f"data.crop is {self.crop}; a multiple of 64 expected")


@dataclass(frozen=True)
class Optimiser:
    """Learning rates (of each group of parameters, see train/optim.py) and their surroundings."""

    muon: float
    adamw: float
    linear: float
    tables: float
    clip: float
    """Largest gradient norm."""
    average: float
    """Decay of the averaged weights per step."""
    warmup: int
    """Steps over which the rates rise from zero."""


RATES = ("muon", "adamw", "linear", "tables")
"""The learning rates of an `Optimiser`."""


@dataclass(frozen=True)
class Recipe:
    """A run of the photo codec; nothing outside it changes the result but images and time."""

    name: str
    seed: int
    model: Model
    loss: Loss
    data: Data
    optimiser: Optimiser

    def lambdas(self, quality: torch.Tensor) -> torch.Tensor:
        """Return the trade-off of qualities 0..100 (any shape), float32 of the same shape."""
        low, high = self.loss.lambda_min, self.loss.lambda_max
        return low * (high / low) ** (quality / 100)

    def build(self) -> PhotoCodec:
        """Return the untrained network, before its KLT start."""
        shape = dataclasses.asdict(self.model)
        del shape["whitening"]
        return PhotoCodec(**shape, density=self.loss.density)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as plain data, as checkpoints and manifests keep it."""
        return dataclasses.asdict(self)


AnyRecipe = Recipe | VaeRecipe


def read(data: Mapping[str, Any]) -> AnyRecipe:
    """Return the recipe of plain data; ValueError for a missing or an unknown key.

    A recipe without a family is one of photographs.
    """
    return _made(VaeRecipe if data.get("family") == "gaussian" else Recipe, data)


def _made(kind: type, data: Mapping[str, Any]) -> Any:
    """Return a dataclass of plain data; those among its fields are tables in it."""
    if not isinstance(data, Mapping):
        raise ValueError(f"the recipe is wrong: {data!r} is no table")
    hints, values = get_type_hints(kind), dict(data)
    for f in fields(kind):
        if not is_dataclass(hints[f.name]):
            continue
        if f.name in data:
            values[f.name] = _made(hints[f.name], data[f.name])
        elif f.default is MISSING:
            raise ValueError(f"the recipe has no [{f.name}]")
    try:
        return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    except TypeError as error:
        raise ValueError(f"the recipe is wrong: {error}") from error


def differences(old: AnyRecipe, new: AnyRecipe) -> str:
    """Return what two recipes differ in, for people: "data.batch 6 -> 8, ..."."""
    a, b = _flat(old.to_dict()), _flat(new.to_dict())
    keys = [k for k in a | b if a.get(k) != b.get(k)]
    return ", ".join(f"{k} {a.get(k)} -> {b.get(k)}" for k in keys)


def _flat(data: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in data.items():
        inner = isinstance(value, Mapping)
        found |= _flat(value, f"{place}{key}.") if inner else {f"{place}{key}": value}
    return found


def load(name: str) -> AnyRecipe:
    """Return the recipe `name`: a file under train/recipes without its suffix, or a path.

    Raises FileNotFoundError, and ValueError where it is no recipe.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in FOLDER.glob("*.toml")))
        raise FileNotFoundError(f"no recipe {path}: give a path or one of {known}")
    return read({"name": path.stem, **tomllib.loads(path.read_text("utf-8"))})
