"""What `python -m train` does. Each command takes its parsed options and imports what it needs.

The docstring of a command is its help; a command returns its exit status, None for 0.
"""

from __future__ import annotations

import dataclasses
import math
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from train.loop import Trainer

Command = Callable[[Namespace], int | None]


def fit(options: Namespace) -> int:
    """Train RECIPE on IMAGES.

    Ctrl-C ends the step, saves and ends. With several devices: torchrun --nproc-per-node N -m
    train fit ...
    """
    from train import recipes
    from train.loop import Trainer
    from train.schedule import Plan

    resumed = options.resume and options.resume.resolve()
    if (options.out / "state.pt").exists() and options.out.resolve() != resumed:
        raise FileExistsError(
            f"{options.out} holds a run: --resume {options.out} goes on with it, or name another"
        )
    recipe = recipes.load(options.recipe)
    if options.batch:
        data = dataclasses.replace(recipe.data, batch=options.batch)
        recipe = dataclasses.replace(recipe, data=data)  # type: ignore[arg-type] # of its family
    trainer = Trainer(recipe, options.images, options.out)
    validation = trainer.task.validation(options.validate, options.validate_images)
    if options.resume:
        trainer.resume(options.resume)
    elif options.continue_:
        trainer.continue_from(options.continue_)
    elif options.model:
        _continue_with(trainer, options.model)
    else:
        trainer.start()
    plan = Plan(
        options.minutes,
        options.anneal,
        options.rate,
        options.steps,
        options.save_every,
        options.validate_every,
        patience=options.patience,
    )
    plan = trainer.task.planned(plan)
    if plan.patience and validation is None:
        raise ValueError("patience goes by measurements: name images to --validate on")
    whole = trainer.fit(plan, validation)
    trainer.close()
    return 0 if whole else 130


def _continue_with(trainer: Trainer, model: str) -> None:
    from train import adopt
    from vaecodec.bundle import find

    bundle = find(model)
    recipe, training = adopt.recipe_of(bundle), bundle.manifest["training"]
    progress = {key: training.get(key, 0) for key in ("steps", "pixels", "minutes")}
    trainer.continue_with(adopt.network_of(bundle), recipe, progress, bundle.name)


def finetune(options: Namespace) -> None:
    """Train a released photo model on for some minutes on the images of FOLDER.

    Writes a bundle that is a difference to the one it came from, and the table of what it gains on
    images that were held out; a model that gains nothing is not written. Ctrl-C ends the training,
    and what was reached is measured.
    """
    from train import finetune as tuning
    from train.holdout import split
    from vaecodec.bundle import find
    from vaecodec.places import search_path

    out = options.out or search_path()[-1]
    plan = tuning.Finetuning(
        find(options.base), options.name, out, options.minutes, options.only, options.data
    )
    tuning.refuse(plan)
    images = split(options.folders, options.holdout)
    folder, text = tuning.finetune(plan, images)
    name = plan.name if out in search_path() else folder
    print(f"{text}\n\nwritten: {folder}; use it with: vaecodec encode IMAGE --model {name}")


def sheets(options: Namespace) -> None:
    """Lay the images of a data set side by side as PNG files, sheets of rows and columns.

    The last images, where they fill no sheet, are left out.
    """
    from train import pictures
    from vaecodec.datasets import read_images

    images, count = read_images(options.dataset), options.rows * options.columns
    if len(images) < count:
        raise ValueError(f"{options.dataset} has {len(images)} images; a sheet needs {count}")
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(len(images) // count):
        sheet = pictures.grid(images[number * count : (number + 1) * count], options.columns)
        pictures.save(sheet, options.out / f"sheet-{number:03}.png")


def pages(options: Namespace) -> None:
    """Draw pages like screenshots, to choose by how few images are trained on.

    OUT/train has five, OUT/fonts four with other letters, OUT/colours four in other colours, too.
    """
    from train.pages import draw

    print(*draw(options.photographs, options.out), sep="\n")


def evaluate(options: Namespace) -> None:
    """Measure MODEL on real files of IMAGES.

    Rate is the file's length, container included; PSNR is over all samples. Prints the means, the
    BD-rate of every image against Pillow's JPEG, and with --reference that of the means. Of a
    gaussian model, which is measured on the test set of its recipe: the negative ELBO and a file of
    the whole set.
    """
    from train import evaluate as measuring
    from train import vae_evaluate
    from vaecodec.codec import Codec
    from vaecodec.search import Search

    codec = Codec(options.model, "cpu", options.threads)
    if recipe := vae_evaluate.recipe_of(codec):
        figures = vae_evaluate.measured(codec, recipe, options.images)
        print("  ".join(f"{k} {v}" for k, v in figures.items()))
        return
    qualities = options.quality or measuring.QUALITIES
    search = None if options.effort is None else Search(options.effort)
    rows = measuring.table(codec, options.images, qualities, options.ssimulacra2, search)
    if options.tsv:
        measuring.write_tsv(rows, options.tsv)
        print(f"wrote {options.tsv}")
    for mean in measuring.means(rows):
        print("  ".join(f"{k} {v:.4f}" for k, v in mean.items()))
    if len(qualities) > 3:
        each = measuring.against_jpeg(rows, options.images)
        each = {name: value for name, value in each.items() if not math.isnan(value)}
        print("BD-rate of each image against Pillow's JPEG (optimize), percent:")
        print("  ".join(f"{name} {value:+.1f}" for name, value in each.items()))
        if each:
            print(f"mean {sum(each.values()) / len(each):+.2f} %")
    if options.reference:
        for name in options.against or [measuring.JPEG]:
            value = measuring.against(rows, options.reference, name)
            print(f"BD-rate of the means against {name}: {value:+.2f} %")


def standings(options: Namespace) -> None:
    """Set MODEL beside JPEG, WebP and AVIF on IMAGES, by PSNR, MS-SSIM and SSIMULACRA 2.

    Prints Markdown: BD-rates of the means, values at equal rates, and the BD-rate of each image.
    """
    from train import standings as measuring
    from vaecodec.bundle import find

    found = measuring.table(options.model, options.images, options.effort, options.tsv)
    print(measuring.report(found, find(options.model).name))


def monotony(options: Namespace) -> int:
    """Encode IMAGES at each whole quality: exit status 1 if one brings no bits, or no dB, more."""
    from train.monotony import exceptions
    from vaecodec.codec import Codec
    from vaecodec.search import Search

    qualities = range(0, 101, options.step)
    search = None if options.effort is None else Search(options.effort)
    found = exceptions(Codec(options.model, "cpu"), options.images, qualities, search)
    print("\n".join(found) or f"bits and PSNR rise at each of {len(qualities)} qualities")
    return bool(found)


def export(options: Namespace) -> None:
    """Write the averaged weights of RUN as the bundle OUT/NAME, after proving its claims.

    The default quality is the lowest whole one whose mean SSIMULACRA 2 on the --choose images is at
    least --target; of a gaussian model it is 50, where quantisation costs what sampling did. A
    bundle that exists is never overwritten.
    """
    from train.release import release

    folder = release(
        options.folder,
        options.out,
        options.name,
        options.choose,
        options.target,
        options.quality,
        options.data,
        options.measure,
    )
    print(f"wrote {folder}")


def efforts(options: Namespace) -> None:
    """Measure what each effort of MODEL's encoder does to files of IMAGES, and how long it takes.

    Prints, for each effort, the BD-rate against effort 0 and against Pillow's JPEG, seconds an
    image and the peak of memory so far (efforts are done in ascending order); and the images that
    an effort leaves worse off than the one before it, by the cost that the search makes small.
    """
    from train import efforts as measuring

    measuring.report(
        options.model,
        options.images,
        options.effort or measuring.EFFORTS,
        options.quality or measuring.QUALITIES,
        options.tsv,
        options.reference,
    )


def gradients(options: Namespace) -> None:
    """Add to MODEL, a photo bundle, the graphs that its encoder searches with, anew.

    They are no part of what files name: its fingerprint and all that decoding needs stay as they
    are.
    """
    from train.export import add_search
    from vaecodec.bundle import find

    folder = find(options.model).path
    add_search(folder)
    print(f"wrote the gradients of {folder}")


def exact(options: Namespace) -> int:
    """Decode the symbols of IMAGES in every way that must give the same ones, and compare.

    1 and 2 threads, all levels of graph optimisation, the prior on int64 instead of float32, the
    entropy coder with its library and without: exit status 1 if any symbol differs.
    """
    from train.exactness import QUALITIES, compare

    return compare(options.model, options.images, options.quality or QUALITIES, options.count)


def stress(options: Namespace) -> None:
    """Re-encode what MODEL decoded, COUNT times over, and encode noise at quality 100."""
    from train.stress import generations, noise
    from vaecodec.codec import Codec

    codec = Codec(options.model, "cpu")
    quality = codec.bundle.default_quality if options.quality is None else options.quality
    for n, (bpp, db) in enumerate(generations(codec, options.images, quality, options.count), 1):
        print(f"generation {n}: {bpp:.4f} bpp, {db:.2f} dB against the original")
    bpp, db = noise(codec, 100, 512, 768)
    print(f"noise of 768x512 at quality 100: {bpp:.2f} bpp, {db:.2f} dB")


def strip(options: Namespace) -> None:
    """Draw a crop of IMAGE as MODEL, JPEG, WebP and AVIF keep it in files of equal size."""
    from train.figures import strip_of
    from vaecodec.codec import Codec

    codec = Codec(options.model, "cpu")
    beside = Codec(options.beside, "cpu") if options.beside else None
    box = tuple(options.box)
    picture = strip_of(codec, options.image, options.quality, box, options.zoom, beside)
    picture.save(options.target)


def curves(options: Namespace) -> None:
    """Draw the rate-distortion curves of models beside those of codecs of REFERENCE."""
    from train.figures import curves as draw

    models = {label: Path(rows) for label, rows in options.rows}
    draw(models, options.reference, dict(options.codec), options.target, options.title)


def plot(options: Namespace) -> None:
    """Draw MODEL, of the gaussian family, as a PNG file of one KIND.

    reconstructions: images of each DATA above what they decode to. samples: what latents drawn
    from the prior decode to, as means and, for a Bernoulli model, as samples of the pixels.
    manifold: what a grid of two-dimensional latents decodes to. codes: the codes of the images of
    DATA, coloured by label; beyond two dimensions, their two principal axes. traversal: the code
    of one image of DATA with each dimension in turn going from -3 to 3, those with the largest KL
    divergence first. Images larger than the model's are cropped at random.
    """
    from train import plots, plotting

    networks = plotting.Networks(options.model, options.threads)
    plots.save(plotting.draw(networks, options.kind, options.data, options), options.target)
    print(f"wrote {options.target}")


def reproduce(options: Namespace) -> None:
    """Train, export, draw and measure every system of the articles, and write the page about them.

    DATA_ROOT has the folders mnist, fashion-mnist, cifar10 and textures. The result of each recipe
    is kept in OUT: run again, this goes on where it was interrupted.
    """
    from train.reproduce import Places
    from train.reproduce import reproduce as run

    run(Places(options.data_root, options.out, options.bundles, options.docs), options.only)
