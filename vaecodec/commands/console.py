"""What commands say on stderr: reports, and progress of long work on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from vaecodec.codec import Codec
    from vaecodec.stages import Watch

__all__ = ["LONG_WORK", "Console"]

LONG_WORK = 4_000_000
"""Pixels from which on coding an image counts as long: seconds on a small machine."""


@dataclass(frozen=True)
class Console:
    """How much a command says: of its result, with `verbose` of the work too, or nothing."""

    quiet: bool
    verbose: bool = False

    def say(self, text: str) -> None:
        """Print a line."""
        if not self.quiet:
            click.echo(text, err=True)

    def work(self, codec: Codec, asked: str, pixels: int, seconds: float) -> None:
        """Say what did the work and how fast, where that is wanted; `asked` is the provider."""
        if not self.verbose:
            return
        rate = pixels / seconds / 1e6
        self.say(f"model {codec.bundle.name} ({codec.bundle.fingerprint.hex()})")
        self.say(f"provider {codec.provider}{_why_not_cuda(codec, asked)}")
        self.say(f"{seconds:.2f} s, {rate:.2f} Mpixel/s, with loading the model")

    def draws(self) -> bool:
        """Return whether progress is drawn."""
        return not self.quiet and sys.stderr.isatty()

    @contextmanager
    def bar(self, label: str, width: int, height: int) -> Iterator[Watch]:
        """Yield what `Codec` takes as `watch`; for a large image it draws a bar."""
        from vaecodec.stages import unwatched

        if width * height < LONG_WORK or not self.draws():
            yield unwatched
            return
        length = _parts(width, height)
        with click.progressbar(length=length, label=label, file=sys.stderr) as drawn:

            @contextmanager
            def watch(stage: str) -> Iterator[None]:
                yield
                if stage in ("encoder", "prior", "decoder"):  # once for each window or tile
                    drawn.update(1)

            yield watch


def _parts(width: int, height: int) -> int:
    """Return how many windows and tiles an image is coded in, as far as the encoder's tiles go."""
    from vaecodec.container import DEFAULT_TILE, TILE_UNIT
    from vaecodec.transforms import WINDOW

    sides = (WINDOW, DEFAULT_TILE * TILE_UNIT)
    return sum(-(-width // side) * -(-height // side) for side in sides)


def _why_not_cuda(codec: Codec, asked: str) -> str:
    from vaecodec.runtime import cuda_problem

    return f"; not CUDA: {cuda_problem()}" if codec.provider == "cpu" and asked == "auto" else ""
