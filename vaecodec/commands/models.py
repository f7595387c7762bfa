"""vaecodec models, and what it does without a command: list them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaecodec.commands import options
from vaecodec.commands.models_store import add, pack, remove
from vaecodec.commands.tables import table
from vaecodec.errors import ModelError

if TYPE_CHECKING:
    from vaecodec.bundle import Bundle

MEASURES = {
    "bpp": ("bpp", ".3f"),
    "psnr": ("PSNR dB", ".2f"),
    "ms_ssim": ("MS-SSIM", ".4f"),
    "ssimulacra2": ("SSIMULACRA 2", ".1f"),
}
"""Keys of a manifest's measurements that are shown -> head of the column, format."""


class _OrList(click.Group):
    """Lists where no command is named: `models`, `models DIR`, `models --json`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        named = {*self.commands, *context.help_option_names}
        asked = bool(args) or not context.resilient_parsing  # else a shell completes commands
        if asked and not named & {*args[:1]}:
            args = ["list", *args]
        return super().parse_args(context, args)


@click.group(
    cls=_OrList,
    short_help="List the models at hand and verify their files; add, remove, pack.",
    subcommand_metavar="[DIR]... | COMMAND [ARGS]...",
)
def models() -> None:
    """List the models at hand, and install those that somebody sent.

    Without a command, or with directories in its place, this is `vaecodec models list`, whose
    options go here as well: `vaecodec models --json` prints JSON.
    """


@models.command("list", short_help="List the models at hand and verify their files (the default).")
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=click.Path(path_type=Path))
@options.json_flag
def listing(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the models at hand, what each measures, and whether its files are those released.

    They are looked for beside the package, in the directories that the variable VAECODEC_MODELS
    names, and in the user's data directory; or in each DIR, a bundle or a directory of bundles.
    """
    from vaecodec.places import directories, search_path

    found = [_describe(path) for path in directories(list(folders) or None)]
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n\n".join(map(_text, found)))
    if not found:
        looked_in = ", ".join(map(str, folders or search_path()))
        raise click.ClickException(f"there is no model in {looked_in}")
    if unusable := [facts["path"] for facts in found if facts["problem"]]:
        raise click.ClickException(f"cannot be used, see above: {', '.join(unusable)}")


for _command in (add, remove, pack):
    models.add_command(_command)


def _describe(path: Path) -> dict[str, Any]:
    """Return what is known of the bundle in a directory, as JSON data."""
    from vaecodec.bundle import Bundle

    facts: dict[str, Any] = {"name": path.name, "path": str(path), "problem": None}
    try:
        bundle = Bundle.open(path)
        facts |= _contents(bundle)
        bundle.verify()
    except ModelError as error:
        facts["problem"] = str(error)
    return facts


def _contents(bundle: Bundle) -> dict[str, Any]:
    manifest = bundle.manifest
    return {
        "name": bundle.name,
        "fingerprint": bundle.fingerprint.hex(),
        "family": manifest["family"],
        "base": (manifest.get("base") or {}).get("name"),
        "image_shape": bundle.image_shape,
        "bytes": sum(file.stat().st_size for file in bundle.path.iterdir()),
        "default_quality": bundle.default_quality,
        "cost": manifest.get("cost") or {},
        "data": manifest.get("data"),
        "licence": manifest.get("licence"),
        "measured": manifest.get("measured") or [],
    }


def _text(facts: dict[str, Any]) -> str:
    lines = [f"{facts['name']}  {facts['path']}"]
    if "fingerprint" in facts:
        cost = ", ".join(f"{_plain(part)} {value:.1f}" for part, value in facts["cost"].items())
        lines += [
            f"  fingerprint      {facts['fingerprint']}",
            f"  size             {_size(facts)}",
            f"  images           {_images(facts['image_shape'])}",
            f"  default quality  {facts['default_quality']:g}",
            f"  kMAC per pixel   {cost or 'not stated'}",
        ]
    lines.append(f"  files            {facts['problem'] or 'verified'}")
    if measured := facts.get("measured"):
        lines += [
            "",
            *(f"  {line}" for line in _measured(measured, facts["default_quality"]).splitlines()),
        ]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return text of a manifest without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _size(facts: dict[str, Any]) -> str:
    size = f"{facts['bytes'] / 1e6:.1f} MB"
    return f"{size}, a difference to {facts['base']}" if facts["base"] else size


def _images(shape: tuple[int, int, int] | None) -> str:
    if shape is None:
        return "of any size"
    height, width, colours = shape
    return f"of {width}x{height} pixels, {'grey' if colours == 1 else 'colour'}"


def _measured(points: list[dict[str, Any]], default: float) -> str:
    shown = {key: value for key, value in MEASURES.items() if any(key in p for p in points)}
    rows = [
        (
            _plain(point.get("set", "")),
            f"{point.get('quality', default):g}",
            *(format(point[key], how) if key in point else "" for key, (_, how) in shown.items()),
        )
        for point in points
    ]
    return table(("measured on", "quality", *(head for head, _ in shown.values())), rows)
