"""vaecodec models add, remove and pack."""

from __future__ import annotations

from pathlib import Path

import click

from vaecodec.commands import files, options


@click.command(short_help="Verify a bundle that somebody sent, and install it.")
@click.argument("source", type=click.Path(path_type=Path))
def add(source: Path) -> None:
    """Install SOURCE, a bundle's directory or a packed file (.vzm), among your models.

    Everything in it is verified first: hashes, sizes, tables, what its networks consist of, and
    that the one which decides how files are read is exact. What fails is refused and not installed.
    """
    from vaecodec import store

    bundle, new = store.add(source)
    what = f"{bundle.name} ({bundle.fingerprint.hex()})"
    click.echo(
        f"{what} verified; it is in {bundle.path}" if new else f"{what}: {_there(bundle.path)}"
    )


def _there(path: Path) -> str:
    return f"the same is at hand already, in {path}"


@click.command(short_help="Remove a model that was added.")
@click.argument("name", shell_complete=options.model_names)
@click.option("-f", "--force", is_flag=True, help="Even where another model builds on it.")
def remove(name: str, force: bool) -> None:
    """Remove the model NAME from those you added; files written with it cannot be opened then."""
    from vaecodec import store

    click.echo(f"{name} removed from {store.remove(name, force=force).parent}")


@click.command(short_help="Pack a model into one file, to send along.")
@click.argument("model", metavar="NAME|DIR", shell_complete=options.model_names)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The packed file, - for stdout. [default: NAME.vzm in the current folder]",
)
@options.force
def pack(model: str, output: Path | None, force: bool) -> None:
    """Pack a model into one file that `vaecodec models add` installs elsewhere.

    It is verified first, as the one who receives it will. A model that builds on another is packed
    without that one.
    """
    from vaecodec import bundle, packs, store

    found = bundle.find(model)
    target = output or Path(found.name + packs.SUFFIX)
    files.check_output(found.path, target, force=force)
    data = store.pack(found)
    files.write(target, data, force=force)
    told = f"{found.name} ({found.fingerprint.hex()}): {len(data):,} bytes in"
    click.echo(f"{told} {files.target_name(target)}", err=target == files.STREAM)
