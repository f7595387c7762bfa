"""A bundle of one's own: a released network, trained on for some minutes on a folder of images.

What comes out is kept as a difference to the bundle that it came from, and only where it is better
than that on images that were held out.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image
from torch import nn

from train import adopt, curvature, export, moves
from train.compare import Comparison, compare, measured, report
from train.derive import Steps, derive
from train.evaluate import QUALITIES
from train.gradients import search_files
from train.holdout import Images
from train.keeping import keep
from train.loop import Trainer
from train.nets import PhotoCodec
from train.photo import PhotoTask
from train.progress import say
from train.recipes import RATES, Data, Recipe
from train.release import claims_image
from train.schedule import Plan
from vaecodec import difference, received, store
from vaecodec.bundle import Bundle, available, fingerprint
from vaecodec.codec import Codec
from vaecodec.manifest import is_model_name
from vaecodec.places import MANIFEST

PARTS = {"prior": ("prior.",), "decoder": ("decoder.", "log_inverse")}
"""What can be trained alone -> the parameters that belong to it begin like this."""

ANNEAL = 0.7
"""Share of the time in which the rates fall."""

CROP = 128
"""Side of the crops, in pixels: with half the pixels of a step of the recipe. More steps of smaller
crops gain more in the same time (docs/experiments.md)."""

WARMUP = 20
"""Steps over which they rise: the network is trained already."""

FEW = 5
"""Images that are few. For n times as many, what follows departs an nth as far from the usual."""

RATE = 0.5
"""Of the recipe's rates."""

PULL = 0.001
"""Share of the way back to the network that it came from, in each step at full rates."""

RECOLOUR = 0.5
"""Share of the crops that are given other colours."""


def recipe_for(bundle: Bundle, files: Sequence[Path]) -> Recipe:
    """Return how a photo bundle is trained on: images at their own scale, crops that fit most.

    The fewer the images, the lower the rates: what steps add up to is to be what images share.
    """
    recipe = adopt.recipe_of(bundle.base or bundle)  # a tuned one's is changed already
    sides = sorted(filter(None, map(_smallest_side, files[:: -(-len(files) // 200)])))
    if not sides:
        raise ValueError(f"none of the {len(files)} images to train on can be read")
    fits = sides[len(sides) // 10] // 64 * 64
    crop = max(64, min(CROP, recipe.data.crop, fits))
    batch = max(1, recipe.data.batch * recipe.data.crop**2 // (2 * crop**2))
    rate = 1 - (1 - RATE) * _fewness(files)
    rates = {name: rate * getattr(recipe.optimiser, name) for name in RATES}
    return dataclasses.replace(
        recipe,
        data=Data(crop, batch, (1.0,)),
        optimiser=dataclasses.replace(recipe.optimiser, warmup=WARMUP, **rates),
    )


def _fewness(files: Sequence[Path]) -> float:
    """Return how much is to be done about that images are few, 0..1."""
    return min(1.0, FEW / len(files))


def _smallest_side(path: Path) -> int | None:
    try:
        with Image.open(path) as image:
            return min(image.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None


CHOOSING = 16
"""Batches of images set aside that tell how much is kept."""

SEEN = 30
"""Batches that show what layers do, before their weights are rounded."""

_OF_BASE = {"default_quality_ssimulacra2", "licence"}


@dataclass(frozen=True)
class Finetuning:
    """What to make: a bundle `name` in the folder `out` from `base`.

    only: a key of PARTS, to train that alone. data: what the images are, for the manifest.
    """

    base: Bundle
    name: str
    out: Path
    minutes: float
    only: str | None = None
    data: str = ""


def finetune(plan: Finetuning, images: Images) -> tuple[Path, str]:
    """Train, measure and write a bundle; return its folder and what it gained, as Markdown.

    Ctrl-C ends the training, and what was reached is measured. Raises ValueError, and writes
    nothing, where the model is no better on the images held out than the one it came from.
    """
    refuse(plan)
    # Two folders deep, where no bundle is looked for: a run that is killed leaves none. Made, and
    # measured on, before the training: what cannot be written or read is known then.
    with store.drafting(plan.out) as place:
        draft = place / plan.name
        standing = measured(Codec(plan.base, "cpu"), images.held_out)
        _write(plan, _train(plan, images), draft)
        bundle = Bundle.open(draft)
        received.verify(bundle)
        claims = export.claims(adopt.network_of(bundle), _graphs(bundle), claims_image())
        found = compare(standing, Codec(bundle, "cpu"))
        names = plan.base.name, plan.name
        size = sum(path.stat().st_size for path in draft.iterdir())
        text = report(found, names, size, bundle.default_quality)
        if math.isnan(found.gain):
            raise ValueError(
                f"{plan.name} and {plan.base.name} have no PSNR in common on the images held out: "
                "nothing is written. Hold out larger images"
            )
        if not found.gain < 0:
            say(text)  # where it is worse is what one needs to know to do better
            raise ValueError(
                f"{plan.name} is no better than {plan.base.name} on the images held out "
                f"({found.gain:+.1f} % bits at equal PSNR): nothing is written. More images like "
                "those, or more minutes, may help"
            )
        _complete(bundle, claims, found, text)
        draft.rename(plan.out / plan.name)
    return plan.out / plan.name, text


def refuse(plan: Finetuning) -> None:
    """Raise ValueError or FileExistsError for what could not be written, or used, at the end."""
    if not is_model_name(plan.name):
        raise ValueError(
            f"{plan.name!r} is no name for a model; give up to 64 letters, digits, points, "
            "underscores and hyphens"
        )
    export.refuse_existing(plan.out / plan.name)
    root, known = plan.base.base or plan.base, list(available())
    if taken := [b.path for b in known if plan.name in (b.name, b.path.name)]:
        raise FileExistsError(f"{taken[0]} is a model of the name {plan.name}; give another one")
    if all(b.fingerprint != root.fingerprint for b in known):
        raise ValueError(
            f"{root.name} at {root.path} is not where models are looked for, and what is made of "
            f"it is kept as a difference to it; install it first: vaecodec models add {root.path}"
        )


@dataclass(frozen=True)
class _Trained:
    """The network of averaged weights, the steps they were rounded to, its card in the manifest."""

    model: PhotoCodec
    steps: Steps
    card: dict[str, Any]


def _train(plan: Finetuning, images: Images) -> _Trained:
    network = adopt.network_of(plan.base)
    _freeze(network, plan.only)
    recipe = recipe_for(plan.base, images.training)
    few = _fewness(images.training)
    pull, recolour = PULL * few, RECOLOUR * few

    def make(recipe: Any, places: Any, device: torch.device, rank: int, _world: int) -> PhotoTask:
        return PhotoTask(recipe, places, device, rank, network, pull, recolour)

    trainer = Trainer(recipe, images.training, None, make)
    if not trainer.fit(Plan(plan.minutes, ANNEAL)):
        say("stopped: what was reached is measured")
    trainer.close()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(trainer.average.values[name])
    task = cast(PhotoTask, trainer.task)
    unreadable, share = task.crops.unused, 1.0
    if images.set_aside:
        root = adopt.network_of(plan.base)
        share = keep(network.eval(), root, task.cost_on(images.set_aside, CHOOSING))
        say(f"kept {share:.0%} of what weights moved by: best for the images set aside")
    # Of all weights: those that were left alone now may have moved before, and are rounded, too.
    network.requires_grad_(True)
    generator = torch.Generator().manual_seed(recipe.seed)
    seen = curvature.observe(network.eval(), lambda: task.probe(generator), SEEN)
    model = recipe.build()  # its parameters stand in the order of the exported graphs
    model.load_state_dict({name: value.cpu() for name, value in network.state_dict().items()})
    steps = moves.settle(model, adopt.network_of(plan.base.base or plan.base), seen)
    card = {
        "recipe": recipe.to_dict(),
        "from": plan.base.name,
        "only": plan.only or "all",
        "images": len(images.training) - unreadable,
        "pull": pull,
        "recolour": recolour,
        "kept": share,
        "minutes": trainer.seconds / 60,
        "steps": trainer.step,
        "pixels": trainer.pixels,
    }
    return _Trained(model.eval(), steps, card)


def _freeze(network: nn.Module, only: str | None) -> None:
    """Leave only what is to be trained."""
    begins = PARTS[only] if only else ("",)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(begins))


def _write(plan: Finetuning, trained: _Trained, folder: Path) -> None:
    """Write the bundle of a network, as a difference; what is measured on it is still to come."""
    root = plan.base.base or plan.base
    derived = derive(root, export.files_of(trained.model), trained.steps)
    searching = derive(root, search_files(derived.files), {})
    files = derived.files | searching.files
    own = derived.own | searching.own
    own[difference.FILE] = difference.pack(derived.changes | searching.changes)
    # What was measured on the base, and under which licence it is, is not true of this one.
    kept = {k: v for k, v in root.manifest.items() if k not in _OF_BASE}
    manifest = {
        **kept,
        "name": plan.name,
        "base": {"name": root.name, "fingerprint": root.fingerprint.hex()},
        "fingerprint": fingerprint(
            root.manifest["decoding"], [files[name] for name in root.decoding_files]
        ).hex(),
        "training": trained.card,
        "data": plan.data,
        "measured": [],
        "files": {n: hashlib.sha256(c).hexdigest() for n, c in sorted((files | own).items())},
    }
    folder.mkdir()
    for name, content in {**own, MANIFEST: export.manifest_bytes(manifest)}.items():
        (folder / name).write_bytes(content)


def _graphs(bundle: Bundle) -> dict[str, bytes]:
    """Return the files of a bundle as `export.files_of` gives them: without the search's."""
    names = (name for name in bundle.manifest["files"] if not name.endswith("_gradient.onnx"))
    return {name: bundle.read(name) for name in names}


def _complete(bundle: Bundle, claims: dict[str, Any], found: Comparison, text: str) -> None:
    """Add what was shown and measured to the bundle's manifest, and its card."""
    measured = zip(QUALITIES, found.after.bpp, found.after.psnr, strict=True)
    more = {
        "claims": claims,
        "measured": [
            {"set": "held out", "quality": q, "bpp": bpp, "psnr": db} for q, bpp, db in measured
        ],
    }
    (bundle.path / MANIFEST).write_bytes(export.manifest_bytes(bundle.manifest | more))
    base, card = bundle.manifest["base"]["name"], bundle.manifest["training"]
    head = (
        f"# {bundle.name}\n\n{base}, trained on for {card['minutes']:.0f} minutes on "
        f"{card['images']} images. Needs {base} to be installed.\n\n"
    )
    (bundle.path / "README.md").write_text(f"{head}{text}\n", "utf-8")
