"""The stages of encoding and decoding, for those who watch: a stopwatch, a progress bar.

    encoder     pixels -> latents, a network; entered once for each window of a picture
    side        latents -> side information, a network
    prior       latents known so far -> means and table rows; entered once for each tile
    search      gradients of latents, a network; entered once for each step in each tile
    quantise    latents -> symbols, within prior
    entropy     symbols <-> bytes; within prior when decoding
    container   chunks, checksums, alpha
    decoder     latents -> pixels, a network; entered once for each window

What is left of the whole is arithmetic on arrays, and copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from time import perf_counter

__all__ = ["Stopwatch", "Watch", "unwatched"]

Watch = Callable[[str], AbstractContextManager[None]]
"""watch(stage) -> the context in which one stretch of that stage runs."""


def unwatched(_stage: str) -> AbstractContextManager[None]:
    """Return a context that does nothing."""
    return nullcontext()


class Stopwatch:
    """A Watch that adds up the time of each stage. For one thread at a time.

    The time of a stage within another counts for the inner one only.
    """

    seconds: dict[str, float]

    def __init__(self) -> None:
        self.seconds = {}
        self._within = [0.0]  # for each stage that is running, the time its inner stages took

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a stretch of `stage`."""
        self._within.append(0.0)
        start = perf_counter()
        try:
            yield
        finally:
            spent = perf_counter() - start
            own = spent - self._within.pop()
            self.seconds[stage] = self.seconds.get(stage, 0.0) + own
            self._within[-1] += spent

    def reset(self) -> dict[str, float]:
        """Return the seconds of each stage since the last reset, and begin anew."""
        seconds, self.seconds = self.seconds, {}
        return seconds
