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

STEP_WORK = 3
"""What a step of a search takes, as a multiple of encoding without."""


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
        closed = sys.stderr is None  # by whoever started the process
        return not (self.quiet or closed) and sys.stderr.isatty()

    @contextmanager
    def bar(
        self, label: str, width: int, height: int, number: int = 1, steps: int = 0
    ) -> Iterator[Watch]:
        """Yield what `Codec` takes as `watch`; for long work it draws a bar.

        number: of images. steps: of a search in each.
        """
        from vaecodec.stages import unwatched

        if number * width * height * (1 + STEP_WORK * steps) < LONG_WORK or not self.draws():
            yield unwatched
            return
        counted = ("encoder", "search") if steps else ("encoder", "prior", "decoder")
        length = _parts(width, height, steps) if number == 1 else _batches(number)
        with click.progressbar(length=length, label=label, file=sys.stderr) as drawn:

            @contextmanager
            def watch(stage: str) -> Iterator[None]:
                yield
                if stage in counted:  # of each window, step, tile or batch
                    drawn.update(1)

            yield watch


def _parts(width: int, height: int, steps: int) -> int:
    """Return in how many parts an image is coded, as far as the encoder's tiles go.

    They are windows and tiles, or windows and, in each tile, the steps of a search.
    """
    from vaecodec.container import DEFAULT_TILE, TILE_UNIT
    from vaecodec.transforms import WINDOW

    sides = (WINDOW, DEFAULT_TILE * TILE_UNIT)
    windows, tiles = (-(-width // side) * -(-height // side) for side in sides)
    return windows + tiles * max(steps, 1)


def _batches(number: int) -> int:
    """Return how many batches a data set is coded in."""
    from vaecodec.gaussian import BATCH

    return -(-number // BATCH)


def _why_not_cuda(codec: Codec, asked: str) -> str:
    from vaecodec.runtime import cuda_problem

    return f"; not CUDA: {cuda_problem()}" if codec.provider == "cpu" and asked == "auto" else ""
