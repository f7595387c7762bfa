"""What long work tells on the way: a bar on a terminal, lines of text elsewhere, TensorBoard.

tqdm and TensorBoard are optional: `fit` runs where only torch, NumPy and Pillow are installed.
"""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

try:
    from tqdm import tqdm
except ModuleNotFoundError:
    tqdm = None

LINE_SECONDS = 30.0
"""Seconds between lines where there is no bar."""


def say(text: str) -> None:
    """Write a line to stderr without tearing a bar apart."""
    if tqdm is None:
        print(text, file=sys.stderr, flush=True)
    else:
        tqdm.write(text, file=sys.stderr)


class Progress:
    """A share of work that is done: `label:  42%, text`. Use as a context manager."""

    def __init__(self, label: str, silent: bool = False) -> None:
        self._label, self._silent = label, silent
        self._began = self._told = time.monotonic()
        self._bar: Any = None
        if tqdm is not None and not silent and sys.stderr.isatty():
            shape = "{desc}: {percentage:3.0f}% {bar} {elapsed}, {remaining} left{postfix}"
            self._bar = tqdm(total=1.0, desc=label, bar_format=shape)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: float, text: str = "") -> None:
        """Tell that the share `done` of the work, 0..1, is done."""
        if self._bar is not None:
            self._bar.n = min(done, 1.0)
            self._bar.set_postfix_str(text)
        elif not self._silent and time.monotonic() - self._told >= LINE_SECONDS:
            self._told = time.monotonic()
            left = (self._told - self._began) * (1 / done - 1) / 60 if done else math.inf
            say(f"{self._label}: {done:4.0%}, {left:.1f} min left{', ' if text else ''}{text}")


def tensorboard(folder: Path) -> Any:
    """Return a SummaryWriter of a folder, or None, said in a line, without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        say(f"no TensorBoard curves: {error.name} is not installed")
        return None
    return SummaryWriter(str(folder))
