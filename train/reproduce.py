"""`python -m train reproduce`: train, export, draw and measure the systems of the articles.

Each system goes through three stages. What a stage found out is kept in a JSON file of the system,
so that an interrupted run goes on with the first stage that is not in it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from train import pictures, plots, seed_pictures, seeds, vae_data
from train.loop import Trainer
from train.plotting import Networks
from train.progress import say
from train.release import release
from train.schedule import Plan
from train.seeds import System
from train.vae_export import PRIOR
from vaecodec.bundle import Bundle
from vaecodec.codec import Codec
from vaecodec.errors import VaecodecError

Figures = dict[str, Any]
"""What a stage found out, as JSON has it."""


@dataclass(frozen=True)
class Places:
    """Where everything is: data sets, runs with their results, bundles, the page."""

    data: Path
    out: Path
    bundles: Path
    docs: Path

    def bundle(self, system: System) -> Path:
        """Return where the bundle of a system is, or is to be."""
        folder = self.bundles if system.released else self.out / "bundles"
        return folder / system.recipe

    def known(self, system: System) -> dict[str, Figures]:
        """Return what each stage of a system found out, of those that it is through."""
        path = self.out / f"{system.recipe}.json"
        found: dict[str, Figures] = json.loads(path.read_text()) if path.is_file() else {}
        return found

    def learn(self, system: System, stage: str, figures: Figures) -> None:
        """Keep what a stage found out."""
        path = self.out / f"{system.recipe}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps({**self.known(system), stage: figures}, indent=1) + "\n")
        draft.replace(path)

    def forget(self, system: System) -> None:
        """Remove what the stages of a system left, so that it is done anew."""
        if "release" in self.known(system):  # its bundle was made here
            shutil.rmtree(self.bundle(system), ignore_errors=True)
        shutil.rmtree(self.out / system.recipe, ignore_errors=True)
        (self.out / f"{system.recipe}.json").unlink(missing_ok=True)

    def words(self, system: System) -> dict[str, str]:
        """Return what TRAIN and TEST stand for."""
        data, folder = system.load().data, self.data / system.folder
        return {"TRAIN": str(folder / data.train), "TEST": str(folder / data.test)}

    def test_images(self, system: System) -> NDArray[np.uint8]:
        """Return the test images of a system's recipe, uint8 (N, H, W, C)."""
        recipe = system.load()
        return vae_data.test_set(recipe.data, [self.data / system.folder], recipe.seed)


def reproduce(
    places: Places, only: Sequence[str] = (), systems: Sequence[System] = seeds.SYSTEMS
) -> None:
    """Bring the systems to their end and write the page; those in `only` are done anew, and alone.

    Raises ValueError for an unknown recipe, FileExistsError where a bundle stands in the way, and
    VaecodecError where training was stopped.
    """
    if unknown := set(only) - {system.recipe for system in systems}:
        raise ValueError(f"{', '.join(sorted(unknown))}: no recipe of the articles")
    for folder in (places.out, places.bundles, places.docs / "seeds"):
        folder.mkdir(parents=True, exist_ok=True)
    chosen = [system for system in systems if not only or system.recipe in only]
    for system in chosen if only else []:
        places.forget(system)
    _refuse_bundles(places, chosen)
    for system in chosen:
        for name, stage in STAGES.items():
            if name not in places.known(system):
                say(f"{system.recipe}: {name}")
                began = time.monotonic()
                found = stage(system, places)
                minutes = (time.monotonic() - began) / 60
                places.learn(system, name, {"minutes": minutes, **found})
    known = {system.recipe: places.known(system) for system in systems}
    if left := [recipe for recipe, stages in known.items() if len(stages) < len(STAGES)]:
        say(f"no page yet: {', '.join(left)} are to be done")
        return
    seeds.write_page(systems, known, places.docs / "seeds.md")
    say(f"wrote {places.docs / 'seeds.md'}")


def _refuse_bundles(places: Places, systems: Sequence[System]) -> None:
    """Raise FileExistsError where a bundle is there that was not made here: long before export."""
    for system in systems:
        folder = places.bundle(system)
        if folder.exists() and "release" not in places.known(system):
            raise FileExistsError(f"{folder} exists; name another folder with --bundles")


# The stages


def train(system: System, places: Places) -> Figures:
    """Train a system, going on where that was stopped; return losses by epoch, and parameters.

    The minutes are those of all sessions.
    """
    run, recipe = places.out / system.recipe, system.load()
    trainer = Trainer(recipe, [places.data / system.folder], run)
    if (run / "state.pt").is_file():
        trainer.resume(run)
    else:
        trainer.start()
    plan = trainer.task.planned(Plan(minutes=0))
    whole = trainer.fit(plan, trainer.task.validation([], 0))
    trainer.close()
    if not whole:
        raise VaecodecError(f"{system.recipe} was stopped; the same command goes on with it")
    test, training = seed_pictures.curve(run, plan.validate_steps or 1)
    encoder, decoder = (_count(getattr(trainer.model, part)) for part in ("encoder", "decoder"))
    return {
        "minutes": trainer.seconds / 60,
        "epochs": len(test),
        "test": test,
        "training": training,
        "kept": min(test) if recipe.patience else test[-1],
        "encoder": encoder,
        "decoder": decoder,
        "parameters": encoder + decoder,
    }


def _count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def write(system: System, places: Places) -> Figures:
    """Write a system's bundle; return what it measures, through files of its test images."""
    folders = [places.data / system.folder]
    run, name = places.out / system.recipe, system.recipe
    bundle = release(run, places.bundle(system).parent, name, [], 0, 50, system.data, folders)
    manifest, test = Bundle.open(bundle).manifest, Path(places.words(system)["TEST"])
    return {
        **manifest["measured"][0],
        "sigma": manifest["likelihood"].get("sigma"),
        "coded": sum(sigma <= PRIOR for sigma in manifest["posterior_sigma"]),
        "packed": test.stat().st_size if test.is_file() else None,
    }


def draw(system: System, places: Places) -> Figures:
    """Draw the pictures of a system into docs/seeds; return the bytes of each file."""
    sizes, colours = {}, 64 if system.load().data.shape[2] == 1 else 256
    for picture in system.pictures:
        kind, *options = shlex.split(picture)
        path = places.docs / "seeds" / f"{system.recipe}-{kind}.png"
        _draw(system, places, kind, options, path)
        sizes[path.name] = pictures.shrink(path, colours)
    return sizes


def _draw(system: System, places: Places, kind: str, options: list[str], path: Path) -> None:
    from train.__main__ import main

    run, bundle = places.out / system.recipe, places.bundle(system)
    match kind:
        case "lost":
            figure = seed_pictures.lost(Codec(bundle, "cpu"), places.test_images(system))
        case "losses":
            curves = places.known(system)["train"]
            articles = [seed_pictures.ARTICLE_004] if options else []
            figure = seed_pictures.losses(system.recipe, curves, articles)
        case "epochs":
            figure = seed_pictures.epochs(run)
        case "beside":
            others = [s for s in seeds.SYSTEMS if s.recipe in options]
            models = [Networks(places.bundle(s)) for s in (*others, system)]
            figure = seed_pictures.side_by_side(models, places.test_images(system))
        case _:
            words = places.words(system)
            arguments = ["plot", str(bundle), kind, *(words.get(o, o) for o in options)]
            if main([*arguments, "-o", str(path)]):
                raise VaecodecError(f"{path} was not drawn")
            return
    plots.save(figure, path)


STAGES: dict[str, Callable[[System, Places], Figures]] = {
    "train": train,
    "release": write,
    "draw": draw,
}
"""In order; the names are those in the JSON files."""
