"""vaecodec info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vaecodec.commands import files, options
from vaecodec.commands.inputs import bundle_of, describe
from vaecodec.commands.tables import table

CHUNKS = {
    "H": "header",
    "i": "ICC profile",
    "e": "EXIF",
    "x": "XMP",
    "m": "settings",
    "A": "alpha channel",
    "Q": "quality map",
    "T": "tile",
}
SIGNATURE_BYTES = 8  # with the version


@click.command(short_help="Say what a .vz file holds, without opening the image.")
@click.argument("file", type=click.Path(path_type=Path))
@options.json_flag
@click.option(
    "--map",
    "map_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Draw there, as an image, how many bits each 16x16 pixels take; this opens the image.",
)
@options.where_to_look
@options.force
def info(file: Path, as_json: bool, map_file: Path | None, model: Path | None, force: bool) -> None:
    """Say what FILE, a .vz or - for stdin, holds: size, model, quality, rate, chunks.

    This checks the framing and every checksum of it, but not the image itself, and needs no model
    and no ONNX Runtime, unless --map is given.
    """
    if map_file is not None:
        files.check_output(file, map_file, force=force)

    from vaecodec.inspection import inspect

    data = files.read(file)
    with files.named(file):
        facts = inspect(data)
        if map_file is not None:
            _draw(data, facts, map_file, model, force=force)
    facts["model_name"] = _model_name(facts["model"], model)
    click.echo(json.dumps(facts, indent=2) if as_json else _text(files.source_name(file), facts))


def _draw(
    data: bytes, facts: dict[str, Any], target: Path, place: Path | None, *, force: bool
) -> None:
    """Write an image of where the bits of a file go."""
    import io

    from vaecodec import heatmap, images
    from vaecodec.codec import Codec
    from vaecodec.formats import format_of

    kind = format_of(target)
    codec = Codec(bundle_of(bytes.fromhex(facts["model"]), place))
    bits = codec.bits(data)
    caption = f"bits per pixel; {facts['bytes']:,} bytes, {facts['bpp']:.3f} bpp in all"
    drawn = heatmap.draw(codec.decode_picture(data), bits, caption)
    encoded = io.BytesIO()
    images.write(drawn, encoded, kind)
    files.write(target, encoded.getvalue(), force=force)


def _model_name(fingerprint: str, place: Path | None) -> str | None:
    """Return the name of the model where it is at hand."""
    from vaecodec.errors import ModelError

    try:
        return bundle_of(bytes.fromhex(fingerprint), place).name
    except ModelError:
        return None


def _text(name: str, facts: dict[str, Any]) -> str:
    kept = [key for key in ("alpha", "icc", "exif", "xmp") if facts[key]]
    lines = [
        f"{name}: {describe(facts['images'], facts['height'], facts['width'])} {facts['colour']}"
        + (f", with {', '.join(kept)}" if kept else ""),
        f"model    {facts['model_name'] or 'not at hand'} ({facts['model']})",
        f"quality  {facts['quality']:g}" + (" and lower, by a map" if facts["quality_map"] else ""),
        f"size     {facts['bytes']:,} bytes, {_per_image(facts)}{facts['bpp']:.3f} bpp",
    ]
    if facts["made"]:
        asked = (f"{name} {value}".rstrip() for name, value in facts["made"].items())
        lines.append(f"made for {', '.join(asked)}")
    rows = [(label, f"{size:,}", f"{size / facts['bytes']:.1%}") for label, size in _shares(facts)]
    return "\n".join([*lines, "", table(("chunk", "bytes", "share"), rows)])


def _per_image(facts: dict[str, Any]) -> str:
    number = facts["images"]
    return "" if number == 1 else f"{8 * facts['bytes'] / number:.2f} bits per image, "


def _shares(facts: dict[str, Any]) -> list[tuple[str, int]]:
    """Return (label, bytes) of what the file consists of; tiles are added up."""
    sizes = {"signature": SIGNATURE_BYTES}
    for kind, size in facts["chunks"]:
        label = f"{kind} {CHUNKS.get(kind, 'unknown')}"
        if kind == "T" and facts["tiles"] > 1:
            label = f"T {facts['tiles']} tiles"
        sizes[label] = sizes.get(label, 0) + size
    return list(sizes.items())
