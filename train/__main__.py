"""python -m train: fit a recipe, evaluate a bundle, export a checkpoint."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """Train vaecodec's models: RECIPE -> weights -> bundle.

    \b
    python -m train fit photo-1 IMAGES --out runs/photo-1 --minutes 60 --anneal 0.4
    python -m train export runs/photo-1 --name photo-1 --choose IMAGES
    python -m train evaluate exported/photo-1 IMAGES
    """


@main.command()
@click.argument("recipe")
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the run.")
@click.option("--minutes", type=float, default=60.0, help="Train so long, decoding excluded.")
@click.option(
    "--anneal",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Share of the time, at its end, in which the rates fall to zero. 0 trains at a constant "
    "rate for as long as you like; the state before the decay is kept in OUT/constant.",
)
@click.option("--steps", type=int, help="Stop at this step in all, whatever the time.")
@click.option("--resume", type=FOLDER, help="Go on from a run's full state: the same curve.")
@click.option(
    "--continue", "continue_", type=FOLDER, help="Go on from weights alone, with a new warm-up."
)
@click.option("--batch", type=int, help="Crops per step and device, instead of the recipe's.")
@click.option("--validate", type=FOLDER, multiple=True, help="Images to measure on the way.")
@click.option("--validate-every", type=float, default=15.0, help="Minutes between measurements.")
@click.option("--validate-images", type=int, default=5, help="How many images to measure.")
@click.option("--save-every", type=float, default=5.0, help="Minutes between saved states.")
def fit(
    recipe: str,
    images: tuple[Path, ...],
    out: Path,
    minutes: float,
    anneal: float,
    steps: int | None,
    resume: Path | None,
    continue_: Path | None,
    batch: int | None,
    validate: tuple[Path, ...],
    validate_every: float,
    validate_images: int,
    save_every: float,
) -> None:
    """Train RECIPE (a name under train/recipes or a file) on the IMAGES folders.

    Ctrl-C saves and ends. With several devices: torchrun --nproc-per-node N -m train fit ...
    """
    from train import recipes
    from train.loop import Plan, Trainer
    from train.validation import Validation

    if resume and continue_:
        raise click.UsageError("--resume and --continue exclude each other")
    try:
        chosen = recipes.load(recipe)
        if batch:
            data = dataclasses.replace(chosen.data, batch=batch)
            chosen = dataclasses.replace(chosen, data=data)
        trainer = Trainer(chosen, images, out)
        if resume:
            trainer.resume(resume)
        elif continue_:
            trainer.continue_from(continue_)
        else:
            trainer.start()
        plan = Plan(minutes, anneal, steps, save_every, validate_every)
        trainer.fit(plan, Validation(validate, validate_images) if validate else None)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("model")
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@click.option("--quality", type=float, multiple=True, help="Qualities; nine from 0 to 100 if none.")
@click.option("--reference", type=FILE, help="JSON of published points, for mean BD-rates.")
@click.option("--against", "codecs", multiple=True, default=["measured_jpeg_pillow"])
@click.option("--ssimulacra2", is_flag=True, help="Also measure SSIMULACRA 2 (slow).")
@click.option("--tsv", type=click.Path(path_type=Path), help="Write every image's row here.")
@click.option("--threads", type=int, help="Threads of each network.")
def evaluate(
    model: str,
    images: tuple[Path, ...],
    quality: tuple[float, ...],
    reference: Path | None,
    codecs: tuple[str, ...],
    ssimulacra2: bool,
    tsv: Path | None,
    threads: int | None,
) -> None:
    """Measure MODEL (a bundle's name or folder) on real files of the IMAGES folders.

    Rate is the file's length, container included; PSNR is over all samples. Prints the means, the
    BD-rate of every image against Pillow's JPEG, and with --reference that of the means.
    """
    from train import evaluate as measuring
    from vaecodec.codec import Codec

    codec = Codec(model, "cpu", threads)
    qualities = quality or measuring.QUALITIES
    rows = measuring.table(codec, images, qualities, ssimulacra2)
    for mean in measuring.means(rows):
        click.echo("  ".join(f"{k} {v:.4f}" for k, v in mean.items()))
    if len(qualities) > 3:
        each = measuring.against_jpeg(rows, images)
        click.echo("BD-rate of each image against Pillow's JPEG (optimize), percent:")
        click.echo("  ".join(f"{name} {value:+.1f}" for name, value in each.items()))
        click.echo(f"mean {sum(each.values()) / len(each):+.2f} %")
    for name in codecs if reference else ():
        value = measuring.against(rows, reference, name)
        click.echo(f"BD-rate of the means against {name}: {value:+.2f} %")
    if tsv:
        measuring.write_tsv(rows, tsv, click.echo)


@main.command()
@click.argument("run", type=FOLDER)
@click.option("--name", required=True, help="Name of the bundle.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("exported"))
@click.option("--choose", type=FOLDER, multiple=True, help="Images that choose the quality.")
@click.option("--target", type=float, default=80.0, help="SSIMULACRA 2 of the default quality.")
@click.option("--quality", type=float, help="Default quality, instead of choosing one.")
@click.option("--data", default="", help="What the model was trained on, for the manifest.")
def export(
    run: Path,
    name: str,
    out: Path,
    choose: tuple[Path, ...],
    target: float,
    quality: float | None,
    data: str,
) -> None:
    """Write the averaged weights of RUN as the bundle OUT/NAME, after proving its claims.

    The default quality is the lowest whole one whose mean SSIMULACRA 2 on the --choose images is at
    least --target. A bundle that exists is never overwritten.
    """
    from train.release import release

    if (quality is None) == (not choose):
        raise click.UsageError("give either --choose IMAGES or --quality")
    try:
        folder = release(run, out, name, choose, target, quality, data)
    except (FileExistsError, FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"wrote {folder}")


@main.command()
@click.argument("model")
@click.argument("images", type=FOLDER, nargs=-1, required=True)
@click.option("--quality", type=float, help="Quality of the generations; the model's default.")
@click.option("--count", type=int, default=10, help="Generations.")
def stress(model: str, images: tuple[Path, ...], quality: float | None, count: int) -> None:
    """Re-encode what MODEL decoded, COUNT times over; and encode noise at quality 100."""
    from train.stress import generations, noise
    from vaecodec.codec import Codec

    codec = Codec(model, "cpu")
    chosen = codec.bundle.default_quality if quality is None else quality
    for n, (bpp, db) in enumerate(generations(codec, images, chosen, count), 1):
        click.echo(f"generation {n}: {bpp:.4f} bpp, {db:.2f} dB against the original")
    bpp, db = noise(codec, 100, 512, 768)
    click.echo(f"noise of 768x512 at quality 100: {bpp:.2f} bpp, {db:.2f} dB")


@main.command("strip")
@click.argument("model")
@click.argument("image", type=FILE)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--quality", type=float, default=25.0)
@click.option("--box", type=int, nargs=4, default=(0, 0, 256, 256), help="Left, top, right, bottom.")
@click.option("--zoom", type=int, default=1)
def draw_strip(
    model: str,
    image: Path,
    target: Path,
    quality: float,
    box: tuple[int, int, int, int],
    zoom: int,
) -> None:
    """Draw a crop of IMAGE as MODEL, JPEG, WebP and AVIF keep it in files of equal size."""
    from train.figures import strip_of
    from vaecodec.codec import Codec

    strip_of(Codec(model, "cpu"), image, quality, box, zoom).save(target)


@main.command("curves")
@click.argument("rows", type=FILE)
@click.argument("reference", type=FILE)
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--codec", "codecs", multiple=True, required=True, help="A codec of REFERENCE.")
@click.option("--label", default="vaecodec")
@click.option("--title", default="Kodak, 24 images")
def draw_curves(
    rows: Path, reference: Path, target: Path, codecs: tuple[str, ...], label: str, title: str
) -> None:
    """Draw the rate-distortion curve of ROWS (evaluate --tsv) beside those of REFERENCE."""
    from train.figures import curves

    curves(rows, reference, codecs, label, target, title)


if __name__ == "__main__":
    main(prog_name="python -m train")
