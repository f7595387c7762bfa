"""The systems of the articles: what is drawn of each, and the page about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train import recipes
from train.vae_evaluate import ALONE
from train.vae_recipe import VaeRecipe
from vaecodec.machine import machine

PAGE = Path(__file__).parent / "seeds.md"
"""The page without its figures: each stands as {r[RECIPE][STAGE][FIGURE]}, with a format."""

OWN = ("lost", "losses", "epochs", "beside")
"""Pictures that `train.reproduce` draws, and no command does."""


@dataclass(frozen=True)
class System:
    """A recipe, its article, the folder of its data below the root, and its pictures.

    data: what the manifest says of it. pictures: what follows `python -m train plot MODEL`, with
    TRAIN and TEST for the recipe's sets; or one of OWN, with what it needs. released: whether its
    bundle stands among those that are released.
    """

    recipe: str
    article: str
    folder: str
    data: str
    pictures: tuple[str, ...]
    released: bool = True

    def load(self) -> VaeRecipe:
        """Return the recipe; ValueError where it is none of the gaussian family."""
        recipe = recipes.load(self.recipe)
        if not isinstance(recipe, VaeRecipe):
            raise ValueError(f"{self.recipe} is no recipe of the gaussian family")
        return recipe


_BOTH = "reconstructions TRAIN TEST"
_CLOTHES = "codes TEST --names T-shirt,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,boot"
_PLANE = "manifold --rows 11 --columns 11"

SYSTEMS = (
    System(
        "mnist-conv-2d",
        "004",
        "mnist",
        "MNIST, 60,000 training images",
        (_BOTH, "samples", "manifold --y -1 3", "codes TEST", "losses article", "lost"),
    ),
    System(
        "mnist-dense-2d",
        "002",
        "mnist",
        "MNIST, 60,000 training images",
        ("epochs", _PLANE, "codes TRAIN --count 2432", "losses"),
    ),
    System(
        "mnist-dense-5d",
        "001",
        "mnist",
        "MNIST, 60,000 training images, binarised at 0.5",
        ("samples --rows 1 --columns 10", "codes TEST", "traversal TEST"),
    ),
    System(
        "fashion-conv",
        "000",
        "fashion-mnist",
        "Fashion-MNIST, 60,000 training images",
        (_BOTH, _CLOTHES, "traversal TEST"),
    ),
    System(
        "fashion-conv-beta4",
        "000",
        "fashion-mnist",
        "Fashion-MNIST, 60,000 training images",
        ("beside fashion-conv", "traversal TEST"),
    ),
    System(
        "mnist-small-dense",
        "003",
        "mnist",
        "MNIST, 60,000 training images",
        (_BOTH, "samples", _PLANE),
    ),
    System(
        "fashion-small-dense",
        "003",
        "fashion-mnist",
        "Fashion-MNIST, 60,000 training images",
        (_BOTH, "samples"),
    ),
    System(
        "textures-small-dense",
        "003",
        "textures",
        "42,000 crops of 28x28 pixels of 33 Brodatz plates",
        (_BOTH, "samples"),
    ),
    System(
        "cifar-small-dense",
        "003",
        "cifar10",
        "CIFAR-10 as JPEG, the first 1,000 training images of each class",
        ("samples --rows 8",),
        released=False,  # half as large as all others together, and the worse of the two
    ),
    System(
        "cifar-conv",
        "003",
        "cifar10",
        "CIFAR-10 as JPEG, the first 1,000 training images of each class",
        ("beside cifar-small-dense", "samples --rows 8"),
    ),
)


def write_page(
    systems: Sequence[System], known: Mapping[str, Mapping[str, Any]], target: Path
) -> None:
    """Write the page from what each stage of each system found out."""
    page = PAGE.read_text("utf-8")
    text = page.format(
        r=known,
        last={name: _last(stages["train"]) for name, stages in known.items()},
        alone=ALONE,
        minutes=sum(_minutes(known[system.recipe]) for system in systems),
        machine="{cores} cores of {processor}".format(**machine("cpu")),
        trained=_table(_TRAINED, systems, known),
        measured=_table(_MEASURED, systems, known),
        commands={system.recipe: _commands(system) for system in systems},
    )
    target.write_text(text, "utf-8")


_TRAINED = {
    "recipe": "`{recipe}`",
    "article": "{article}",
    "latents": "{latents}",
    "parameters, encoder and decoder": "{train[encoder]:,} and {train[decoder]:,}",
    "epochs": "{train[epochs]}",
    "minutes": "{minutes:.1f}",
}
_MEASURED = {
    "recipe": "`{recipe}`",
    "negative ELBO = reconstruction + KL": "{release[elbo]:.2f} = {release[nll]:.2f} + "
    "{release[kl]:.2f}",
    "bits per dimension": "{release[bits_per_dimension]:.4f}",
    "one image, bytes": "{release[alone_largest]:.0f}, {release[alone_mean]:.1f}",
    "all in one file, bits an image": "{release[bits]:.2f}",
    "its MSE": "{release[mse]:.1f}",
    "its PSNR, dB": "{release[psnr]:.2f}",
}


def _table(
    columns: Mapping[str, str], systems: Sequence[System], known: Mapping[str, Mapping[str, Any]]
) -> str:
    rows = [
        [
            cell.format(
                recipe=system.recipe,
                article=system.article,
                latents=system.load().model.latents,
                minutes=_minutes(known[system.recipe]),
                **known[system.recipe],
            )
            for cell in columns.values()
        ]
        for system in systems
    ]
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _last(train: Mapping[str, Any]) -> dict[str, float]:
    """Return the losses of the last epoch."""
    return {name: train[name][-1] for name in ("test", "training")}


def _minutes(stages: Mapping[str, Any]) -> float:
    return float(sum(stage["minutes"] for stage in stages.values()))


def _commands(system: System) -> str:
    """Return the commands that make a system by hand, one a line."""
    name, folder, data = system.recipe, f"DATA/{system.folder}", system.load().data
    lines = [
        f"python -m train fit {name} {folder} --out runs/{name}",
        f"python -m train export runs/{name} --name {name} --quality 50 --measure {folder}",
    ]
    for picture in system.pictures:
        kind = picture.split()[0]
        if kind not in OWN:
            line = picture.replace("TRAIN", f"{folder}/{data.train}")
            line = line.replace("TEST", f"{folder}/{data.test}")
            lines.append(f"python -m train plot {name} {line} -o {kind}.png")
    return "\n".join(lines)
