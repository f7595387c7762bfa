"""vaecodec info."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vaecodec.commands import files, options
from vaecodec.commands.tables import table

CHUNKS = {
    "H": "header",
    "i": "ICC profile",
    "e": "EXIF",
    "x": "XMP",
    "A": "alpha channel",
    "T": "tile",
}
SIGNATURE_BYTES = 8  # with the version


@click.command(short_help="Say what a .vz file holds, without opening the image.")
@click.argument("file", type=click.Path(path_type=Path))
@options.json_flag
def info(file: Path, as_json: bool) -> None:
    """Say what FILE, a .vz or - for stdin, holds: size, model, quality, rate, chunks.

    This checks the framing and every checksum of it, but not the image itself, and needs no model
    and no ONNX Runtime.
    """
    from vaecodec.inspection import inspect

    data = files.read(file)
    with files.named(file):
        facts = inspect(data)
    facts["model_name"] = _model_name(facts["model"])
    click.echo(json.dumps(facts, indent=2) if as_json else _text(files.source_name(file), facts))


def _model_name(fingerprint: str) -> str | None:
    """Return the name of the model where it is at hand."""
    from vaecodec.bundle import find_fingerprint
    from vaecodec.errors import ModelError

    try:
        return find_fingerprint(bytes.fromhex(fingerprint)).name
    except ModelError:
        return None


def _text(name: str, facts: dict[str, Any]) -> str:
    kept = [key for key in ("alpha", "icc", "exif", "xmp") if facts[key]]
    lines = [
        f"{name}: {facts['width']}x{facts['height']} {facts['colour']}"
        + (f", with {', '.join(kept)}" if kept else ""),
        f"model    {facts['model_name'] or 'not at hand'} ({facts['model']})",
        f"quality  {facts['quality']:g}",
        f"size     {facts['bytes']:,} bytes, {facts['bpp']:.3f} bpp",
    ]
    rows = [(label, f"{size:,}", f"{size / facts['bytes']:.1%}") for label, size in _shares(facts)]
    return "\n".join([*lines, "", table(("chunk", "bytes", "share"), rows)])


def _shares(facts: dict[str, Any]) -> list[tuple[str, int]]:
    """Return (label, bytes) of what the file consists of; tiles are added up."""
    sizes = {"signature": SIGNATURE_BYTES}
    for kind, size in facts["chunks"]:
        label = f"{kind} {CHUNKS.get(kind, 'unknown')}"
        if kind == "T" and facts["tiles"] > 1:
            label = f"T {facts['tiles']} tiles"
        sizes[label] = sizes.get(label, 0) + size
    return list(sizes.items())
