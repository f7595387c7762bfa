"""Whether more quality always is more bits and a better picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from train.evaluate import named, writer
from train.progress import Progress
from vaecodec.codec import Codec
from vaecodec.images import read
from vaecodec.metrics import psnr
from vaecodec.search import Search


def exceptions(
    codec: Codec, folders: Sequence[Path], qualities: Sequence[float], search: Search | None
) -> list[str]:
    """Return, as lines, the steps from one quality to the next that cost no more bits or no error.

    qualities: ascending. search: None for the model's default.
    """
    write, files, found = writer(codec, search), named(folders), list[str]()
    with Progress("encoding") as progress:
        for number, (name, file) in enumerate(files.items(), 1):
            pixels, size, db = read(file).pixels, 0, 0.0
            for quality in qualities:
                data, decoded = write(pixels, quality)
                now = len(data), psnr(pixels, decoded)
                if now[0] <= size or now[1] <= db:
                    found.append(
                        f"{name} at {quality:g}: {now[0]} bytes and {now[1]:.3f} dB after {size} "
                        f"and {db:.3f}"
                    )
                size, db = now
            progress.update(number / len(files), f"{number} of {len(files)} images")
    return found
