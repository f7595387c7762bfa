"""How long a run trains and at what rates: a constant phase without end, then a decay."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType


@dataclass(frozen=True)
class Plan:
    """How long to train, and what to do on the way. Times are in minutes, decoding excluded."""

    minutes: float
    anneal: float = 0.0
    """Share of the plan, at its end, in which the rates fall linearly to zero."""
    rate: float = 1.0
    """Of the recipe's rates, from the first step to the last."""
    steps: int | None = None
    """Stop after so many steps in all, whatever the time. The rates are then a function of the step
    alone, so that a decay, too, can be stopped and resumed."""
    save_every: float = 5.0
    validate_every: float = 15.0
    validate_steps: int | None = None
    """Measure every so many steps (an epoch), not by time."""
    patience: int | None = None
    """Stop after so many measurements without a better one, and keep the weights of the best."""


class Clock:
    """Where a run stands in its plan: the share that is done, by time or by steps."""

    def __init__(self, plan: Plan, step: int) -> None:
        self.plan = plan
        self._began = time.monotonic()
        self._last: dict[str, float] = {}
        # Without a constant phase in this plan there is no state from before the decay to keep.
        self._branched = plan.anneal in (0.0, 1.0) or self.factor(self.done(step)) < 1.0

    @property
    def seconds(self) -> float:
        """Seconds since the clock was made."""
        return time.monotonic() - self._began

    def done(self, step: int) -> float:
        """Return the share of the plan that is done before `step`; 1 or more at its end."""
        if self.plan.steps is not None:
            return step / max(self.plan.steps, 1)
        return self.seconds / max(60 * self.plan.minutes, 1e-9)

    def factor(self, done: float) -> float:
        """Return the learning-rate factor: 1, then linearly to 0 over the annealed share."""
        return min(1.0, (1 - done) / self.plan.anneal) if self.plan.anneal else 1.0

    def branches(self, done: float) -> bool:
        """Say, once, that the decay begins: the constant phase can go on from this state."""
        if self._branched or self.factor(done) == 1.0:
            return False
        self._branched = True
        return True

    def measures(self, step: int) -> bool:
        """Say whether to measure after `step` steps."""
        if self.plan.validate_steps:
            return step % self.plan.validate_steps == 0
        return self.due("validate", self.plan.validate_every)

    def due(self, what: str, minutes: float) -> bool:
        """Say whether `minutes` have passed since this was last true for `what` (or the start)."""
        if self.seconds - self._last.setdefault(what, 0.0) < 60 * minutes:
            return False
        self._last[what] = self.seconds
        return True


@contextlib.contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT (Ctrl-C) and SIGTERM into a question to ask between two steps.

    A state saved in the middle of a step could not be resumed on the same curve. The second signal
    acts as ever.
    """
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, before[signal.Signals(number)])

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
